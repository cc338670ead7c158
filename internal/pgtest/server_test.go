package pgtest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestSharedDatabases(t *testing.T) {
	s := Shared(t)
	var name string
	released := make(chan struct{})
	t.Run("messy ünder/Name", func(t *testing.T) {
		url := s.Database(t)
		if other := s.Database(t); other == url {
			t.Fatalf("the same database twice: %s", url)
		}
		conn := Connect(t, url)
		name = QueryRow[string](t, conn, "SELECT current_database()::text")
		Exec(t, conn, "CREATE TABLE a (n int); CREATE PUBLICATION p FOR TABLE a")
		Exec(t, conn, "SELECT pg_create_logical_replication_slot('shared_databases', 'pgoutput')")
		Exec(t, conn, "BEGIN; INSERT INTO a VALUES (1); PREPARE TRANSACTION 'it''s left over'")

		// A session that holds the slot must not keep the database from going.
		holder, err := pgx.Connect(t.Context(), url+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		start := `START_REPLICATION SLOT shared_databases LOGICAL 0/0 (proto_version '1', publication_names 'p')`
		go func() {
			defer close(released)
			defer holder.Close(context.Background())
			holder.PgConn().Exec(context.Background(), start).ReadAll()
		}()
		Eventually(t, 10*time.Second, func() error {
			var pid int
			return conn.QueryRow(t.Context(), `SELECT active_pid FROM pg_replication_slots
				WHERE slot_name = 'shared_databases' AND active`).Scan(&pid)
		})
	})
	<-released
	conn := Connect(t, s.URL("postgres"))
	left := QueryRow[int](t, conn, `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1)
		+ (SELECT count(*) FROM pg_replication_slots WHERE database = $1)`, name)
	if left != 0 {
		t.Errorf("%d things are left of database %s", left, name)
	}
}

func TestNew(t *testing.T) {
	s := New(t, WithFsync(false), WithSetting("work_mem", "5MB"))
	url := s.Database(t)
	conn := Connect(t, url)
	if got := QueryRow[string](t, conn, "SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem is %s", got)
	}
	Exec(t, conn, "CREATE TABLE a (n int); INSERT INTO a VALUES (1)")
	for _, again := range []func(testing.TB){s.Kill9, s.Stop} {
		pid := s.PID()
		again(t)
		s.Start(t)
		if s.PID() == pid {
			t.Fatal("the same process again")
		}
		if n := QueryRow[int](t, Connect(t, url), "SELECT count(*) FROM a"); n != 1 {
			t.Errorf("%d rows", n)
		}
	}
	s.Restart(t)
	s.Kill9(t) // cleanup must cope
}
