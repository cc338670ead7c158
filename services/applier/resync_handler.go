package applier

import (
	"context"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// ResyncReplication has all tables copied anew. What is asked for is durable before what runs is interrupted for it; one that was stopped by a
// user stays so, and copies when it is started.
func (s *Service) ResyncReplication(ctx context.Context, in *applierv1.ResyncReplicationRequest) (*applierv1.ResyncReplicationResponse, error) {
	r, fresh, release, err := s.decide(ctx, in.GetName(), in.GetEtag())
	if err != nil {
		return nil, err
	}
	defer release()
	if fresh.transient {
		return nil, refuseTransient(in.GetName())
	}
	if fresh.phase == phaseNew {
		return nil, rpc.Errorf(codes.FailedPrecondition, reasonNotCopied, "replication %s has copied nothing yet: %s; there is nothing to copy anew", fresh.name, stateName(r.status.stateNow()))
	}
	if r.active() {
		r.stop()
		defer s.resume(r) // whatever comes of it
	}
	how := pendingResync
	if in.GetIncremental() {
		how = pendingMend
	}
	e := &event{
		replication: fresh.name, kind: kindResync, position: fresh.position, hasPosition: fresh.hasPosition, text: how.words() + " because a user asked for it",
	}
	if err := s.store.askResync(ctx, fresh.name, how, fresh.autoResyncs, e); err != nil {
		return nil, err
	}
	fault.Point(FaultResyncAsked)
	if _, err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if fresh.wanted == wantedRunning {
		s.resume(r)
	}
	return &applierv1.ResyncReplicationResponse{Replication: r.status.proto(r.snapshot(), true)}, nil
}
