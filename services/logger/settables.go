package logger

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// ReasonSetUndecidable says that a change does not tell whether its row belongs to a set.
const ReasonSetUndecidable = "SET_UNDECIDABLE"

// lookup is how it is found out about tables.
type lookup struct {
	relation func(change.RelationHash) (*change.Relation, error)
	above    func(ctx context.Context, oid uint32) ([]schema.Name, error) // the partitioned tables above one
}

// setTables is what a set, with parameters, says of the relation versions of a log. It belongs to one reader of it.
type setTables struct {
	lookup     lookup
	set        *set
	parameters map[string]string
	tables     map[change.RelationHash]*selectedTable
}

func newSetTables(find lookup, one *set, parameters map[string]string) setTables {
	return setTables{lookup: find, set: one, parameters: parameters, tables: make(map[change.RelationHash]*selectedTable)}
}

// undecidable gives the status to an error about what the set cannot judge.
func (s *setTables) undecidable(err error) error {
	return rpc.Errorf(codes.FailedPrecondition, ReasonSetUndecidable, "%s: %w", s.set, err).With("set", s.set.name)
}

// selectedTable is what a set says of a relation version.
type selectedTable struct {
	in       bool
	relation *change.Relation
	rows     *filter.Predicate // nil when all rows are meant
	// undecidable says why deletes and updates cannot be judged, nil when they can.
	undecidable error
	needed      []int // the columns that decide
	values      []filter.Value
}

// entry returns what the set says of a table.
func (s *setTables) entry(ctx context.Context, oid uint32, name schema.Name) (*sets.Entry, bool, error) {
	above, err := s.lookup.above(ctx, oid)
	if err != nil {
		return nil, false, unreachable("find out whether table "+name.String()+" belongs to "+s.set.String(), err)
	}
	e, in := s.set.definition.Entry(name, above)
	return e, in, nil
}

// table returns what the set says of a relation version.
func (s *setTables) table(ctx context.Context, hash change.RelationHash) (*selectedTable, error) {
	if t := s.tables[hash]; t != nil {
		return t, nil
	}
	relation, err := s.lookup.relation(hash)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what failed
	}
	name := schema.Name{Schema: relation.Schema, Name: relation.Name}
	t := &selectedTable{relation: relation}
	entry, in, err := s.entry(ctx, relation.OID, name)
	if err != nil {
		return nil, err
	}
	if t.in = in; in {
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
