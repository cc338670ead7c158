package main

import (
	"strings"
	"testing"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// runOf is a run that comes into states one after the other.
func runOf(states ...applierv1.State) *fakeApplier {
	f := &fakeApplier{}
	for _, state := range states {
		f.watch = append(f.watch, func() (*applierv1.Replication, error) {
			return &applierv1.Replication{Name: "nightly", State: state, CopiedRows: 1200, Transactions: 3, CompletedPosition: at(0x20), Reason: "no such table", ReasonCode: "UNKNOWN_TABLE"}, nil
		})
	}
	return f
}

func TestRunTellsHowItEnded(t *testing.T) {
	for _, test := range []struct {
		end  applierv1.State
		code int
		want string
	}{
		{applierv1.State_STATE_COMPLETED, exitDone, "run nightly is completed: 1,200 rows copied, 3 transactions applied, up to 0/20\n"},
		{applierv1.State_STATE_FAILED, exitFailed, "UNKNOWN_TABLE: no such table"},
		{applierv1.State_STATE_STOPPED, exitFailed, "run nightly was cancelled"},
		{applierv1.State_STATE_SYNCING, exitFailed, "`syncline replication show nightly` does"}, // the stream broke off
	} {
		f := runOf(applierv1.State_STATE_SYNCING, test.end)
		out, errOut, code := command(t, nil, "replication", "run", "--source", "db1:7400", "--table", "public.orders", "--name", "nightly", "--addr", serveFake(t, f))
		if code != test.code || !strings.Contains(out+errOut, test.want) {
			t.Errorf("%s: exit code %d, %q %q", test.end, code, out, errOut)
		}
		if f.ran.GetName() != "nightly" || f.ran.GetSpec().GetIncludeTables()[0] != "public.orders" || f.ran.GetSpec().GetSource() != "db1:7400" {
			t.Errorf("asked for %v", f.ran)
		}
	}
	if _, errOut, code := command(t, nil, "replication", "run"); code != exitWrongUse || !strings.Contains(errOut, "--source") {
		t.Errorf("without a source: %d %s", code, errOut)
	}
}

func TestListWatchTellsChanges(t *testing.T) {
	waiting := &applierv1.Replication{Name: "b", State: applierv1.State_STATE_WAITING, WaitingPlace: 3}
	f := &fakeApplier{fakeControl: fakeControl{changes: []*applierv1.WatchReplicationsResponse{
		{Replications: []*applierv1.Replication{{Name: "a", State: applierv1.State_STATE_RUNNING}, waiting}, Complete: true},
		{Replications: []*applierv1.Replication{{Name: "b", State: applierv1.State_STATE_RUNNING}}, Deleted: []string{"a"}},
	}}}
	out, _, code := command(t, nil, "replication", "list", "--watch", "--prefix", "", "--addr", serveFake(t, f))
	for _, want := range []string{"a  running", "b  waiting (place 3)", "b  running", "a  deleted"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
	if code != exitFailed { // it ended by itself
		t.Errorf("exit code %d", code)
	}
	// One that is in the state no more is told once more, and those that never were are not.
	out, _, _ = command(t, nil, "replication", "list", "--watch", "--state", "waiting", "--json", "--addr", serveFake(t, f))
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || strings.Contains(lines[0], `"name":"a"`) || !strings.Contains(lines[1], `"STATE_RUNNING"`) {
		t.Errorf("got %s", out)
	}
}
