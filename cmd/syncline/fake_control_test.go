package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// fakeControl is what is decided about the fake's replication, and its run log.
type fakeControl struct {
	updated   *applierv1.UpdateReplicationRequest
	resynced  *applierv1.ResyncReplicationRequest
	started   *applierv1.StartReplicationRequest
	plan      *applierv1.ReplicationPlan
	ran       *applierv1.RunReplicationRequest
	watched   *applierv1.WatchReplicationsRequest
	changes   []*applierv1.WatchReplicationsResponse // what a watch of all tells; then it ends
	events    []*applierv1.Event                     // the oldest first
	later     []*applierv1.Event                     // what a watch tells after those; then it ends
	checked   *applierv1.CheckReplicationRequest
	handshake *applierv1.Handshake
}

func (f *fakeApplier) CheckReplication(_ context.Context, in *applierv1.CheckReplicationRequest) (*applierv1.CheckReplicationResponse, error) {
	f.checked = in
	if in.GetName() != "" {
		if _, err := f.find(in.GetName()); err != nil {
			return nil, err
		}
	}
	return &applierv1.CheckReplicationResponse{Handshake: f.handshake}, f.refusal
}

func (f *fakeApplier) UpdateReplication(_ context.Context, in *applierv1.UpdateReplicationRequest) (*applierv1.UpdateReplicationResponse, error) {
	f.updated = in
	if f.refusal != nil {
		return nil, f.refusal
	}
	r, err := f.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if in.GetEtag() != "" && in.GetEtag() != r.GetEtag() {
		return nil, rpc.Errorf(codes.Aborted, "ETAG_MISMATCH", "replication %s has been changed by somebody else", in.GetName())
	}
	return &applierv1.UpdateReplicationResponse{Replication: r, Plan: f.plan}, nil
}

func (f *fakeApplier) ResyncReplication(_ context.Context, in *applierv1.ResyncReplicationRequest) (*applierv1.ResyncReplicationResponse, error) {
	f.resynced = in
	r, err := f.find(in.GetName())
	return &applierv1.ResyncReplicationResponse{Replication: r}, err
}

// ListReplicationEvents answers two at a time, however many are asked for.
func (f *fakeApplier) ListReplicationEvents(_ context.Context, in *applierv1.ListReplicationEventsRequest) (*applierv1.ListReplicationEventsResponse, error) {
	list := slices.Clone(f.events)
	if in.GetNewestFirst() {
		slices.Reverse(list)
	}
	list = slices.DeleteFunc(list, func(e *applierv1.Event) bool {
		return in.GetReplication() != "" && e.GetReplication() != in.GetReplication()
	})
	if in.GetPageToken() == "next" {
		list = list[2:]
	}
	out := &applierv1.ListReplicationEventsResponse{Events: list}
	if size := min(int(in.GetPageSize()), 2); len(list) > size {
		out.Events, out.NextPageToken = list[:size], "next"
	}
	return out, nil
}

func (f *fakeApplier) WatchReplicationEvents(in *applierv1.WatchReplicationEventsRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationEventsResponse]) error {
	for _, e := range f.later {
		if e.GetId() <= in.GetAfterId() {
			continue
		}
		if err := stream.Send(&applierv1.WatchReplicationEventsResponse{Event: e}); err != nil {
			return err
		}
	}
	return rpc.Errorf(codes.Unavailable, rpc.ReasonStopping, "the server shuts down")
}

func (f *fakeApplier) RunReplication(in *applierv1.RunReplicationRequest, stream grpc.ServerStreamingServer[applierv1.RunReplicationResponse]) error {
	if f.refusal != nil {
		return f.refusal
	}
	f.ran = in
	for _, next := range f.watch {
		r, err := next()
		if err != nil {
			return err
		}
		if err := stream.Send(&applierv1.RunReplicationResponse{Replication: r}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeApplier) WatchReplications(in *applierv1.WatchReplicationsRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationsResponse]) error {
	f.watched = in
	for _, answer := range f.changes {
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return rpc.Errorf(codes.Unavailable, rpc.ReasonStopping, "the server shuts down")
}

// matching narrows a list as a server does.
func matching(list []*applierv1.Replication, in *applierv1.ListReplicationsRequest) []*applierv1.Replication {
	return slices.DeleteFunc(list, func(r *applierv1.Replication) bool {
		return !strings.HasPrefix(r.GetName(), in.GetNamePrefix()) || len(in.GetStates()) > 0 && !slices.Contains(in.GetStates(), r.GetState())
	})
}

func runLog() []*applierv1.Event {
	at := func(seconds int) *timestamppb.Timestamp {
		return timestamppb.New(longAgo.Add(time.Duration(seconds) * time.Second))
	}
	return []*applierv1.Event{
		{Id: 3, Replication: "shop", Time: at(0), Kind: applierv1.EventKind_EVENT_KIND_CREATED, Text: "created from db1:7400"},
		{Id: 4, Replication: "shop", Time: at(1), Kind: applierv1.EventKind_EVENT_KIND_STATE, State: applierv1.State_STATE_CATCHING_UP, Position: at16()},
		{Id: 7, Replication: "shop", Time: at(60), Kind: applierv1.EventKind_EVENT_KIND_RETRIED, State: applierv1.State_STATE_RETRYING, Code: "SOURCE_UNREACHABLE",
			Text: "no answer from db1:7400\nfor 20 s", Side: applierv1.FaultSide_FAULT_SIDE_REMOTE, Count: 4, Position: at16()},
		{Id: 9, Time: at(90), Kind: applierv1.EventKind_EVENT_KIND_LOST, Count: 12, Text: "12 events could not be written in time"},
	}
}
