package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func containsSecret(text string) bool { return strings.Contains(text, secret) }

// waitFailed waits until a replication has failed.
func (n *node) waitFailed(name string, timeout time.Duration) (last *applierv1.Replication) {
	n.t.Helper()
	pgtest.Eventually(n.t, timeout, func() (err error) {
		if last, err = n.get(name); err != nil {
			return err
		}
		if last.GetState() != applierv1.State_STATE_FAILED {
			return errors.New(last.GetState().String() + ": " + last.GetReason())
		}
		return nil
	})
	return last
}

// restart starts a replication that has failed.
func (n *node) restart(name string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := n.applier().StartReplication(ctx, &applierv1.StartReplicationRequest{Name: name}, grpc.WaitForReady(true)); err != nil {
		n.t.Fatalf("start replication: %s", rpc.Message(err))
	}
}

// requireFailed waits until a replication has failed with a reason that holds the words, because of what was last committed on
// the source. Then it starts it again without any mending: it fails again, in the same way, and nothing of that was applied.
func requireFailed(t testing.TB, source *pgx.Conn, replica *node, name, reason string, words ...string) {
	t.Helper()
	committed, err := change.ParseLSN(pgtest.QueryRow[string](t, source, "SELECT pg_current_wal_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	for try := range 2 {
		failed := replica.waitFailed(name, time.Minute)
		t.Log(failed.GetReasonCode(), failed.GetReason())
		if failed.GetReasonCode() != reason {
			t.Errorf("the reason is %s instead of %s", failed.GetReasonCode(), reason)
		}
		requireWords(t, failed.GetReason(), words...)
		if position := failed.GetPosition().GetLsn(); position >= uint64(committed) {
			t.Errorf("the position %d is behind the transaction that cannot be applied, at or before %d", position, committed)
		}
		if try == 0 {
			replica.restart(name)
		}
	}
}

// columnLost drops a column of the replica's table while it is written: the replication stops and names it. Once it is
// there again the replication goes on without a loss.
func (s *servers) columnLost(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source, target := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.Exec(t, source, shop+"ALTER TABLE items ADD colour text")
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	// The first changes make the statements known to the session, before the column is lost.
	pgtest.Exec(t, source, "INSERT INTO items VALUES (101, 'before', 1); UPDATE items SET price = 2 WHERE id = 101; DELETE FROM items WHERE id = 101")
	replica.waitApplied("all", time.Minute)
	for _, change := range []string{
		"INSERT INTO items VALUES (102, 'after', 1)", "UPDATE items SET price = 3 WHERE id = 100", "INSERT INTO items SELECT n FROM generate_series(200, 1200) n",
		"UPDATE items SET price = 4", "UPDATE sales.orders SET note = 'also'; UPDATE items SET colour = 'red'; DELETE FROM sales.orders WHERE id = 7",
	} {
		// Whatever was in the column is lost with it; so it is empty again on the source.
		pgtest.Exec(t, source, "UPDATE items SET colour = NULL")
		replica.waitApplied("all", time.Minute)
		pgtest.Exec(t, target, "ALTER TABLE items DROP colour")
		pgtest.Exec(t, source, change)
		requireFailed(t, source, replica, "all", "SCHEMA_MISMATCH", "table public.items", `column "colour"`)
		pgtest.Exec(t, target, "ALTER TABLE items ADD colour text")
		replica.restart("all")
		replica.waitApplied("all", time.Minute)
		pgtest.RequireEqual(t, sourceURL, targetURL)
	}
}

// rowLost deletes rows on the replica by hand, and has them changed on the source: the replication stops and names table and key.
// Once they are there again it goes on.
func (s *servers) rowLost(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source, target := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.Exec(t, source, shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL, "--retry-max", "1s")
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	for _, change := range []string{
		"UPDATE sales.orders SET note = 'new' WHERE id = 42",
		"DELETE FROM sales.orders WHERE id = 42",
		"UPDATE sales.orders SET id = 4200 WHERE id = 42",
		"UPDATE sales.orders SET note = 'all of them'; DELETE FROM items WHERE id = 1000; INSERT INTO items VALUES (1001)",
	} {
		pgtest.Exec(t, source, "DELETE FROM sales.orders WHERE id = 4200; DELETE FROM items WHERE id = 1001; INSERT INTO sales.orders VALUES (42, 42, 'kept') ON CONFLICT (id) DO UPDATE SET note = 'kept'")
		replica.waitApplied("all", time.Minute)
		pgtest.Exec(t, target, "DELETE FROM sales.orders WHERE id = 42")
		pgtest.Exec(t, source, change)
		requireFailed(t, source, replica, "all", "ROW_MISSING", "sales.orders", "id=42", "does not have this row")
		pgtest.Exec(t, target, "INSERT INTO sales.orders VALUES (42, 42, 'kept')")
		replica.restart("all")
		replica.waitApplied("all", time.Minute)
		pgtest.RequireEqual(t, sourceURL, targetURL)
	}
}

// rowInTheWay inserts rows on the replica by hand that the source inserts later: the replication stops and names table and key.
// Once they are gone it goes on.
func (s *servers) rowInTheWay(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source, target := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
	pgtest.Exec(t, source, shop+"ALTER TABLE items ADD UNIQUE (name)")
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	for _, test := range []struct{ change, words string }{
		{"INSERT INTO items VALUES (5000, 'theirs')", "id=5000"},
		{"INSERT INTO items SELECT n, 'many ' || n FROM generate_series(4000, 6000) n", "id=5000"},
		{"UPDATE items SET id = 5000 WHERE id = 100", "id=100"}, // the old key
		{"INSERT INTO items VALUES (5001, 'mine')", "id=5001"},  // the other unique key
	} {
		pgtest.Exec(t, source, "DELETE FROM sales.orders WHERE item = 100; DELETE FROM items WHERE id >= 4000; INSERT INTO items VALUES (100, 'hundred') ON CONFLICT (id) DO NOTHING")
		replica.waitApplied("all", time.Minute)
		pgtest.Exec(t, target, "INSERT INTO items VALUES (5000, 'mine')")
		pgtest.Exec(t, source, test.change)
		requireFailed(t, source, replica, "all", "ROW_EXISTS", "public.items", test.words, "already has such a row")
		pgtest.Exec(t, target, "DELETE FROM items WHERE id = 5000 AND name = 'mine'")
		replica.restart("all")
		replica.waitApplied("all", time.Minute)
		pgtest.RequireEqual(t, sourceURL, targetURL)
	}
}

// rowTooLarge commits a row above --max-row-bytes: capture stops and names table, row and sizes; nothing of its transaction is
// shown to anybody. With a higher limit it goes on without a loss.
func (s *servers) rowTooLarge(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	source := pgtest.Connect(t, sourceURL)
	// The copy may hold such a row: the limit is that of the change log.
	pgtest.Exec(t, source, shop+"INSERT INTO items VALUES (70, repeat('before', 1000000), 1) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name")
	primary, replica := startPrimary(t, sourceURL, "--max-row-bytes", "1048576"), startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.Exec(t, source, "BEGIN; INSERT INTO items VALUES (500, 'small'); INSERT INTO items VALUES (501, repeat('wide', 1000000), 1); UPDATE items SET price = 7 WHERE id = 1; COMMIT")
	var state *loggerv1.GetStateResponse
	pgtest.Eventually(t, time.Minute, func() (err error) {
		if state, err = primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{}); err == nil && state.GetState() != "failed" {
			err = errors.New("capture is " + state.GetState())
		}
		return err
	})
	t.Log(state.GetReasonCode(), state.GetReason())
	if state.GetReasonCode() != "ROW_TOO_LARGE" {
		t.Errorf("the reason is %s", state.GetReasonCode())
	}
	requireWords(t, state.GetReason(), "table public.items", "id=501", "1048576", "--max-row-bytes", "--exclude-table")
	pgtest.Exec(t, source, "UPDATE items SET price = 8 WHERE id = 2") // the primary goes on
	if n := pgtest.QueryRow[int](t, pgtest.Connect(t, targetURL), "SELECT count(*) FROM items WHERE id >= 500 OR price IN (7, 8) AND id IN (1, 2)"); n != 0 {
		t.Errorf("%d rows of a transaction that is not in the change log, or came after it, are on the replica", n)
	}
	primary.kill9()
	primary.args = append(primary.args, "--max-row-bytes", "16777216")
	primary.start()
	primary.waitHealthy(time.Minute)
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// retryNow has the source away until the replica tries again only seldom. The state says all the time what is wrong, and
// starting the replication makes it try at once.
func (s *servers) retryNow(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL, "--retry-max", "1h")
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	primary.kill9()
	replica.waitState("all", time.Minute, applierv1.State_STATE_RETRYING)
	var next time.Time
	const longPause = 15 * time.Second
	pgtest.Eventually(t, 2*time.Minute, func() error {
		r, err := replica.get("all")
		if err != nil {
			return err
		}
		if r.GetState() != applierv1.State_STATE_RETRYING || r.GetReason() == "" {
			t.Fatalf("while the source is away the replication is %s: %q", r.GetState(), r.GetReason())
		}
		if next = r.GetNextRetryTime().AsTime(); r.GetNextRetryTime() == nil || time.Until(next) < longPause {
			return errors.New("it tries often")
		}
		return nil
	})
	primary.start()
	primary.waitHealthy(time.Minute)
	primary.waitCapturing(time.Minute)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), "UPDATE items SET price = 5")
	replica.restart("all")
	replica.waitState("all", time.Minute, applierv1.State_STATE_RUNNING)
	if !time.Now().Before(next) {
		t.Error("it waited although it was started")
	}
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}
