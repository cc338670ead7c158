package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// TestSetBackfill changes what a set selects of a table while the table is written to, and kills the replica between the steps: rows that
// come to match are brought, those that match no longer are removed, and those that match before and after are neither shipped nor
// touched.
func TestSetBackfill(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	// Of 2000 rows of 8 KiB 1850 stay in the set, 50 enter, and 100 leave.
	pgtest.Exec(t, there, `CREATE TABLE big (id int PRIMARY KEY, amount int, body text); ALTER TABLE big REPLICA IDENTITY FULL;
		INSERT INTO big SELECT n, n, (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 256) i) FROM generate_series(1, 2000) n`)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	rows := func(selector string) *loggerv1.SetSpec {
		return &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.big", Rows: selector}}}
	}
	set, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "big", Spec: rows(`{"amount": {"$gt": 50}}`)})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	inventory := pgtest.NewProxy(t, primary.grpc)
	replica.mustCreate("big", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Set, s.Inventory = "big", inventory.Addr() })
	replica.waitState("big", time.Minute, applierv1.State_STATE_RUNNING)
	const stay = "SELECT md5(string_agg(id || ':' || xmin || ':' || ctid, ',' ORDER BY id)) FROM big WHERE id BETWEEN 101 AND 1900"
	before, shipped := pgtest.QueryRow[string](t, here, stay), inventory.Stats().ToClient

	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	writing.Go(func() {
		conn := pgtest.Connect(t, primaryURL)
		for n := 0; ctx.Err() == nil; n++ {
			pgtest.Exec(t, conn, fmt.Sprintf("UPDATE big SET amount = %d WHERE id = %d; UPDATE big SET id = id + 10000 WHERE id = %d; DELETE FROM big WHERE id = %d",
				n*37%200, 1+n%100, 1+n%50, 1901+n%100))
			pgtest.Exec(t, conn, fmt.Sprintf("INSERT INTO big VALUES (%d, %d, 'new'); UPDATE big SET id = id - 10000 WHERE id = %d", 20_000+n, n%300, 10_001+n%50))
		}
	})
	replica.kill9()
	if _, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "big", Spec: rows(`{"amount": {"$lte": 1900}}`), Version: set.GetSet().GetVersion()}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	log := filepath.Join(t.TempDir(), "faults")
	for _, point := range []string{applier.FaultPrepared, applier.FaultMending, applier.FaultRepairWritten, applier.FaultTableDone} {
		replica.start(faultEnv(point, 1, log)...)
		pgtest.Eventually(t, patience, func() error {
			if replica.exited() {
				return nil
			}
			return fmt.Errorf("the replica did not pass %s", point)
		})
		if faultsHit(t, log)[point] != 1 {
			t.Fatalf("the replica ended, and not at %s", point)
		}
		if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM big WHERE id BETWEEN 101 AND 1900"); n != 1800 {
			t.Fatalf("after %s readers find %d of 1800 rows that are in both versions of the set", point, n)
		}
	}
	replica.start()
	replica.waitState("big", 2*time.Minute, applierv1.State_STATE_RUNNING)
	stop()
	writing.Wait()
	replica.waitApplied("big", time.Minute)
	requireSet(t, there, here, map[string]string{"big": "WHERE amount <= 1900"})
	replica.mustVerify("big").requireEqual(t)
	if after := pgtest.QueryRow[string](t, here, stay); after != before {
		t.Error("rows that are in both versions of the set were written again")
	}
	// Checksums of 2000 rows, several times, and the rows that differ: the table has 16 MiB.
	if n := inventory.Stats().ToClient - shipped; n > 6<<20 {
		t.Errorf("%d bytes were shipped", n)
	}
}
