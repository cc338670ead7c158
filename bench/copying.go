package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// copiedTable is one table of the first copy.
type copiedTable struct {
	name, columns string
	rows          int      // at full size
	values        string   // of row i
	indexes       []string // SQL, the primary key's first
}

var copiedTables = []copiedTable{
	{
		name: "orders", rows: 2_500_000,
		columns: "id bigint, customer integer, amount numeric(10,2), state text, note text, created timestamptz",
		values: `i, i * 7919 % 100003, (i % 1000000)::numeric / 100, (ARRAY['new', 'paid', 'sent', 'done'])[i % 4 + 1],
			'note ' || left(md5(i::text), 15), timestamptz '2024-01-01 UTC' + i * interval '1 second'`,
		indexes: []string{
			"ALTER TABLE public.orders ADD PRIMARY KEY (id)",
			"CREATE INDEX orders_customer ON public.orders (customer, created)",
			"CREATE INDEX orders_created ON public.orders (created)",
			"CREATE INDEX orders_note ON public.orders (note)",
		},
	},
	{
		name: "line", rows: 1_500_000,
		columns: "order_id bigint, number integer, product integer, quantity integer, price numeric(10,2)",
		values:  "i / 3, i % 3, i * 31 % 5003, i % 9 + 1, (i % 100000)::numeric / 100",
		indexes: []string{"ALTER TABLE public.line ADD PRIMARY KEY (order_id, number)"},
	},
	{
		name: "customer", rows: 1_000_000,
		columns: "id bigint, name text, email text, born date",
		values:  "i, 'name ' || md5(i::text), left(md5(i::text), 12) || '@example.com', date '1950-01-01' + (i % 20000)::integer",
		indexes: []string{"ALTER TABLE public.customer ADD PRIMARY KEY (id)"},
	},
}

func copyTrial() trial {
	return trial{
		workload: "initial-sync", mode: "copy", measures: timed(faster(1.8)),
		contenders: func(options) []contender {
			return append(natives(copyVariants(len(copiedTables))), contender{side: synclineSide})
		},
		run: runCopy,
	}
}

func (t copiedTable) create() string { return "CREATE TABLE " + ident(t.name) + " (" + t.columns + ")" }

func (t copiedTable) fill(n int) string {
	return fmt.Sprintf("INSERT INTO %s SELECT %s FROM generate_series(1::bigint, %d) i", ident(t.name), t.values, n)
}

// index makes the table's indexes.
func (t copiedTable) index(ctx context.Context, url string) error {
	return execute(ctx, url, strings.Join(t.indexes, ";"))
}

// runCopy times the first copy of tables that nobody writes to.
func runCopy(ctx context.Context, e experiment) (f figures, err error) {
	l, err := newLab(ctx, e, database)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return nil, err
	}
	f = figures{}
	for _, t := range copiedTables {
		n := e.sized(t.rows)
		f[copyRows] += float64(n)
		if err := execute(ctx, l.primaryURL(), t.create()+";"+t.fill(n)); err != nil {
			return nil, err
		}
		if err := t.index(ctx, l.primaryURL()); err != nil {
			return nil, err
		}
	}
	s := e.contender.on(l, e.options)
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = explained(err, s)
		}
		err = errors.Join(err, s.close())
	}()
	var took time.Duration
	err = beating(ctx, l, func(ctx context.Context) error {
		took, err = timeCopy(ctx, e, l, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	f[seconds] = took.Seconds()
	if e.contender.side == synclineSide { // the native workers of a copy are gone when it ends
		if err := s.report(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := sameIndexes(ctx, l); err != nil {
		return nil, err
	}
	return f, equal(ctx, l.primaryURL(), l.replicaURL())
}

const beatEvery = 100 * time.Millisecond

// beating does something while the primary writes a little WAL that concerns no table, as any server in use does. On one that
// is quite still a native sync worker may wait for a minute until the walsender's timeout makes it say something.
func beating(ctx context.Context, l *lab, do func(context.Context) error) error {
	group, groupCtx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error {
		return withConn(groupCtx, l.primaryURL(), func(conn *pgx.Conn) error {
			return poll(groupCtx, beatEvery, func() (bool, error) {
				select {
				case <-done:
					return true, nil
				default:
				}
				_, err := conn.Exec(groupCtx, "SELECT pg_logical_emit_message(true, 'bench', 'beat')")
				return false, err
			})
		})
	})
	group.Go(func() error {
		defer close(done)
		return do(groupCtx)
	})
	return group.Wait()
}

// timeCopy returns the time from asking for the replication until it follows, with all indexes on the replica.
func timeCopy(ctx context.Context, e experiment, l *lab, s side) (time.Duration, error) {
	if s, ok := s.(*syncline); ok {
		if err := s.serve(ctx); err != nil {
			return 0, err
		}
		if err := l.settle(ctx, database); err != nil {
			return 0, err
		}
		if err := s.begin(ctx); err != nil {
			return 0, err
		}
		profiled := startProfiles(ctx, s)
		began := time.Now()
		if err := s.create(ctx); err != nil {
			return 0, err
		}
		err := s.copied(ctx)
		took := time.Since(began)
		profiled(e, "initial-sync")
		return took, err
	}
	late := e.contender.variant.late
	if err := execute(ctx, l.replicaURL(), markerTable); err != nil {
		return 0, err
	}
	for _, t := range copiedTables {
		if err := execute(ctx, l.replicaURL(), t.create()); err != nil {
			return 0, err
		}
		if !late {
			if err := t.index(ctx, l.replicaURL()); err != nil {
				return 0, err
			}
		}
	}
	if err := l.settle(ctx, database); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.replicate(ctx); err != nil {
		return 0, err
	}
	if late {
		group, groupCtx := errgroup.WithContext(ctx)
		for _, t := range copiedTables {
			group.Go(func() error { return t.index(groupCtx, l.replicaURL()) })
		}
		if err := group.Wait(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// sameIndexes compares the definitions of all indexes of both databases.
func sameIndexes(ctx context.Context, l *lab) error {
	const query = `SELECT coalesce(string_agg(indexdef, E'\n' ORDER BY indexdef), '') FROM pg_indexes WHERE schemaname = 'public'`
	var both [2]string
	for i, url := range []string{l.primaryURL(), l.replicaURL()} {
		err := withConn(ctx, url, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(&both[i]) })
		if err != nil {
			return fmt.Errorf("list indexes: %w", err)
		}
	}
	if both[0] != both[1] {
		return fmt.Errorf("%w: indexes\n%s\nbecame\n%s", errDifferent, both[0], both[1])
	}
	return nil
}
