package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func (n *node) sync(request *applierv1.SyncReplicationRequest) *applierv1.Sync {
	n.t.Helper()
	answer, err := n.applier().SyncReplication(n.t.Context(), request)
	if err != nil {
		n.t.Fatalf("sync: %s (%s)", rpc.Message(err), rpc.Reason(err))
	}
	return answer.GetSync()
}

// waitSync watches a job to its end, and returns it whole.
func (n *node) waitSync(id string) *applierv1.Sync {
	n.t.Helper()
	stream, err := n.applier().WatchSync(n.t.Context(), &applierv1.WatchSyncRequest{SyncId: id})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		n.t.Fatal(err)
	}
	answer, err := n.applier().GetSync(n.t.Context(), &applierv1.GetSyncRequest{SyncId: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.GetSync()
}

func requireSync(t testing.TB, s *applierv1.Sync, state applierv1.SyncState, equal bool) {
	t.Helper()
	if s.GetState() != state || s.GetResult().GetEqual() != equal {
		t.Fatalf("sync %v", s)
	}
}

const (
	syncCopy        = applierv1.SyncMode_SYNC_MODE_COPY
	syncIncremental = applierv1.SyncMode_SYNC_MODE_INCREMENTAL
	syncCompleted   = applierv1.SyncState_SYNC_STATE_COMPLETED
)

func TestSync(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, keptTables+`
		CREATE TABLE parts (id integer, region text, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
		CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
		CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
		INSERT INTO parts SELECT n, chr(97 + n % 3), 'note' FROM generate_series(1, 2000) n;
		CREATE TABLE hot (id integer PRIMARY KEY, n bigint, note text);
		INSERT INTO hot SELECT n, 0, 'note ' || n FROM generate_series(1, 4000) n`)
	pgtest.Exec(t, here, "CREATE TABLE parts (id integer, region text, note text, PRIMARY KEY (id, region))")
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	writing.Go(func() { writeHot(ctx, t, primaryURL, rand.New(rand.NewPCG(1, 1))) })

	const spoil = "UPDATE kept.rows SET a = -abs(a) - 1 WHERE id < 10; DELETE FROM parts WHERE id = 7; INSERT INTO kept.lines VALUES (77, 'x')"
	t.Run("incremental", func(t *testing.T) {
		pgtest.Exec(t, here, spoil)
		would := replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: syncIncremental, DryRun: true}).GetSyncId())
		requireSync(t, would, syncCompleted, false)
		if r := would.GetResult(); !r.GetDryRun() || r.GetTablesDifferent() != 3 || len(would.GetRows()) != 11 {
			t.Errorf("dry run: %v", would)
		}
		did := replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: syncIncremental}).GetSyncId())
		requireSync(t, did, syncCompleted, true)
		if r := did.GetResult(); r.GetTablesMended() != 3 || r.GetUpdated() != 9 || r.GetInserted() != 1 || r.GetDeleted() != 1 {
			t.Errorf("%v", did)
		}
		replica.mustVerify("shop").requireEqual(t)
	})
	t.Run("copy", func(t *testing.T) {
		pgtest.Exec(t, here, spoil)
		request := &applierv1.SyncReplicationRequest{Name: "shop", Mode: syncCopy, IncludeTables: []string{"kept.rows", "public.parts"}}
		request.DryRun = true
		would := replica.waitSync(replica.sync(request).GetSyncId())
		requireSync(t, would, syncCompleted, false)
		if would.GetResult().GetTablesDifferent() != 3 { // the partitions are copied each for itself
			t.Errorf("dry run: %v", would)
		}
		if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM parts WHERE id = 7"); n != 0 {
			t.Error("the dry run has copied")
		}
		request.DryRun = false
		did := replica.waitSync(replica.sync(request).GetSyncId())
		requireSync(t, did, syncCompleted, true)
		if r := did.GetResult(); r.GetInserted() != 7000 {
			t.Errorf("%v", did)
		}
		v := replica.mustVerify("shop")
		if lines := v.lines(); len(lines) != 1 || !strings.Contains(lines[0], "kept.lines extra") {
			t.Errorf("the tables that were not asked for differ by %q", lines)
		}
		requireSync(t, replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: syncCopy}).GetSyncId()), syncCompleted, true)
		replica.mustVerify("shop").requireEqual(t)
	})
	// held keeps a job from going on, until release.
	held := func(mode applierv1.SyncMode) (id string, release func()) {
		step := "%pg_relation_size%"
		if mode == syncCopy { // it empties the table; that it copies is stored by then
			step = "%EXISTS (SELECT FROM ONLY%"
		}
		locker := pgtest.Connect(t, replicaURL)
		pgtest.Exec(t, locker, "BEGIN; LOCK TABLE kept.lines IN ACCESS EXCLUSIVE MODE")
		id = replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: mode}).GetSyncId()
		pgtest.Eventually(t, time.Minute, func() error {
			const waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'kept.lines'::regclass AND NOT granted AND query LIKE $1"
			if n := pgtest.QueryRow[int](t, here, waiting, step); n == 0 {
				return fmt.Errorf("nobody waits for the lock in %s", step)
			}
			return nil
		})
		return id, func() { pgtest.Exec(t, locker, "COMMIT") }
	}
	t.Run("one at a time, and cancelled", func(t *testing.T) {
		id, release := held(syncIncremental)
		_, err := replica.applier().SyncReplication(t.Context(), &applierv1.SyncReplicationRequest{Name: "shop", Mode: syncCopy})
		requireReason(t, err, codes.Aborted, "SYNC_RUNNING")
		if rpc.Metadata(err)["sync_id"] != id {
			t.Errorf("the other job is not named: %v", err)
		}
		answer, err := replica.applier().CancelSync(t.Context(), &applierv1.CancelSyncRequest{SyncId: id})
		if err != nil || answer.GetSync().GetState() != applierv1.SyncState_SYNC_STATE_CANCELLED {
			t.Errorf("cancelled: %v, %v", answer, err)
		}
		release()
	})
	t.Run("interrupted", func(t *testing.T) {
		id, release := held(syncIncremental)
		replica.kill9()
		replica.start()
		replica.waitHealthy(time.Minute)
		release()
		requireSync(t, replica.waitSync(id), applierv1.SyncState_SYNC_STATE_INTERRUPTED, false)
		replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)

		// A copy goes on.
		pgtest.Exec(t, here, spoil)
		id, release = held(syncCopy)
		replica.kill9()
		replica.start()
		release()
		replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
		requireSync(t, replica.waitSync(id), applierv1.SyncState_SYNC_STATE_INTERRUPTED, false)
		pgtest.Eventually(t, time.Minute, func() error {
			if v := replica.mustVerify("shop"); !v.result.GetEqual() {
				return fmt.Errorf("%v", v.result)
			}
			return nil
		})
	})
	t.Run("a connection is lost", func(t *testing.T) {
		pgtest.Exec(t, here, spoil)
		id, release := held(syncIncremental)
		cutSessions(t, here, 0)
		release()
		requireSync(t, replica.waitSync(id), syncCompleted, true)
	})
	t.Run("refused", func(t *testing.T) {
		_, err := replica.applier().SyncReplication(t.Context(), &applierv1.SyncReplicationRequest{Name: "shop"})
		requireReason(t, err, codes.InvalidArgument, "INVALID_FIELD")
		_, err = replica.applier().SyncReplication(t.Context(), &applierv1.SyncReplicationRequest{Name: "sop", Mode: syncCopy})
		requireReason(t, err, codes.NotFound, "REPLICATION_NOT_FOUND")
		_, err = replica.applier().GetSync(t.Context(), &applierv1.GetSyncRequest{SyncId: "none"})
		requireReason(t, err, codes.NotFound, "SYNC_NOT_FOUND")
		failed := replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shop", Mode: syncCopy, IncludeTables: []string{"public.none"}}).GetSyncId())
		if failed.GetState() != applierv1.SyncState_SYNC_STATE_FAILED || failed.GetReasonCode() != "UNKNOWN_TABLE" {
			t.Errorf("%v", failed)
		}
	})
	t.Run("command", func(t *testing.T) {
		pgtest.Exec(t, here, spoil)
		out, errOut, code := run(t, "sync", "shop", "--mode", "incremental", "--wait", "--addr", replica.grpc)
		if code != 0 || !strings.Contains(out, "1 rows inserted, 9 updated, 1 deleted") {
			t.Errorf("exit code %d, %q, %q", code, out, errOut)
		}
		out, _, code = run(t, "sync", "list", "--addr", replica.grpc)
		if code != 0 || strings.Count(out, "interrupted") != 2 || strings.Count(out, "cancelled") != 1 {
			t.Errorf("exit code %d, %q", code, out)
		}
		out, errOut, code = run(t, "repair", "shop", "--addr", replica.grpc)
		if code != 0 || !strings.HasPrefix(out, "equal: ") {
			t.Errorf("exit code %d, %q, %q", code, out, errOut)
		}
	})
	stop()
	writing.Wait()
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqualWith(t, primaryURL, replicaURL, pgtest.CompareOptions{Except: []string{"public.parts"}}) // in other partitions here
	replica.mustVerify("shop").requireEqual(t)
}
