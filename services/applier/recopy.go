package applier

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// errCopyAgain ends an attempt because tables wait for being copied anew; the next one begins at once.
var errCopyAgain = errors.New("tables are copied anew")

// recopy has tables of the source copied anew, or in the way of a copy mended, while the replication runs or when it has failed. It
// returns when that is decided durably: from then on it is done whatever happens, and following goes on after it. A replication that
// runs stands still between two source transactions meanwhile; one that has failed is to be started afterwards.
func (r *runner) recopy(ctx context.Context, tables []schema.Name, incremental bool) error {
	r.mu.Lock()
	holds, end := r.holds, r.endStream
	r.mu.Unlock()
	name := r.snapshot().name
	decide := func() error {
		err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
			for _, table := range tables {
				_, err := tx.Exec(ctx, "UPDATE syncline.tables SET state = $4, incremental = $5 WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
					name, table.Schema, table.Name, tableWaiting, incremental)
				if err != nil {
					return err
				}
			}
			return setPhase(ctx, tx, name, phaseSyncing)
		})
		if err != nil {
			return fmt.Errorf("have tables copied anew: %w", err)
		}
		return nil
	}
	if holds == nil {
		if !r.hasFailed() {
			return r.notApplying()
		}
		return decide()
	}
	if r.snapshot().phase != phaseRunning {
		return r.notApplying() // it is about to store that it runs, when it has caught up
	}
	err := holds.At(ctx, func(standing change.Position) (change.Position, error) { return standing, nil }, func() error {
		if err := decide(); err != nil {
			return err
		}
		end(errCopyAgain)
		return nil
	})
	if errors.Is(err, apply.ErrNotApplying) {
		return r.notApplying()
	}
	return err
}

// hasFailed tells whether something stopped the replication while it followed its source: nothing is applied then.
func (r *runner) hasFailed() bool {
	r.mu.Lock()
	done, phase := r.done, r.stored.phase
	r.mu.Unlock()
	select {
	case <-done:
	default:
		return false
	}
	return (phase == phaseRunning || phase == phaseCatchingUp) && r.status.proto(r.snapshot(), false).GetState() == applierv1.State_STATE_FAILED
}

// mends tells whether a replication's first copy mends the rows that it finds.
func mends(spec *applierv1.ReplicationSpec) bool {
	return spec.GetInitial() == applierv1.Initial_INITIAL_INCREMENTAL
}
