package applier

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// syncJobs are the jobs that run in this process, by id.
type syncJobs struct {
	mu      sync.Mutex
	running map[string]*syncJob
}

// SyncReplication begins a job. It is stored before it begins.
func (s *Service) SyncReplication(ctx context.Context, in *applierv1.SyncReplicationRequest) (*applierv1.SyncReplicationResponse, error) {
	r, err := s.runner(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	if r.snapshot().transient {
		return nil, refuseTransient(in.GetName())
	}
	switch in.GetMode() {
	case applierv1.SyncMode_SYNC_MODE_COPY, applierv1.SyncMode_SYNC_MODE_INCREMENTAL:
	default:
		return nil, rpc.Invalid("mode", "is needed: copy empties the tables and copies them anew, incremental mends what differs")
	}
	selection, err := schema.ParseSelection(in.GetIncludeTables(), in.GetExcludeTables())
	if err != nil {
		return nil, rpc.Invalid("include_tables", "%v", err)
	}
	if in.GetMaxHold() != nil && (in.GetMaxHold().AsDuration() < minHold || in.GetMaxHold().AsDuration() > maxHold) {
		return nil, rpc.Invalid("max_hold", "must be between %v and %v", minHold, maxHold)
	}
	switch state := r.status.proto(r.snapshot(), false).GetState(); state {
	case applierv1.State_STATE_STOPPED, applierv1.State_STATE_SYNCING, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
		return nil, r.notApplying()
	case applierv1.State_STATE_FAILED:
		if !r.hasFailed() || in.GetDryRun() && in.GetMode() == applierv1.SyncMode_SYNC_MODE_INCREMENTAL {
			return nil, r.notApplying()
		}
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	j := &syncJob{service: s, runner: r, request: in, selection: selection, done: make(chan struct{}), changed: make(chan struct{}), now: &applierv1.Sync{
		SyncId: hex.EncodeToString(id), Replication: in.GetName(), Mode: in.GetMode(), DryRun: in.GetDryRun(), IncludeTables: in.GetIncludeTables(),
		ExcludeTables: in.GetExcludeTables(), State: applierv1.SyncState_SYNC_STATE_RUNNING, CreateTime: timestamppb.Now(), Progress: &applierv1.RepairProgress{Phase: "connecting"},
	}}
	if err := s.store.insertSync(ctx, j.now); err != nil {
		return nil, err
	}
	s.mu.Lock()
	running, cancel := context.WithCancelCause(s.runCtx)
	s.mu.Unlock()
	j.cancel = cancel
	first, _ := j.look(false)
	s.syncs.mu.Lock()
	s.syncs.running[first.GetSyncId()] = j
	s.syncs.mu.Unlock()
	go func() {
		defer cancel(nil)
		j.run(running)
		s.syncs.mu.Lock()
		defer s.syncs.mu.Unlock()
		delete(s.syncs.running, first.GetSyncId())
	}()
	return &applierv1.SyncReplicationResponse{Sync: first}, nil
}

// job returns a job that runs here, nil when none does.
func (s *syncJobs) job(id string) *syncJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

// wait returns when no job runs any more.
func (s *syncJobs) wait() {
	s.mu.Lock()
	jobs := make([]*syncJob, 0, len(s.running))
	for _, j := range s.running {
		jobs = append(jobs, j)
	}
	s.mu.Unlock()
	for _, j := range jobs {
		<-j.done
	}
}

// ListSyncs returns the jobs of the last day.
func (s *Service) ListSyncs(ctx context.Context, in *applierv1.ListSyncsRequest) (*applierv1.ListSyncsResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	list, err := s.store.listSyncs(ctx, in.GetReplication())
	if err != nil {
		return nil, err
	}
	out := &applierv1.ListSyncsResponse{}
	for _, stored := range list {
		if j := s.syncs.job(stored.GetSyncId()); j != nil {
			stored, _ = j.look(false)
		}
		out.Syncs = append(out.Syncs, brief(stored))
	}
	return out, nil
}

// GetSync returns one job.
func (s *Service) GetSync(ctx context.Context, in *applierv1.GetSyncRequest) (*applierv1.GetSyncResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	if j := s.syncs.job(in.GetSyncId()); j != nil {
		now, _ := j.look(true)
		return &applierv1.GetSyncResponse{Sync: now}, nil
	}
	stored, err := s.store.getSync(ctx, in.GetSyncId())
	if err != nil {
		return nil, err
	}
	return &applierv1.GetSyncResponse{Sync: stored}, nil
}

// WatchSync streams a job until it has ended.
func (s *Service) WatchSync(in *applierv1.WatchSyncRequest, stream grpc.ServerStreamingServer[applierv1.WatchSyncResponse]) error {
	ctx := stream.Context()
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	interval := between(in.GetInterval(), defaultWatch, minWatch)
	for {
		j := s.syncs.job(in.GetSyncId())
		if j == nil {
			stored, err := s.store.getSync(ctx, in.GetSyncId())
			if err != nil {
				return err
			}
			return stream.Send(&applierv1.WatchSyncResponse{Sync: brief(stored)})
		}
		now, changed := j.look(false)
		if err := stream.Send(&applierv1.WatchSyncResponse{Sync: now}); err != nil {
			return err
		}
		// Not more often than every minWatch, however often it changes.
		pause, longest := time.NewTimer(minWatch), time.NewTimer(interval)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		case <-j.done:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-longest.C:
		case <-j.done:
		}
		if slices.Contains(endedSyncs, now.GetState()) {
			return nil
		}
	}
}

var endedSyncs = []applierv1.SyncState{
	applierv1.SyncState_SYNC_STATE_COMPLETED, applierv1.SyncState_SYNC_STATE_FAILED, applierv1.SyncState_SYNC_STATE_CANCELLED, applierv1.SyncState_SYNC_STATE_INTERRUPTED,
}

// CancelSync ends a job and waits for that.
func (s *Service) CancelSync(ctx context.Context, in *applierv1.CancelSyncRequest) (*applierv1.CancelSyncResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	if j := s.syncs.job(in.GetSyncId()); j != nil {
		j.cancel(errCancelled)
		select {
		case <-j.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	stored, err := s.store.getSync(ctx, in.GetSyncId())
	if err != nil {
		return nil, err
	}
	return &applierv1.CancelSyncResponse{Sync: brief(stored)}, nil
}
