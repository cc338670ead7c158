package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func (f *fakeLogger) state() *loggerv1.GetStateResponse {
	s := loggerState()
	if f.stopped {
		s.State, s.ReasonCode, s.Reason = "stopped", "CAPTURE_STOPPED", "it was stopped"
	}
	return s
}

func (f *fakeLogger) GetConfig(context.Context, *loggerv1.GetConfigRequest) (*loggerv1.GetConfigResponse, error) {
	defaults := &loggerv1.LoggerConfig{
		MaxAge: durationpb.New(168 * time.Hour), MaxBytes: 64 << 30, KeepForFollowersBytes: 64 << 30, FollowerTimeout: durationpb.New(336 * time.Hour), LogRemoteChanges: true,
	}
	c := proto.CloneOf(defaults)
	c.MaxAge, c.ExcludeTables, c.LogRemoteChanges = durationpb.New(72*time.Hour), []string{"public.sessions", "audit.*"}, false
	return &loggerv1.GetConfigResponse{Config: c, SetFields: []string{"max_age", "exclude_tables", "log_remote_changes"}, Defaults: defaults, UpdateTime: timestamppb.New(longAgo)}, nil
}

func (f *fakeLogger) UpdateConfig(_ context.Context, in *loggerv1.UpdateConfigRequest) (*loggerv1.UpdateConfigResponse, error) {
	f.set = in
	if in.GetConfig().GetMaxBytes() == 13 {
		return nil, rpc.Invalid("config.max_bytes", "not good")
	}
	return &loggerv1.UpdateConfigResponse{}, nil
}

func (f *fakeLogger) StopCapture(context.Context, *loggerv1.StopCaptureRequest) (*loggerv1.StopCaptureResponse, error) {
	f.stopped = true
	return &loggerv1.StopCaptureResponse{State: f.state()}, nil
}

func (f *fakeLogger) StartCapture(context.Context, *loggerv1.StartCaptureRequest) (*loggerv1.StartCaptureResponse, error) {
	f.stopped = false
	return &loggerv1.StartCaptureResponse{State: f.state()}, nil
}

func (f *fakeLogger) DeleteFollower(_ context.Context, in *loggerv1.DeleteFollowerRequest) (*loggerv1.DeleteFollowerResponse, error) {
	if in.GetFollower() != "replica-1/shop" {
		return nil, rpc.Errorf(codes.NotFound, "FOLLOWER_UNKNOWN", "there is no follower %q", in.GetFollower())
	}
	return &loggerv1.DeleteFollowerResponse{}, nil
}

func (f *fakeLogger) GetRanges(context.Context, *loggerv1.GetRangesRequest) (*loggerv1.GetRangesResponse, error) {
	return &loggerv1.GetRangesResponse{LogId: logID.String(), FirstLsn: 0x10, LastLsn: 0x30}, nil
}

func (f *fakeLogger) ListUpdatedSince(_ context.Context, in *loggerv1.ListUpdatedSinceRequest) (*loggerv1.ListUpdatedSinceResponse, error) {
	f.listed = append(f.listed, proto.CloneOf(in))
	key := func(name, value string) *loggerv1.KeyColumn { return &loggerv1.KeyColumn{Name: name, Value: &value} }
	one := func(table string, action loggerv1.Action, at uint64, columns ...*loggerv1.KeyColumn) *loggerv1.Updated {
		return &loggerv1.Updated{Schema: "public", Table: table, Action: action, Key: columns, Lsn: at, CommitTime: timestamppb.New(longAgo)}
	}
	switch in.GetPageToken() {
	case "":
		if in.GetPosition().GetLsn() == 0x99 {
			return nil, rpc.Errorf(codes.OutOfRange, "POSITION_AHEAD", "it is after the end of the change log")
		}
		return &loggerv1.ListUpdatedSinceResponse{
			Updates: []*loggerv1.Updated{
				one("orders", loggerv1.Action_ACTION_CREATE, 0x18, key("region", "north"), key("id", "1")),
				one("My \"Table\"", loggerv1.Action_ACTION_UPDATE, 0x1C, key("a b", "two words\n"), &loggerv1.KeyColumn{Name: "c"}),
			},
			From: in.GetPosition(), Through: at(0x1C), End: at(0x30), NextPageToken: "next",
		}, nil
	case "next":
		long := key("v", "beginning")
		long.CutBytes, long.CutDigest = 5000, "00ff"
		return &loggerv1.ListUpdatedSinceResponse{
			Updates: []*loggerv1.Updated{
				one("orders", loggerv1.Action_ACTION_DELETE, 0x20, key("region", ""), key("id", "2")),
				one("log", loggerv1.Action_ACTION_TRUNCATE, 0x28), one("log", loggerv1.Action_ACTION_CREATE, 0x30, long),
			},
			From: &changev1.Position{LogId: logID.String(), Lsn: 0x1C}, Through: at(0x30), End: at(0x30),
		}, nil
	}
	return nil, rpc.Invalid("page_token", "it is none")
}

func (f *fakeInventory) ListSnapshots(context.Context, *inventoryv1.ListSnapshotsRequest) (*inventoryv1.ListSnapshotsResponse, error) {
	if f.closed != "" {
		return &inventoryv1.ListSnapshotsResponse{}, nil
	}
	return &inventoryv1.ListSnapshotsResponse{Snapshots: []*inventoryv1.Snapshot{{
		SnapshotId: "7a93bda9ef12d4517198cba54bfa0f2a", Position: at(0x20), CreateTime: timestamppb.New(longAgo), ExpireTime: timestamppb.New(longAgo.Add(time.Minute)),
		ActiveDumps: 2, Ttl: durationpb.New(time.Minute), Client: "10.0.0.9:40000", SessionPid: 815, Reads: 1234,
	}}}, nil
}
