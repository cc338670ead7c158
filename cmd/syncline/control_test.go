package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func at16() *changev1.Position { return at(0x16B3000000) }

func planned() *applierv1.ReplicationPlan {
	return &applierv1.ReplicationPlan{
		ChangedFields: []string{"exclude_tables", "include_tables"}, Restarts: true, EstimatedRows: 1200, EstimatedBytes: 1 << 20,
		Tables: []*applierv1.PlannedTable{
			{Schema: "public", Name: "orders", Action: applierv1.TableAction_TABLE_ACTION_CREATE, EstimatedRows: 1200, EstimatedBytes: 1 << 20},
			{Schema: "public", Name: "parts", Action: applierv1.TableAction_TABLE_ACTION_COPY, EstimatedRows: -1},
			{Schema: "public", Name: "log", Action: applierv1.TableAction_TABLE_ACTION_REMOVE},
		},
		Warnings: []string{"table public.tmp is not replicated: it has no key"},
	}
}

func TestControlTranscripts(t *testing.T) {
	inTrouble := replication()
	inTrouble.Etag = "61a-4"
	inTrouble.History = []*applierv1.StateChange{{Time: timestamppb.New(longAgo), State: applierv1.State_STATE_RETRYING}}
	inTrouble.RecentFaults = []*applierv1.Fault{{Time: timestamppb.New(longAgo.Add(time.Minute)), Code: "SOURCE_UNREACHABLE", Text: "no answer", Side: applierv1.FaultSide_FAULT_SIDE_REMOTE, Count: 3, Retried: true}}
	inTrouble.Spec.Description, inTrouble.Pending, inTrouble.AutoResyncs, inTrouble.CopiedRows, inTrouble.CopiedBytes = "orders for the reports", "resync", 2, 2_000_000, 200<<20
	applier := &fakeApplier{replication: inTrouble, fakeControl: fakeControl{plan: planned(), events: runLog(), later: runLog()}}
	replica := serveFake(t, identify("applier"), applier)
	for name, args := range map[string][]string{
		"update":            {"replication", "update", "shop", "--table", "public.*", "--addr", replica},
		"update_dry_run":    {"replication", "update", "shop", "--table", "public.*", "--dry-run", "--addr", replica},
		"update_etag":       {"replication", "update", "shop", "--copy-workers", "2", "--etag", "x-1", "--addr", replica},
		"update_nothing":    {"replication", "update", "shop", "--addr", replica},
		"update_resync_how": {"replication", "update", "shop", "--auto-resync", "always", "--addr", replica},
		"resync":            {"replication", "resync", "shop", "--addr", replica},
		"start_from":        {"replication", "start", "shop", "--from", "0/10", "--addr", replica},
		"start_force":       {"replication", "start", "shop", "--force", "--addr", replica},
		"trouble_status":    {"status", "--addr", replica},
		"list_failed":       {"replication", "list", "--state", "failed", "--addr", replica},
		"list_state":        {"replication", "list", "--state", "broken", "--addr", replica},
		"log":               {"log", "--addr", replica},
		"log_one":           {"replication", "log", "shop", "--addr", replica},
		"log_newest":        {"log", "--limit", "1", "--addr", replica},
		"log_json":          {"replication", "log", "shop", "--limit", "1", "--json", "--addr", replica},
		"log_follow":        {"replication", "log", "shop", "--limit", "1", "-f", "--addr", replica},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, args...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, "control_"+name, strings.ReplaceAll(text, replica, "REPLICA")+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}

func TestCreateDryRun(t *testing.T) {
	applier := &fakeApplier{fakeControl: fakeControl{plan: planned()}}
	out, errOut, code := command(t, nil, "replication", "create", "shop", "--source", "db1:7400", "--dry-run", "--addr", serveFake(t, applier))
	if code != exitDone || !strings.HasPrefix(out, "replication shop would be created: 3 tables, about 1,200 rows, 1.0 MiB\n") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
	if !applier.created.GetValidateOnly() || applier.replication != nil {
		t.Errorf("sent %v", applier.created)
	}
}

// TestUpdateSendsWhatWasGiven: the mask names the flags of the command line, and none that a variable sets.
func TestUpdateSendsWhatWasGiven(t *testing.T) {
	applier := &fakeApplier{replication: replication()}
	replica := serveFake(t, applier)
	environment := []string{"SYNCLINE_ADDR=" + replica, "SYNCLINE_SOURCE=elsewhere:7400", "SYNCLINE_REPLACE=true"}
	_, errOut, code := command(t, environment, "replication", "update", "shop", "--retry-cap", "5s", "--retry-base", "0", "--compress", "none", "--auto-resync", "copy",
		"--description", "", "--table", "", "--etag", "", "--accept-source")
	if code != exitDone {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	want := &applierv1.UpdateReplicationRequest{
		Name: "shop", AcceptSource: true,
		Spec:       &applierv1.ReplicationSpec{RetryCap: durationpb.New(5 * time.Second), AutoResync: applierv1.AutoResync_AUTO_RESYNC_COPY},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"auto_resync", "compression", "description", "include_tables", "retry_base", "retry_cap"}},
	}
	if !proto.Equal(applier.updated, want) {
		t.Errorf("sent %v", applier.updated)
	}
	applier.refusal = rpc.Invalid("spec.retry_cap", "1ms is not from 10ms to 24h0m0s")
	if _, errOut, code := command(t, environment, "replication", "update", "shop", "--retry-cap", "1ms"); code != exitWrongUse || !strings.HasPrefix(errOut, "syncline: --retry-cap: 1ms") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestStartFromSendsThePosition(t *testing.T) {
	applier := &fakeApplier{replication: replication()}
	_, errOut, code := command(t, nil, "replication", "start", "shop", "--from", logID.String()+"@16/B3000000", "--force", "--addr", serveFake(t, applier))
	if want := (&applierv1.StartReplicationRequest{Name: "shop", From: at16(), Force: true}); code != exitDone || !proto.Equal(applier.started, want) {
		t.Errorf("exit code %d, %s, sent %v", code, errOut, applier.started)
	}
}

// TestEveryFieldOfTheSpecHasAFlag: whoever adds one finds out here.
func TestEveryFieldOfTheSpecHasAFlag(t *testing.T) {
	update, create := newUpdateCommand().Flags(), newCreateCommand().Flags()
	fields := (&applierv1.ReplicationSpec{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		name := specFlags["spec."+string(fields.Get(i).Name())]
		given, decidedAtFirst := strings.TrimPrefix(name, "--"), slices.Contains([]string{"--set", "--param", "--from-restore", "--initial", "--rename", "--shared"}, name)
		if name == "" || create.Lookup(given) == nil || update.Lookup(given) == nil && !decidedAtFirst {
			t.Errorf("field %s has no flag", fields.Get(i).Name())
		}
	}
}

func TestLogAsJSON(t *testing.T) {
	replica := serveFake(t, &fakeApplier{fakeControl: fakeControl{events: runLog()}})
	out, _, _ := command(t, nil, "log", "--json", "--limit", "0", "--addr", replica)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if len(lines) != 4 || !strings.Contains(lines[0], `"id":"3"`) {
		t.Errorf("got %s", out)
	}
}
