package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func progressed(p *applierv1.VerifyProgress) *applierv1.VerifyReplicationResponse {
	return &applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Progress{Progress: p}}
}

func differs(d *applierv1.RowDifference) *applierv1.VerifyReplicationResponse {
	return &applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Difference{Difference: d}}
}

func ended(t *applierv1.TableVerification) *applierv1.VerifyReplicationResponse {
	return &applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Table{Table: t}}
}

func concluded(r *applierv1.VerifyResult) *applierv1.VerifyReplicationResponse {
	return &applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Result{Result: r}}
}

// unequal has every kind of difference and outcome.
func unequal() []*applierv1.VerifyReplicationResponse {
	missing, extra, changed := applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING, applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA, applierv1.DifferenceKind_DIFFERENCE_KIND_CHANGED
	return []*applierv1.VerifyReplicationResponse{
		progressed(&applierv1.VerifyProgress{Phase: "opening snapshots", Detail: "transaction 815 of pgbench is still writing"}),
		progressed(&applierv1.VerifyProgress{Phase: "comparing", Tables: 5, TablesDone: 1, Rows: 1_200_000, EstimatedRows: 3_000_000}),
		differs(&applierv1.RowDifference{Schema: "public", Table: "orders", Kind: changed, KeyColumns: []string{"region", "id"}, Key: []string{"eu", "17"}, Columns: []string{"amount", "note"}, Count: 1}),
		differs(&applierv1.RowDifference{Schema: "public", Table: "orders", Kind: missing, KeyColumns: []string{"region", "id"}, Key: []string{"eu\nx", strings.Repeat("ü", 100)}, Count: 1}),
		ended(&applierv1.TableVerification{
			Schema: "public", Table: "orders", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT, Position: at(0x20), SourceRows: 1_200_000, ReplicaRows: 1_199_999,
			Missing: 1, Changed: 1, Unexamined: 20_000,
		}),
		differs(&applierv1.RowDifference{Schema: "public", Table: "My Events", Kind: extra, Key: []string{`a="1", b=NULL`}, Count: 3}),
		ended(&applierv1.TableVerification{Schema: "public", Table: "My Events", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT, Position: at(0x20), SourceRows: 7, ReplicaRows: 10, Extra: 3}),
		ended(&applierv1.TableVerification{Schema: "public", Table: "gone", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_MISSING, Reason: "the replica does not have it"}),
		ended(&applierv1.TableVerification{Schema: "public", Table: "later", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, Reason: "the copy of table public.later is not finished"}),
		ended(&applierv1.TableVerification{Schema: "public", Table: "same", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_EQUAL, Position: at(0x20), SourceRows: 5, ReplicaRows: 5}),
		concluded(&applierv1.VerifyResult{TablesEqual: 1, TablesDifferent: 3, TablesNotCompared: 1, Rows: 1_200_012, Differences: 5, Position: at(0x20)}),
	}
}

func TestVerifyTranscripts(t *testing.T) {
	equal := []*applierv1.VerifyReplicationResponse{
		ended(&applierv1.TableVerification{Schema: "public", Table: "same", Outcome: applierv1.TableOutcome_TABLE_OUTCOME_EQUAL, Position: at(0x20), SourceRows: 12_345, ReplicaRows: 12_345}),
		concluded(&applierv1.VerifyResult{Equal: true, TablesEqual: 1, Rows: 12_345, Position: at(0x20)}),
	}
	for name, test := range map[string]struct {
		answers []*applierv1.VerifyReplicationResponse
		args    []string
	}{
		"verify_equal":     {equal, []string{"verify", "shop"}},
		"verify_different": {unequal(), []string{"verify", "shop"}},
		"verify_json":      {unequal()[:4], []string{"verify", "shop", "--json"}},
		"verify_unknown":   {nil, []string{"verify", "sop"}},
		"verify_flag":      {nil, []string{"verify", "shop", "--differences", "-1"}},
		"verify_broken":    {equal[:1], []string{"verify", "shop"}},
		"verify_no_name":   {nil, []string{"verify"}},
	} {
		t.Run(name, func(t *testing.T) {
			replica := serveFake(t, identify("applier"), &fakeApplier{replication: replication(), verified: test.answers})
			out, errOut, code := command(t, nil, append(test.args, "--addr", replica)...)
			text := "$ syncline " + strings.Join(test.args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, name, strings.ReplaceAll(text, replica, "REPLICA")+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}

func TestVerifySendsTheRequest(t *testing.T) {
	applier := &fakeApplier{replication: replication(), verified: unequal()}
	replica := serveFake(t, applier)
	out, _, code := command(t, nil, "verify", "shop", "--json", "--table", "public.a", "--exclude-table", "public.b", "--differences", "7", "--max-hold", "2m", "--addr", replica)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	want := &applierv1.VerifyReplicationRequest{Name: "shop", IncludeTables: []string{"public.a"}, ExcludeTables: []string{"public.b"}, MaxDifferences: 7, MaxHold: durationpb.New(2 * time.Minute)}
	if !proto.Equal(applier.asked, want) {
		t.Errorf("asked %v", applier.asked)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var result applierv1.VerifyResult
	if err := protojson.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil || result.GetTablesDifferent() != 3 {
		t.Errorf("the last line is %s: %v", lines[len(lines)-1], err)
	}
}
