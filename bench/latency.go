package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	latencyRate    = 500 // transactions a second
	latencySeconds = 20
	latencyLeast   = 500 // transactions, however small the scale
	latencyLook    = 200 * time.Microsecond
	latencyMargin  = 0.001 // seconds
)

func latencyTrial() trial {
	return trial{
		workload: "latency", mode: "live", contenders: withoutFloor, run: runLatency,
		measures: []measure{
			{medianLatency, "median", within(latencyMargin, "≤ native + 1 ms")},
			{p99Latency, "99th percentile", within(0, "≤ native")},
		},
	}
}

// runLatency writes small transactions at a steady rate and looks how soon each is visible.
func runLatency(ctx context.Context, e experiment) (figures, error) {
	f := figures{}
	r := replay{workload: workload{name: "latency", tables: itemTable}}
	return f, r.inLab(ctx, e, func(ctx context.Context, l *lab, s side) error {
		n := max(latencyLeast, e.sized(latencyRate*latencySeconds))
		written, seen := make([]time.Time, n), make([]time.Time, n)
		if err := s.begin(ctx); err != nil {
			return err
		}
		profiled := startProfiles(ctx, s)
		began := time.Now()
		group, groupCtx := errgroup.WithContext(ctx)
		group.Go(func() error { return l.writeSteadily(groupCtx, written) })
		group.Go(func() error {
			return withConn(groupCtx, l.replicaURL(), func(conn *pgx.Conn) error { return watchItems(groupCtx, conn, seen) })
		})
		if err := group.Wait(); err != nil {
			return err
		}
		f[changes], f[loadRate] = float64(n), float64(n)/written[n-1].Sub(began).Seconds()
		latencies := make([]float64, n)
		for i := range latencies {
			latencies[i] = seen[i].Sub(written[i]).Seconds()
		}
		slices.Sort(latencies)
		f[medianLatency], f[p99Latency] = median(latencies), percentile(latencies, 0.99)
		profiled(e, "latency")
		return s.report(ctx, f)
	})
}

// writeSteadily commits item after item and notes when each commit was acknowledged. One session writes, so that the order of
// the ids is the order of the commits.
func (l *lab) writeSteadily(ctx context.Context, written []time.Time) error {
	began := time.Now()
	for i := range written {
		due := time.NewTimer(time.Until(began.Add(time.Duration(i) * time.Second / latencyRate)))
		select {
		case <-due.C:
		case <-ctx.Done():
			due.Stop()
			return context.Cause(ctx)
		}
		_, err := l.conn.Exec(ctx, "INSERT INTO public.item VALUES ($1, 1, 1.00, 'note of twenty bytes', now())", i+1)
		if err != nil {
			return fmt.Errorf("insert an item: %w", err)
		}
		written[i] = time.Now()
	}
	return nil
}

// watchItems notes when each item was first seen.
func watchItems(ctx context.Context, conn *pgx.Conn, seen []time.Time) error {
	last := 0
	return poll(ctx, latencyLook, func() (bool, error) {
		rows, err := conn.Query(ctx, "SELECT id FROM public.item WHERE id > $1 ORDER BY id", last)
		if err != nil {
			return false, fmt.Errorf("look for items: %w", err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		now := time.Now()
		for _, id := range ids {
			if id != last+1 {
				return false, errors.Join(err, fmt.Errorf("%w: item %d is visible before item %d", errDifferent, id, last+1))
			}
			last = id
			seen[id-1] = now
		}
		return last == len(seen), err
	})
}

// percentile of sorted values: the smallest that at least the share of all does not exceed.
func percentile(sorted []float64, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}
