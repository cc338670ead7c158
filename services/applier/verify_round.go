package applier

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// round compares units, or in the first round all, from one pair of snapshots, and returns those to compare again. In the last
// round there are none: they are told as not compared.
func (v *verification) round(ctx context.Context, former []*verifyUnit, last bool) (again []*verifyUnit, err error) {
	v.say("opening snapshots", "")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pair, err := v.openPair(ctx, cancel)
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	defer pair.close(ctx)
	defer cancel(nil)
	v.mu.Lock()
	v.result.Position = positionProto(pair.source.position)
	v.mu.Unlock()

	units, err := v.plan(ctx, pair, former)
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	v.say("comparing", "")
	var mu sync.Mutex
	group, working := errgroup.WithContext(ctx)
	todo := make(chan *verifyUnit)
	group.Go(func() error {
		defer close(todo)
		for _, u := range units {
			select {
			case todo <- u:
			case <-working.Done():
				return nil
			}
		}
		return nil
	})
	for range min(verifyWorkers, len(units)) {
		group.Go(func() error {
			w, err := v.newWorker(working, pair)
			if err != nil {
				return err
			}
			defer w.close()
			for u := range todo {
				later, err := w.unit(working, u, last)
				if err != nil {
					return fmt.Errorf("compare table %s: %w", u.target, err)
				}
				if later {
					mu.Lock()
					again = append(again, u)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return again, causeOr(ctx, group.Wait())
}

// causeOr is why ctx was ended, if it was, instead of what failed because of that.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// plan describes both sides and decides what is compared with what. After the first round it describes no more than it has to,
// so that there is little time in which tables can change once more.
func (v *verification) plan(ctx context.Context, pair *snapshotPair, former []*verifyUnit) ([]*verifyUnit, error) {
	ofSource, ofTarget, err := onlyThose(former)
	if err != nil {
		return nil, err
	}
	var source, target schema.Database
	group, reading := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		source, err = v.source.describe(reading, ofSource)
		if rpc.Reason(err) == reasonNoTable { // one was dropped: what is not described is told as missing
			source, err = v.source.describe(reading, everything)
		}
		return err
	})
	group.Go(func() (err error) {
		if target, err = schema.Read(reading, pair.target, ofTarget); err != nil {
			err = fmt.Errorf("read the replica's tables: %w", err)
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	tables, err := listTables(ctx, pair.target, v.name)
	if err != nil {
		return nil, err
	}
	units := verifyUnits(source, target, tables, pair.source.position.LSN)
	if err := countUnsynced(ctx, pair.target, v.name, units); err != nil {
		return nil, err
	}
	ownRowsOnly(units, tables, target, v.source.set.parameters)
	if v.differing != nil {
		v.differing.know(units, target)
	}
	if former == nil && v.asked {
		var families [][]schema.Name
		for _, u := range units {
			families = append(families, u.families...)
		}
		for _, t := range tables {
			families = append(families, []schema.Name{t.name})
		}
		if err := everyNameCounts(v.name, v.selection, families); err != nil {
			return nil, err
		}
	}
	if former != nil {
		units = sameTargets(units, former)
	} else if units = selectUnits(units, v.selection); len(units) == 0 {
		return nil, noneSelected(v.name)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if former == nil {
		v.progress.Tables = int32(len(units))
		for _, u := range units {
			v.progress.EstimatedRows += u.estimatedRows
		}
	}
	return units, nil
}

// unit compares one unit and sends its outcome, unless it is left to a later round.
func (w *verifyWorker) unit(ctx context.Context, u *verifyUnit, last bool) (later bool, err error) {
	result := &applierv1.TableVerification{Schema: u.target.Schema, Table: u.target.Name, ColumnsLeftOut: u.leftOut, Unsynced: u.unsynced}
	if u.outcome != applierv1.TableOutcome_TABLE_OUTCOME_UNSPECIFIED {
		result.Outcome, result.Reason = u.outcome, u.reason
		return false, w.v.done(result, nil)
	}
	if w.conn.IsClosed() { // the comparison before this one was broken off
		if w.conn, err = w.v.connect(ctx); err != nil {
			return false, err
		}
	}
	result.Position = positionProto(w.pair.source.position)
	check := &tableCheck{unit: u, source: w.v.source, snapshotID: w.pair.source.id, conn: w.conn, limit: w.v.limit, differing: w.v.differing, result: result, read: w.v.read}
	err = w.within(ctx, u, check.run)
	var cannot *cannotCompareError
	switch {
	case err == nil:
		result.Outcome = applierv1.TableOutcome_TABLE_OUTCOME_EQUAL
		if check.different() {
			result.Outcome = applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT
		}
		return false, w.v.done(result, check.differences)
	case !errors.As(err, &cannot):
		return false, err
	case cannot.passes && !last:
		return true, nil
	}
	notCompared := &applierv1.TableVerification{
		Schema: u.target.Schema, Table: u.target.Name, Outcome: applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, Reason: rpc.Message(cannot.err),
	}
	if cannot.missing {
		notCompared.Outcome = applierv1.TableOutcome_TABLE_OUTCOME_MISSING
	}
	return false, w.v.done(notCompared, nil)
}
