package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/services/applier"
)

// TestRepairResolvesQuarantine: what a repair makes equal leaves the quarantine in the same transaction, over kills on either side of its commit; what
// comes later of these rows is applied, and nothing is applied over newer rows.
func TestRepairResolvesQuarantine(t *testing.T) {
	t.Parallel()
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	c := s.controlled(t)
	pgtest.Exec(t, c.conn, `CREATE TABLE heap (a integer, note text); ALTER TABLE heap REPLICA IDENTITY FULL;
		CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (m mood PRIMARY KEY); INSERT INTO moods VALUES ('sad')`)
	c.primary.waitTable("moods")
	c.create(setsAside)
	log := filepath.Join(t.TempDir(), "faults")
	n := 900
	poison := func() { // refused, with changes that wait, a row whose key moves, one that is deleted, and one that ends as it was
		n += 100
		pgtest.Exec(t, c.conn, fmt.Sprintf(`INSERT INTO a VALUES (%[1]d + 7, 'same')`, n))
		c.replica.waitApplied("shop", patience)
		pgtest.Exec(t, c.target, "ALTER TABLE a ADD CONSTRAINT no_poison CHECK (note <> 'poison') NOT VALID")
		pgtest.Exec(t, c.conn, fmt.Sprintf(`BEGIN; INSERT INTO a VALUES (%[1]d, 'poison'), (%[1]d + 1, 'poison'), (%[1]d + 2, 'poison'), (%[1]d + 3, 'good');
			UPDATE a SET note = 'first' WHERE id = %[1]d; UPDATE a SET note = 'second' WHERE id = %[1]d; UPDATE a SET id = %[1]d + 5, note = 'moved' WHERE id = %[1]d + 1;
			DELETE FROM a WHERE id = %[1]d + 2; UPDATE a SET note = 'poison' WHERE id = %[1]d + 7; UPDATE a SET note = 'same' WHERE id = %[1]d + 7; COMMIT`, n))
		c.replica.waitApplied("shop", patience)
		pgtest.Exec(t, c.target, "ALTER TABLE a DROP CONSTRAINT no_poison")
	}
	held := func(want int) {
		t.Helper()
		entries := pgtest.QueryRow[int](t, c.target, "SELECT count(*) FROM syncline.quarantine")
		values := pgtest.QueryRow[int](t, c.target, "SELECT count(DISTINCT entry) FROM syncline.quarantine_values")
		if told := c.get().GetQuarantinedChanges() + c.get().GetWaitingChanges(); entries != want || values != want || told != int64(want) {
			t.Fatalf("%d are in quarantine with values of %d, and %d are told, want %d", entries, values, told, want)
		}
	}
	later := func() { // of rows that were held
		t.Helper()
		pgtest.Exec(t, c.conn, fmt.Sprintf("UPDATE a SET note = note || ' later' WHERE id >= %[1]d AND id < %[1]d + 10; INSERT INTO a VALUES (%[1]d + 1, 'anew')", n))
		c.replica.waitApplied("shop", patience)
		held(0)
		c.equal()
	}
	poison()
	held(9)
	if got := c.replica.mustVerify("shop"); got.tables["public.a"].GetUnsynced() != 9 || got.result.GetUnsynced() != 9 || got.result.GetEqual() {
		t.Errorf("a verification tells %v", got.tables["public.a"])
	}
	would := c.replica.mustRepair("shop", dryRun)
	if would.result.GetResolved() != 0 || would.result.GetUnsynced() != 9 {
		t.Errorf("a dry run tells %v", would.result)
	}
	held(9)
	r := c.replica.mustRepair("shop")
	r.requireEqual(t)
	if got := r.tables["public.a"]; got.GetResolved() != 9 || r.result.GetResolved() != 9 || r.result.GetUnsynced() != 0 || got.GetInserted() != 2 {
		t.Errorf("the repair tells %v; %v", got, r.result)
	}
	if got := c.events("shop", applierv1.EventKind_EVENT_KIND_UNSYNCED_MENDED); len(got) != 1 || got[0].GetRows() != 9 || !strings.Contains(got[0].GetText(), "public.a") {
		t.Errorf("told: %v", got)
	}
	later()

	for point, left := range map[string]int{applier.FaultRepairWritten: 9, applier.FaultRepairCommitted: 0} {
		poison()
		c.replica.kill9()
		c.replica.start(faultEnv(point, 1, log)...)
		c.replica.waitHealthy(patience)
		c.running()
		if _, err := c.replica.repair(t.Context(), "shop"); err == nil {
			t.Errorf("the repair was answered by a process that was to die at %s", point)
		}
		pgtest.Eventually(t, patience, func() error {
			if !c.replica.exited() {
				return fmt.Errorf("it has not died at %s", point)
			}
			return nil
		})
		c.replica.start()
		c.replica.waitHealthy(patience)
		c.running()
		held(left)
		c.replica.mustRepair("shop").requireEqual(t)
		later()
	}

	// An equal table with changes in quarantine: nothing is written, and they leave it.
	pgtest.Exec(t, c.target, "ALTER TABLE a ADD CONSTRAINT no_poison CHECK (note <> 'poison') NOT VALID")
	for _, note := range []string{"poison", "good later"} {
		pgtest.Exec(t, c.conn, fmt.Sprintf("UPDATE a SET note = '%s' WHERE id = 1003", note))
		c.replica.waitApplied("shop", patience)
	}
	held(2)
	r = c.replica.mustRepair("shop")
	r.requireEqual(t)
	if len(r.rows) > 0 || r.result.GetResolved() != 2 || r.result.GetTablesMended() != 0 {
		t.Errorf("rows %v, %v", r.rows, r.result)
	}
	held(0)

	// A key that the replica has no value for.
	pgtest.Exec(t, c.conn, "ALTER TYPE mood ADD VALUE 'happy'")
	pgtest.Exec(t, c.conn, "INSERT INTO moods VALUES ('happy')")
	c.replica.waitApplied("shop", patience)
	if r = c.replica.mustRepair("shop"); !strings.Contains(r.tables["public.moods"].GetReason(), "refuses a row") {
		t.Errorf("the repair tells %v", r.tables["public.moods"])
	}
	held(1)
	pgtest.Exec(t, c.conn, "DELETE FROM moods WHERE m = 'happy'")
	c.replica.waitApplied("shop", patience)
	held(2)
	if r = c.replica.mustRepair("shop"); !r.result.GetEqual() || r.result.GetResolved() != 2 {
		t.Errorf("the repair tells %v", r.tables["public.moods"])
	}
	held(0)
	pgtest.Exec(t, c.target, "ALTER TYPE mood ADD VALUE 'happy'")

	// What the replica refuses still stays as it is, with its entry.
	pgtest.Exec(t, c.conn, "INSERT INTO a VALUES (5000, 'poison')")
	c.replica.waitApplied("shop", patience)
	r = c.replica.mustRepair("shop")
	if got := r.tables["public.a"]; got.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED || !strings.Contains(got.GetReason(), "no_poison") || r.result.GetUnsynced() != 1 {
		t.Errorf("the repair tells %v; %v", got, r.result)
	}
	held(1)
	pgtest.Exec(t, c.target, "ALTER TABLE a DROP CONSTRAINT no_poison")

	// Without a key nothing tells which rows a change is about: such a table is not mended over its entries.
	pgtest.Exec(t, c.target, "ALTER TABLE heap ADD CONSTRAINT no_heap_poison CHECK (note <> 'poison')")
	pgtest.Exec(t, c.conn, "INSERT INTO heap VALUES (1, 'poison'), (2, 'good')")
	c.replica.waitApplied("shop", patience)
	pgtest.Exec(t, c.target, "ALTER TABLE heap DROP CONSTRAINT no_heap_poison")
	r = c.replica.mustRepair("shop")
	if got := r.tables["public.heap"]; got.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED || !strings.Contains(got.GetReason(), "discard") {
		t.Errorf("the repair tells %v", got)
	}
	if got := r.tables["public.a"]; got.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED || got.GetResolved() != 1 {
		t.Errorf("the repair tells %v", got)
	}
	held(1)
	c.dropped()
}

// dropped has the one change of heap that is in quarantine dropped by a truncate, and others by whatever else drops some: each is told.
func (c *controlled) dropped() {
	c.t.Helper()
	told := func(n int, words string) {
		c.t.Helper()
		got := c.events("shop", applierv1.EventKind_EVENT_KIND_UNSYNCED_DROPPED)
		if len(got) != n || got[n-1].GetRows() == 0 || !strings.Contains(got[n-1].GetText(), words) {
			c.t.Fatalf("dropped %v, want %d, the last with %q", got, n, words)
		}
	}
	poison := func() {
		c.t.Helper()
		pgtest.Exec(c.t, c.conn, "INSERT INTO heap VALUES (3, 'poison'), (4, 'poison')")
		c.replica.waitApplied("shop", patience)
	}
	pgtest.Exec(c.t, c.conn, "TRUNCATE heap")
	c.replica.waitApplied("shop", patience)
	told(1, "1 changes of table public.heap in quarantine are dropped: the source emptied")
	pgtest.Exec(c.t, c.target, "ALTER TABLE heap ADD CONSTRAINT no_heap_poison CHECK (note <> 'poison')")
	poison()
	pgtest.Exec(c.t, c.target, "ALTER TABLE heap DROP CONSTRAINT no_heap_poison")
	c.resync()
	c.running()
	told(2, "2 changes of table public.heap in quarantine are dropped: all tables")
	c.equal()
	pgtest.Exec(c.t, c.target, "ALTER TABLE heap ADD CONSTRAINT no_heap_poison CHECK (note <> 'poison') NOT VALID")
	poison()
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { in.Spec.ExcludeTables = []string{"public.heap"} }, "exclude_tables")
	told(3, "2 changes of table public.heap in quarantine are dropped: the table is no part")
	c.counted()
}

// counted looks at the runs, what was set aside in them, and what a delete drops.
func (c *controlled) counted() {
	c.t.Helper()
	pgtest.Exec(c.t, c.target, "ALTER TABLE a ADD CONSTRAINT no_poison CHECK (note <> 'poison') NOT VALID")
	c.running()
	before := c.lastRun().GetSetAside()
	if want := int64(3*9 + 2 + 2 + 1 + 1 + 2 + 2); before != want {
		c.t.Errorf("%d were set aside in the run, over its kills, want %d", before, want)
	}
	pgtest.Exec(c.t, c.conn, "INSERT INTO a VALUES (6000, 'poison'); UPDATE a SET note = 'waits' WHERE id = 6000")
	c.replica.waitApplied("shop", patience)
	c.stop()
	run := c.lastRun()
	if run.GetSetAside() != before+2 || run.GetResult() != applierv1.RunResult_RUN_RESULT_WARNING || run.GetEndTime() == nil {
		c.t.Errorf("the run that ended is %v; %d were set aside before", run, before)
	}
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(err)
	}
	c.running()
	if run := c.lastRun(); run.GetSetAside() != 0 {
		c.t.Errorf("the run that goes on is %v", run)
	}
	if _, err := c.replica.applier().DeleteReplication(c.t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop"}); err != nil {
		c.t.Fatal(err)
	}
	got := c.events("shop", applierv1.EventKind_EVENT_KIND_UNSYNCED_DROPPED)
	if last := got[len(got)-1]; last.GetRows() != 2 || !strings.Contains(last.GetText(), "public.a") || !slices.ContainsFunc(c.events("shop"), func(e *applierv1.Event) bool { return e.GetKind() == applierv1.EventKind_EVENT_KIND_DELETED }) {
		c.t.Errorf("told: %v", got)
	}
}

func (c *controlled) lastRun() *applierv1.Run {
	c.t.Helper()
	answer, err := c.replica.applier().ListRuns(c.t.Context(), &applierv1.ListRunsRequest{Replication: "shop", PageSize: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.GetRuns()[0]
}
