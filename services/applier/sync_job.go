package applier

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

const (
	// maxSyncRows bounds the rows that a job names, and maxSyncAttempts how often it begins anew after a fault that passes.
	maxSyncRows     = 1_000
	maxSyncAttempts = 10
	// endTimeout bounds the storing of a job that has ended.
	syncEndTimeout = 5 * time.Second
)

// errCancelled is why a job ends that a user cancels.
var errCancelled = errors.New("cancelled")

// syncJob is a job that runs in this process.
type syncJob struct {
	service   *Service
	runner    *runner
	request   *applierv1.SyncReplicationRequest
	selection schema.Selection
	cancel    context.CancelCauseFunc
	done      chan struct{} // closed when it has ended and that is stored

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something changes
	now     *applierv1.Sync
}

// update changes what is shown of a job and wakes those who watch it.
func (j *syncJob) update(edit func(*applierv1.Sync)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	edit(j.now)
	close(j.changed)
	j.changed = make(chan struct{})
}

// look returns a job as it is, and a channel that is closed at its next change.
func (j *syncJob) look(whole bool) (*applierv1.Sync, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if whole {
		return proto.CloneOf(j.now), j.changed
	}
	return proto.CloneOf(brief(j.now)), j.changed
}

// brief is a job without its tables and rows.
func brief(s *applierv1.Sync) *applierv1.Sync {
	return &applierv1.Sync{
		SyncId: s.GetSyncId(), Replication: s.GetReplication(), Mode: s.GetMode(), DryRun: s.GetDryRun(), IncludeTables: s.GetIncludeTables(), ExcludeTables: s.GetExcludeTables(),
		State: s.GetState(), Reason: s.GetReason(), ReasonCode: s.GetReasonCode(), Progress: s.GetProgress(), Result: s.GetResult(), CreateTime: s.GetCreateTime(), EndTime: s.GetEndTime(),
	}
}

// run works until the job ends, and stores how it did.
func (j *syncJob) run(ctx context.Context) {
	defer close(j.done)
	stays := j.runner.need()
	err := j.work(ctx)
	stays()
	j.update(func(s *applierv1.Sync) {
		s.EndTime = timestamppb.Now()
		switch cause := context.Cause(ctx); {
		case err == nil:
			s.State = applierv1.SyncState_SYNC_STATE_COMPLETED
		case errors.Is(cause, errCancelled):
			s.State = applierv1.SyncState_SYNC_STATE_CANCELLED
		case cause != nil:
			s.State, s.Reason, s.ReasonCode = applierv1.SyncState_SYNC_STATE_INTERRUPTED, "the server ended while the job ran", "INTERRUPTED"
		default:
			refused := verifyRefusal(ctx, err)
			s.State, s.Reason, s.ReasonCode = applierv1.SyncState_SYNC_STATE_FAILED, rpc.Message(refused), rpc.Reason(refused)
		}
	})
	last, _ := j.look(true)
	j.runner.log.Info("sync ended", "sync", last.GetSyncId(), "state", last.GetState().String(), "reason", last.GetReason())
	storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncEndTimeout)
	defer cancel()
	if err := j.service.store.endSync(storing, last); err != nil {
		j.runner.log.Error("the end of a sync cannot be stored; it is shown as interrupted after the next start", "sync", last.GetSyncId(), "error", err)
	}
}

// work makes the tables equal, and begins anew after faults that pass.
func (j *syncJob) work(ctx context.Context) error {
	// One that has failed is mended in the way of a copy: nothing is applied that could stand still.
	if j.request.GetMode() == applierv1.SyncMode_SYNC_MODE_COPY || j.runner.hasFailed() {
		return j.copy(ctx)
	}
	p, err := newRepair(j.runner, &applierv1.RepairReplicationRequest{
		Name: j.request.GetName(), IncludeTables: j.request.GetIncludeTables(), ExcludeTables: j.request.GetExcludeTables(), DryRun: j.request.GetDryRun(), MaxHold: j.request.GetMaxHold(),
	}, j.take)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := j.repair(ctx, p)
		if err == nil || ctx.Err() != nil || attempt == maxSyncAttempts || !j.passes(ctx, err) {
			return err
		}
		pause := backoff(j.runner.config.options(j.runner.snapshot().spec), attempt)
		j.runner.log.Warn("sync is tried again", "error", rpc.Message(err), "pause", pause)
		j.update(func(s *applierv1.Sync) {
			s.Progress = &applierv1.RepairProgress{Phase: "waiting", Detail: rpc.Message(err), Mended: s.GetProgress().GetMended()}
			s.Tables = nil // they are compared again
		})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (j *syncJob) repair(ctx context.Context, p *repair) error {
	src, done, err := j.runner.beginComparing(ctx)
	if err != nil {
		return err
	}
	defer done()
	p.source = src
	return p.run(ctx)
}

// passes tells whether a failure may pass by itself, as one of the replication does that is tried again.
func (j *syncJob) passes(ctx context.Context, err error) bool {
	refused := verifyRefusal(ctx, err)
	if rpc.Reason(refused) == reasonNotRunning {
		switch j.runner.status.proto(j.runner.snapshot(), false).GetState() {
		case applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
			return false
		}
		return true
	}
	return rpc.Code(refused) == codes.Unavailable || rpc.Reason(refused) == reasonVerifying
}

// take notes what a repair says.
func (j *syncJob) take(answer *applierv1.RepairReplicationResponse) error {
	j.update(func(s *applierv1.Sync) {
		switch event := answer.GetEvent().(type) {
		case *applierv1.RepairReplicationResponse_Progress:
			s.Progress = event.Progress
		case *applierv1.RepairReplicationResponse_Row:
			if len(s.Rows) < maxSyncRows {
				s.Rows = append(s.Rows, event.Row)
			}
		case *applierv1.RepairReplicationResponse_Table:
			s.Tables = append(s.Tables, proto.CloneOf(event.Table))
		case *applierv1.RepairReplicationResponse_Result:
			s.Result = proto.CloneOf(event.Result)
		}
	})
	return nil
}
