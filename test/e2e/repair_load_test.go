package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// spoilt are rows of the replica that the load on the source does not come to, so that applying does not stop at them before they
// are mended. They are in several batches, of tables with a key and without.
const spoilt = `
UPDATE bank.big SET note = 'spoilt ' || clock_timestamp() WHERE id BETWEEN 8300 AND 8400;
DELETE FROM bank.big WHERE id BETWEEN 8401 AND 8450;
INSERT INTO bank.big SELECT n, 'only here' FROM generate_series(9001, 9040) n ON CONFLICT DO NOTHING;
UPDATE kept.rows SET a = -abs(a) - 1 WHERE id % 2 = 0;
DELETE FROM kept.rows WHERE id % 5 = 0;
INSERT INTO kept.lines SELECT n % 3, 'only here' FROM generate_series(1, 30) n;
DELETE FROM kept.lines WHERE a = 7;`

// keptTables are not written to by the load.
const keptTables = `
CREATE SCHEMA kept;
CREATE TABLE kept.rows (id integer PRIMARY KEY, a integer UNIQUE);
INSERT INTO kept.rows SELECT n, n * 10 FROM generate_series(1, 5000) n;
CREATE TABLE kept.lines (a integer, b text);
ALTER TABLE kept.lines REPLICA IDENTITY FULL;
INSERT INTO kept.lines SELECT n % 10, 'line' FROM generate_series(1, 500) n;`

// killApplierRepair kills the applier while it mends rows, under load. A repair that is begun anew finishes what the kills left.
func killApplierRepair(c *cluster, log string) {
	pgtest.Exec(c.t, pgtest.Connect(c.t, c.sourceURL), keptTables)
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.create()
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	c.applier.kill9()
	here := pgtest.Connect(c.t, c.targetURL)
	c.killAt(c.applier, log, stepsOf("applier", whileRepaired), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := here.Exec(ctx, spoilt); err != nil {
			return err
		}
		_, _ = c.applier.repair(ctx, replicationName) // it is being killed
		return nil
	})
	c.up(c.applier)
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	pgtest.Exec(c.t, here, spoilt)
	c.applier.mustRepair(replicationName, func(r *applierv1.RepairReplicationRequest) { r.ExcludeTables = []string{"bank.today"} }).requireEqual(c.t)

	// The same rows, found by a replication that begins with them.
	if _, err := c.applier.applier().DeleteReplication(c.t.Context(), &applierv1.DeleteReplicationRequest{Name: replicationName}); err != nil {
		c.t.Fatal(err)
	}
	pgtest.Exec(c.t, here, spoilt)
	c.applier.kill9()
	c.killAt(c.applier, log, stepsOf("applier", whileMended), func() error {
		_, _ = c.applier.create(replicationName, c.logger.grpc, initialIncremental) // there may be one, or the applier is being killed
		return nil
	})
}

// TestRepairUnderLoad mends rows again and again that the source updates at the same time, while connections are cut on either
// side. Whatever is cut, no change of the source is lost or overwritten.
func TestRepairUnderLoad(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, keptTables+`
		CREATE TABLE hot (id integer PRIMARY KEY, n bigint, note text);
		INSERT INTO hot SELECT n, 0, 'note ' || n FROM generate_series(1, 4000) n`)
	primary := startPrimary(t, primaryURL)
	replica := startReplica(t, replicaURL, "--retry-max", "300ms")
	replica.mustCreate("all", primary.grpc)
	replica.waitState("all", time.Minute, applierv1.State_STATE_RUNNING)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)

	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	for i := range 2 {
		writing.Go(func() { writeHot(ctx, t, primaryURL, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	r := rand.New(rand.NewPCG(seed, 9))
	cut, late, whole := 0, 0, 0
	for round := 0; round < 12; round++ {
		// Columns that the source does not set at the same time, and rows that it does not have.
		// The lock keeps this from getting into a deadlock with applying.
		pgtest.Exec(t, here, `BEGIN; LOCK TABLE hot IN SHARE ROW EXCLUSIVE MODE; UPDATE hot SET note = 'spoilt', n = -1 WHERE id % 3 = 0; INSERT INTO hot SELECT n, n, 'only here' FROM generate_series(5001, 5500) n ON CONFLICT DO NOTHING;
			UPDATE kept.rows SET a = -abs(a) - 1 WHERE id % 2 = 0; DELETE FROM kept.rows WHERE id % 5 = 0; INSERT INTO kept.lines SELECT n % 3, 'only here' FROM generate_series(1, 30) n; COMMIT`)
		done := make(chan error, 1)
		go func() {
			answer, err := replica.repair(ctx, "all")
			if err == nil && !answer.result.GetEqual() {
				err = fmt.Errorf("not equal: %v", answer.result)
			}
			done <- err
		}()
		if round%3 > 0 {
			pause := time.NewTimer(time.Duration(r.IntN(1500)) * time.Millisecond)
			select {
			case err := <-done:
				done <- err
			case <-pause.C:
				cutSessions(t, []*pgx.Conn{there, here}[round%2], round)
				cut++
			}
		}
		switch err := <-done; {
		case err == nil:
			whole++
		case round%3 == 0 && rpc.Reason(err) == "REPLICATION_NOT_RUNNING" && late < cut:
			// Applying notices only now that its session was cut in the round before.
			late++
			round--
		case rpc.Reason(err) == "" && !rpc.IsTransient(err), round%3 == 0:
			t.Fatalf("round %d: %s (%s)", round, rpc.Message(err), rpc.Reason(err))
		default:
			t.Logf("round %d was cut: %s", round, rpc.Message(err))
		}
		replica.waitState("all", time.Minute, applierv1.State_STATE_RUNNING)
	}
	t.Logf("%d repairs came to their end, connections were cut %d times", whole, cut)
	pgtest.Eventually(t, time.Minute, func() error { // the last cut may be noticed late, too
		answer, err := replica.repair(ctx, "all")
		if err == nil {
			answer.requireEqual(t)
		}
		return err
	})
	stop()
	writing.Wait()
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, primaryURL, replicaURL)
}

// writeHot updates single rows until ctx ends.
func writeHot(ctx context.Context, t *testing.T, url string, r *rand.Rand) {
	conn := pgtest.Connect(t, url)
	for ctx.Err() == nil {
		id := 1 + r.IntN(4000)
		if _, err := conn.Exec(t.Context(), "UPDATE hot SET n = n + 1, note = note || '.' WHERE id BETWEEN $1 AND $1 + 2", id); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// cutSessions ends sessions of Syncline on one side.
func cutSessions(t *testing.T, conn *pgx.Conn, round int) {
	t.Helper()
	pgtest.Exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
		AND (application_name LIKE 'syncline applier %' OR application_name LIKE 'syncline verify%' OR application_name = 'syncline inventory')`)
	t.Logf("round %d: sessions are cut", round)
}
