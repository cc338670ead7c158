package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	fanoutChanges = 1_000_000
	fanoutBatch   = 1000 // rows in a transaction
)

// fanoutInserts commits a batch after the other.
const fanoutInserts = `DO $$ BEGIN FOR i IN 0..%[1]d LOOP
	INSERT INTO public.item SELECT n, n %% 10007, (n %% 1000000)::numeric / 100, 'note ' || left(md5(n::text), 15), timestamptz '2024-01-01 UTC' + n * interval '1 second'
		FROM generate_series(i * %[2]d + 1, least((i + 1) * %[2]d, %[3]d)) n;
	COMMIT; END LOOP; END $$`

func fanoutTrial(replicas int, t target) trial {
	return trial{
		workload: "fanout", mode: strconv.Itoa(replicas),
		contenders: withoutFloor,
		measures: []measure{
			{primaryCPU, "CPU of the primary's side", t},
			{seconds, "time until all replicas have it", target{}},
		},
		run: fanout{replicas}.run,
	}
}

// fanout is the cost of replicas for the primary. The replicas are databases of one server, so only the primary's side is
// counted: all of its PostgreSQL, the load included, and `syncline primary`.
type fanout struct{ replicas int }

func (fo fanout) run(ctx context.Context, e experiment) (f figures, err error) {
	names := make([]string, fo.replicas)
	for i := range names {
		names[i] = fmt.Sprintf("%s_%d", database, i+1)
	}
	l, err := newLab(ctx, e, names...)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return nil, err
	}
	if err := execute(ctx, l.primaryURL(), itemTable); err != nil {
		return nil, err
	}
	group := e.contender.many(l, e.options, names)
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = explained(err, group[0])
		}
		for _, s := range group {
			err = errors.Join(err, s.close())
		}
	}()
	for i, s := range group {
		if e.contender.side == nativeSide {
			if err := execute(ctx, l.replica.URL(names[i]), markerTable+";"+itemTable); err != nil {
				return nil, err
			}
		}
		if err := s.replicate(ctx); err != nil {
			return nil, err
		}
	}
	if err := reachedByAll(ctx, l, group); err != nil {
		return nil, err
	}
	if err := l.settle(ctx, names...); err != nil {
		return nil, err
	}
	if f, err = fo.measure(ctx, e, l, group); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := equal(ctx, l.primaryURL(), l.replica.URL(name)); err != nil {
			return nil, fmt.Errorf("database %s: %w", name, err)
		}
	}
	return f, nil
}

func (fo fanout) measure(ctx context.Context, e experiment, l *lab, group []side) (figures, error) {
	n := e.sized(fanoutChanges)
	f := figures{changes: float64(n)}
	writer := int(l.conn.PgConn().PID())
	before, err := primarySide(l, group[0])
	if err != nil {
		return nil, err
	}
	writerBefore, err := readCPU(writer)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := l.conn.Exec(ctx, fmt.Sprintf(fanoutInserts, (n-1)/fanoutBatch, fanoutBatch, n)); err != nil {
		return nil, fmt.Errorf("insert items: %w", err)
	}
	f[loadSeconds] = time.Since(began).Seconds()
	if err := reachedByAll(ctx, l, group); err != nil {
		return nil, err
	}
	f[seconds] = time.Since(began).Seconds()
	after, err := primarySide(l, group[0])
	if err != nil {
		return nil, err
	}
	writerAfter, err := readCPU(writer)
	if err != nil {
		return nil, err
	}
	f[primaryCPU], f[loadCPU] = after-before, writerAfter.own-writerBefore.own
	return f, nil
}

// primarySide is the CPU time that everything on the primary's side has used so far, in seconds.
func primarySide(l *lab, s side) (float64, error) {
	total, err := clusterCPU(l.primary.PID())
	if s, ok := s.(*syncline); ok {
		total += s.primary.cpu()
	}
	return total, err
}

// reachedByAll commits a marker and returns when it is visible everywhere.
func reachedByAll(ctx context.Context, l *lab, group []side) error {
	marker, err := l.mark(ctx)
	if err != nil {
		return err
	}
	for _, s := range group {
		if err := s.reached(ctx, marker); err != nil {
			return err
		}
	}
	return nil
}
