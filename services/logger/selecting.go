package logger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// selecting turns the log's blocks into those of a stream that holds only what a set selects. A row that enters the set becomes an
// insert, one that leaves it a delete. It is one stream's own, and its blocks are numbered for it.
type selecting struct {
	setTables
	assembler *block.Assembler
	builder   *block.Builder
	record    block.Record

	open, begun bool // inside a transaction; its Begin has been written
	begin       block.Begin
	origin      *block.Origin
	waiting     bool // the builder holds records
}

// restart goes on after a position, outside of transactions, with blocks that follow the state's: what lies between was given out by
// another.
func (s *selecting) restart(from change.Position, state block.State) error {
	s.assembler = block.NewAssembler(from)
	s.builder.Restart(state)
	s.open, s.waiting = false, false
	return s.builder.Mark(from.LSN) //nolint:wrapcheck // it cannot happen
}

func newSelecting(find lookup, one *set, parameters map[string]string, from change.Position) *selecting {
	return &selecting{
		setTables: newSetTables(find, one, parameters), assembler: block.NewAssembler(from),
		builder: block.NewBuilder(block.State{LogID: from.LogID, Through: from.LSN}),
	}
}

// take reads a block of the log and gives emit the blocks that have become full, and all that is whole.
func (s *selecting) take(ctx context.Context, b *block.Block, emit func(*block.Block) error) error {
	if err := s.assembler.Push(b); err != nil {
		return err //nolint:wrapcheck // it says what is wrong with the block
	}
	for {
		more, err := s.assembler.Next(&s.record)
		if err != nil {
			return err //nolint:wrapcheck // it says what is wrong with the block
		}
		if !more {
			break
		}
		if err := s.one(ctx, b); err != nil {
			return err
		}
		if err := s.cutFull(emit); err != nil {
			return err
		}
	}
	if s.open {
		return nil
	}
	if err := s.builder.Mark(b.Through); err != nil {
		return err //nolint:wrapcheck // it cannot happen
	}
	if s.waiting {
		return s.cut(emit)
	}
	return nil
}

func (s *selecting) cutFull(emit func(*block.Block) error) error {
	for s.builder.Full() {
		if err := s.cut(emit); err != nil {
			return err
		}
	}
	return nil
}

func (s *selecting) cut(emit func(*block.Block) error) error {
	b := s.builder.Cut()
	s.waiting = !s.builder.Empty()
	return emit(b)
}

// one takes over what the set selects of a record.
func (s *selecting) one(ctx context.Context, b *block.Block) error {
	switch r := &s.record; r.Kind {
	case block.KindBegin:
		s.open, s.begun, s.begin, s.origin = true, false, r.Begin, nil
	case block.KindOrigin:
		origin := r.Origin
		s.origin = &origin
	case block.KindCommit:
		s.open = false
		if s.begun {
			return s.builder.Commit(r.Commit) //nolint:wrapcheck // it cannot happen
		}
	case block.KindChange:
		return s.change(ctx, b, &r.Change)
	case block.KindTruncate:
		return s.truncate(ctx, b, &r.Truncate)
	case block.KindMessage:
		return s.message(ctx, &r.Message)
	case block.KindFragment:
	}
	return nil
}

// start writes the beginning of the transaction before its first record.
func (s *selecting) start() error {
	s.waiting = true
	if s.begun {
		return nil
	}
	s.begun = true
	if err := s.builder.Begin(s.begin); err != nil {
		return err //nolint:wrapcheck // it cannot happen
	}
	if s.origin == nil {
		return nil
	}
	return s.builder.Origin(*s.origin) //nolint:wrapcheck // it cannot happen
}

func (s *selecting) change(ctx context.Context, b *block.Block, c *block.Change) error {
	t, err := s.table(ctx, b.Relations[c.Relation], s.begin.XID)
	if err != nil || !t.in {
		return err
	}
	out, in, err := t.judge(c)
	if err != nil {
		return s.undecidable(fmt.Errorf("transaction %d at %v: %w", s.begin.XID, s.begin.CommitLSN, err))
	}
	if !in {
		return nil
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.builder.Copy(&out, t.hash) //nolint:wrapcheck // it says what it copied
}

func (s *selecting) truncate(ctx context.Context, b *block.Block, m *block.Truncate) error {
	var in []change.RelationHash
	for _, index := range m.Relations {
		t, err := s.table(ctx, b.Relations[index], s.begin.XID)
		if err != nil {
			return err
		}
		if t.in && t.entry.Publishes(sets.Truncate) {
			in = append(in, t.hash)
		}
	}
	if len(in) == 0 {
		return nil
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.builder.Truncate(in, m.Cascade, m.RestartIdentity) //nolint:wrapcheck // it cannot happen
}

// message takes over what the logger says of the set's tables. Messages of others may say anything, so they belong to no set.
func (s *selecting) message(ctx context.Context, m *block.Message) error {
	if m.Prefix != publish.MessagePrefix {
		return nil
	}
	var all publish.Announcement
	if err := json.Unmarshal(m.Content, &all); err != nil {
		return fmt.Errorf("read announcement: %w", err)
	}
	partitions, err := s.lookup.partitions(ctx, s.begin.XID) // a table may have become one
	if err != nil {
		return s.unknown("tables that are announced belong", err)
	}
	for _, list := range []*[]publish.AnnouncedTable{&all.Captured, &all.InsertOnly, &all.Joined, &all.Removed} {
		*list = slices.DeleteFunc(*list, func(t publish.AnnouncedTable) bool {
			_, in := s.set.definition.Entry(schema.Name{Schema: t.Schema, Name: t.Name}, partitions[t.OID])
			return !in
		})
	}
	if len(all.Captured)+len(all.InsertOnly)+len(all.Joined)+len(all.Removed) == 0 {
		return nil
	}
	content, err := json.Marshal(&all)
	if err != nil {
		return fmt.Errorf("write announcement: %w", err)
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.builder.Message(block.Message{Prefix: m.Prefix, Content: content, LSN: m.LSN}) //nolint:wrapcheck // it cannot happen
}
