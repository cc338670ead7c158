package applier

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// closeGap decides what follows when the source's change log does not hold the position: a copy of all tables where the user has
// allowed it, which is durably asked for on return, or what the replication stops with. The gap is never passed over.
func (r *runner) closeGap(ctx context.Context, f failure, text string) (resynced bool, _ failure, _ string) {
	spec := r.snapshot()
	o := r.config.options(spec.spec)
	if o.resync == pendingNothing {
		return false, f, fmt.Sprintf("%s; `syncline replication resync %s` does that, and `syncline replication update %s --auto-resync copy` has it done by itself from now on", text, spec.name, spec.name)
	}
	if r.status.healthyFor() >= o.healthyAfter {
		spec.autoResyncs = 0
	}
	if spec.autoResyncs >= o.autoResyncLimit {
		return false, f, fmt.Sprintf("%s; auto_resync has done that %d times in a row, and each time the replication ran for less than %s afterwards: mend the cause, then `syncline replication resync %s`",
			text, spec.autoResyncs, o.healthyAfter, spec.name)
	}
	e := &event{
		kind: kindResync, replication: spec.name, code: f.code, side: f.side(), position: spec.position, hasPosition: spec.hasPosition, count: int32(spec.autoResyncs) + 1,
		text: fmt.Sprintf("%s by auto_resync (%d of at most %d times in a row): %s", o.resync.words(), spec.autoResyncs+1, o.autoResyncLimit, text),
	}
	if err := r.store.askResync(ctx, spec.name, o.resync, spec.autoResyncs+1, e); err != nil {
		return false, classify(err), rpc.Message(err)
	}
	fault.Point(FaultResyncAsked)
	r.log.Warn(o.resync.words(), "reason", f.code, "error", text, "in_a_row", spec.autoResyncs+1)
	r.status.update(func(s *status) {
		s.happened(failure{f.code, true}, text)
		s.recovered()
	})
	return true, f, text
}

// healthTick is how often a replication that was copied anew is asked whether it has been well for long enough.
const healthTick = time.Second

// endResyncRow forgets what auto_resync had to do in a row once the replication has run for HealthyAfter without a fault.
func (r *runner) endResyncRow(ctx context.Context) {
	if r.snapshot().autoResyncs == 0 {
		return
	}
	tick := time.NewTicker(healthTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.status.healthyFor() < r.config.options(r.snapshot().spec).healthyAfter {
			continue
		}
		_, err := r.store.pool.Exec(ctx, "UPDATE syncline.replications SET auto_resyncs = 0 WHERE name = $1", r.name)
		if err != nil {
			continue // the next tick tries again
		}
		r.mu.Lock()
		r.stored.autoResyncs = 0
		r.mu.Unlock()
		return
	}
}

// words say what is done.
func (p pending) words() string {
	if p == pendingMend {
		return "all tables are compared, and mended where they differ,"
	}
	return "all tables are copied anew"
}

// askResync has the next attempt copy all tables anew, or mend them. It is durable on return; until that attempt has a plan nothing is touched.
func (s *store) askResync(ctx context.Context, name string, how pending, autoResyncs int, e *event) error {
	return s.write(ctx, e, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE syncline.replications SET pending = $2, auto_resyncs = $3 WHERE name = $1", name, how, autoResyncs)
		if err != nil {
			return fmt.Errorf("ask for a copy of all tables of replication %s: %w", name, err)
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("%w: %s", errNotFound, name)
		}
		return nil
	})
}

// forgetPosition makes a replication one that has not been copied; what it has applied stays counted. The tables keep the note that
// their rows are this replication's, so they may be emptied.
func forgetPosition(ctx context.Context, tx pgx.Tx, replication string, gone *drops) error {
	_, err := tx.Exec(ctx, `WITH gone AS (DELETE FROM syncline.positions WHERE replication = $1 RETURNING transactions, changes, set_aside)
		UPDATE syncline.replications SET sync_started_at = NULL, sync_ended_at = NULL, standing_warnings = '{}',
			transactions = transactions + (SELECT coalesce(sum(transactions), 0) FROM gone), changes = changes + (SELECT coalesce(sum(changes), 0) FROM gone),
			set_aside = set_aside + (SELECT coalesce(sum(set_aside), 0) FROM gone)
		WHERE name = $1`, replication)
	if err != nil {
		return fmt.Errorf("forget the position of replication %s: %w", replication, err)
	}
	return gone.forget(ctx, tx, nil, whyResync)
}

// removeTable takes a table out of a replication. Its rows stay.
func removeTable(ctx context.Context, tx pgx.Tx, replication string, name schema.Name, gone *drops) error {
	if err := forgetChunks(ctx, tx, replication, name); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM syncline.tables WHERE replication = $1 AND schema_name = $2 AND table_name = $3", replication, name.Schema, name.Name)
	if err != nil {
		return fmt.Errorf("remove table %s from replication %s: %w", name, replication, err)
	}
	return gone.forget(ctx, tx, &name, whyRemoved)
}

// uncopied are the tables whose copy is not whole.
func (s *status) uncopied() []schema.Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []schema.Name
	for name, t := range s.tables {
		if t.state != tableCopied {
			names = append(names, name)
		}
	}
	return names
}

// copiedEvent tells what was copied. The caller holds the lock.
func (s *status) copiedEvent(names []schema.Name, took time.Duration) *event {
	e := &event{kind: kindCopied, tables: int32(len(names))}
	for _, name := range names {
		if t := s.tables[name]; t != nil {
			e.rows += t.rows
		}
	}
	what := "tables"
	if len(names) == 1 {
		what = "table"
	}
	e.text = fmt.Sprintf("%d %s copied, %d rows, in %s", len(names), what, e.rows, took.Round(time.Millisecond))
	if len(names) <= 5 {
		slices.SortFunc(names, func(a, b schema.Name) int { return compareText(a.String(), b.String()) })
		e.text += fmt.Sprintf(": %v", names)
	}
	return e
}
