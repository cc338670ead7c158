package schema

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

func (r *reader) readColumns(ctx context.Context) error {
	var table uint32
	var c Column
	targets := []any{&table, &c.Name, &c.Number, &c.Type, &c.TypeOID, &c.Collation, &c.NotNull, &c.Default, &c.Identity, &c.Generated, &c.Storage}
	return r.each(ctx, columnsQuery, []any{r.oids()}, targets, func() error {
		t := r.tables[table]
		t.Columns = append(t.Columns, c)
		return nil
	})
}

func (r *reader) readIndexes(ctx context.Context) error {
	var table uint32
	var x Index
	targets := []any{
		&table, &x.Name, &x.Definition, &x.Method, &x.Columns, &x.Unique, &x.Primary, &x.Valid, &x.Immediate, &x.Partial,
		&x.NullsNotDistinct, &x.ReplicaIdentity, &x.Constraint, &x.Parent.Schema, &x.Parent.Name,
	}
	return r.each(ctx, indexesQuery, []any{r.oids()}, targets, func() error {
		if x.Definition == "" {
			return nil // dropped since
		}
		t := r.tables[table]
		x.Columns = slices.Clone(x.Columns)
		t.Indexes = append(t.Indexes, x)
		if x.Primary {
			t.PrimaryKey = x.Columns
		}
		return nil
	})
}

func (r *reader) readConstraints(ctx context.Context) error {
	var table uint32
	var c Constraint
	targets := []any{
		&table, &c.Name, &c.Type, &c.Definition, &c.Columns, &c.Deferrable, &c.Deferred, &c.Validated, &c.Enforced,
		&c.Inherited, &c.Local, &c.NoInherit, &c.Period, &c.References.Schema, &c.References.Name,
	}
	return r.each(ctx, constraintsQuery, []any{r.oids()}, targets, func() error {
		if c.Definition == "" {
			return nil // dropped since
		}
		t := r.tables[table]
		c.Columns = nilIfEmpty(slices.Clone(c.Columns))
		t.Constraints = append(t.Constraints, c)
		return nil
	})
}

func (r *reader) readSchemas(ctx context.Context) error {
	var name string
	return r.each(ctx, schemasQuery, nil, []any{&name}, func() error {
		r.db.Schemas = append(r.db.Schemas, name)
		return nil
	})
}

func (r *reader) readExtensions(ctx context.Context) error {
	var e Extension
	var unused bool
	return r.each(ctx, extensionsQuery, nil, []any{&e.Name, &e.Schema, &e.Version, &unused}, func() error {
		r.db.Extensions = append(r.db.Extensions, e)
		return nil
	})
}

// ReadAvailable reads which extensions can be installed, if a source has some that are not: the server reads a file for each, in every
// call anew.
func (d *Database) ReadAvailable(ctx context.Context, conn *pgx.Conn, source Database) error {
	lacks := slices.ContainsFunc(source.Extensions, func(e Extension) bool {
		return !slices.ContainsFunc(d.Extensions, func(x Extension) bool { return x.Name == e.Name })
	})
	if !lacks {
		return nil
	}
	rows, err := conn.Query(ctx, availableQuery)
	if err == nil {
		d.Available, err = pgx.CollectRows(rows, pgx.RowToStructByPos[AvailableExtension])
	}
	if err != nil {
		return fmt.Errorf("read available extensions: %w", err)
	}
	return nil
}

func (r *reader) readCollations(ctx context.Context) error {
	var c Collation
	targets := []any{&c.Schema, &c.Name, &c.Provider, &c.Deterministic, &c.Locale, &c.Collate, &c.CType, &c.Rules}
	return r.each(ctx, collationsQuery, nil, targets, func() error {
		r.db.Collations = append(r.db.Collations, c)
		return nil
	})
}

func (r *reader) readTypes(ctx context.Context) error {
	var t Type
	var constraints, attributes []byte
	targets := []any{
		&t.OID, &t.Schema, &t.Name, &t.Kind, &t.Labels, &t.Base, &t.Collation, &t.Default, &t.NotNull, &t.OperatorClass,
		&t.Canonical, &t.Difference, &t.Multirange.Schema, &t.Multirange.Name, &constraints, &attributes,
	}
	return r.each(ctx, typesQuery, nil, targets, func() error {
		found := t
		found.Labels = nilIfEmpty(slices.Clone(t.Labels))
		if constraints != nil {
			if err := json.Unmarshal(constraints, &found.Constraints); err != nil {
				return fmt.Errorf("domain %s: %w", t.FullName(), err)
			}
		}
		if attributes != nil {
			if err := json.Unmarshal(attributes, &found.Attributes); err != nil {
				return fmt.Errorf("type %s: %w", t.FullName(), err)
			}
		}
		r.db.Types = append(r.db.Types, found)
		return nil
	})
}

func (r *reader) readNeeds(ctx context.Context) error {
	types := make(map[uint32]*Type, len(r.db.Types))
	for i := range r.db.Types {
		types[r.db.Types[i].OID] = &r.db.Types[i]
	}
	var owner uint32
	var n Need
	targets := []any{&owner, &n.Column, &n.Used, &n.Kind, &n.Identity, &n.Name.Schema, &n.Name.Name, &n.Extension}
	err := r.each(ctx, needsQuery, []any{r.oids()}, targets, func() error {
		if t, found := r.tables[owner]; found {
			t.Needs = append(t.Needs, n)
		} else if t, found := types[owner]; found {
			t.Needs = append(t.Needs, n)
		}
		return nil
	})
	for _, t := range r.tables {
		slices.SortFunc(t.Needs, compareNeeds)
	}
	for _, t := range types {
		slices.SortFunc(t.Needs, compareNeeds)
	}
	return err
}

func compareNeeds(a, b Need) int {
	return cmp.Or(cmp.Compare(a.Column, b.Column), cmp.Compare(a.Used, b.Used), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Identity, b.Identity))
}

func (r *reader) readObjects(ctx context.Context) error {
	var o Object
	err := r.each(ctx, objectsQuery, nil, []any{&o.Kind, &o.Identity}, func() error {
		r.db.Objects = append(r.db.Objects, o)
		return nil
	})
	slices.SortFunc(r.db.Objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Identity, b.Identity))
	})
	return err
}

func (r *reader) readOthers(ctx context.Context) error {
	reasons := map[string]string{
		"large objects": "they are not decoded from the write-ahead log",
		"role":          "roles belong to the server, not to the database",
		"statistics":    "extended statistics are definitions without rows; create them on the target where they are wanted",
		"sequence":      "unlogged",
	}
	var s Skipped
	err := r.each(ctx, othersQuery, []any{largeObjectsCounted}, []any{&s.Kind, &s.Name}, func() error {
		s.Reason = reasons[s.Kind]
		r.db.NotReplicated = append(r.db.NotReplicated, s)
		return nil
	})
	slices.SortFunc(r.db.NotReplicated, func(a, b Skipped) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return err
}

func (r *reader) readSequences(ctx context.Context) error {
	var s Sequence
	var readable bool
	targets := []any{
		&s.OID, &s.Schema, &s.Name, &s.Type, &s.Start, &s.Min, &s.Max, &s.Increment, &s.Cache, &s.Cycle,
		&s.Owner.Schema, &s.Owner.Name, &s.OwnerColumn, &s.Identity, &readable,
	}
	return r.each(ctx, sequencesQuery, nil, targets, func() error {
		found := s
		if readable {
			found.Value = &SequenceValue{}
		}
		r.db.Sequences = append(r.db.Sequences, found)
		return nil
	})
}

// forgetGone drops the tables from the description that somebody dropped while it was made.
func (r *reader) forgetGone(ctx context.Context) error {
	var oid uint32
	return r.each(ctx, goneQuery, []any{r.oids()}, []any{&oid}, func() error {
		delete(r.tables, oid)
		return nil
	})
}
