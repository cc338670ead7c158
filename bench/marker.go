package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// A row of this table that is visible on the replica says that everything committed before it is there too: both sides keep the
// order of commits.
const (
	markerName  = "bench_marker"
	markerTable = `CREATE TABLE public.bench_marker (id bigint PRIMARY KEY)`
)

// mark commits the next marker on the primary.
func (l *lab) mark(ctx context.Context) (int64, error) {
	l.marks++
	err := l.conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").Scan(&l.markedAfter)
	if err != nil {
		return 0, fmt.Errorf("read the WAL position: %w", err)
	}
	if _, err := l.conn.Exec(ctx, "INSERT INTO public.bench_marker VALUES ($1)", l.marks); err != nil {
		return 0, fmt.Errorf("commit a marker: %w", err)
	}
	return l.marks, nil
}

// lookEvery is the pause between two looks at the replica, on both sides.
const lookEvery = 2 * time.Millisecond

// lookAtCopyEvery is the same for a first copy, which takes seconds: answering as often as above took a tenth of the CPU time.
const lookAtCopyEvery = 20 * time.Millisecond

// visible returns once the marker is visible in a replica's database. failed is asked now and then for a reason to give up.
func visible(ctx context.Context, url string, marker int64, failed func(context.Context) error) error {
	return withConn(ctx, url, func(conn *pgx.Conn) error {
		asked := time.Now()
		return poll(ctx, lookEvery, func() (bool, error) {
			if time.Since(asked) > time.Second {
				asked = time.Now()
				if err := failed(ctx); err != nil {
					return false, err
				}
			}
			var there bool
			err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM public.bench_marker WHERE id = $1)", marker).Scan(&there)
			return there, err
		})
	})
}

// poll asks until done, an error, or the end of ctx.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
