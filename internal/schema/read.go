package schema

import (
	"cmp"
	"context"
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

// ErrSchemaChanged says that a definition was changed or dropped while it was being read, or since the snapshot was
// taken in which it should be read. Take a new snapshot and read again.
var ErrSchemaChanged = errors.New("the schema changed while it was read")

// readAttempts bounds how often Read starts again when somebody changes the schema meanwhile.
const readAttempts = 5

// Read describes the selected tables of a database with their types and sequences: in a transaction of its own, or in
// that of the given pgx.Tx, whose settings are as before when Read returns. A repeatable read transaction gives the
// things of its snapshot that still exist; PostgreSQL prints their expressions, sizes and sequence values as of now.
// Read takes no lock on a table that outlives a moment, and waits for one no longer than the session's lock_timeout, or
// 15 seconds without one; then it returns ErrTableLocked. It returns ErrSchemaChanged when other sessions' schema
// changes kept it from reading.
//
// A selection that matches nothing is not an error here, because a target may lack every table: see Database.Check.
func Read(ctx context.Context, conn session, selection Selection) (Database, error) {
	for attempt := 1; ; attempt++ {
		d, err := readOnce(ctx, conn, selection)
		if err == nil {
			return d, nil
		}
		if attempt == readAttempts || !errors.Is(err, ErrSchemaChanged) {
			return Database{}, fmt.Errorf("read schema: %w", err)
		}
	}
}

func readOnce(ctx context.Context, conn session, selection Selection) (Database, error) {
	tx, end, err := begin(ctx, conn)
	if err != nil {
		return Database{}, fmt.Errorf("begin: %w", err)
	}
	r := &reader{tx: tx, selection: selection}
	err = r.read(ctx)
	// Nothing was written, and rolling back is what gives the settings back.
	if endErr := end(context.WithoutCancel(ctx)); err == nil && endErr != nil {
		err = fmt.Errorf("end: %w", endErr)
	}
	switch postgres.Code(err) {
	case "55P03": // lock_not_available
		err = fmt.Errorf("%w (%s), wait for that statement or end it and try again: %w", ErrTableLocked, cmp.Or(r.locked, "not known by whom"), err)
	case "XX000", "42P01", "42704", "42883": // "cache lookup failed", undefined table, object, function
		err = fmt.Errorf("%w: %w", ErrSchemaChanged, err)
	}
	return r.db, err
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
	if err := r.forgetGone(ctx); err != nil {
		return fmt.Errorf("read dropped tables: %w", err)
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
