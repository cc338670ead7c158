package node

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func prepare(t testing.TB, databaseURL string, role Role) Identity {
	t.Helper()
	id, err := Prepare(t.Context(), databaseURL, role)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestPrepareKeepsTheServerID(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	first := prepare(t, db, Primary)
	conn := pgtest.Connect(t, db)
	if want := pgtest.QueryRow[string](t, conn, "SELECT current_database()::text"); first.Database != want {
		t.Errorf("database %q, want %q", first.Database, want)
	}
	if want := pgtest.QueryRow[string](t, conn, "SELECT system_identifier::text FROM pg_control_system()"); first.SystemIdentifier != want {
		t.Errorf("system %q, want %q", first.SystemIdentifier, want)
	}
	if first.PostgresVersion < minVersion || len(first.ServerID) != len("00000000-0000-0000-0000-000000000000") {
		t.Errorf("got %+v", first)
	}
	for _, role := range []Role{Primary, Replica, Replica} {
		if again := prepare(t, db, role); again != first {
			t.Errorf("role %s: %+v, before %+v", role, again, first)
		}
	}
	pgtest.Exec(t, conn, `INSERT INTO syncline.followers (name, log_id, lsn) VALUES ('f', decode(repeat('00', 16), 'hex'), '0/1')`)
}

func TestPrepareTogether(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	const processes = 8
	ids := make([]Identity, processes)
	var group sync.WaitGroup
	for i := range processes {
		group.Go(func() {
			role := []Role{Primary, Replica}[i%2]
			var err error
			if ids[i], err = Prepare(t.Context(), db, role); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("%+v and %+v", id, ids[0])
		}
	}
}

func TestCopiedDatabase(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	before := prepare(t, db, Replica)
	conn := pgtest.Connect(t, server.URL("postgres"))
	pgtest.Exec(t, conn, "CREATE DATABASE node_clone TEMPLATE "+postgres.Ident(before.Database))
	atEnd(t, server.URL("postgres"), "DROP DATABASE node_clone WITH (FORCE)")
	clone := server.URL("node_clone")
	_, err := Prepare(t.Context(), clone, Replica)
	if !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), "server reset-id") {
		t.Fatalf("got %v", err)
	}
	old, id, err := ResetID(t.Context(), clone)
	if err != nil || old != before.ServerID || id.ServerID == old {
		t.Fatalf("got %q, %+v, %v", old, id, err)
	}
	if got := prepare(t, clone, Replica); got != id {
		t.Errorf("%+v after reset, want %+v", got, id)
	}
	if got := prepare(t, db, Replica); got != before {
		t.Errorf("the original is now %+v", got)
	}
}

func TestOtherSystem(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	prepare(t, db, Primary)
	pgtest.Exec(t, pgtest.Connect(t, db), "UPDATE syncline.server SET system_identifier = '1'")
	if _, err := Prepare(t.Context(), db, Primary); !errors.Is(err, ErrCopied) {
		t.Errorf("got %v", err)
	}
}

func TestResetWithoutID(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	if _, _, err := ResetID(t.Context(), db); err == nil || !strings.Contains(err.Error(), "has no server id yet") {
		t.Errorf("got %v", err)
	}
}

func TestNewerDatabase(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	prepare(t, db, Primary)
	pgtest.Exec(t, pgtest.Connect(t, db), "UPDATE syncline.primary_migrations SET version = 9999")
	if _, err := Prepare(t.Context(), db, Primary); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// atEnd runs SQL when the test has ended, and with it its context.
func atEnd(t testing.TB, databaseURL, sql string) {
	t.Helper()
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), databaseURL)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Error(err)
		}
	})
}

// asRole makes a login role without privileges and returns the database's URL for it.
func asRole(t testing.TB, databaseURL, role string) string {
	t.Helper()
	conn := pgtest.Connect(t, databaseURL)
	pgtest.Exec(t, conn, "CREATE ROLE "+postgres.Ident(role)+" LOGIN PASSWORD 'secret'")
	atEnd(t, databaseURL, "DROP OWNED BY "+postgres.Ident(role)+" CASCADE; DROP ROLE "+postgres.Ident(role))
	parsed, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword(role, "secret")
	return parsed.String()
}

func TestPrivilegesAreNamed(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	admin := pgtest.Connect(t, db)
	poor := asRole(t, db, `node "poor"`)
	wants := func(grant string) {
		t.Helper()
		_, err := Prepare(t.Context(), poor, Primary)
		if !errors.Is(err, ErrPrivilege) || !strings.Contains(err.Error(), grant) {
			t.Errorf("got %v\nwant it to name %s", err, grant)
		}
	}
	database := postgres.Ident(pgtest.QueryRow[string](t, admin, "SELECT current_database()::text"))
	wants(`GRANT CREATE ON DATABASE ` + database + ` TO "node ""poor"""`)

	pgtest.Exec(t, admin, "CREATE SCHEMA syncline")
	wants(`GRANT USAGE, CREATE ON SCHEMA syncline TO "node ""poor"""`)

	prepare(t, db, Primary)
	wants(`GRANT USAGE, CREATE ON SCHEMA syncline TO "node ""poor"""`)

	pgtest.Exec(t, admin, `GRANT USAGE, CREATE ON SCHEMA syncline TO "node ""poor"""`)
	wants(`GRANT ALL ON ALL TABLES IN SCHEMA syncline TO "node ""poor"""`)

	pgtest.Exec(t, admin, `GRANT ALL ON ALL TABLES IN SCHEMA syncline TO "node ""poor"""`)
	if prepare(t, poor, Primary) != prepare(t, db, Primary) {
		t.Error("two identities")
	}
}

func TestLeastPrivilege(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	owner := asRole(t, db, "node_least")
	database := postgres.Ident(pgtest.QueryRow[string](t, pgtest.Connect(t, db), "SELECT current_database()::text"))
	pgtest.Exec(t, pgtest.Connect(t, db), "GRANT CREATE ON DATABASE "+database+" TO node_least")
	if prepare(t, owner, Primary) != prepare(t, owner, Replica) {
		t.Error("two identities")
	}
}

func TestNoServer(t *testing.T) {
	for _, bad := range []string{"postgres://u:hidden@127.0.0.1:1/d", "nonsense://u:hidden@"} {
		_, err := Prepare(t.Context(), bad, Primary)
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("got %v", err)
		}
	}
}

func TestResetWhileRunning(t *testing.T) {
	db := pgtest.Shared(t).Database(t)
	before := prepare(t, db, Primary)
	conn := pgtest.Connect(t, db)
	pgtest.Exec(t, conn, `INSERT INTO syncline.followers (name, log_id, lsn) VALUES ('f', decode(repeat('00', 16), 'hex'), '0/1')`)
	server, err := postgres.Connect(t.Context(), db, "syncline logger")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ResetID(t.Context(), db); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "syncline logger") {
		t.Errorf("got %v", err)
	}
	if err := server.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var id Identity
	pgtest.Eventually(t, 30*time.Second, func() (err error) { // until PostgreSQL has ended the session
		_, id, err = ResetID(t.Context(), db)
		return err
	})
	if id.ServerID == before.ServerID || prepare(t, db, Primary) != id {
		t.Errorf("%+v, before %+v", id, before)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM syncline.followers"); n != 0 {
		t.Errorf("%d followers of the old id are left", n)
	}
}
