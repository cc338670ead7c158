package applier

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// errCopyAgain ends an attempt because tables wait for being copied anew; the next one begins at once.
var errCopyAgain = errors.New("tables are copied anew")

// recopy has tables of the source copied anew while the replication runs. It returns when that is decided durably: from then on the
// copy is made whatever happens, and following goes on after it. Applying stands still between two source transactions meanwhile.
func (r *runner) recopy(ctx context.Context, tables []schema.Name) error {
	r.mu.Lock()
	holds, end := r.holds, r.endStream
	r.mu.Unlock()
	if holds == nil {
		return r.notApplying()
	}
	name := r.snapshot().name
	err := holds.At(ctx, func(standing change.Position) (change.Position, error) { return standing, nil }, func() error {
		err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
			for _, table := range tables {
				if err := setTableState(ctx, tx, name, table, tableWaiting); err != nil {
					return err
				}
			}
			return setPhase(ctx, tx, name, phaseSyncing)
		})
		if err != nil {
			return fmt.Errorf("have tables copied anew: %w", err)
		}
		end(errCopyAgain)
		return nil
	})
	if errors.Is(err, apply.ErrNotApplying) {
		return r.notApplying()
	}
	return err
}
