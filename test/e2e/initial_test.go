package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

func initialIncremental(s *applierv1.ReplicationSpec) {
	s.Initial = applierv1.Initial_INITIAL_INCREMENTAL
}

// TestInitialIncremental begins a replication with what an earlier one left, while the source is written to. What is equal is not
// written again.
func TestInitialIncremental(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, repairSource+keptTables+`
		CREATE TABLE hot (id integer PRIMARY KEY, n bigint, note text);
		INSERT INTO hot SELECT n, 0, 'note ' || n FROM generate_series(1, 4000) n;`)
	pgtest.Exec(t, here, repairTarget)
	primary, replica := startPrimary(t, primaryURL, "--insert-only-table", "public.journal"), startReplica(t, replicaURL)
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	replica.waitApplied("shop", time.Minute)
	if _, err := replica.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	_, err := replica.create("shop", primary.grpc)
	requireReason(t, err, codes.FailedPrecondition, "TABLE_NOT_EMPTY")
	requireWords(t, err.Error(), "--initial incremental")
	_, err = replica.create("shop", primary.grpc, initialIncremental, replace)
	requireReason(t, err, codes.InvalidArgument, "INVALID_FIELD")

	pgtest.Exec(t, there, `DELETE FROM composite WHERE a % 100 = 0; UPDATE by_text SET note = 'changed' WHERE key LIKE '%00'; INSERT INTO keyless SELECT 7, 'new' FROM generate_series(1, 10);
		UPDATE parts SET region = 'b' WHERE id = 300; UPDATE whole SET id = -id WHERE id % 1000 = 0; UPDATE seats SET seat = -seat WHERE id < 100; CREATE TABLE later (id integer PRIMARY KEY);
		INSERT INTO later VALUES (1)`)
	pgtest.Exec(t, here, "UPDATE by_uuid SET note = 'here' WHERE id < '01000000-0000-0000-0000-000000000000'; DELETE FROM wide WHERE id = 2; INSERT INTO empty VALUES (1); TRUNCATE only_key; UPDATE kept.rows SET a = -a WHERE id < 50")
	before := pgtest.QueryRow[string](t, here, "SELECT max(xmin::text::bigint)::text FROM by_text")

	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	writing.Go(func() { writeHot(ctx, t, primaryURL, rand.New(rand.NewPCG(1, 1))) })
	replica.mustCreate("shop", primary.grpc, initialIncremental)
	replica.waitState("shop", 2*time.Minute, applierv1.State_STATE_RUNNING)
	replica.waitApplied("shop", time.Minute)
	replica.mustVerify("shop").requireEqual(t)
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM by_text WHERE xmin::text::bigint > $1::bigint", before); n != 300 {
		t.Errorf("%d rows of a table were written, of which 300 differed", n)
	}
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM later"); n != 1 {
		t.Errorf("a table that the replica lacked has %d rows", n)
	}

	// A replication that stopped at a row that is missing is mended in the same way, and goes on.
	pgtest.Exec(t, here, "DELETE FROM kept.rows WHERE id = 3000; DELETE FROM composite WHERE a < 50")
	pgtest.Exec(t, there, "UPDATE kept.rows SET a = -a WHERE id = 3000; DELETE FROM composite WHERE a = 7")
	replica.waitState("shop", time.Minute, applierv1.State_STATE_FAILED)
	_, err = replica.repair(t.Context(), "shop")
	requireReason(t, err, codes.FailedPrecondition, "REPLICATION_NOT_RUNNING")
	requireWords(t, err.Error(), "syncline sync shop --mode incremental")
	did := replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: syncIncremental}).GetSyncId())
	requireSync(t, did, syncCompleted, true)
	stop()
	writing.Wait()
	replica.waitApplied("shop", time.Minute)
	replica.mustVerify("shop").requireEqual(t)
}
