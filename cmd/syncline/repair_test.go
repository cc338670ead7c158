package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func mending() *applierv1.RepairProgress {
	return &applierv1.RepairProgress{Phase: "mending", Pass: 1, Tables: 5, TablesDone: 5, Rows: 3_000_000, EstimatedRows: 3_000_000, Mended: 1_500, ToMend: 20_000}
}

func repairedTable(name string, outcome applierv1.RepairOutcome, reason string) *applierv1.TableRepair {
	return &applierv1.TableRepair{Schema: "public", Table: name, Outcome: outcome, Reason: reason, Position: at(0x20), SourceRows: 1_200_000, Inserted: 1, Updated: 2_000, Deleted: 3}
}

// repairAnswers has every kind of row and outcome.
func repairAnswers(dryRun bool) []*applierv1.RepairReplicationResponse {
	row := func(r *applierv1.RepairedRow) *applierv1.RepairReplicationResponse {
		return &applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Row{Row: r}}
	}
	ended := func(t *applierv1.TableRepair) *applierv1.RepairReplicationResponse {
		return &applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Table{Table: t}}
	}
	progress := func(p *applierv1.RepairProgress) *applierv1.RepairReplicationResponse {
		return &applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Progress{Progress: p}}
	}
	answers := []*applierv1.RepairReplicationResponse{
		progress(&applierv1.RepairProgress{Phase: "opening snapshots", Detail: "transaction 815 of pgbench is still writing", Pass: 1}),
		progress(&applierv1.RepairProgress{Phase: "comparing", Pass: 1, Tables: 5, TablesDone: 1, Rows: 1_200_000, EstimatedRows: 3_000_000}),
		row(&applierv1.RepairedRow{Schema: "public", Table: "orders", Action: applierv1.RepairAction_REPAIR_ACTION_UPDATE, KeyColumns: []string{"region", "id"}, Key: []string{"eu", "17"}, Columns: []string{"amount", "note"}, Count: 1}),
		row(&applierv1.RepairedRow{Schema: "public", Table: "orders", Action: applierv1.RepairAction_REPAIR_ACTION_INSERT, KeyColumns: []string{"region", "id"}, Key: []string{"eu", "18"}, Count: 1}),
		row(&applierv1.RepairedRow{Schema: "public", Table: "My Events", Action: applierv1.RepairAction_REPAIR_ACTION_DELETE, Key: []string{`a="1", b=NULL`}, Count: 3}),
		ended(repairedTable("same", applierv1.RepairOutcome_REPAIR_OUTCOME_EQUAL, "")),
	}
	result := &applierv1.RepairResult{DryRun: dryRun, TablesEqual: 1, TablesNotMended: 1, Inserted: 2, Updated: 4_000, Deleted: 6, Position: at(0x20)}
	if dryRun {
		different := repairedTable("orders", applierv1.RepairOutcome_REPAIR_OUTCOME_DIFFERENT, "")
		different.Unexamined = 10_000
		answers, result.TablesDifferent = append(answers, ended(different)), 1
	} else {
		answers, result.TablesMended = append(answers, progress(mending()), ended(repairedTable("orders", applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED, ""))), 1
	}
	answers = append(answers, ended(repairedTable("later", applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED, "the copy of table public.later is not finished")))
	return append(answers, &applierv1.RepairReplicationResponse{Event: &applierv1.RepairReplicationResponse_Result{Result: result}})
}

func TestRepairTranscripts(t *testing.T) {
	equal := []*applierv1.RepairReplicationResponse{{Event: &applierv1.RepairReplicationResponse_Result{
		Result: &applierv1.RepairResult{Equal: true, TablesEqual: 4, TablesMended: 1, Updated: 1_234, Resolved: 1_500, Unsynced: 2, Position: at(0x20)},
	}}}
	done := applierv1.SyncState_SYNC_STATE_COMPLETED
	jobs := []*applierv1.Sync{
		{SyncId: "a1", Replication: "shop", Mode: applierv1.SyncMode_SYNC_MODE_COPY, State: applierv1.SyncState_SYNC_STATE_FAILED, ReasonCode: "SOURCE_UNREACHABLE", Reason: "no Syncline server answers at db1:7400", CreateTime: timestamppb.New(longAgo)},
		{SyncId: "b2", Replication: "shop", Mode: applierv1.SyncMode_SYNC_MODE_INCREMENTAL, DryRun: true, State: done, CreateTime: timestamppb.New(longAgo), Result: &applierv1.RepairResult{DryRun: true, TablesDifferent: 1, TablesEqual: 4}},
		{SyncId: "d4", Replication: "shop", Mode: applierv1.SyncMode_SYNC_MODE_INCREMENTAL, State: applierv1.SyncState_SYNC_STATE_RUNNING, CreateTime: timestamppb.New(longAgo), Progress: mending()},
		{
			SyncId: "c3", Replication: "shop", Mode: applierv1.SyncMode_SYNC_MODE_INCREMENTAL, State: done, CreateTime: timestamppb.New(longAgo), Result: equal[0].GetResult(),
			Tables: []*applierv1.TableRepair{repairedTable("orders", applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED, "")}, Rows: []*applierv1.RepairedRow{repairAnswers(false)[2].GetRow()},
		},
	}
	for name, test := range map[string]struct {
		answers []*applierv1.RepairReplicationResponse
		args    []string
	}{
		"repair_equal":     {equal, []string{"repair", "shop"}},
		"repair_different": {repairAnswers(false), []string{"repair", "shop"}},
		"repair_dry_run":   {repairAnswers(true), []string{"repair", "shop", "--dry-run"}},
		"repair_json":      {repairAnswers(false)[2:6], []string{"repair", "shop", "--json"}},
		"repair_flag":      {nil, []string{"repair", "shop", "--rows", "-1"}},
		"repair_unknown":   {nil, []string{"repair", "sop"}},
		"repair_broken":    {repairAnswers(false)[:6], []string{"repair", "shop"}},
		"sync_begun":       {nil, []string{"sync", "shop", "--mode", "incremental"}},
		"sync_wait":        {nil, []string{"sync", "shop", "--mode", "incremental", "--wait"}},
		"sync_no_mode":     {nil, []string{"sync", "shop"}},
		"sync_list":        {nil, []string{"sync", "list"}},
		"sync_show":        {nil, []string{"sync", "show", "d4"}},
		"sync_watch":       {nil, []string{"sync", "watch", "a1"}},
		"sync_watch_dry":   {nil, []string{"sync", "watch", "b2"}},
		"sync_cancel":      {nil, []string{"sync", "cancel", "a1"}},
		"sync_unknown":     {nil, []string{"sync", "cancel", "z9"}},
		"sync_no_id":       {nil, []string{"sync", "show"}},
	} {
		t.Run(name, func(t *testing.T) {
			replica := serveFake(t, identify("applier"), &fakeApplier{replication: replication(), repaired: test.answers, syncs: jobs})
			out, errOut, code := command(t, nil, append(test.args, "--addr", replica)...)
			text := "$ syncline " + strings.Join(test.args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, name, strings.ReplaceAll(text, replica, "REPLICA")+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}

func TestRepairSendsTheRequest(t *testing.T) {
	applier := &fakeApplier{replication: replication(), repaired: repairAnswers(false), syncs: []*applierv1.Sync{{SyncId: "a1"}}}
	replica := serveFake(t, applier)
	out, _, code := command(t, nil, "repair", "shop", "--json", "--table", "public.a", "--exclude-table", "public.b", "--rows", "7", "--max-hold", "2m", "--dry-run", "--addr", replica)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	want := &applierv1.RepairReplicationRequest{Name: "shop", IncludeTables: []string{"public.a"}, ExcludeTables: []string{"public.b"}, MaxRows: 7, MaxHold: durationpb.New(2 * time.Minute), DryRun: true}
	if !proto.Equal(applier.toRepair, want) {
		t.Errorf("asked %v", applier.toRepair)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var result applierv1.RepairResult
	if err := protojson.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil || result.GetTablesMended() != 1 {
		t.Errorf("the last line is %s: %v", lines[len(lines)-1], err)
	}
	if _, _, code = command(t, nil, "sync", "shop", "--mode", "copy", "--table", "public.a", "--exclude-table", "public.b", "--max-hold", "2m", "--dry-run", "--addr", replica); code != 0 {
		t.Errorf("exit code %d", code)
	}
	sync := &applierv1.SyncReplicationRequest{Name: "shop", Mode: applierv1.SyncMode_SYNC_MODE_COPY, IncludeTables: []string{"public.a"}, ExcludeTables: []string{"public.b"}, MaxHold: durationpb.New(2 * time.Minute), DryRun: true}
	if !proto.Equal(applier.toSync, sync) {
		t.Errorf("asked %v", applier.toSync)
	}
}
