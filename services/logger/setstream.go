package logger

import (
	"context"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// setStream is what one follower gets of a set: a chain of blocks of its own. What it takes of the log outside of large transactions may
// have been selected by another follower of the same group. It keeps to what every stream promises, because each block of the log is
// selected as a whole, from the same place between two transactions, whoever does it: only number and predecessor are its own.
type setStream struct {
	selecting *selecting
	set       *set
	group     *shareGroup // nil for none

	log      change.LogID
	number   uint64     // of the block that was given out last
	previous change.LSN // through of that block
	first    uint64     // number of the block in which the large transaction begins that is being given out
	read     change.LSN // how far the log has been read, up to a place between transactions
	inside   bool       // the log has been read further, into a large transaction
	stale    bool       // the selecting has not seen all that was given out
}

func newSetStream(find lookup, one *set, parameters map[string]string, from change.Position) *setStream {
	return &setStream{
		selecting: newSelecting(find, one, parameters, from), set: one,
		log: from.LogID, previous: from.LSN, read: from.LSN,
	}
}

// enter has the stream share what is selected with others.
func (s *setStream) enter(g *shareGroup) {
	s.group, s.selecting.shapes = g, &g.shapes
}

// take reads a block of the log and gives emit what is selected of it.
func (s *setStream) take(ctx context.Context, b *block.Block, emit func(*block.Block) error) error {
	give := func(own *block.Block) error { return s.give(own, emit) }
	if !s.inside && b.Part == nil && b.Previous == s.read {
		entry, mine, err := s.group.claim(ctx, b.Number)
		switch {
		case err != nil:
			return err
		case mine:
			if err := s.compute(ctx, b, entry); err != nil {
				return err
			}
		}
		if entry != nil {
			s.stale = s.stale || !mine
			for _, own := range entry.blocks {
				if err := give(own); err != nil {
					return err
				}
			}
			s.read = b.Through
			return nil
		}
	}
	if err := s.restart(); err != nil {
		return err
	}
	if err := s.selecting.take(ctx, b, give); err != nil {
		return err
	}
	if s.inside = b.Open(); !s.inside {
		s.read = max(s.read, b.Through)
	}
	return nil
}

// compute selects a block of the log for all of the group.
func (s *setStream) compute(ctx context.Context, b *block.Block, entry *sharedBlock) (err error) {
	var blocks []*block.Block
	defer func() { s.group.publish(b.Number, entry, blocks, err == nil) }()
	if err = s.restart(); err != nil {
		return err
	}
	err = s.selecting.take(ctx, b, func(own *block.Block) error {
		blocks = append(blocks, own)
		return nil
	})
	return err
}

// restart brings the selecting to where the stream is, outside of large transactions.
func (s *setStream) restart() error {
	if !s.stale || s.inside {
		return nil
	}
	s.stale = false
	return s.selecting.restart(change.Position{LogID: s.log, LSN: s.read}, block.State{LogID: s.log, Number: s.number, Through: s.previous})
}

// give gives out a block as the next one of the stream. What says only how far the log was read is left out if that is known.
func (s *setStream) give(b *block.Block, emit func(*block.Block) error) error {
	if len(b.Relations) == 0 && b.Part == nil && b.Transactions == 0 && b.Through <= s.previous {
		s.stale = true
		return nil
	}
	if part := b.Part; part != nil {
		// A part reaches no further than the block before.
		if b.Previous > s.previous {
			if err := s.markAt(b.Previous, emit); err != nil {
				return err
			}
		}
		if part.FirstBlock == b.Number {
			s.first = s.number + 1
		}
	}
	own := b.Rechain(s.number+1, s.previous, s.first)
	s.stale = s.stale || own != b
	s.number, s.previous = own.Number, own.Through
	return emit(own)
}

// marked tells whether the log has been read further than what was given out says.
func (s *setStream) marked() bool { return !s.inside && s.read > s.previous }

// mark gives emit what says how far the log has been read, if that is news.
func (s *setStream) mark(emit func(*block.Block) error) error {
	if !s.marked() {
		return nil
	}
	return s.markAt(s.read, emit)
}

func (s *setStream) markAt(through change.LSN, emit func(*block.Block) error) error {
	b := block.NewMark(s.log, s.number+1, s.previous, through)
	s.stale = true
	s.number, s.previous = b.Number, through
	return emit(b)
}
