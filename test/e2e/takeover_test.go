package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/services/applier"
)

// inUse is the reason of a replication that another applier runs.
const inUse = "IN_USE"

// secondApplier is another applier process on the same database.
func (c *cluster) secondApplier() *node {
	c.t.Helper()
	return newNode(c.t, "applier", "--postgres", c.targetURL, "--retry-max", "500ms")
}

// waitStandby waits until an applier says that another one runs the replication.
func waitStandby(n *node) *applierv1.Replication {
	n.t.Helper()
	var r *applierv1.Replication
	pgtest.Eventually(n.t, patience, func() (err error) {
		if r, err = n.get(replicationName); err != nil {
			return err
		}
		if r.GetState() != applierv1.State_STATE_WAITING || r.GetReasonCode() != inUse {
			return fmt.Errorf("the second applier is %s: %s %s", r.GetState(), r.GetReasonCode(), r.GetReason())
		}
		return nil
	})
	return r
}

// waitMoving waits until an applier has applied transactions.
func waitMoving(n *node) {
	n.t.Helper()
	before := n.waitState(replicationName, patience, applierv1.State_STATE_RUNNING).GetTransactions()
	pgtest.Eventually(n.t, patience, func() error {
		r, err := n.get(replicationName)
		if err != nil {
			return err
		}
		if r.GetTransactions() == before {
			return fmt.Errorf("nothing was applied: %s %s", r.GetState(), r.GetReason())
		}
		return nil
	})
}

// TestTwoAppliers runs two appliers on one database. One works and the other waits; when the first is killed, in its first
// copy and later while it applies, the other takes over where it was.
func TestTwoAppliers(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	c := newCluster(t, source, target, "two")
	c.up(c.logger, c.inventory)
	c.remember()
	c.begin(rand.Uint64())
	log := filepath.Join(t.TempDir(), "faults")
	c.applier.start(faultEnv(applier.FaultTableDone, 6, log)...)
	c.applier.waitHealthy(patience)
	c.create()
	second := c.secondApplier()
	second.start()
	second.waitHealthy(patience)
	c.applier.wait(patience)

	active, standby := second, c.applier
	for range 3 {
		active.waitState(replicationName, patience, applierv1.State_STATE_SYNCING, applierv1.State_STATE_CATCHING_UP, applierv1.State_STATE_RUNNING)
		standby.start()
		standby.waitHealthy(patience)
		waitStandby(standby)
		waitMoving(active)
		if r := waitStandby(standby); r.GetChangesPerSecond() != 0 {
			t.Fatalf("both appliers apply: the one that waits applies %f changes/s", r.GetChangesPerSecond())
		}
		active.kill9()
		waitMoving(standby)
		active, standby = standby, active
	}
	c.applier = active
	c.verify()
}

// lockHolder is the session that holds the lock of the replication, 0 when there is none.
const lockHolder = `SELECT coalesce(max(pid), 0) FROM pg_locks
	WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// TestLostLock ends the session that holds the replication's lock again and again while two appliers live, in the first copy
// and later: whoever lost it must not go on beside the one that has it now.
func TestLostLock(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	c := newCluster(t, source, target, "lock")
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.begin(rand.Uint64())
	c.create()
	second := c.secondApplier()
	second.start()
	second.waitHealthy(patience)
	conn := pgtest.Connect(t, c.targetURL)
	copied := 0
	for range 25 {
		previous := copied
		pgtest.Eventually(t, patience, func() error {
			for _, n := range []*node{c.applier, second} {
				if r, err := n.get(replicationName); err == nil && r.GetState() == applierv1.State_STATE_FAILED {
					t.Fatalf("replication failed: %s %s", r.GetReasonCode(), r.GetReason())
				}
			}
			copied = pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM syncline.tables WHERE state = 'copied'")
			phase := pgtest.QueryRow[string](t, conn, "SELECT phase FROM syncline.replications")
			if phase == "syncing" && copied < previous+2 {
				return fmt.Errorf("%d tables are copied", copied)
			}
			holder := pgtest.QueryRow[int](t, conn, lockHolder)
			if holder == 0 {
				return errors.New("nobody holds the lock")
			}
			pgtest.Exec(t, conn, "SELECT pg_terminate_backend($1)", holder)
			return nil
		})
	}
	pgtest.Eventually(t, patience, func() error {
		for _, n := range []*node{c.applier, second} {
			r, err := n.get(replicationName)
			if err != nil {
				return err
			}
			switch r.GetState() {
			case applierv1.State_STATE_FAILED:
				t.Fatalf("replication failed: %s %s", r.GetReasonCode(), r.GetReason())
			case applierv1.State_STATE_RUNNING:
				second.kill9()
				return nil
			default:
			}
		}
		return errors.New("no applier is running")
	})
	c.verify()
}

// TestKilledInIndexBuild kills an applier while the server builds an index for it. The server goes on with that, and the next
// applier has to live with it.
func TestKilledInIndexBuild(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	c := newCluster(t, source, target, "index")
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.begin(rand.Uint64())
	c.create()
	conn, other := pgtest.Connect(t, c.targetURL), pgtest.Connect(t, c.targetURL)
	pgtest.Eventually(t, patience, func() error {
		return pgtest.Connect(t, c.targetURL).QueryRow(t.Context(), "SELECT FROM syncline.tables WHERE table_name = 'big'").Scan()
	})
	// As long as this is held no index on the table can be built.
	pgtest.Exec(t, other, "BEGIN; LOCK TABLE bank.big IN ROW EXCLUSIVE MODE")
	waiting := func() int {
		return pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE%INDEX%'")
	}
	pgtest.Eventually(t, patience, func() error {
		if waiting() == 0 {
			return errors.New("no index is being built")
		}
		return nil
	})
	c.applier.kill9()
	c.applier.start()
	c.applier.waitHealthy(patience)
	pgtest.Eventually(t, patience, func() error {
		r, err := c.applier.get(replicationName)
		if err != nil {
			return err
		}
		if r.GetSync().GetPhase() != "building indexes" {
			return fmt.Errorf("the new applier is %s: %s %s", r.GetState(), r.GetReason(), r.GetSync().GetPhase())
		}
		return nil
	})
	pgtest.Exec(t, other, "COMMIT")
	c.verify()
}

// finished is what the target remembers of copied tables and chunks, with the transactions that wrote them.
func finished(t *testing.T, conn *pgx.Conn) (tables, chunks map[string]string) {
	t.Helper()
	read := func(sql string) map[string]string {
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		var key, value string
		if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { found[key] = value; return nil }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	return read("SELECT table_name, copy_lsn || ' ' || snapshot_id || ' ' || xmin FROM syncline.tables WHERE state = 'copied'"),
		read("SELECT table_name || ' ' || from_page, rows || ' ' || xmin FROM syncline.chunks")
}

// TestResumedCopy kills an applier in the middle of its first copy. The next one starts no finished table again and, while the
// snapshot lives, no finished chunk; when the inventory was killed too, the tables that were not whole begin anew.
func TestResumedCopy(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	c := newCluster(t, source, target, "resume")
	c.up(c.logger, c.inventory)
	c.remember()
	rows := c.countRows()
	log := filepath.Join(t.TempDir(), "faults")
	c.applier.start(faultEnv(applier.FaultChunkDone, 2, log)...)
	c.applier.waitHealthy(patience)
	// One session copies the chunks of the largest table first.
	c.create(func(s *applierv1.ReplicationSpec) { s.CopyWorkers = 1 })
	c.applier.wait(patience)
	conn := pgtest.Connect(t, c.targetURL)
	tables, chunks := finished(t, conn)
	if len(tables) != 0 || len(chunks) != 2 {
		t.Fatalf("%d tables and %d chunks are copied before the kill", len(tables), len(chunks))
	}

	c.killAt(c.applier, log, []step{{applier.FaultTableDone, 5}}, nil)
	laterTables, laterChunks := finished(t, conn)
	if len(laterTables) != 5 {
		t.Fatalf("%d tables are copied before the second kill", len(laterTables))
	}
	requireKept(t, "chunk", chunks, laterChunks)

	c.inventory.kill9()
	c.up(c.inventory)
	c.killAt(c.applier, log, []step{{applier.FaultTableDone, 6}}, nil)
	lastTables, _ := finished(t, conn)
	requireKept(t, "table", laterTables, lastTables)
	c.up(c.applier)
	r := c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	if r.GetSync().GetRows() != rows {
		t.Errorf("%d rows were copied, the tables had %d", r.GetSync().GetRows(), rows)
	}
	finalTables, _ := finished(t, conn)
	requireKept(t, "table", lastTables, finalTables)

	c.begin(rand.Uint64())
	c.verify()
}

// requireKept fails the test when something that was finished is gone or was done again.
func requireKept(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for name, was := range before {
		if now := after[name]; now != was {
			t.Errorf("%s %s was finished as %q and is %q now", what, name, was, now)
		}
	}
}

// countRows counts the rows of all tables of the primary.
func (c *cluster) countRows() (rows int64) {
	c.t.Helper()
	conn := pgtest.Connect(c.t, c.sourceURL)
	list, err := conn.Query(c.t.Context(), "SELECT format('SELECT count(*) FROM %I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'bank'")
	if err != nil {
		c.t.Fatal(err)
	}
	counts, err := pgx.CollectRows(list, pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	for _, count := range counts {
		rows += pgtest.QueryRow[int64](c.t, conn, count)
	}
	return rows
}
