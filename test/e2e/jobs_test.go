package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// jobFaultPoints are those of runs and turns; TestFaultTable says that there are no others.
var jobFaultPoints = []faultPoint{
	{name: applier.FaultLeaving, process: "applier", counts: []int{1}},
	{name: applier.FaultLeft, process: "applier", counts: []int{1}},
	{name: applier.FaultRunEnded, process: "applier", counts: []int{1}},
	{name: applier.FaultRunForgotten, process: "applier", counts: []int{1}},
}

// restFaultPoints are those of replications that rest.
var restFaultPoints = []faultPoint{
	{name: applier.FaultRestEnded, process: "applier", counts: []int{3}},
	{name: applier.FaultRestMoved, process: "applier", counts: []int{1}},
}

// TestJobs has replications that end, and more than run at a time.
func TestJobs(t *testing.T) {
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	for name, run := range map[string]func(*controlled){
		"once": (*controlled).runsOnce, "transient": (*controlled).runsTransient, "turns": (*controlled).takesTurns, "killed": (*controlled).killedAtTheEnd, "unstored": (*controlled).cannotEnd,
		"rest": (*controlled).rests,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(s.controlled(t))
		})
	}
}

func once(s *applierv1.ReplicationSpec) { s.Mode = applierv1.Mode_MODE_ONCE }

func (c *controlled) completed() *applierv1.Replication {
	c.t.Helper()
	return c.replica.waitState("shop", patience, applierv1.State_STATE_COMPLETED)
}

func (c *controlled) sameRows() {
	c.t.Helper()
	pgtest.RequireEqual(c.t, c.sourceURL, c.targetURL)
}

// runsOnce: a run ends at what was committed when it began, stays completed over a restart, and goes on where it ended.
func (c *controlled) runsOnce() {
	t := c.t
	out, errOut, code := run(t, "replication", "create", "shop", "--source", c.primary.grpc, "--addr", c.replica.grpc, "--mode", "once", "--wait", "--json")
	if code != 0 || !strings.Contains(out, "STATE_COMPLETED") {
		t.Fatalf("create --wait: exit code %d, %s%s", code, out, errOut)
	}
	if now, err := c.replica.get("shop"); err != nil || now.GetState() != applierv1.State_STATE_COMPLETED {
		t.Errorf("it was waited for, and is %s %v", now.GetState(), err)
	}
	first := c.completed()
	c.sameRows()
	if first.GetCompletedPosition().GetLsn() == 0 || first.GetCompleteTime() == nil || first.GetPosition().GetLsn() != first.GetCompletedPosition().GetLsn() {
		t.Errorf("completed at %v (%v), position %v", first.GetCompletedPosition(), first.GetCompleteTime(), first.GetPosition())
	}
	if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'syncline applier shop'"); n != 0 {
		t.Errorf("%d sessions of a run that has ended", n)
	}
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (1001, 'later'); UPDATE b SET note = 'later' WHERE id <= 10; DELETE FROM c WHERE id = 7")
	c.replica.kill9()
	c.replica.start()
	c.replica.waitHealthy(time.Minute)
	if again := c.completed(); again.GetCompletedPosition().GetLsn() != first.GetCompletedPosition().GetLsn() || again.GetTransactions() != first.GetTransactions() {
		t.Errorf("after a restart %v, before %v", again, first)
	}
	if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM a WHERE id > 1000"); n != 0 {
		t.Error("a completed run has applied something")
	}
	c.refusesWork()
	if err := c.start(nil, false); err != nil {
		t.Fatal(rpc.Message(err))
	}
	c.replica.waitApplied("shop", patience)
	second := c.completed()
	c.sameRows()
	if second.GetCompletedPosition().GetLsn() <= first.GetCompletedPosition().GetLsn() || second.GetChanges() != first.GetChanges()+12 {
		t.Errorf("the second run ended at %v after %d changes, the first one at %v after %d", second.GetCompletedPosition(), second.GetChanges(), first.GetCompletedPosition(), first.GetChanges())
	}
	answer, err := c.replica.applier().ListReplicationEvents(t.Context(), &applierv1.ListReplicationEventsRequest{Replication: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	ends := 0
	for _, e := range answer.GetEvents() {
		if e.GetKind() == applierv1.EventKind_EVENT_KIND_COMPLETED {
			ends++
		}
	}
	if ends != 2 {
		t.Errorf("%d ends in the run log", ends)
	}
	// Made continuous, it follows as others do.
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { in.Spec.Mode = applierv1.Mode_MODE_CONTINUOUS }, "mode")
	if err := c.start(nil, false); err != nil {
		t.Fatal(rpc.Message(err))
	}
	c.running()
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (1002, 'followed')")
	c.equal()
}

// run carries out a spec and returns what it told.
func (c *controlled) run(ctx context.Context, name string, edit ...func(*applierv1.ReplicationSpec)) ([]*applierv1.Replication, error) {
	spec := &applierv1.ReplicationSpec{Source: c.primary.grpc}
	for _, e := range edit {
		e(spec)
	}
	stream, err := c.replica.applier().RunReplication(ctx, &applierv1.RunReplicationRequest{Name: name, Spec: spec})
	if err != nil {
		return nil, err
	}
	var told []*applierv1.Replication
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return told, nil
		}
		if err != nil {
			return told, err
		}
		told = append(told, answer.GetReplication())
	}
}

func incremental(s *applierv1.ReplicationSpec) { s.Initial = applierv1.Initial_INITIAL_INCREMENTAL }

// nothingLeft makes sure that nothing of a transient run is left but its result.
func (c *controlled) nothingLeft() {
	c.t.Helper()
	if _, err := c.replica.get("nightly"); err != nil { // which waits until the applier has begun
		c.t.Error(rpc.Message(err))
	}
	left := pgtest.QueryRow[int](c.t, c.target, `SELECT ((SELECT count(*) FROM syncline.replications) + (SELECT count(*) FROM syncline.positions) +
		(SELECT count(*) FROM syncline.tables) + (SELECT count(*) FROM syncline.chunks))::int`)
	if left != 0 {
		c.t.Errorf("%d rows are left of a run", left)
	}
	pgtest.Eventually(c.t, patience, func() error {
		if out, _, _ := run(c.t, "followers", "list", "--addr", c.primary.grpc, "--json"); strings.Contains(out, "/nightly") {
			return fmt.Errorf("the source still lists the run: %s", out)
		}
		return nil
	})
}

func (c *controlled) runsTransient() {
	t := c.t
	told, err := c.run(t.Context(), "nightly")
	if err != nil || len(told) < 2 || told[len(told)-1].GetState() != applierv1.State_STATE_COMPLETED || !told[len(told)-1].GetTransient() {
		t.Fatalf("told %v, %v", told, err)
	}
	c.sameRows()
	c.nothingLeft()
	result, err := c.replica.get("nightly")
	if err != nil || result.GetCopiedRows() != 900 || result.GetState() != applierv1.State_STATE_COMPLETED {
		t.Errorf("result %v, %v", result, err)
	}
	c.refused(c.start2("nightly"), codes.NotFound, "REPLICATION_NOT_FOUND")
	out, errOut, code := run(t, "replication", "list", "--addr", c.replica.grpc)
	if code != 0 || !strings.Contains(out, "nightly  completed") {
		t.Errorf("list: %d %s %s", code, out, errOut)
	}
	// Of the same name, over the command line, with what came since.
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (2001, 'later'); DELETE FROM b WHERE id = 3")
	out, errOut, code = run(t, "replication", "run", "--source", c.primary.grpc, "--addr", c.replica.grpc, "--name", "nightly", "--initial", "incremental")
	if code != 0 || !strings.Contains(out, "run nightly is completed") {
		t.Fatalf("run: %d %s %s", code, out, errOut)
	}
	c.sameRows()
	c.nothingLeft()
	pgtest.Exec(t, c.conn, "UPDATE c SET note = 'later' WHERE id = 5")
	// A second one of the same tables is refused and named while the first one runs, which goes on when nobody listens; it is held up by a lock.
	holder := pgtest.Connect(t, c.targetURL)
	pgtest.Exec(t, holder, "BEGIN; LOCK TABLE c IN SHARE MODE")
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.run(ctx, "nightly", incremental)
		gone <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		r, err := c.replica.get("nightly")
		if err == nil && r.GetState() != applierv1.State_STATE_SYNCING {
			err = errors.New(r.GetState().String())
		}
		return err
	})
	_, err = c.run(t.Context(), "other", incremental)
	c.refused(err, codes.AlreadyExists, "REPLICATION_EXISTS", "nightly")
	c.refused(c.start2("nightly"), codes.FailedPrecondition, "TRANSIENT")
	leave()
	<-gone
	if r, err := c.replica.get("nightly"); err != nil || r.GetState() != applierv1.State_STATE_SYNCING {
		t.Errorf("nobody listens, and it is %v %v", r.GetState(), err)
	}
	stopped, err := c.replica.applier().StopReplication(t.Context(), &applierv1.StopReplicationRequest{Name: "nightly"})
	if err != nil || stopped.GetReplication().GetState() != applierv1.State_STATE_STOPPED {
		t.Errorf("cancelled: %v %v", stopped, err)
	}
	c.nothingLeft()
	// One that the process's end cuts off is gone, with an event, and in nobody's way.
	go func() {
		_, err := c.run(context.Background(), "nightly", incremental)
		gone <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM syncline.replications WHERE phase = 'syncing'"); n != 1 {
			return errors.New("it does not run yet")
		}
		return nil
	})
	c.replica.kill9()
	<-gone
	pgtest.Exec(t, holder, "ROLLBACK")
	c.replica.start()
	c.replica.waitHealthy(time.Minute)
	c.nothingLeft()
	if r, err := c.replica.get("nightly"); err != nil || r.GetReasonCode() != "INTERRUPTED" {
		t.Errorf("after the kill: %v %v", r, err)
	}
	answer, err := c.replica.applier().ListReplicationEvents(t.Context(), &applierv1.ListReplicationEventsRequest{Replication: "nightly", NewestFirst: true, PageSize: 1})
	if err != nil || answer.GetEvents()[0].GetKind() != applierv1.EventKind_EVENT_KIND_INTERRUPTED {
		t.Errorf("the run log ends with %v, %v", answer.GetEvents(), err)
	}
	if told, err := c.run(t.Context(), "nightly", incremental); err != nil || told[len(told)-1].GetState() != applierv1.State_STATE_COMPLETED {
		t.Errorf("told %v, %v", told, err)
	}
	c.sameRows()
}

func (c *controlled) start2(name string) error {
	_, err := c.replica.applier().StartReplication(c.t.Context(), &applierv1.StartReplicationRequest{Name: name})
	return err
}

// takesTurns runs three replications and a job in one place, under load, and kills the process meanwhile.
func (c *controlled) takesTurns() {
	t := c.t
	c.replica.args = append(c.replica.args, "--max-running", "1", "--max-turn", "300ms")
	c.replica.kill9()
	c.replica.start()
	c.replica.waitHealthy(time.Minute)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.replica.mustCreate("of-"+name, c.primary.grpc, func(s *applierv1.ReplicationSpec) { s.IncludeTables = []string{"public." + name} })
	}
	c.replica.mustCreate("of-wide", c.primary.grpc, once, func(s *applierv1.ReplicationSpec) { s.IncludeTables = []string{"public.wide"} })
	rows := 0
	load := func(n int) {
		for range n {
			rows++
			pgtest.Exec(t, c.conn, fmt.Sprintf("INSERT INTO a VALUES (%[1]d, 'x'); INSERT INTO b VALUES (%[1]d, 'x'); INSERT INTO c VALUES (%[1]d, 'x'); UPDATE a SET note = 'y' WHERE id = %[1]d", 5000+rows))
		}
	}
	waited := func() bool {
		list, err := c.replica.applier().ListReplications(t.Context(), &applierv1.ListReplicationsRequest{States: []applierv1.State{applierv1.State_STATE_WAITING}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.GetReplications() {
			if r.GetWaitingPlace() < 1 && r.GetWaitingSince() == nil {
				t.Errorf("it waits at no place: %v", r)
			}
		}
		return len(list.GetReplications()) > 0
	}
	seen := false
	log := filepath.Join(t.TempDir(), "faults")
	for _, point := range jobFaultPoints[:2] { // of turns
		load(50)
		seen = waited() || seen
		c.replica.kill9()
		c.replica.start(faultEnv(point.name, 3, log)...)
		load(50)
		c.replica.wait(time.Minute)
		c.replica.start()
		c.replica.waitHealthy(time.Minute)
		load(20)
	}
	if hits := faultsHit(t, log); len(hits) != 2 {
		t.Errorf("killed at %v", hits)
	}
	for _, name := range names {
		c.replica.waitApplied("of-"+name, patience)
	}
	c.replica.waitState("of-wide", patience, applierv1.State_STATE_COMPLETED)
	c.sameRows()
	if !seen {
		t.Error("none has ever waited for its turn")
	}
	sessions := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncline applier of-%'")
	if sessions > 1 {
		t.Errorf("%d sessions in one place", sessions)
	}
	// It is compared and mended as others are, when it has its turn.
	if _, errOut, code := run(t, "verify", "of-b", "--addr", c.replica.grpc); code != 0 {
		t.Errorf("verify: %d %s", code, errOut)
	}
	for _, name := range names {
		r, err := c.replica.get("of-" + name)
		if err != nil || r.GetErrorCount() != 0 || len(r.GetRecentFaults()) > 2 || len(r.GetHistory()) > 12 {
			t.Errorf("turns are no faults and no news: %v, %v", r, err)
		}
	}
}

// killedAtTheEnd kills the process at each step of a run's end.
func (c *controlled) killedAtTheEnd() {
	t := c.t
	log := filepath.Join(t.TempDir(), "faults")
	for i, point := range jobFaultPoints {
		c.replica.kill9()
		c.replica.start(faultEnv(point.name, 1, log)...)
		c.replica.waitHealthy(time.Minute)
		pgtest.Exec(t, c.conn, fmt.Sprintf("INSERT INTO a VALUES (%d, 'x'); DELETE FROM b WHERE id = %[2]d; UPDATE c SET note = 'x' WHERE id = %[2]d", 3000+i, 1+i))
		if i < 2 { // a run of a stored one
			if i == 0 {
				c.replica.mustCreate("shop", c.primary.grpc, once)
			} else if err := c.start(nil, false); err != nil {
				t.Fatal(rpc.Message(err))
			}
			c.replica.wait(time.Minute)
			c.replica.start()
			c.replica.waitHealthy(time.Minute)
			c.completed()
			c.sameRows()
			continue
		}
		if i == 2 {
			if _, err := c.replica.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop"}); err != nil {
				t.Fatal(rpc.Message(err))
			}
		}
		if _, err := c.run(t.Context(), "nightly", incremental); err == nil {
			t.Errorf("%s: nobody was killed", point.name)
		}
		c.replica.wait(time.Minute)
		c.sameRows()
		c.replica.start()
		c.replica.waitHealthy(time.Minute)
		c.nothingLeft()
		r, err := c.replica.get("nightly")
		if err != nil || r.GetState() != applierv1.State_STATE_COMPLETED {
			t.Errorf("%s: %v, %v", point.name, r, err)
		}
	}
	if hits := faultsHit(t, log); len(hits) != len(jobFaultPoints) {
		text, _ := os.ReadFile(log)
		t.Errorf("killed at %v: %s", hits, text)
	}
}

// refusesWork: what has to apply does not begin with a run that has ended, says what to do, and leaves it as it is.
func (c *controlled) refusesWork() {
	t := c.t
	t.Helper()
	_, err := c.replica.verify(t.Context(), "shop")
	c.refused(err, codes.FailedPrecondition, "REPLICATION_NOT_RUNNING", "syncline replication start shop")
	_, err = c.replica.repair(t.Context(), "shop")
	c.refused(err, codes.FailedPrecondition, "REPLICATION_NOT_RUNNING", "syncline replication start shop")
	for _, mode := range []applierv1.SyncMode{syncCopy, syncIncremental} {
		_, err = c.replica.applier().SyncReplication(t.Context(), &applierv1.SyncReplicationRequest{Name: "shop", Mode: mode})
		c.refused(err, codes.FailedPrecondition, "REPLICATION_NOT_RUNNING", "syncline replication start shop")
	}
	c.completed()
}

// cannotEnd: that a run has ended fails to be stored, half way through the transaction that does it. Nothing of it counts: the replication goes on
// applying, and ends when it can.
func (c *controlled) cannotEnd() {
	t := c.t
	pgtest.Exec(t, c.target, `CREATE SEQUENCE attempts; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.attempts'); RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$`)
	pgtest.Exec(t, c.target, "CREATE TRIGGER refuse BEFORE UPDATE ON syncline.replications FOR EACH ROW WHEN (NEW.wanted = 'completed') EXECUTE FUNCTION refuse()")
	c.replica.mustCreate("shop", c.primary.grpc, once)
	attempts := func(least int64) {
		t.Helper()
		pgtest.Eventually(t, patience, func() error {
			if n := pgtest.QueryRow[int64](t, c.target, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts"); n < least {
				return fmt.Errorf("%d attempts to end", n)
			}
			return nil
		})
	}
	attempts(2)
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (1001, 'later'); UPDATE b SET note = 'later' WHERE id <= 10; DELETE FROM c WHERE id = 7")
	pgtest.Eventually(t, patience, func() error { // what comes meanwhile is applied: no attempt has let go of it
		if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM a WHERE id = 1001"); n != 1 {
			return errors.New("it does not go on applying")
		}
		return nil
	})
	attempts(4)
	answer, err := c.replica.applier().ListReplicationEvents(t.Context(), &applierv1.ListReplicationEventsRequest{Replication: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range answer.GetEvents() { // half of it being stored would be a fault of the engine, which finds its position moved
		if kind := e.GetKind(); kind == applierv1.EventKind_EVENT_KIND_COMPLETED || kind == applierv1.EventKind_EVENT_KIND_RETRIED || kind == applierv1.EventKind_EVENT_KIND_FAILED {
			t.Errorf("told %v", e)
		}
	}
	if r, err := c.replica.get("shop"); err != nil || r.GetState() == applierv1.State_STATE_COMPLETED || r.GetCompleteTime() != nil || r.GetState() == applierv1.State_STATE_FAILED {
		t.Errorf("it is %v, %v", r, err)
	}
	if n := pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM syncline.replications WHERE wanted = 'running' AND completed_at IS NULL"); n != 1 {
		t.Error("that it has ended is stored")
	}
	pgtest.Exec(t, c.target, "DROP TRIGGER refuse ON syncline.replications")
	end := c.completed()
	if end.GetCompletedPosition().GetLsn() != end.GetPosition().GetLsn() {
		t.Errorf("it ended at %v, and is at %v", end.GetCompletedPosition(), end.GetPosition())
	}
	if err := c.start(nil, false); err != nil { // from where it ended: nothing is lost, nothing comes twice
		t.Fatal(rpc.Message(err))
	}
	c.replica.waitApplied("shop", patience)
	c.completed()
	pgtest.Exec(t, c.target, "DROP FUNCTION refuse; DROP SEQUENCE attempts")
	c.sameRows()
}
