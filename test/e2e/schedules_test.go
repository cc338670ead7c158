package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// scheduleFaultPoints are those of schedules; TestFaultTable says that there are no others.
var scheduleFaultPoints = []faultPoint{
	{name: applier.FaultClaiming, process: "applier", counts: []int{1}},
	{name: applier.FaultClaimed, process: "applier", counts: []int{1}},
}

// hourly is a schedule whose runs the tests make due themselves: they need not wait for them.
func hourly(s *applierv1.ReplicationSpec) {
	s.Mode, s.Schedule = applierv1.Mode_MODE_ONCE, &applierv1.Schedule{Interval: durationpb.New(time.Hour)}
}

// due makes the next run one that was due some time ago.
func (c *controlled) due(ago string) {
	c.t.Helper()
	pgtest.Exec(c.t, c.target, "UPDATE syncline.replications SET next_due = now() - $1::text::interval, next_run = now() - $1::text::interval WHERE next_run IS NOT NULL", ago)
}

// ran waits until so many runs have ended and none goes on, and returns what the run log has of them, the oldest first.
func (c *controlled) ran(n *node, count int) []*applierv1.Run {
	c.t.Helper()
	var runs []*applierv1.Run
	pgtest.Eventually(c.t, patience, func() error {
		answer, err := n.applier().ListRuns(c.t.Context(), &applierv1.ListRunsRequest{Replication: "shop"})
		if err != nil {
			return err
		}
		if runs = answer.GetRuns(); len(runs) < count || runs[0].GetEndTime() == nil {
			return fmt.Errorf("%d runs: %v", len(runs), runs)
		}
		return nil
	})
	if len(runs) > count {
		c.t.Fatalf("%d runs, expected %d: %v", len(runs), count, runs)
	}
	return runs
}

// everywhere waits for a state at each of several appliers.
func (c *controlled) everywhere(state applierv1.State, code string, nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		pgtest.Eventually(c.t, patience, func() error {
			r, err := n.get("shop")
			if err == nil && (r.GetState() != state || r.GetReasonCode() != code) {
				err = fmt.Errorf("it is %s %s: %s", r.GetState(), r.GetReasonCode(), r.GetReason())
			}
			return err
		})
	}
}

// TestSchedules runs two appliers on one database, which kill -9 ends in the middle of runs and of their begins: each run that was due is in the
// run log once, and the rows are equal.
func TestSchedules(t *testing.T) {
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	for name, run := range map[string]func(*controlled){"taken over": (*controlled).takenOver, "controlled": (*controlled).schedulesControlled} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(s.controlled(t))
		})
	}
}

func (c *controlled) second() *node {
	c.t.Helper()
	second := startReplica(c.t, c.targetURL, "--retry-max", "500ms")
	return second
}

func (c *controlled) takenOver() {
	t := c.t
	first, second := c.replica, c.second()
	first.mustCreate("shop", c.primary.grpc, hourly)
	c.ran(first, 1) // an interval begins with a run, whichever applier has it
	c.everywhere(applierv1.State_STATE_COMPLETED, "", first, second)
	c.sameRows()

	// A run that is held up goes on at the other applier when its own is killed.
	holder := pgtest.Connect(t, c.targetURL)
	pgtest.Exec(t, holder, "BEGIN; LOCK TABLE c IN SHARE MODE")
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (1001, 'x'); INSERT INTO c VALUES (1001, 'x'); DELETE FROM b WHERE id = 3")
	c.due("1 second")
	owner, other := c.owner(first, second)
	shown, err := other.get("shop")
	if err != nil || !strings.Contains(shown.GetReason(), shown.GetApplier()) || shown.GetErrorCount() != 0 || shown.GetLastRun().GetEndTime() != nil {
		t.Errorf("the one that stands by shows %v, %v", shown, err)
	}
	stream, err := other.applier().VerifyReplication(t.Context(), &applierv1.VerifyReplicationRequest{Name: "shop"})
	if err == nil {
		_, err = stream.Recv()
	}
	c.refused(err, codes.FailedPrecondition, inUse, shown.GetApplier())
	c.due("1 second") // once more while it goes on: that one is skipped
	pgtest.Eventually(t, patience, func() error {
		if n := pgtest.QueryRow[int](t, c.target, "SELECT skipped FROM syncline.job_runs WHERE ended_at IS NULL"); n == 0 {
			return errors.New("nothing is skipped")
		}
		return nil
	})
	owner.kill9()
	pgtest.Exec(t, holder, "ROLLBACK")
	runs := c.ran(other, 2)
	if r := runs[0]; r.GetTrigger() != applierv1.RunTrigger_RUN_TRIGGER_SCHEDULE || r.GetResult() != applierv1.RunResult_RUN_RESULT_SUCCESS || r.GetTakeovers() != 1 || r.GetSkipped() != 1 || r.GetChanges() != 3 {
		t.Errorf("the run that was taken over: %v", r)
	}
	c.everywhere(applierv1.State_STATE_COMPLETED, "", other)
	c.sameRows()

	// Killed before the begin of a run is stored it has not begun; killed after that it has.
	log := filepath.Join(t.TempDir(), "faults")
	other.kill9()
	for i, point := range scheduleFaultPoints {
		first.start(faultEnv(point.name, 1, log)...)
		pgtest.Exec(t, c.conn, fmt.Sprintf("INSERT INTO b VALUES (%d, 'x')", 2001+i))
		c.due("1 second")
		first.wait(time.Minute)
		if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM syncline.job_runs WHERE ended_at IS NULL"); n != i {
			t.Errorf("%s: %d runs have begun", point.name, n)
		}
		second.start()
		second.waitHealthy(time.Minute)
		if r := c.ran(second, 3+i)[0]; r.GetMissed() != 0 || r.GetSkipped() != 0 || r.GetTakeovers() != 0 || r.GetResult() != applierv1.RunResult_RUN_RESULT_SUCCESS {
			t.Errorf("%s: the run is %v", point.name, r)
		}
		c.everywhere(applierv1.State_STATE_COMPLETED, "", second)
		c.sameRows()
		second.kill9()
	}
	if hits := faultsHit(t, log); len(hits) != len(scheduleFaultPoints) {
		t.Errorf("killed at %v", hits)
	}

	// What was due while no applier ran is shown, and caught up by one run, once.
	pgtest.Exec(t, c.conn, "INSERT INTO b VALUES (3001, 'x')")
	c.due("205 minutes")
	first.start()
	second.start()
	for _, n := range []*node{first, second} {
		n.waitHealthy(time.Minute)
	}
	if r := c.ran(second, 5)[0]; r.GetTrigger() != applierv1.RunTrigger_RUN_TRIGGER_CATCH_UP || r.GetMissed() != 4 {
		t.Errorf("missed: %v", r)
	}
	c.everywhere(applierv1.State_STATE_COMPLETED, "", first, second)
	c.sameRows()
	next := pgtest.QueryRow[int](t, c.target, "SELECT extract(epoch FROM next_run - now())::int / 60 FROM syncline.replications")
	if next < 25 || next > 35 {
		t.Errorf("the next run comes in %d minutes", next)
	}
}

// owner tells which applier runs the replication, once the other one stands by.
func (c *controlled) owner(first, second *node) (owner, other *node) {
	c.t.Helper()
	pgtest.Eventually(c.t, patience, func() error {
		a, err := first.get("shop")
		if err != nil {
			return err
		}
		b, err := second.get("shop")
		if err != nil {
			return err
		}
		runs, waits := applierv1.State_STATE_RUNNING, applierv1.State_STATE_WAITING
		switch {
		case a.GetState() == runs && b.GetState() == waits && b.GetReasonCode() == inUse:
			owner, other = first, second
		case b.GetState() == runs && a.GetState() == waits && a.GetReasonCode() == inUse:
			owner, other = second, first
		default:
			return fmt.Errorf("one is %s %s, the other %s %s", a.GetState(), a.GetReasonCode(), b.GetState(), b.GetReasonCode())
		}
		return nil
	})
	return owner, other
}

// schedulesControlled has users decide about a schedule, at one applier and at the other.
func (c *controlled) schedulesControlled() {
	t := c.t
	first := c.replica
	_, err := first.create("shop", c.primary.grpc, func(s *applierv1.ReplicationSpec) {
		s.Schedule = &applierv1.Schedule{Cron: "every day", Window: "noon"}
	})
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "spec.schedule", "once", "spec.schedule.cron", "0 2 * * mon-fri", "spec.schedule.window", "22:00-06:00")
	_, errOut, code := run(t, "replication", "create", "shop", "--source", c.primary.grpc, "--addr", first.grpc, "--cron", "0 12 30 2 *")
	if code != 2 || !strings.Contains(errOut, "no run is ever due") {
		t.Errorf("never due: %d %s", code, errOut)
	}
	_, errOut, code = run(t, "replication", "create", "shop", "--source", c.primary.grpc, "--addr", first.grpc, "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--jitter", "5m", "--max-runs", "10")
	if code != 0 {
		t.Fatalf("create: %d %s", code, errOut)
	}
	second := c.second()
	c.everywhere(applierv1.State_STATE_WAITING, "SCHEDULED", first, second)
	for _, n := range []*node{first, second} {
		if r, err := n.get("shop"); err != nil || r.GetNextRunTime() == nil || time.Until(r.GetNextRunTime().AsTime()) > 25*time.Hour+5*time.Minute || r.GetLastRun() != nil {
			t.Errorf("before the first run: %v, %v", r, err)
		}
	}
	// Run now, at the one that has not created it; twice is once.
	for range 2 {
		if _, err := second.applier().StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "shop"}); err != nil {
			t.Fatal(rpc.Message(err))
		}
	}
	if r := c.ran(first, 1)[0]; r.GetTrigger() != applierv1.RunTrigger_RUN_TRIGGER_USER || r.GetRowsCopied() != 900 || r.GetDueTime() != nil {
		t.Errorf("run now: %v", r)
	}
	c.everywhere(applierv1.State_STATE_COMPLETED, "", first, second)
	c.sameRows()

	// A run that fails does not end the schedule. Whose fault it is, is told.
	pgtest.Exec(t, c.target, "INSERT INTO a VALUES (5001, 'in the way')")
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (5001, 'new')")
	c.due("1 second")
	if r := c.ran(first, 2)[0]; r.GetResult() != applierv1.RunResult_RUN_RESULT_FATAL || r.GetSide() != applierv1.FaultSide_FAULT_SIDE_LOCAL || r.GetCode() != "ROW_EXISTS" || r.GetTrigger() != applierv1.RunTrigger_RUN_TRIGGER_SCHEDULE {
		t.Errorf("failed: %v", r)
	}
	c.everywhere(applierv1.State_STATE_FAILED, "ROW_EXISTS", first, second)
	pgtest.Exec(t, c.target, "DELETE FROM a WHERE id = 5001")
	c.due("1 second")
	if r := c.ran(second, 3)[0]; r.GetResult() != applierv1.RunResult_RUN_RESULT_SUCCESS {
		t.Errorf("after the failed one: %v", r)
	}
	c.everywhere(applierv1.State_STATE_COMPLETED, "", first, second)
	c.sameRows()

	// Stopped at one it is stopped at both, over restarts, and nothing is due.
	if _, err := first.applier().StopReplication(t.Context(), &applierv1.StopReplicationRequest{Name: "shop"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	second.kill9()
	second.start()
	second.waitHealthy(time.Minute)
	c.everywhere(applierv1.State_STATE_STOPPED, "", first, second)
	if r, err := first.get("shop"); err != nil || r.GetNextRunTime() != nil {
		t.Errorf("stopped: %v, %v", r, err)
	}
	out, errOut, code := run(t, "replication", "runs", "shop", "--addr", second.grpc)
	if code != 0 || strings.Count(out, "\n") != 4 || !strings.Contains(out, "fatal") || !strings.Contains(out, "ROW_EXISTS") {
		t.Errorf("runs: %d %s %s", code, out, errOut)
	}
	page, err := second.applier().ListRuns(t.Context(), &applierv1.ListRunsRequest{PageSize: 2})
	if err != nil || len(page.GetRuns()) != 2 || page.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", page, err)
	}
	rest, err := second.applier().ListRuns(t.Context(), &applierv1.ListRunsRequest{PageSize: 2, PageToken: page.GetNextPageToken()})
	if err != nil || len(rest.GetRuns()) != 1 || rest.GetRuns()[0].GetId() >= page.GetRuns()[1].GetId() || rest.GetNextPageToken() != "" {
		t.Errorf("the rest is %v, %v", rest, err)
	}
	// Another applier that starts does not end a transient run, and a delete at one forgets at the other.
	if _, err := second.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	pgtest.Eventually(t, patience, func() error {
		if _, err := first.get("shop"); rpc.Code(err) != codes.NotFound {
			return fmt.Errorf("it is still there: %w", err)
		}
		return nil
	})
	holder := pgtest.Connect(t, c.targetURL)
	pgtest.Exec(t, holder, "BEGIN; LOCK TABLE c IN SHARE MODE")
	pgtest.Exec(t, c.conn, "INSERT INTO c VALUES (6001, 'x')")
	done := make(chan error, 1)
	go func() {
		told, err := c.run(context.WithoutCancel(t.Context()), "nightly", incremental)
		if err == nil && told[len(told)-1].GetState() != applierv1.State_STATE_COMPLETED {
			err = fmt.Errorf("it ended %s: %s", told[len(told)-1].GetState(), told[len(told)-1].GetReason())
		}
		done <- err
	}()
	first.waitState("nightly", patience, applierv1.State_STATE_SYNCING)
	second.kill9()
	second.start()
	second.waitHealthy(time.Minute)
	pgtest.Exec(t, holder, "ROLLBACK")
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.sameRows()
}
