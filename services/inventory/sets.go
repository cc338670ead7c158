package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
)

// reasonSetChanged is the logger's reason too.
const reasonSetChanged = "SET_CHANGED"

// set is a replication set with the parameters of a request.
type set struct {
	name       string
	version    int64
	definition *sets.Definition
	parameters map[string]string
}

// usedSet asks the logger for the set that a request names; nil if it names none.
func (s *Service) usedSet(ctx context.Context, name string, parameters map[string]string, version int64) (*set, error) {
	if name == "" {
		if len(parameters) > 0 || version != 0 {
			return nil, rpc.Invalid("set", "parameters and set_version belong to a set, and none is named")
		}
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	answer, err := s.logger.GetSet(ctx, &loggerv1.GetSetRequest{Name: name})
	if err != nil {
		if rpc.Reason(err) != "" {
			return nil, err //nolint:wrapcheck // it is the answer
		}
		return nil, fmt.Errorf("%w: ask for set %s: %s", ErrLoggerUnavailable, name, rpc.Message(err))
	}
	definition, err := sets.Parse(sets.SpecOf(answer.GetSet().GetSpec()))
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", name, err)
	}
	if err := definition.CheckParameters(parameters); err != nil {
		return nil, rpc.Invalid("parameters", "set %s: %v", name, err)
	}
	present := answer.GetSet().GetVersion()
	if version != 0 && version != present {
		return nil, rpc.Errorf(codes.FailedPrecondition, reasonSetChanged, "set %s is now version %d, and version %d was asked for", name, present, version).
			With("set", name).With("version", fmt.Sprint(present))
	}
	return &set{name: name, version: present, definition: definition, parameters: parameters}, nil
}

// aboveSQL are the partitioned tables above a table in the snapshot, and those above it before, by which the logger goes too: a
// partition that is detached keeps the rule of the table that it belonged to.
const aboveSQL = `
WITH RECURSIVE up(parent) AS (
	SELECT h.inhparent FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid WHERE c.oid = $1 AND c.relispartition
	UNION
	SELECT h.inhparent FROM up JOIN pg_class c ON c.oid = up.parent AND c.relispartition JOIN pg_inherits h ON h.inhrelid = c.oid
)
SELECT n.nspname::text, c.relname::text FROM up JOIN pg_class c ON c.oid = up.parent JOIN pg_namespace n ON n.oid = c.relnamespace
UNION
SELECT above_schema, above_name FROM syncline.partitions WHERE oid = $1`

// choose leaves of a table what the set selects: rows by a condition, and columns. A table that is not in the set is as good as not there,
// and so is a column.
func (s *set) choose(ctx context.Context, conn *pgx.Conn, t *table) error {
	if s == nil {
		return nil
	}
	found, err := conn.Query(ctx, aboveSQL, t.oid)
	if err != nil {
		return explain(ctx, err)
	}
	above, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (name schema.Name, err error) {
		err = row.Scan(&name.Schema, &name.Name)
		return name, err
	})
	if err != nil {
		return explain(ctx, err)
	}
	entry, in := s.definition.Entry(t.name, above)
	if !in {
		return s.noTable(t.name)
	}
	columns := make([]filter.Column, 0, len(t.columns))
	for _, c := range t.columns {
		if !c.generated {
			columns = append(columns, filter.Column{Name: c.name, TypeOID: c.typeOID})
		}
	}
	predicate, err := entry.Predicate(columns, s.parameters)
	if err != nil {
		return rpc.Errorf(codes.FailedPrecondition, "SET_UNDECIDABLE", "set %s: table %s: %w", s.name, t.name, err).With("set", s.name)
	}
	if predicate != nil {
		t.rows = predicate.SQL()
	}
	t.columns = slices.DeleteFunc(t.columns, func(c column) bool { return !entry.Takes(c.name) })
	return nil
}

// selectors tells which selector applies to each table of an inventory, and leaves columns out of it that the set leaves out.
func (s *set) selectors(ctx context.Context, conn *pgx.Conn, db *schema.Database) (map[schema.Name]string, error) {
	rows, err := conn.Query(ctx, "SELECT oid, above_schema, above_name FROM syncline.partitions")
	if err != nil {
		return nil, explain(ctx, err)
	}
	above := map[uint32][]schema.Name{}
	var oid uint32
	var name schema.Name
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
		above[oid] = append(above[oid], name)
		return nil
	}); err != nil {
		return nil, explain(ctx, err)
	}
	selectors := map[schema.Name]string{}
	for _, t := range db.Tables {
		entry, in := s.definition.Entry(t.FullName(), append(sets.Above(*db, t), above[t.OID]...))
		if !in {
			continue
		}
		selectors[t.FullName()] = entry.Rows()
		// A value that no table takes is told before anything is copied.
		if _, err := entry.Predicate(sets.FilterColumns(t), s.parameters); err != nil {
			return nil, rpc.Invalid("parameters", "set %s: table %s: %v", s.name, t.FullName(), err)
		}
	}
	s.definition.Project(db, above)
	return selectors, nil
}

// hide makes an error about a table that is not in the set by its own name one that tells nothing of it: not whether it is there.
func (s *set) hide(name schema.Name, err error) error {
	if s == nil || !errors.Is(err, ErrNoSuchTable) && !errors.Is(err, ErrPartitioned) && !errors.Is(err, ErrNotATable) {
		return err
	}
	if _, in := s.definition.Entry(name, nil); in {
		return err
	}
	return s.noTable(name)
}

func (s *set) noTable(name schema.Name) error {
	return fmt.Errorf("%w: there is no table %s in set %s", ErrNoSuchTable, name, s.name)
}
