package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func (f *fakeApplier) RepairReplication(in *applierv1.RepairReplicationRequest, stream grpc.ServerStreamingServer[applierv1.RepairReplicationResponse]) error {
	f.toRepair = in
	if _, err := f.find(in.GetName()); err != nil {
		return err
	}
	if in.GetMaxRows() < 0 {
		return rpc.Invalid("max_rows", "%d is not from 0 to 10000", in.GetMaxRows())
	}
	for _, answer := range f.repaired {
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeApplier) SyncReplication(_ context.Context, in *applierv1.SyncReplicationRequest) (*applierv1.SyncReplicationResponse, error) {
	f.toSync = in
	if _, err := f.find(in.GetName()); err != nil {
		return nil, err
	}
	return &applierv1.SyncReplicationResponse{Sync: f.syncs[len(f.syncs)-1]}, nil
}

func (f *fakeApplier) ListSyncs(context.Context, *applierv1.ListSyncsRequest) (*applierv1.ListSyncsResponse, error) {
	return &applierv1.ListSyncsResponse{Syncs: f.syncs}, nil
}

func (f *fakeApplier) findSync(id string) (*applierv1.Sync, error) {
	for _, s := range f.syncs {
		if s.GetSyncId() == id {
			return s, nil
		}
	}
	return nil, rpc.Errorf(codes.NotFound, "SYNC_NOT_FOUND", "there is no sync %q", id)
}

func (f *fakeApplier) GetSync(_ context.Context, in *applierv1.GetSyncRequest) (*applierv1.GetSyncResponse, error) {
	s, err := f.findSync(in.GetSyncId())
	return &applierv1.GetSyncResponse{Sync: s}, err
}

func (f *fakeApplier) WatchSync(in *applierv1.WatchSyncRequest, stream grpc.ServerStreamingServer[applierv1.WatchSyncResponse]) error {
	s, err := f.findSync(in.GetSyncId())
	if err != nil {
		return err
	}
	begun := &applierv1.Sync{SyncId: s.GetSyncId(), State: applierv1.SyncState_SYNC_STATE_RUNNING, Progress: mending()}
	for _, one := range []*applierv1.Sync{begun, s} {
		if err := stream.Send(&applierv1.WatchSyncResponse{Sync: one}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeApplier) CancelSync(_ context.Context, in *applierv1.CancelSyncRequest) (*applierv1.CancelSyncResponse, error) {
	s, err := f.findSync(in.GetSyncId())
	return &applierv1.CancelSyncResponse{Sync: s}, err
}
