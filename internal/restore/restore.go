package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/node"
)

// Options say what is restored, and where to.
type Options struct {
	Dir     string // the backup
	URL     string // of the database
	Replace bool   // rows that are in the tables may be removed, and a restore that broke off is not gone on with
	// CheckOnly ends before anything is touched.
	CheckOnly bool
	Workers   int
	Progress  *backup.Progress
	Say       func(line string) // is told what somebody may want to read
}

// Result is what a restore did.
type Result struct {
	Manifest *backup.Manifest
	// Warnings are what the database does not get, or gets otherwise, and why.
	Warnings []string
}

// Check reads a whole backup and shows how far that is. It touches no database.
func Check(ctx context.Context, dir string, workers int, progress *backup.Progress) (*backup.Backup, error) {
	progress.Begin("checking the backup", 0)
	return backup.Check(ctx, dir, workers, func(n int64) { progress.Bytes.Add(n) })
}

// Run restores a backup. It can be run again after any failure and any kill.
func Run(ctx context.Context, o Options) (*Result, error) {
	b, err := Check(ctx, o.Dir, o.Workers, o.Progress)
	if err != nil {
		return nil, err
	}
	o.Progress.Begin("checking the database", 0)
	t, err := openTarget(ctx, o.URL)
	if err != nil {
		return nil, err
	}
	defer t.close()
	p, err := makePlan(ctx, t, b, o.Replace)
	if err != nil {
		return nil, err
	}
	result := &Result{b.Manifest, p.warnings}
	if o.CheckOnly {
		return result, nil
	}
	fault.Point(FaultChecked)
	if _, err := node.Prepare(ctx, o.URL, node.Replica); err != nil {
		return nil, err
	}
	fault.Point(FaultPrepared)
	r := &restorer{options: o, backup: b, target: t, plan: p}
	if err := r.run(ctx); err != nil {
		if errors.Is(err, ErrRows) {
			return nil, err
		}
		return nil, fmt.Errorf("%w; the restore is not complete: mend that and run it again, it goes on where it was", err)
	}
	return result, nil
}

// restorer carries a plan out.
type restorer struct {
	options Options
	backup  *backup.Backup
	target  *target
	plan    *plan
	id      string // of the restore, in the database
}

func (r *restorer) run(ctx context.Context) error {
	if err := r.target.endLoaders(ctx); err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	fault.Point(FaultBegun)
	if err := r.load(ctx); err != nil {
		return err
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	fault.Point(FaultBuilt)
	if err := r.complete(ctx); err != nil {
		return err
	}
	fault.Point(FaultDone)
	return nil
}
