package logger

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// families knows the partitioned tables above each partition, by which sets name it. A partition that was detached or dropped is still
// one in the transactions from before, so nothing is ever forgotten: what a set shows too much of then is a table that belonged to
// it once. Tables go by their OID: another table of the same name is another one.
type families struct {
	version atomic.Uint64 // counts what was learnt
	mu      sync.Mutex
	above   map[uint32][]schema.Name      // nil before they were read
	asked   map[uint32]bool               // tables that the catalog was asked for, and does not have as partitions
	seen    map[schema.Name][]schema.Name // what the catalog had at the last look
}

// of returns the partitioned tables above a table that a transaction names. Of a table that has not been heard of the catalog is asked, as it
// is once that transaction has ended for everybody: it may have made the table.
func (f *families) of(ctx context.Context, db querier, oid, xid uint32) ([]schema.Name, error) {
	above, known, err := f.known(ctx, db, oid)
	if err != nil || known {
		return above, err
	}
	if err := postgres.AwaitEnd(ctx, db, xid); err != nil {
		return nil, err //nolint:wrapcheck // it says which
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.learn(ctx, db, &oid); err != nil {
		return nil, err
	}
	f.asked[oid] = true
	return f.above[oid], nil
}

// refresh learns of all partitions that there are once a transaction has ended for everybody, and returns what is known of each table then.
func (f *families) refresh(ctx context.Context, db querier, xid uint32) (map[uint32][]schema.Name, error) {
	if err := postgres.AwaitEnd(ctx, db, xid); err != nil {
		return nil, err //nolint:wrapcheck // it says which
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.learn(ctx, db, nil); err != nil {
		return nil, err
	}
	return maps.Clone(f.above), nil
}

func (f *families) known(ctx context.Context, db querier, oid uint32) ([]schema.Name, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(ctx, db); err != nil {
		return nil, false, err
	}
	above := f.above[oid]
	return above, above != nil || f.asked[oid], nil
}

// querier is a pool or a session.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// look learns of partitions that are new since the last look. above is what the catalog has now.
func (f *families) look(ctx context.Context, db querier, above map[schema.Name][]schema.Name) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reflect.DeepEqual(f.seen, above) {
		return nil
	}
	if err := f.learn(ctx, db, nil); err != nil {
		return err
	}
	f.seen = above
	return nil
}

// load reads what was learnt before.
func (f *families) load(ctx context.Context, db querier) error {
	if f.above != nil {
		return nil
	}
	rows, err := db.Query(ctx, "SELECT oid, above_schema, above_name FROM syncline.partitions ORDER BY oid, above_schema, above_name")
	if err != nil {
		return fmt.Errorf("read partitions: %w", err)
	}
	above, err := collectFamilies(rows)
	if err != nil {
		return err
	}
	f.above, f.asked = above, make(map[uint32]bool)
	f.version.Add(1)
	return nil
}

// learnSQL stores what the catalog has and the table does not, of one partition or of all, and returns it.
const learnSQL = `
WITH RECURSIVE up(oid, parent) AS (
	SELECT c.oid, h.inhparent FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid
	WHERE c.relispartition AND ($1::oid IS NULL OR c.oid = $1)
	UNION
	SELECT up.oid, h.inhparent FROM up JOIN pg_class c ON c.oid = up.parent AND c.relispartition JOIN pg_inherits h ON h.inhrelid = c.oid
), new AS (
	SELECT up.oid, n.nspname::text AS above_schema, c.relname::text AS above_name
	FROM up JOIN pg_class c ON c.oid = up.parent JOIN pg_namespace n ON n.oid = c.relnamespace
	EXCEPT SELECT oid, above_schema, above_name FROM syncline.partitions
)
INSERT INTO syncline.partitions SELECT * FROM new ON CONFLICT DO NOTHING RETURNING oid, above_schema, above_name`

// learn takes over what the catalog has, besides what was learnt before.
func (f *families) learn(ctx context.Context, db querier, only *uint32) error {
	if err := f.load(ctx, db); err != nil {
		return err
	}
	rows, err := db.Query(ctx, learnSQL, only)
	if err != nil {
		return fmt.Errorf("read partitions: %w", err)
	}
	found, err := collectFamilies(rows)
	if err != nil {
		// What was stored and not read is read with the rest.
		f.above = nil
		return err
	}
	if len(found) > 0 {
		f.version.Add(1)
	}
	for oid, names := range found {
		for _, name := range names {
			if !slices.Contains(f.above[oid], name) {
				f.above[oid] = append(slices.Clone(f.above[oid]), name)
			}
		}
	}
	return nil
}

func collectFamilies(rows pgx.Rows) (map[uint32][]schema.Name, error) {
	found := make(map[uint32][]schema.Name)
	var oid uint32
	var name schema.Name
	_, err := pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
		found[oid] = append(found[oid], name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read partitions: %w", err)
	}
	return found, nil
}
