package schema

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// session is a *pgx.Conn, a *pgxpool.Pool, or a pgx.Tx, in which reading happens inside of a savepoint.
type session interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// ErrTableLocked says that a table stayed locked too long to be described. It passes when the lock does.
var ErrTableLocked = errors.New("a table is locked exclusively")

// Read describes the selected tables of a database with their types and sequences, as one consistent view: in a
// transaction of its own, or in that of the given pgx.Tx, whose settings are as before when Read returns. A read only,
// repeatable read transaction gives the view of its snapshot, except for sizes and sequence values, which are current.
// Read takes no lock on a table that outlives a moment, and waits for one no longer than the session's lock_timeout, or
// 15 seconds without one; then it returns ErrTableLocked.
//
// A selection that matches nothing is not an error here, because a target may lack every table: see Database.Check.
func Read(ctx context.Context, conn session, selection Selection) (Database, error) {
	tx, end, err := begin(ctx, conn)
	if err != nil {
		return Database{}, fmt.Errorf("read schema: begin: %w", err)
	}
	r := &reader{tx: tx, selection: selection}
	err = r.read(ctx)
	// Nothing was written, and rolling back is what gives the settings back.
	if endErr := end(context.WithoutCancel(ctx)); err == nil && endErr != nil {
		err = fmt.Errorf("end: %w", endErr)
	}
	if postgres.Code(err) == "55P03" {
		err = fmt.Errorf("%w (%s), wait for that statement or end it and try again: %w", ErrTableLocked, cmp.Or(r.locked, "not known by whom"), err)
	}
	if err != nil {
		return Database{}, fmt.Errorf("read schema: %w", err)
	}
	return r.db, nil
}

// begin starts a transaction, or a savepoint in the one that is given. pgx's own nested transaction is not used because
// its rollback leaves the savepoint standing, and inside of one a keeper cannot export its snapshot.
func begin(ctx context.Context, conn session) (tx pgx.Tx, end func(context.Context) error, err error) {
	if tx, nested := conn.(pgx.Tx); nested {
		_, err := tx.Exec(ctx, "SAVEPOINT syncline_schema")
		return tx, func(ctx context.Context) error {
			if _, err := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT syncline_schema"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "RELEASE SAVEPOINT syncline_schema")
			return err
		}, err
	}
	tx, err = conn.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err = tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return nil, nil, errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
	}
	return tx, tx.Rollback, nil
}

type reader struct {
	tx        pgx.Tx
	selection Selection
	db        Database
	tables    map[uint32]*Table // the selected ones, by OID
	names     map[uint32]Name   // of every relation that was seen
	locked    string            // the tables that were locked exclusively when reading began
}

func (r *reader) read(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, settingsQuery); err != nil {
		return fmt.Errorf("set session: %w", err)
	}
	if err := r.tx.QueryRow(ctx, lockedQuery).Scan(&r.locked); err != nil {
		return fmt.Errorf("read locks: %w", err)
	}
	row := r.tx.QueryRow(ctx, serverQuery)
	if err := row.Scan(&r.db.ServerVersion, &r.db.Role.Name, &r.db.Role.Superuser, &r.db.Role.Create); err != nil {
		return fmt.Errorf("read server: %w", err)
	}
	for _, step := range []struct {
		what string
		read func(context.Context) error
	}{
		{"tables", r.readTables},
		{"columns", r.readColumns},
		{"indexes", r.readIndexes},
		{"constraints", r.readConstraints},
		{"schemas", r.readSchemas},
		{"extensions", r.readExtensions},
		{"collations", r.readCollations},
		{"types", r.readTypes},
		{"sequences", r.readSequences},
		{"dependencies", r.readNeeds},
		{"functions", r.readObjects},
		{"what is not replicated", r.readOthers},
	} {
		if err := step.read(ctx); err != nil {
			return fmt.Errorf("read %s: %w", step.what, err)
		}
	}
	r.finish()
	return r.readSequenceValues(ctx)
}

// each runs a query and calls f for every row after scanning it into the targets.
func (r *reader) each(ctx context.Context, query string, args []any, targets []any, f func() error) error {
	rows, err := r.tx.Query(ctx, queryFor(query, r.db.ServerVersion), args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, targets, f)
	return err
}

func (r *reader) oids() []uint32 {
	oids := make([]uint32, 0, len(r.tables))
	for oid := range r.tables {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	return oids
}

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
	err := r.each(ctx, extensionsQuery, nil, []any{&e.Name, &e.Schema, &e.Version, &unused}, func() error {
		r.db.Extensions = append(r.db.Extensions, e)
		return nil
	})
	if err != nil {
		return err
	}
	var a AvailableExtension
	return r.each(ctx, availableQuery, nil, []any{&a.Name, &a.Version, &a.Trusted}, func() error {
		r.db.Available = append(r.db.Available, a)
		return nil
	})
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

// finish resolves what rests on several queries, drops what the selection does not need, and sorts.
func (r *reader) finish() {
	for _, oid := range r.oids() {
		t := r.tables[oid]
		resolveIdentity(t, r.db.ServerVersion)
		r.db.Tables = append(r.db.Tables, *t)
	}
	slices.SortFunc(r.db.Tables, func(a, b Table) int { return compareNames(a.FullName(), b.FullName()) })
	if !r.selection.All() {
		r.db = r.db.narrow(r.selection)
	}
}

// narrow keeps the sequences, types, collations and schemas that the described tables need, and what the selection
// names itself.
func (d Database) narrow(selection Selection) Database {
	c := d.closure(d.Tables)
	d.Sequences = filter(d.Sequences, func(s Sequence) bool {
		return c.sequences[s.FullName()] || s.Owner.IsZero() && selection.Matches(s.FullName())
	})
	d.Types = filter(d.Types, func(t Type) bool { return c.types[t.FullName()] })
	d.Collations = filter(d.Collations, func(k Collation) bool { return c.collations[k.FullName()] })
	for _, s := range d.Sequences {
		c.schemas[s.Schema] = true
	}
	d.Schemas = filter(d.Schemas, func(name string) bool { return c.schemas[name] })
	return d
}

// maxSequencesPerQuery bounds the size of one statement that reads sequences.
const maxSequencesPerQuery = 2000

// readSequenceValues reads every readable sequence in one statement (per 2000), because a sequence can only be read as
// a relation of its own.
func (r *reader) readSequenceValues(ctx context.Context) error {
	byOID := make(map[uint32]*Sequence, len(r.db.Sequences))
	var parts []string
	for i := range r.db.Sequences {
		s := &r.db.Sequences[i]
		if s.Value == nil {
			continue
		}
		byOID[s.OID] = s
		parts = append(parts, fmt.Sprintf("SELECT %d::oid, last_value, is_called FROM %s", s.OID, s.FullName().SQL()))
	}
	for batch := range slices.Chunk(parts, maxSequencesPerQuery) {
		rows, err := r.tx.Query(ctx, strings.Join(batch, "\nUNION ALL "), pgx.QueryExecModeExec)
		if err != nil {
			return fmt.Errorf("read sequence values: %w", err)
		}
		var oid uint32
		var v SequenceValue
		if _, err = pgx.ForEachRow(rows, []any{&oid, &v.Last, &v.Called}, func() error {
			*byOID[oid].Value = v
			return nil
		}); err != nil {
			return fmt.Errorf("read sequence values: %w", err)
		}
	}
	return nil
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

func nilIfEmpty[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func filter[T any](s []T, keep func(T) bool) []T {
	var kept []T
	for _, v := range s {
		if keep(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
