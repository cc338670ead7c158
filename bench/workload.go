package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// workload is what is done to the primary.
type workload struct {
	name   string
	large  bool   // one transaction, of more than a walsender holds by default
	tables string // SQL that creates the tables, with everything that belongs to them
	// tablesOf gives that SQL where it depends on the scale; else it is nil.
	tablesOf func(experiment) string
	// fill writes the rows that are there before the replication begins. It may be nil.
	fill func(ctx context.Context, e experiment, l *lab) error
	// load does the work and returns the number of row changes in it.
	load func(ctx context.Context, e experiment, l *lab) (int, error)
}

func (w workload) create(e experiment) string {
	if w.tablesOf != nil {
		return w.tablesOf(e)
	}
	return w.tables
}

// itemTable is an ordinary narrow table.
const itemTable = `CREATE TABLE public.item (
	id bigint PRIMARY KEY, customer integer NOT NULL, amount numeric(10,2) NOT NULL, note text NOT NULL, created timestamptz NOT NULL)`

// insertItems writes items with the numbers from $1 to $2.
const insertItems = `INSERT INTO public.item
	SELECT i, i % 10007, (i % 1000000)::numeric / 100, 'note ' || left(md5(i::text), 15), timestamptz '2024-01-01 UTC' + i * interval '1 second'
	FROM generate_series($1::bigint, $2::bigint) i`

// Numbers of the full size.
const (
	insertedItems = 1_000_000
	itemsBefore   = 1_000_000 // of which some are changed
	updatedItems  = 500_000
	deletedItems  = 500_000
	singleItems   = 200_000
)

func insertLoad() workload {
	return workload{name: "insert", large: true, tables: itemTable, load: func(ctx context.Context, e experiment, l *lab) (int, error) {
		n := e.sized(insertedItems)
		return n, fillItems(ctx, l, 1, n)
	}}
}

// fillItems writes items in one transaction.
func fillItems(ctx context.Context, l *lab, from, to int) error {
	if _, err := l.conn.Exec(ctx, insertItems, from, to); err != nil {
		return fmt.Errorf("insert items: %w", err)
	}
	return nil
}

func itemsFirst(ctx context.Context, e experiment, l *lab) error {
	return fillItems(ctx, l, 1, e.sized(itemsBefore))
}

func updateLoad() workload {
	return workload{name: "update", large: true, tables: itemTable, fill: itemsFirst, load: statement(updatedItems,
		`UPDATE public.item SET amount = amount + 1, created = created + interval '1 day' WHERE id <= $1`)}
}

func deleteLoad() workload {
	return workload{name: "delete", large: true, tables: itemTable, fill: itemsFirst, load: statement(deletedItems,
		`DELETE FROM public.item WHERE id <= $1`)}
}

// statement is a load of one statement that changes n rows.
func statement(full int, sql string) func(context.Context, experiment, *lab) (int, error) {
	return func(ctx context.Context, e experiment, l *lab) (int, error) {
		n := e.sized(full)
		tag, err := l.conn.Exec(ctx, sql, n)
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", sql, err)
		}
		if tag.RowsAffected() != int64(n) {
			return 0, fmt.Errorf("run %s: %d rows were changed, not %d", sql, tag.RowsAffected(), n)
		}
		return n, nil
	}
}

const (
	singleClients = 4
	// singleInserts commits each row by itself. The loop runs in the server, and commits do not wait for the disk, so that the
	// load is as fast as it can be.
	singleInserts = `DO $$ BEGIN FOR i IN %d..%d LOOP
		INSERT INTO public.item VALUES (i, i %% 10007, (i %% 1000000)::numeric / 100, 'note ' || left(md5(i::text), 15), timestamptz '2024-01-01 UTC' + i * interval '1 second');
		COMMIT; END LOOP; END $$`
)

func singleLoad() workload {
	return workload{name: "single", tables: itemTable, load: func(ctx context.Context, e experiment, l *lab) (int, error) {
		n := e.sized(singleItems)
		group, groupCtx := errgroup.WithContext(ctx)
		for client := range singleClients {
			from, to := n*client/singleClients+1, n*(client+1)/singleClients
			group.Go(func() error {
				return withConn(groupCtx, l.primaryURL(), func(conn *pgx.Conn) error {
					if _, err := conn.Exec(groupCtx, "SET synchronous_commit = off"); err != nil {
						return err
					}
					_, err := conn.Exec(groupCtx, fmt.Sprintf(singleInserts, from, to))
					return err
				})
			})
		}
		return n, group.Wait()
	}}
}

// runLimit bounds one run; a replication that hangs fails it.
const runLimit = 2 * time.Hour
