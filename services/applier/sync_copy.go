package applier

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// syncPoll is how often a copy's progress is looked at.
const syncPoll = 500 * time.Millisecond

// copy has the selected tables copied anew, and waits until they are.
func (j *syncJob) copy(ctx context.Context) error {
	tables, err := j.selected(ctx)
	if err != nil {
		return err
	}
	estimated := int64(0)
	for _, t := range tables {
		estimated += t.estimatedRows
	}
	progress := &applierv1.RepairProgress{Phase: "copying", Tables: int32(len(tables)), EstimatedRows: estimated}
	j.update(func(s *applierv1.Sync) { s.Progress = progress })
	if j.request.GetDryRun() {
		j.wouldCopy(tables)
		return nil
	}
	names := make([]schema.Name, len(tables))
	before := map[schema.Name]change.LSN{}
	for i, t := range tables {
		names[i], before[t.name] = t.name, t.position.LSN
	}
	if err := j.waitSettled(ctx); err != nil {
		return err
	}
	failed := j.runner.hasFailed()
	if err := j.runner.recopy(ctx, names, j.request.GetMode() == applierv1.SyncMode_SYNC_MODE_INCREMENTAL); err != nil {
		return err
	}
	if failed {
		if _, err := j.service.StartReplication(ctx, &applierv1.StartReplicationRequest{Name: j.request.GetName()}); err != nil {
			return err
		}
	}
	return j.watchCopy(ctx, before, estimated)
}

// waitSettled waits until the replication runs or has failed: one that catches up is about to say that all of its tables are copied.
func (j *syncJob) waitSettled(ctx context.Context) error {
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	for {
		switch now := j.runner.status.proto(j.runner.snapshot(), false); now.GetState() {
		case applierv1.State_STATE_RUNNING, applierv1.State_STATE_FAILED:
			return nil
		case applierv1.State_STATE_STOPPED, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
			return j.runner.notApplying()
		default:
			j.update(func(s *applierv1.Sync) {
				s.Progress.Detail = "the replication is " + stateName(now.GetState()) + "; it is waited for"
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// selected are the tables of the replication that are to be copied, as they are stored.
func (j *syncJob) selected(ctx context.Context) ([]*storedTable, error) {
	src, err := j.service.config.dialSource(ctx, j.runner.name, j.runner.snapshot().spec)
	if err != nil {
		return nil, err
	}
	defer src.close()
	database, err := src.describe(ctx, everything)
	if err != nil {
		return nil, err
	}
	stored, err := listTables(ctx, j.service.store.pool, j.request.GetName())
	if err != nil {
		return nil, err
	}
	var tables []*storedTable
	var families [][]schema.Name
	for _, t := range stored {
		above := family(database, t.name)
		families = append(families, above)
		if !j.selection.Matches(above[0], above[1:]...) {
			continue
		}
		if s, found := database.Table(t.name); !found || s.OID != t.oid {
			return nil, failed(reasonNoTable, "the source does not have table %s any more, or another one of that name; leave it out with --exclude-table", t.name)
		}
		tables = append(tables, t)
	}
	if err := everyNameCounts(j.request.GetName(), j.selection, families); err != nil {
		return nil, err
	}
	if len(tables) == 0 {
		return nil, noneSelected(j.request.GetName())
	}
	return tables, nil
}

func noneSelected(replication string) error {
	return rpc.Errorf(codes.NotFound, reasonUnknownTable, "no table of replication %s is selected; `syncline replication show %s` lists its tables", replication, replication)
}

func (j *syncJob) wouldCopy(tables []*storedTable) {
	j.update(func(s *applierv1.Sync) {
		for _, t := range tables {
			s.Tables = append(s.Tables, &applierv1.TableRepair{
				Schema: t.target.Schema, Table: t.target.Name, Outcome: applierv1.RepairOutcome_REPAIR_OUTCOME_DIFFERENT, SourceRows: t.estimatedRows,
				Reason: fmt.Sprintf("it would be emptied and filled with about %d rows of table %s", t.estimatedRows, t.name),
			})
		}
		s.Result = &applierv1.RepairResult{DryRun: true, TablesDifferent: int32(len(tables))}
	})
}

// watchCopy waits until the tables have copies of later positions than before, and the replication has passed all of these.
func (j *syncJob) watchCopy(ctx context.Context, before map[schema.Name]change.LSN, estimated int64) error {
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	for {
		state := j.runner.status.proto(j.runner.snapshot(), false)
		tables, err := listTables(ctx, j.service.store.pool, j.request.GetName())
		if err != nil {
			return err
		}
		now := &applierv1.RepairProgress{Phase: state.GetSync().GetPhase(), Detail: state.GetSync().GetDetail(), Tables: int32(len(before)), EstimatedRows: estimated}
		if state.GetReason() != "" {
			now.Detail = state.GetReason()
		}
		var copied []*storedTable
		for _, t := range tables {
			position, ours := before[t.name]
			if !ours || t.position.LSN == position {
				continue
			}
			now.Rows += t.rows
			if t.state == tableCopied {
				copied = append(copied, t)
			}
		}
		now.TablesDone, now.EstimatedRows = int32(len(copied)), max(estimated, now.Rows)
		j.update(func(s *applierv1.Sync) { s.Progress = now })
		switch state.GetState() {
		case applierv1.State_STATE_RUNNING, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
			if len(copied) == len(before) {
				j.copied(copied, state)
				return nil
			}
			if isCompleted(state.GetState()) {
				return j.runner.notApplying()
			}
		case applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED:
			return j.runner.notApplying()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (j *syncJob) copied(tables []*storedTable, state *applierv1.Replication) {
	j.update(func(s *applierv1.Sync) {
		s.Result = &applierv1.RepairResult{Equal: true, TablesMended: int32(len(tables)), Position: state.GetPosition()}
		for _, t := range tables {
			s.Result.Inserted += t.rows
			s.Tables = append(s.Tables, &applierv1.TableRepair{
				Schema: t.target.Schema, Table: t.target.Name, Outcome: applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED, Position: positionProto(t.position), SourceRows: t.rows, Inserted: t.rows,
			})
		}
	})
}
