package logger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// remotely runs statements as an applier does: the transaction begins with where it came from.
func remotely(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	const origin = `SELECT pg_logical_emit_message(true, 'syncline.origin', '{"server_id":"elsewhere","log_id":"000102030405060708090a0b0c0d0e0f","lsn":"7","commit_time":"5"}')`
	pgtest.Exec(t, conn, "BEGIN; "+origin+"; "+sql+"; COMMIT")
}

// TestLeaveOutRemoteChanges leaves out what was brought here, and confirms it: nothing of it is in the log, and the primary need not
// keep its WAL.
func TestLeaveOutRemoteChanges(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	cfg.LogRemoteChanges = false
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	name := fmt.Sprintf("brought_%d", conn.PgConn().PID())
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_create($1)", name)

	remotely(t, conn, "INSERT INTO a VALUES (1)")
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (2)")
	remotely(t, conn, "INSERT INTO a SELECT n, repeat('x', 1000) FROM generate_series(10, 3000) n; TRUNCATE a; SELECT pg_logical_emit_message(true, 'mine', 'x')")
	pgtest.Exec(t, conn, "BEGIN; INSERT INTO a VALUES (3); SELECT pg_logical_emit_message(true, 'syncline.origin', '{\"server_id\":\"late\",\"log_id\":\"000102030405060708090a0b0c0d0e0f\",\"lsn\":\"7\",\"commit_time\":\"5\"}'); COMMIT")
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_session_setup($1)", name)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (4)")
	remotely(t, conn, "INSERT INTO a VALUES (5)") // with both
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_session_reset()")
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_drop($1)", name)
	end := pgtest.QueryRow[string](t, conn, "SELECT pg_current_wal_lsn()::text")
	lsn, err := change.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	state := i.waitFor(t, "past what was left out, and confirmed", func(s *loggerv1.GetStateResponse) bool { return s.GetConfirmedLsn() >= uint64(lsn) })
	if state.GetRemoteTransactionsLeftOut() != 4 {
		t.Errorf("%d transactions were left out", state.GetRemoteTransactionsLeftOut())
	}
	var got []string
	for _, x := range withoutBarriers(follow(t, i, from, i.barrier(t)).history.done) {
		got = append(got, strings.Join(x.events, "; "))
	}
	want := []string{`insert public.a  t"2" n`, `insert public.a  t"3" n; origin late 7 5`}
	if !slices.Equal(got, want) {
		t.Errorf("in the log: %q", got)
	}
	i.configure(t, &loggerv1.LoggerConfig{LogRemoteChanges: true}, "log_remote_changes")
	at := i.barrier(t)
	remotely(t, conn, "INSERT INTO a VALUES (6)")
	if got := withoutBarriers(follow(t, i, at, i.barrier(t)).history.done); len(got) != 1 || got[0].events[0] != "origin elsewhere 7 5" {
		t.Errorf("captured again: %v", got)
	}
}

// TestAnnouncementsAreNotLeftOut has a transaction that was brought here take a table out of the publication: followers learn of it.
func TestAnnouncementsAreNotLeftOut(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int CONSTRAINT b_key PRIMARY KEY)")
	cfg := testConfig(t, url)
	cfg.LogRemoteChanges = false
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	remotely(t, conn, "INSERT INTO a VALUES (1); ALTER TABLE b DROP CONSTRAINT b_key; INSERT INTO a VALUES (2)") // the guard sees it
	got := withoutBarriers(follow(t, i, from, i.barrier(t)).history.done)
	if len(got) == 0 || got[0].count != 2 || got[0].events[0] != "origin elsewhere 7 5" || !strings.HasPrefix(got[0].events[1], "message syncline.tables ") {
		t.Errorf("in the log: %v", got)
	}
}

// TestRemoteChangesTurned turns the setting and kills the logger at random, under transactions of both kinds, small and large: what is
// sent again is never taken for another history, what is local is there once and whole, and what was brought here is whole or not there.
func TestRemoteChangesTurned(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int, part int, v text, PRIMARY KEY (id, part))")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	i.stop()
	r := seed(t)
	steps := []string{FaultReceived, FaultAppended, FaultSpooled, FaultReplayed, FaultDurable, FaultConfirmed}
	for round := range 8 {
		cfg.LogRemoteChanges = r.IntN(2) == 0
		c := startChild(t, cfg, fmt.Sprintf("%s=%s:%d", fault.Variable, steps[r.IntN(len(steps))], 1+r.IntN(400)))
		killed := false
		reached := func(lsn uint64) {
			t.Helper()
			pgtest.Eventually(t, patience, func() error {
				select {
				case <-c.done:
					killed = true
					return nil
				default:
				}
				state, err := c.client.GetState(t.Context(), &loggerv1.GetStateRequest{})
				if err == nil && (state.GetState() != PhaseCapturing || state.GetPosition().GetLsn() < lsn) {
					err = fmt.Errorf("%v", state)
				}
				return err
			})
		}
		reached(0)
		for n := 0; n < 60 && !killed; n++ {
			rows := 1
			if r.IntN(10) == 0 {
				rows = 500 + r.IntN(1500) // larger than a block
			}
			sql := fmt.Sprintf("INSERT INTO a SELECT %d, n, repeat('v', 400) FROM generate_series(1, %d) n", round*1000+n, rows)
			if r.IntN(2) == 0 {
				remotely(t, conn, sql)
			} else {
				pgtest.Exec(t, conn, sql)
			}
			select {
			case <-c.done:
				killed = true
			default:
			}
		}
		if !killed {
			end, err := change.ParseLSN(pgtest.QueryRow[string](t, conn, "SELECT pg_current_wal_lsn()::text"))
			if err != nil {
				t.Fatal(err)
			}
			reached(uint64(end))
		}
		if !killed {
			c.kill()
		}
	}
	cfg.LogRemoteChanges = r.IntN(2) == 0
	i = start(t, cfg)
	state := i.waitCapturing(t)
	to := i.barrier(t)
	if to.GetLogId() != from.GetLogId() {
		t.Fatalf("a new log was begun: %v", state.GetWarnings())
	}
	remote := func(x transaction) bool { return x.events[0] == "origin elsewhere 7 5" }
	log := follow(t, i, from, to).history.done
	want := make(map[uint64]transaction)
	local := 0
	for _, x := range w.read(t, url, to.GetLsn()) {
		want[x.end] = x
		if !remote(x) && x.end > from.GetLsn() {
			local++
		}
	}
	got, brought := 0, 0
	for _, x := range log {
		if x.end > to.GetLsn() {
			continue
		}
		if y, ok := want[x.end]; !ok || y.xid != x.xid || y.count != x.count || y.digest != x.digest {
			t.Fatalf("in the log:\n%v\nwas committed:\n%v", &x, &y)
		}
		if remote(x) {
			brought++
		} else {
			got++
		}
	}
	if got != local || got == 0 {
		t.Errorf("%d local transactions in the log, %d were committed", got, local)
	}
	t.Logf("%d local transactions, %d that were brought here, of %d in all", got, brought, len(want))
}

// TestLeftOutBeforeAnOpenTransaction kills the logger inside a large transaction, behind some that were left out and that the log has not
// passed yet, and turns the setting: they are sent again, could stand in the log no more, and are no other history.
func TestLeftOutBeforeAnOpenTransaction(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	cfg.LogRemoteChanges = false
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	i.stop()
	c := startChild(t, cfg, fmt.Sprintf("%s=%s:%d", fault.Variable, FaultReplayed, 8000))
	pgtest.Eventually(t, patience, func() error {
		state, err := c.client.GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && state.GetState() != PhaseCapturing {
			err = fmt.Errorf("%v", state)
		}
		return err
	})
	for n := range 5 {
		remotely(t, conn, fmt.Sprintf("INSERT INTO a VALUES (%d)", -n-1))
	}
	pgtest.Exec(t, conn, "INSERT INTO a SELECT n, repeat('v', 400) FROM generate_series(1, 20000) n")
	c.killed(FaultReplayed)

	cfg.LogRemoteChanges = true
	i = start(t, cfg)
	i.waitCapturing(t)
	remotely(t, conn, "INSERT INTO a VALUES (30000)")
	to := i.barrier(t)
	if to.GetLogId() != from.GetLogId() {
		t.Fatal("a new log was begun")
	}
	got := withoutBarriers(follow(t, i, from, to).history.done)
	if len(got) != 2 || got[0].count != 20000 || got[1].count != 2 {
		t.Errorf("in the log: %v", got)
	}
}
