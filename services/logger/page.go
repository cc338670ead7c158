package logger

import (
	"context"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/sets"
)

// page is a page of ListUpdatedSince while it is made.
type page struct {
	service   *Service
	tables    setTables
	size      int
	digest    string
	from, end change.Position
	// inside is where the page begins when it begins inside a transaction, and after reading where it ends when it ends inside one.
	inside *insideToken
	// through is the end of the last whole transaction, or mark, that was read. It is never above end.
	through change.Position

	latest  *latest
	scanned int
	skip    uint64     // events of the first transaction that an earlier page has shown
	open    *committed // the transaction that is being read
	begin   block.Begin
}

// read reads the log from the page's beginning until it is full, or the end of the list.
func (p *page) read(ctx context.Context) error {
	p.through = p.from
	number, err := p.service.changes.Find(ctx, p.from)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	assembler := block.NewAssembler(p.from)
	if p.inside != nil {
		if number, err = p.enter(ctx); err != nil {
			return err
		}
		assembler = block.NewAssemblerWithin()
	}
	p.inside = nil
	for p.through.LSN < p.end.LSN {
		b, err := p.service.changes.Read(ctx, number)
		if err != nil {
			return err //nolint:wrapcheck // it says what failed
		}
		if b.LogID != p.from.LogID {
			return changelog.ErrOtherLog
		}
		if err := assembler.Push(b); err != nil {
			return err //nolint:wrapcheck // it says what it read
		}
		p.scanned += len(b.Data())
		if done, err := p.block(ctx, assembler, b); done || err != nil {
			return err
		}
		if !b.Open() && b.Through > p.through.LSN {
			p.through.LSN = b.Through
		}
		number++
	}
	return nil
}

// enter begins inside a transaction, in the block where the page before has ended.
func (p *page) enter(ctx context.Context) (uint64, error) {
	in := p.inside
	ranges := p.service.changes.Ranges()
	if in.Block < ranges.FirstBlock {
		return 0, changelog.ErrPurged
	}
	if in.Block > ranges.LastBlock {
		return 0, refusedToken()
	}
	b, err := p.service.changes.Read(ctx, in.Block)
	if err != nil {
		return 0, err //nolint:wrapcheck // it says what failed
	}
	if b.LogID != p.from.LogID {
		return 0, changelog.ErrOtherLog
	}
	if b.Part == nil || b.Part.CommitLSN != in.Commit || in.Commit >= p.end.LSN || in.Events < b.Part.EventsBefore {
		return 0, refusedToken()
	}
	end, err := p.service.changes.EndOfLarge(ctx, in.Commit)
	if err != nil {
		return 0, err //nolint:wrapcheck // it says what failed
	}
	p.skip = in.Events
	p.begin = block.Begin{CommitLSN: in.Commit, CommitTime: in.Time}
	p.open = &committed{end: end, time: in.Time}
	return in.Block, nil
}

// block takes the records of a block. It returns true when the page is done.
func (p *page) block(ctx context.Context, assembler *block.Assembler, b *block.Block) (done bool, err error) {
	var rec block.Record
	for {
		ok, err := assembler.Next(&rec)
		if err != nil || !ok {
			return false, err //nolint:wrapcheck // it says what it read
		}
		switch rec.Kind {
		case block.KindBegin:
			if rec.Begin.CommitLSN >= p.end.LSN || p.full() {
				return true, nil
			}
			p.begin, p.open = rec.Begin, &committed{time: rec.Begin.CommitTime}
		case block.KindCommit:
			p.open.end = rec.Commit.EndLSN
			p.through.LSN = rec.Commit.EndLSN
			p.skip = 0
		default:
			if assembler.Events() <= p.skip {
				continue
			}
			if err := p.event(ctx, b, &rec); err != nil {
				return false, err
			}
			if b.Part != nil && rec.Kind.Event() && p.overfull() {
				return true, p.cut(ctx, b.Number, assembler.Events())
			}
		}
	}
}

// full tells whether the page ends before the next transaction, overfull whether it ends inside the one that is read.
func (p *page) full() bool {
	return len(p.latest.entries) >= p.size || p.latest.bytes >= cutBytes || p.scanned > scanBytes
}

func (p *page) overfull() bool {
	return len(p.latest.entries) >= cutKeys || p.latest.bytes >= cutBytes || p.scanned > scanBytes
}

// cut ends the page inside a transaction.
func (p *page) cut(ctx context.Context, number, events uint64) error {
	end, err := p.service.changes.EndOfLarge(ctx, p.begin.CommitLSN)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	p.open.end = end
	p.inside = &insideToken{Block: number, Events: events, Commit: p.begin.CommitLSN, Time: p.begin.CommitTime}
	return nil
}

func (p *page) event(ctx context.Context, b *block.Block, rec *block.Record) error {
	switch rec.Kind {
	case block.KindChange:
		t, err := p.tables.table(ctx, b.Relations[rec.Change.Relation], p.begin.XID)
		if err != nil || !t.in {
			return err
		}
		seen, in, err := t.judge(&rec.Change)
		if err != nil {
			return p.tables.undecidable(err)
		}
		if in {
			p.latest.change(t.relation, &seen, p.open)
		}
	case block.KindTruncate:
		for _, index := range rec.Truncate.Relations {
			t, err := p.tables.table(ctx, b.Relations[index], p.begin.XID)
			if err != nil {
				return err
			}
			if t.in && t.entry.Publishes(sets.Truncate) {
				p.latest.truncate(t.relation, p.open)
			}
		}
	}
	return nil
}
