package logger

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// ReasonSetUndecidable says that a change does not tell whether its row belongs to a set.
const ReasonSetUndecidable = "SET_UNDECIDABLE"

// lookup is how it is found out about tables.
type lookup struct {
	relation func(change.RelationHash) (*change.Relation, error)
	// above are the partitioned tables above one that a transaction names.
	above func(ctx context.Context, oid, xid uint32) ([]schema.Name, error)
	// partitions are those above every partition, as of the end of a transaction.
	partitions func(ctx context.Context, xid uint32) (map[uint32][]schema.Name, error)
	// version counts up when there is more to know about tables that were asked for.
	version func() uint64
}

// setTables is what a set, with parameters, says of the relation versions of a log. It belongs to one reader of it.
type setTables struct {
	lookup     lookup
	set        *set
	parameters map[string]string
	tables     map[change.RelationHash]*selectedTable
	version    uint64 // of what is known of the partitions, as of which tables holds
	shapes     *shapes
}

// shapes are the relation versions that a set makes of those in the log by leaving columns out. Several streams may share them.
type shapes struct{ byHash sync.Map }

// find returns a relation version, nil if the set has not made it.
func (s *shapes) find(hash change.RelationHash) *change.Relation {
	if r, found := s.byHash.Load(hash); found {
		return r.(*change.Relation) //nolint:forcetypeassert // nothing else is stored
	}
	return nil
}

func newSetTables(find lookup, one *set, parameters map[string]string) setTables {
	return setTables{lookup: find, set: one, parameters: parameters, tables: make(map[change.RelationHash]*selectedTable), shapes: &shapes{}}
}

// undecidable gives the status to an error about what the set cannot judge.
func (s *setTables) undecidable(err error) error {
	return rpc.Errorf(codes.FailedPrecondition, ReasonSetUndecidable, "%s: %w", s.set, err).With("set", s.set.name)
}

// selectedTable is what a set says of a relation version.
type selectedTable struct {
	in       bool
	entry    *sets.Entry
	full     *change.Relation // as it is in the log
	relation *change.Relation // without the columns that are left out
	hash     change.RelationHash
	take     []bool            // the columns of full that are taken; nil for all
	old, new block.Row         // rows without the others
	rows     *filter.Predicate // nil when all rows are meant
	// undecidable says why deletes and updates cannot be judged, nil when they can.
	undecidable error
	needed      []int // the columns that decide
	values      []filter.Value
}

// unknown gives an error of the catalog's its status.
func (s *setTables) unknown(what string, err error) error {
	what = "find out whether " + what + " to " + s.set.String()
	if errors.Is(err, postgres.ErrUnfinished) {
		return rpc.Errorf(codes.Unavailable, ReasonNotReady, "%s: %w", what, err)
	}
	return unreachable(what, err)
}

// table returns what the set says of a relation version that a transaction names.
func (s *setTables) table(ctx context.Context, hash change.RelationHash, xid uint32) (*selectedTable, error) {
	if version := s.lookup.version(); version != s.version {
		s.version = version
		clear(s.tables) // a table may have become a partition
	}
	if t := s.tables[hash]; t != nil {
		return t, nil
	}
	relation, err := s.lookup.relation(hash)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what failed
	}
	name := schema.Name{Schema: relation.Schema, Name: relation.Name}
	t := &selectedTable{full: relation, relation: relation, hash: hash}
	above, err := s.lookup.above(ctx, relation.OID, xid)
	if err != nil {
		return nil, s.unknown("table "+name.String()+" belongs", err)
	}
	entry, in := s.set.definition.Entry(name, above)
	if t.in = in; in {
		t.entry = entry
		if err := s.project(t); err != nil {
			return nil, err
		}
		columns := make([]filter.Column, len(relation.Columns))
		var identity []string
		for i, c := range relation.Columns {
			columns[i] = filter.Column{Name: c.Name, TypeOID: c.TypeOID}
			if c.Key {
				identity = append(identity, c.Name)
			}
		}
		if t.rows, err = entry.Predicate(columns, s.parameters); err != nil {
			return nil, s.undecidable(fmt.Errorf("table %s: %w", name, err))
		}
		if t.rows != nil {
			t.undecidable = sets.Decidable(name, relation.Identity == change.IdentityFull, identity, entry.Columns())
			t.needed, t.values = t.rows.Columns(), make([]filter.Value, len(columns))
		}
	}
	s.tables[hash] = t
	return t, nil
}

// project makes the relation version that the stream has, without the columns that are left out.
func (s *setTables) project(t *selectedTable) error {
	if t.entry.AllColumns() {
		return nil
	}
	relation := *t.full
	relation.Columns, t.take = nil, make([]bool, len(t.full.Columns))
	for i, c := range t.full.Columns {
		switch t.take[i] = t.entry.Takes(c.Name); {
		case t.take[i]:
			relation.Columns = append(relation.Columns, c)
		case c.Key && t.full.Identity != change.IdentityFull:
			return s.undecidable(fmt.Errorf("table %s: column %q belongs to its replica identity by now and is left out, so deletes and updates do not tell which row is meant: "+
				"take it into the set, or give the table another REPLICA IDENTITY", t.name(), c.Name))
		}
	}
	t.relation, t.hash = &relation, relation.Hash()
	s.shapes.byHash.Store(t.hash, t.relation)
	return nil
}
