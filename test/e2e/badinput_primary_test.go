package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// primaryRefuses starts primaries that cannot work: each ends with one sentence that says why, and leaves nothing behind.
func (s *servers) primaryRefuses(t *testing.T) {
	url := s.source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one')")
	newRole(t, conn, "anybody", "SUPERUSER")
	for _, test := range []struct {
		name  string
		url   string
		flags []string
		words []string
	}{
		{"closed port", asRole(t, "postgres://127.0.0.1:1/shop", "anybody"), nil, []string{"127.0.0.1:1", "connection refused"}},
		{"unknown host", asRole(t, "postgres://no-such-host.invalid/shop", "anybody"), nil, []string{"no-such-host.invalid"}},
		{"unknown database", asRole(t, inDatabase(t, url, "nowhere"), "anybody"), nil, []string{"nowhere", "does not exist"}},
		{"unknown role", asRole(t, url, "nobody_at_all"), nil, []string{"nobody_at_all", "does not exist"}},
		{"no URL", "shop on db1 password=" + secret, nil, []string{"postgres://USER:PASSWORD@HOST:PORT/DATABASE"}},
		{"broken URL", "postgres://anybody:" + secret + "@db1:port/shop", nil, []string{"postgres://USER:PASSWORD@HOST:PORT/DATABASE"}},
		{"unknown table", asRole(t, url, "anybody"), []string{"--table", "public.missing"}, []string{"public.missing", "no such table"}},
		{"unknown excluded table", asRole(t, url, "anybody"), []string{"--exclude-table", "public.missing"}, []string{"public.missing", "no such table"}},
		{"malformed table", asRole(t, url, "anybody"), []string{"--table", "a.b.c"}, []string{"a.b.c"}},
		{"malformed slot", asRole(t, url, "anybody"), []string{"--slot", "Not-A-Slot"}, []string{"Not-A-Slot", "lower-case letters"}},
		{"row limit too small", asRole(t, url, "anybody"), []string{"--max-row-bytes", "10"}, []string{"10", "1 MiB"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, data := objects(t, conn), filepath.Join(t.TempDir(), "log")
			text := refusal(t, "primary", append([]string{"--postgres", test.url, "--data", data}, test.flags...)...)
			t.Log(text)
			requireWords(t, text, test.words...)
			requireUnchanged(t, before, objects(t, conn))
			requireEmptyDir(t, data)
		})
	}
}

// primaryMends begins with a role without any privilege and gives it what each refusal asks for, until the primary starts.
func (s *servers) primaryMends(t *testing.T) {
	url := s.source.Database(t)
	super := pgtest.Connect(t, url)
	database := postgres.Ident(databaseOf(t, url))
	newRole(t, super, "syncline")
	newRole(t, super, "shop_owner")
	message := closeMessages(t, super)
	pgtest.Exec(t, super, `GRANT CREATE ON SCHEMA public TO shop_owner;
		CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one'); ALTER TABLE items OWNER TO shop_owner`)
	role := asRole(t, url, "syncline")
	data := filepath.Join(t.TempDir(), "log")
	before := objects(t, super)
	for _, step := range []struct{ name, asked string }{
		{"CREATE on the database", "GRANT CREATE ON DATABASE " + database + ` TO "syncline"`},
		{"REPLICATION", `ALTER ROLE "syncline" REPLICATION`},
		{"logical messages", "GRANT EXECUTE ON FUNCTION " + message + " TO syncline"},
		{"ownership", `GRANT "shop_owner" TO "syncline"`},
	} {
		t.Run(step.name, func(t *testing.T) {
			text := refusal(t, "primary", "--postgres", role, "--data", data)
			t.Log(text)
			requireWords(t, text, step.asked)
			requireUnchanged(t, before, objects(t, super))
			requireEmptyDir(t, data)
			pgtest.Exec(t, super, step.asked)
		})
	}
	primary := newNode(t, "primary", "--postgres", role, "--data", data)
	primary.start()
	primary.waitHealthy(time.Minute)
	s.requireReplicates(t, primary, url)
}

// closeMessages takes the right to emit logical messages away from everybody, in one database, and returns the function.
func closeMessages(t testing.TB, super *pgx.Conn) string {
	t.Helper()
	function := pgtest.QueryRow[string](t, super, "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype")
	pgtest.Exec(t, super, "REVOKE EXECUTE ON FUNCTION "+function+" FROM PUBLIC")
	return function
}

// primaryNeedsLogicalWAL refuses a server whose WAL cannot be decoded, for the logger and for the inventory.
func (*servers) primaryNeedsLogicalWAL(t *testing.T) {
	source := newSource(t, pgtest.WithFsync(false), pgtest.WithSetting("wal_level", "replica"))
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	before, data := objects(t, conn), filepath.Join(t.TempDir(), "log")
	text := refusal(t, "primary", "--postgres", url, "--data", data)
	t.Log(text)
	requireWords(t, text, "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'", "restart")
	requireUnchanged(t, before, objects(t, conn))
	requireEmptyDir(t, data)
	pgtest.Exec(t, conn, "ALTER SYSTEM SET wal_level = 'logical'")
	source.Restart(t)
	startPrimary(t, url, "--data", data)
}

// primaryNeedsRoom refuses a server that has no slot or no walsender left.
func (*servers) primaryNeedsRoom(t *testing.T) {
	source := newSource(t, pgtest.WithFsync(false), pgtest.WithSetting("max_replication_slots", "1"), pgtest.WithSetting("max_wal_senders", "1"))
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	data := filepath.Join(t.TempDir(), "log")
	pgtest.Exec(t, conn, "SELECT pg_create_physical_replication_slot('somebody')")
	before := objects(t, conn)
	text := refusal(t, "primary", "--postgres", url, "--data", data)
	t.Log(text)
	requireWords(t, text, "all 1 replication slots", "max_replication_slots = 11", "restart")
	requireUnchanged(t, before, objects(t, conn))
	pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('somebody')")

	before = objects(t, conn)
	other, err := postgres.ConnectReplication(t.Context(), url, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	text = refusal(t, "primary", "--postgres", url, "--data", data)
	t.Log(text)
	requireWords(t, text, "all 1 walsenders", "max_wal_senders = 11", "restart")
	requireUnchanged(t, before, objects(t, conn))
	requireEmptyDir(t, data)
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The walsender is gone when its entry is.
	pgtest.Eventually(t, time.Minute, func() error { return noWalsender(t.Context(), conn) })
	startPrimary(t, url, "--data", data)
}

func noWalsender(ctx context.Context, conn *pgx.Conn) error {
	var pid int
	err := conn.QueryRow(ctx, "SELECT coalesce((SELECT pid FROM pg_stat_replication LIMIT 1), 0)").Scan(&pid)
	if err == nil && pid != 0 {
		err = errStillThere
	}
	return err
}

// standbyIsRefused tells a standby by name, on either side.
func (*servers) standbyIsRefused(t *testing.T) {
	source := newSource(t, pgtest.WithFsync(false))
	url := source.Database(t)
	source.Stop(t)
	if err := os.WriteFile(filepath.Join(source.Cluster.DataDir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	source.Start(t)
	data := filepath.Join(t.TempDir(), "log")
	for _, command := range []struct {
		role string
		args []string
	}{{"primary", []string{"--data", data}}, {"replica", nil}} {
		text := refusal(t, command.role, append([]string{"--postgres", url}, command.args...)...)
		t.Log(text)
		requireWords(t, text, "standby", "connect to")
	}
	requireEmptyDir(t, data)
	pgtest.Exec(t, pgtest.Connect(t, url), "SELECT pg_promote()")
	startPrimary(t, url)
}

// foreignObjects leaves a slot and a publication alone that bear our name and are not ours.
func (s *servers) foreignObjects(t *testing.T) {
	url := s.source.Database(t)
	conn := pgtest.Connect(t, url)
	data := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct{ make, remove, words string }{
		{"SELECT pg_create_physical_replication_slot('syncline')", "SELECT pg_drop_replication_slot('syncline')", "--slot"},
		{"SELECT pg_create_logical_replication_slot('syncline', 'test_decoding')", "SELECT pg_drop_replication_slot('syncline')", "--slot"},
		{"CREATE PUBLICATION syncline FOR ALL TABLES", "DROP PUBLICATION syncline", "--publication"},
	} {
		if _, err := conn.Exec(t.Context(), test.make); err != nil {
			if postgres.Code(err) == "58P01" { // this server has no test_decoding
				continue
			}
			t.Fatal(err)
		}
		before := objects(t, conn)
		text := refusal(t, "primary", "--postgres", url, "--data", data)
		t.Log(text)
		requireWords(t, text, test.words)
		requireUnchanged(t, before, objects(t, conn))
		requireEmptyDir(t, data)
		pgtest.Exec(t, conn, test.remove)
	}
	startPrimary(t, url, "--data", data)
}

// twoLoggers starts a second primary beside one that runs: with the same directory it ends, with another one it waits and says
// who holds the slot. The first one does not notice.
func (s *servers) twoLoggers(t *testing.T) {
	url, targetURL := s.source.Database(t), s.target.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, shop)
	data := t.TempDir()
	primary, replica := startPrimary(t, url, "--data", data), startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	log := barrier(t, primary).GetLogId()

	stdout, stderr, code := run(t, "primary", "--grpc", freeAddress(t), "--http", freeAddress(t), "--postgres", url, "--data", data)
	t.Log(stderr)
	if code != 1 {
		t.Errorf("a second logger in the same directory ended with %d: %s%s", code, stdout, stderr)
	}
	requireWords(t, stderr, data)

	second := newNode(t, "primary", "--postgres", url, "--data", t.TempDir())
	second.start()
	second.waitHealthy(time.Minute)
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := second.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err != nil {
			return err
		}
		if state.GetReasonCode() != "SLOT_IN_USE" {
			return fmt.Errorf("the second logger is %s: %s %s", state.GetState(), state.GetReasonCode(), state.GetReason())
		}
		t.Log(state.GetReason())
		requireWords(t, state.GetReason(), "syncline logger", "--slot")
		return nil
	})
	pgtest.Exec(t, conn, "UPDATE items SET price = 3; DELETE FROM sales.orders WHERE id > 50")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, url, targetURL)
	if now := barrier(t, primary).GetLogId(); now != log {
		t.Errorf("the log id changed from %s to %s", log, now)
	}
}
