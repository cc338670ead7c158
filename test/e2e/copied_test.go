package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// TestCopiedDatabases copies a replica's database and a primary's while they are known to others. A copy is refused until it
// has an id of its own; then the replica's goes on where it was, and the primary's is another source.
func TestCopiedDatabases(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)

	reset := func(url string) (stdout, stderr string, code int) {
		return run(t, "server", "reset-id", "--postgres", url)
	}
	if _, stderr, code := reset(targetURL); code != 1 || !strings.Contains(stderr, "syncline applier all") {
		t.Errorf("a running replica: exit code %d, %s", code, stderr)
	}
	replica.terminate(time.Minute)
	copyURL := copyDatabase(t, target, targetURL)
	pgtest.Exec(t, conn, "UPDATE items SET price = 1 WHERE id < 20")

	text := refusal(t, "replica", "--postgres", copyURL)
	t.Log(text)
	requireWords(t, text, "belongs to another database", "syncline server reset-id")
	stdout, stderr, code := reset(copyURL)
	t.Log(stdout)
	if code != 0 || stderr != "" || strings.Count(stdout, "server id") != 2 {
		t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
	}
	copied := startReplica(t, copyURL)
	copied.waitApplied("all", time.Minute)
	replica.start()
	replica.waitHealthy(time.Minute)
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, copyURL)
	pgtest.RequireEqual(t, sourceURL, targetURL)

	// The primary's copy is no continuation of the primary.
	primary.terminate(time.Minute)
	pgtest.WaitSlotsIdle(t, conn)
	pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('syncline')")
	otherURL := copyDatabase(t, source, sourceURL)
	if stdout, stderr, code := reset(otherURL); code != 0 {
		t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
	}
	other := newNode(t, "primary", "--postgres", otherURL, "--data", t.TempDir())
	other.grpc, other.args[2] = primary.grpc, primary.grpc
	other.start()
	other.waitHealthy(time.Minute)
	failed := replica.waitFailed("all", time.Minute)
	t.Log(failed.GetReason())
	if failed.GetReasonCode() != "SOURCE_CHANGED" {
		t.Errorf("the reason is %s", failed.GetReasonCode())
	}
	deleted, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := replica.applier().DeleteReplication(deleted, &applierv1.DeleteReplicationRequest{Name: "all"}); err != nil {
		t.Fatal(err)
	}
	_, err := replica.create("all", other.grpc)
	requireRefused(t, err, codes.FailedPrecondition, "TABLE_NOT_EMPTY", "--replace")
	replica.mustCreate("all", other.grpc, replace)
	pgtest.Exec(t, pgtest.Connect(t, otherURL), "UPDATE items SET price = 2 WHERE id < 20")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, otherURL, targetURL)
}

// copyDatabase copies a database together with what Syncline keeps in it, once nobody is connected to it, and returns the URL.
func copyDatabase(t testing.TB, server *pgtest.Server, url string) string {
	t.Helper()
	name := databaseOf(t, url)
	admin := pgtest.Connect(t, server.URL("postgres"))
	pgtest.Exec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
	pgtest.Eventually(t, time.Minute, func() error {
		_, err := admin.Exec(t.Context(), "CREATE DATABASE "+postgres.Ident(name+"_copy")+" TEMPLATE "+postgres.Ident(name))
		return err
	})
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), server.URL("postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+postgres.Ident(name+"_copy")+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return inDatabase(t, url, name+"_copy")
}
