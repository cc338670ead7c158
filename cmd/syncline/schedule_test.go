package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// WatchRuns tells the runs, and then how the one that goes on ends.
func (f *fakeApplier) WatchRuns(in *applierv1.WatchRunsRequest, stream grpc.ServerStreamingServer[applierv1.WatchRunsResponse]) error {
	runs := slices.Clone(f.runs[:min(int(in.GetNewest()), len(f.runs))])
	slices.Reverse(runs)
	moved, ended := proto.CloneOf(f.runs[0]), proto.CloneOf(f.runs[0])
	moved.Transactions++ // nothing to tell people
	ended.EndTime, ended.Result, ended.SetAside = timestamppb.New(longAgo.Add(time.Minute)), applierv1.RunResult_RUN_RESULT_WARNING, 2
	for _, run := range append(runs, moved, ended) {
		if err := stream.Send(&applierv1.WatchRunsResponse{Run: run}); err != nil {
			return err
		}
	}
	return rpc.Errorf(codes.Unavailable, rpc.ReasonStopping, "the server shuts down")
}

// ListRuns answers with one run on each page.
func (f *fakeApplier) ListRuns(_ context.Context, in *applierv1.ListRunsRequest) (*applierv1.ListRunsResponse, error) {
	if in.GetReplication() != "nightly" {
		return nil, rpc.Errorf(codes.NotFound, "REPLICATION_NOT_FOUND", "there is no replication %q", in.GetReplication())
	}
	i := len(in.GetPageToken())
	out := &applierv1.ListRunsResponse{Runs: f.runs[i : i+1]}
	if i+1 < len(f.runs) {
		out.NextPageToken = strings.Repeat("x", i+1)
	}
	return out, nil
}

func nightly() *applierv1.Replication {
	return &applierv1.Replication{
		Name: "nightly", State: applierv1.State_STATE_COMPLETED, SourceServerId: somebody.ServerID, NextRunTime: timestamppb.New(longAgo.Add(12 * time.Hour)), ScheduledRuns: 4,
		CompleteTime: timestamppb.New(longAgo), CompletedPosition: at16(), Applier: "db2/4711-a1b2c3", LastRun: nightlyRuns()[1],
		Spec: &applierv1.ReplicationSpec{Source: "db1:7400", Mode: applierv1.Mode_MODE_ONCE, Schedule: &applierv1.Schedule{
			Cron: "0 2 * * *", TimeZone: "Europe/Berlin", Window: "22:00-06:00", Days: []string{"mon", "fri"}, MaxRuns: 10, Jitter: durationpb.New(5 * time.Minute), NotAfter: timestamppb.New(longAgo.Add(1000 * time.Hour)),
		}},
	}
}

func nightlyRuns() []*applierv1.Run {
	began := timestamppb.New(longAgo)
	return []*applierv1.Run{
		{Id: 9, Replication: "nightly", Trigger: applierv1.RunTrigger_RUN_TRIGGER_USER, BeginTime: began, Applier: "db2/4711-a1b2c3", Takeovers: 1, Skipped: 2, Transactions: 12, Changes: 3456, From: at16(), To: at(0x16B374D848)},
		{Id: 8, Replication: "nightly", Trigger: applierv1.RunTrigger_RUN_TRIGGER_CATCH_UP, BeginTime: began, EndTime: timestamppb.New(longAgo.Add(83 * time.Second)), Result: applierv1.RunResult_RUN_RESULT_WARNING,
			Side: applierv1.FaultSide_FAULT_SIDE_REMOTE, Code: "SOURCE_UNREACHABLE", Text: "no answer", Faults: 3, Missed: 4, RowsCopied: 1_000_000, SetAside: 17, To: at16(), Applier: "db2/4711-a1b2c3"},
		{Id: 7, Replication: "nightly", Trigger: applierv1.RunTrigger_RUN_TRIGGER_SCHEDULE, BeginTime: began, EndTime: began, Result: applierv1.RunResult_RUN_RESULT_SUCCESS, To: at16(), Applier: "db3/1-d4e5f6"},
	}
}

func TestScheduleTranscripts(t *testing.T) {
	waiting := nightly()
	waiting.State, waiting.ReasonCode, waiting.Reason = applierv1.State_STATE_WAITING, "IN_USE", "applier db3/1-d4e5f6 with this database runs it; this one takes over when that one ends"
	replica := serveFake(t, identify("applier"), &fakeApplier{replication: nightly(), runs: nightlyRuns()})
	standby := serveFake(t, identify("applier"), &fakeApplier{replication: waiting})
	for name, args := range map[string][]string{
		"list":    {"replication", "list", "--addr", replica},
		"show":    {"replication", "show", "nightly", "--addr", replica},
		"status":  {"status", "--addr", replica},
		"standby": {"status", "--addr", standby},
		"runs":    {"replication", "runs", "nightly", "--limit", "0", "--addr", replica},
		"newest":  {"replication", "runs", "nightly", "--limit", "1", "--addr", replica},
		"json":    {"replication", "runs", "nightly", "--limit", "1", "--json", "--addr", replica},
		"unknown": {"replication", "runs", "shop", "--addr", replica},
		"follow":  {"replication", "runs", "nightly", "--limit", "2", "--follow", "--addr", replica},
		"limit":   {"replication", "runs", "nightly", "--limit", "-1", "--addr", replica},
		"every":   {"replication", "update", "nightly", "--schedule", "@every often", "--addr", replica},
		"both":    {"replication", "update", "nightly", "--schedule", "@daily", "--cron", "0 2 * * *", "--addr", replica},
		"none":    {"replication", "update", "nightly", "--schedule", "none", "--window", "22:00-06:00", "--addr", replica},
		"time":    {"replication", "update", "nightly", "--cron", "@daily", "--not-after", "tomorrow", "--addr", replica},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, args...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			text = strings.NewReplacer(replica, "REPLICA", standby, "STANDBY").Replace(text)
			golden(t, "schedule_"+name, text+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}

// TestScheduleFlags: a schedule makes a replication one of mode once when it is created, and is changed as a whole.
func TestScheduleFlags(t *testing.T) {
	applier := &fakeApplier{}
	replica := serveFake(t, applier)
	_, errOut, code := command(t, nil, "replication", "create", "nightly", "--source", "db1:7400", "--addr", replica, "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--window", "22:00-06:00",
		"--days", "mon,fri", "--max-runs", "10", "--jitter", "5m", "--not-after", longAgo.Add(1000*time.Hour).Format(time.RFC3339))
	want := nightly().GetSpec()
	if code != exitDone || !proto.Equal(applier.created.GetSpec(), want) {
		t.Errorf("exit code %d, %s, sent %v", code, errOut, applier.created)
	}
	for _, test := range []struct {
		args []string
		want *applierv1.ReplicationSpec
	}{
		{[]string{"--schedule", "@every 10m"}, &applierv1.ReplicationSpec{Schedule: &applierv1.Schedule{Interval: durationpb.New(10 * time.Minute)}}},
		{[]string{"--schedule", "@daily", "--jitter", "1h"}, &applierv1.ReplicationSpec{Schedule: &applierv1.Schedule{Cron: "@daily", Jitter: durationpb.New(time.Hour)}}},
		{[]string{"--schedule", "none"}, &applierv1.ReplicationSpec{}},
	} {
		_, errOut, code := command(t, nil, append([]string{"replication", "update", "nightly", "--addr", replica}, test.args...)...)
		if paths := applier.updated.GetUpdateMask().GetPaths(); code != exitDone || len(paths) != 1 || paths[0] != "schedule" || !proto.Equal(applier.updated.GetSpec(), test.want) {
			t.Errorf("%v: exit code %d, %s, sent %v", test.args, code, errOut, applier.updated)
		}
	}
	applier.refusal = rpc.Invalid("spec.schedule.time_zone", "%q is no time zone", "x")
	if _, errOut, code := command(t, nil, "replication", "update", "nightly", "--addr", replica, "--cron", "@daily", "--timezone", "x"); code != exitWrongUse || !strings.HasPrefix(errOut, "syncline: --timezone: ") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}
