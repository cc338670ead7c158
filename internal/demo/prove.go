package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/compare"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// ErrDifferent means that a replica does not hold what the primary holds.
var ErrDifferent = errors.New("replica differs from the primary")

// prove compares every row of every table of the primary with each replica's.
func (d *demo) prove(ctx context.Context) error {
	reports := make([]compare.Report, len(d.replicas))
	group, groupCtx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	doing := make([]string, len(d.replicas))
	for i, n := range d.replicas {
		group.Go(func() (err error) {
			reports[i], err = compareNodes(groupCtx, d.primary, n, func(table string) {
				mu.Lock()
				defer mu.Unlock()
				doing[i] = fmt.Sprintf("  %s: comparing %s", n.name, table)
				if d.screen.terminal {
					d.screen.show(append([]string(nil), doing...)...)
				}
			})
			return err
		})
	}
	err := group.Wait()
	d.screen.clear()
	if err != nil {
		return err
	}
	different := false
	for i, n := range d.replicas {
		d.screen.say("  %s: %s", n.name, proofLine(reports[i]))
		different = different || !reports[i].Equal()
	}
	if different {
		return ErrDifferent
	}
	return nil
}

func proofLine(r compare.Report) string {
	if !r.Equal() {
		return r.String()
	}
	return fmt.Sprintf("equal to the primary: %d tables, %s rows compared", len(r.Tables), count(r.Rows()))
}

func compareNodes(ctx context.Context, a, b *node, progress func(table string)) (compare.Report, error) {
	left, err := postgres.Connect(ctx, a.url(), application)
	if err != nil {
		return compare.Report{}, err
	}
	defer disconnect(left)
	right, err := postgres.Connect(ctx, b.url(), application)
	if err != nil {
		return compare.Report{}, err
	}
	defer disconnect(right)
	report, err := compare.Databases(ctx, left, right, compare.Options{Progress: progress, Details: 10})
	if err != nil {
		return report, fmt.Errorf("compare %s with %s: %w", a.name, b.name, err)
	}
	return report, nil
}
