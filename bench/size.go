package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// millions are the sizes, in rows of item.
var millions = []int{1, 2, 4, 8}

// Figures of a size alone.
const (
	sizeRows    = "size_rows"
	copySeconds = "copy_seconds"
)

const million = 1_000_000

func sizeTrial(size int) trial {
	return trial{
		workload: "size", mode: strconv.Itoa(size) + "M",
		contenders: func(options) []contender { return []contender{{side: synclineSide}} },
		run: func(ctx context.Context, e experiment) (figures, error) {
			return runSize(ctx, e, e.sized(size*million))
		},
	}
}

// runSize times the first copy of n rows, and then catching up with one transaction that inserts n more. The memory of the
// processes is that of both.
func runSize(ctx context.Context, e experiment, n int) (f figures, err error) {
	l, err := newLab(ctx, e, database)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return nil, err
	}
	if err := execute(ctx, l.primaryURL(), itemTable); err != nil {
		return nil, err
	}
	if err := fillItems(ctx, l, 1, n); err != nil {
		return nil, err
	}
	s := newSyncline(l, e.options, l.replicaURL())
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = explained(err, s)
		}
		err = errors.Join(err, s.close())
	}()
	if err := s.serve(ctx); err != nil {
		return nil, err
	}
	if err := l.settle(ctx, database); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := errors.Join(s.create(ctx), s.copied(ctx)); err != nil {
		return nil, err
	}
	f = figures{sizeRows: float64(n), copySeconds: time.Since(began).Seconds()}
	second := replay{mode: catchup, workload: workload{name: "size", load: func(ctx context.Context, _ experiment, l *lab) (int, error) {
		return n, fillItems(ctx, l, n+1, 2*n)
	}}}
	more, err := second.measure(ctx, e, l, s)
	if err != nil {
		return nil, err
	}
	for name, value := range more {
		f[name] = value
	}
	return f, equal(ctx, l.primaryURL(), l.replicaURL())
}

// sizes are the runs of different sizes on one version, and whether time and memory keep to their size.
type sizes struct {
	version string
	of      []sizeRow
}

type sizeRow struct {
	rows, copied, inserted, primary, replica float64
}

// mostGrowth is how much worse the largest may be than the smallest: in time for each row, and in memory.
const mostGrowth = 1.25

func (s sizes) verdict() string {
	if len(s.of) < 2 {
		return "one size alone says nothing"
	}
	first, last := s.of[0], s.of[len(s.of)-1]
	growth := last.rows / first.rows
	for _, figure := range []struct {
		name                 string
		first, last, allowed float64
	}{
		{"time of the first copy", first.copied, last.copied, growth * mostGrowth},
		{"time of the transaction", first.inserted, last.inserted, growth * mostGrowth},
		{"memory of syncline primary", first.primary, last.primary, mostGrowth},
		{"memory of syncline replica", first.replica, last.replica, mostGrowth},
	} {
		if figure.last > figure.first*figure.allowed {
			return fmt.Sprintf("NOT MET: %s is %.2f times as much for %.0f times the rows; at most %.2f was wanted",
				figure.name, quotient(figure.last, figure.first), growth, figure.allowed)
		}
	}
	return fmt.Sprintf("met: time grows at most %g times as fast as the rows, memory at most %g times in all", mostGrowth, mostGrowth)
}

func sizesOf(version string, samples []sample) sizes {
	s := sizes{version: version}
	for _, size := range millions {
		mode := strconv.Itoa(size) + "M"
		var of []sample
		for _, run := range samples {
			if run.PostgreSQL == version && run.Workload == "size" && run.Mode == mode {
				of = append(of, run)
			}
		}
		if len(of) == 0 {
			continue
		}
		figure := func(name string) float64 { return medianOf(of, name, synclineSide, "") }
		s.of = append(s.of, sizeRow{
			figure(sizeRows), figure(copySeconds), figure(seconds), figure(primaryPeak), figure(replicaPeak),
		})
	}
	return s
}
