package logger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestNewLog breaks the log's continuity in every way: a new log is begun, the state says why, and a follower of the old
// one is told.
func TestNewLog(t *testing.T) {
	other := pgtest.New(t, pgtest.WithFsync(false))
	for name, c := range map[string]struct {
		code  string
		while func(t *testing.T, cfg *Config, url string) // while the logger is down
	}{
		"nothing happened": {"", func(*testing.T, *Config, string) {}},
		"slot dropped": {newLogSlotMissing, func(t *testing.T, cfg *Config, url string) {
			pgtest.Exec(t, pgtest.Connect(t, url), "SELECT pg_drop_replication_slot($1)", cfg.Slot)
		}},
		"slot made again": {newLogSlotAhead, func(t *testing.T, cfg *Config, url string) {
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot($1)", cfg.Slot)
			pgtest.Exec(t, conn, "INSERT INTO a VALUES (3)") // this one is in neither
			pgtest.Exec(t, conn, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", cfg.Slot)
		}},
		"slot advanced": {newLogSlotAhead, func(t *testing.T, cfg *Config, url string) {
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, "INSERT INTO a VALUES (3)")
			pgtest.Exec(t, conn, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", cfg.Slot)
		}},
		"publication made again": {newLogPublications, func(t *testing.T, _ *Config, url string) {
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, "DROP PUBLICATION syncline; INSERT INTO a VALUES (3)")
			pgtest.Exec(t, conn, `CREATE PUBLICATION syncline FOR TABLE a`)
		}},
		"publication dropped": {newLogPublications, func(t *testing.T, _ *Config, url string) {
			pgtest.Exec(t, pgtest.Connect(t, url), "DROP PUBLICATION syncline_insert; INSERT INTO a VALUES (3)")
		}},
		"other server": {newLogSystem, func(t *testing.T, cfg *Config, _ string) {
			cfg.PostgresURL = other.Database(t)
			next := testConfig(t, cfg.PostgresURL)
			cfg.ServerID = next.ServerID
			pgtest.Exec(t, pgtest.Connect(t, cfg.PostgresURL), "CREATE TABLE a (id int PRIMARY KEY)")
		}},
		"lineage lost": {newLogSystem, func(t *testing.T, cfg *Config, _ string) {
			if err := os.Remove(filepath.Join(cfg.Dir, lineageFile)); err != nil {
				t.Fatal(err)
			}
		}},
		"data lost": {newLogFirst, func(t *testing.T, cfg *Config, _ string) { cfg.Dir = t.TempDir() }},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Shared(t).Database(t)
			pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id int PRIMARY KEY)")
			cfg := testConfig(t, url)
			i := start(t, cfg)
			i.waitCapturing(t)
			pgtest.Exec(t, pgtest.Connect(t, url), "INSERT INTO a VALUES (1)")
			old := i.barrier(t)
			follow(t, i, nil, old) // it is durable
			i.stop()
			pgtest.WaitSlotsIdle(t, pgtest.Connect(t, url))
			c.while(t, &cfg, url)

			i = start(t, cfg)
			state := i.waitCapturing(t)
			position := i.barrier(t)
			if c.code == "" {
				if position.GetLogId() != old.GetLogId() || len(state.GetWarnings()) != 0 {
					t.Errorf("a new log was begun: %v", state)
				}
				return
			}
			if position.GetLogId() == old.GetLogId() {
				t.Fatal("the log was continued")
			}
			if warnings := strings.Join(state.GetWarnings(), "\n"); !strings.HasPrefix(warnings, c.code+": ") {
				t.Errorf("warnings: %s, want %s", warnings, c.code)
			}
			err := new(reader).read(t.Context(), i.client, &loggerv1.FollowRequest{Position: old})
			if rpc.Reason(err) != ReasonLogIDMismatch || rpc.Metadata(err)["log_id"] != position.GetLogId() {
				t.Errorf("a follower of the old log gets %v", err)
			}
			// The new log works.
			pgtest.Exec(t, pgtest.Connect(t, cfg.PostgresURL), "INSERT INTO a VALUES (4)")
			if got := withoutBarriers(follow(t, i, position, i.barrier(t)).history.done); len(got) != 1 {
				t.Errorf("in the new log: %v", got)
			}
		})
	}
}

// TestNewLogWhileRunning drops the publication under a running logger, with a follower connected.
func TestNewLogWhileRunning(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	old := i.barrier(t)
	ended := make(chan error, 1)
	go func() {
		ended <- new(reader).read(t.Context(), i.client, &loggerv1.FollowRequest{Position: old, Follower: "f"})
	}()
	pgtest.Eventually(t, patience, func() error {
		if i.state(t).GetFollowers() != 1 {
			return fmt.Errorf("not connected")
		}
		return nil
	})
	pgtest.Exec(t, conn, "DROP PUBLICATION syncline; INSERT INTO a VALUES (1)")
	select {
	case err := <-ended:
		if rpc.Reason(err) != ReasonLogIDMismatch {
			t.Errorf("the follower gets %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the follower was not told")
	}
	state := i.waitFor(t, "capturing a new log", func(s *loggerv1.GetStateResponse) bool {
		return s.GetState() == PhaseCapturing && s.GetPosition().GetLogId() != old.GetLogId()
	})
	if !strings.Contains(strings.Join(state.GetWarnings(), "\n"), newLogPublications) {
		t.Errorf("state %v", state)
	}
}

// TestInvalidatedSlot lets the server take away the slot's WAL.
func TestInvalidatedSlot(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false), pgtest.WithSetting("max_slot_wal_keep_size", "1MB"), pgtest.WithSetting("min_wal_size", "32MB"), pgtest.WithSetting("max_wal_size", "32MB"))
	url := server.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	state := i.waitFor(t, "with a warning", func(s *loggerv1.GetStateResponse) bool {
		return s.GetState() == PhaseCapturing && len(s.GetWarnings()) > 0
	})
	if !strings.Contains(state.GetWarnings()[0], "max_slot_wal_keep_size is 1MB") {
		t.Errorf("warnings %v", state.GetWarnings())
	}
	old := i.barrier(t)
	i.stop()
	pgtest.Eventually(t, patience, func() error {
		for range 4 {
			pgtest.Exec(t, conn, "INSERT INTO a SELECT (random() * 2e9)::int, repeat('x', 1000) FROM generate_series(1, 10000) ON CONFLICT DO NOTHING")
			pgtest.Exec(t, conn, "SELECT pg_switch_wal()")
		}
		pgtest.Exec(t, conn, "CHECKPOINT")
		if status := pgtest.QueryRow[string](t, conn, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", cfg.Slot); status != "lost" {
			return fmt.Errorf("the slot is %s", status)
		}
		return nil
	})
	i = start(t, cfg)
	state = i.waitCapturing(t)
	if state.GetPosition().GetLogId() == old.GetLogId() || !strings.Contains(strings.Join(state.GetWarnings(), "\n"), newLogSlotLost) {
		t.Errorf("state %v", state)
	}
}

// TestSlotInUse starts a second logger on the same slot: it says who holds it, and takes over when that one ends.
func TestSlotInUse(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	cfg.Dir = t.TempDir()
	second := start(t, cfg)
	state := second.waitFor(t, "waiting for the slot", func(s *loggerv1.GetStateResponse) bool { return s.GetReasonCode() == CodeSlotInUse })
	if !strings.Contains(state.GetReason(), "it is held by syncline logger from ") {
		t.Errorf("reason %q", state.GetReason())
	}
	if state := i.waitCapturing(t); state.GetState() != PhaseCapturing {
		t.Errorf("the first: %v", state)
	}
	i.stop()
	second.waitCapturing(t)
}

// TestForeignTrafficKeepsNoWAL writes to tables that are not published only: the slot moves all the same.
func TestForeignTrafficKeepsNoWAL(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	url := server.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE foreign_traffic (v text)")
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.foreign_traffic"}
	i := start(t, cfg)
	i.waitCapturing(t)
	begin := i.barrier(t)
	slot := func() (confirmed, restart, kept int64) {
		err := conn.QueryRow(t.Context(), `SELECT confirmed_flush_lsn - '0/0', restart_lsn - '0/0', pg_current_wal_lsn() - restart_lsn
			FROM pg_replication_slots WHERE slot_name = $1`, cfg.Slot).Scan(&confirmed, &restart, &kept)
		if err != nil {
			t.Fatal(err)
		}
		return confirmed, restart, kept
	}
	confirmed, restart, _ := slot()
	const rounds, roundBytes, bound = 5, 20 << 20, 24 << 20
	for range rounds {
		pgtest.Exec(t, conn, "INSERT INTO foreign_traffic SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
		pgtest.Exec(t, conn, "CHECKPOINT") // it logs the running transactions, from where decoding could start again
		pgtest.Eventually(t, patience, func() error {
			c, r, kept := slot()
			if c <= confirmed || r <= restart || kept > bound {
				return fmt.Errorf("confirmed %d → %d, restart %d → %d, %d bytes are kept", confirmed, c, restart, r, kept)
			}
			confirmed, restart = c, r
			return nil
		})
	}
	state := i.waitFor(t, "caught up", func(s *loggerv1.GetStateResponse) bool { return s.GetLagBytes() < roundBytes/10 })
	if moved := state.GetPosition().GetLsn() - begin.GetLsn(); moved < rounds*roundBytes*9/10 {
		t.Errorf("followers' position moved by %d bytes", moved)
	}
	if got := withoutBarriers(follow(t, i, begin, state.GetPosition()).history.done); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestLargeTransaction captures half a million rows in one transaction, and a stream of it, in a process whose memory is
// measured.
func TestLargeTransaction(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	c := startChild(t, cfg)
	awaitLog(t, c)
	from, err := c.client.EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 500_000
	pgtest.Exec(t, conn, "INSERT INTO a SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, $1) i", rows)
	began := time.Now()
	to, err := c.client.EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t}
	if err := r.read(t.Context(), c.client, &loggerv1.FollowRequest{Position: from.GetPosition(), ToLsn: to.GetPosition().GetLsn()}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if got := withoutBarriers(r.history.done); len(got) != 1 || got[0].count != rows {
		t.Fatalf("got %v", got)
	}
	const bound = 200 << 20
	peak := c.peak()
	t.Logf("%d rows through log and follow in %v (%.0f rows/s), peak memory %d MiB", rows, took, rows/took.Seconds(), peak>>20)
	if peak > bound {
		t.Errorf("peak memory is %d MiB", peak>>20)
	}
}

// TestLargeRow passes a value of 64 MiB with bounded memory, and stops at a row that is larger than the limit, naming it.
func TestLargeRow(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE large (big text, id int, "Name" text, PRIMARY KEY (id, "Name")); ALTER TABLE large ALTER big SET STORAGE EXTERNAL`)
	cfg := testConfig(t, url)
	const size, limit = 64 << 20, 100 << 20
	cfg.MaxRowBytes = limit
	c := startChild(t, cfg)
	awaitLog(t, c)
	barrier := func() *changev1.Position {
		answer, err := c.client.EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetPosition()
	}
	from := barrier()
	before := c.peak()
	pgtest.Exec(t, conn, "INSERT INTO large VALUES (repeat('x', $1), 7, 'a')", size)
	r := &reader{t: t}
	if err := r.read(t.Context(), c.client, &loggerv1.FollowRequest{Position: from, ToLsn: barrier().GetLsn()}); err != nil {
		t.Fatal(err)
	}
	if got := withoutBarriers(r.history.done); len(got) != 1 || got[0].count != 1 {
		t.Fatalf("got %v", got)
	}
	peak := c.peak()
	t.Logf("memory peaked at %d MiB for a row of %d MiB, after %d MiB before", peak>>20, size>>20, before>>20)
	if peak-before > 5*size {
		t.Errorf("a row of %d MiB took %d MiB", size>>20, (peak-before)>>20)
	}

	pgtest.Exec(t, conn, "INSERT INTO large VALUES (repeat('x', $1), 8, 'too large')", limit+1<<20)
	var state *loggerv1.GetStateResponse
	failed := func() error {
		var err error
		if state, err = c.client.GetState(t.Context(), &loggerv1.GetStateRequest{}); err == nil && state.GetReasonCode() != CodeRowTooLarge {
			err = fmt.Errorf("state %v", state)
		}
		return err
	}
	pgtest.Eventually(t, patience, failed)
	for _, want := range []string{"insert into table public.large", "id=8 Name=too large", "--max-row-bytes", "--exclude-table"} {
		if !strings.Contains(state.GetReason(), want) {
			t.Errorf("%q is missing in %q", want, state.GetReason())
		}
	}
	c.kill()

	// The first way out: a higher limit.
	raised := cfg
	raised.MaxRowBytes = 2 * limit
	i := start(t, raised)
	to := i.barrier(t)
	if got := withoutBarriers(follow(t, i, r.position, to).history.done); len(got) != 1 || got[0].count != 1 {
		t.Errorf("with a higher limit: %v", got)
	}
	i.stop()
	// The second: the table is left out.
	pgtest.Exec(t, conn, "INSERT INTO large VALUES (repeat('x', $1), 9, 'too large')", limit+1<<20)
	cfg.Exclude = []string{"public.large"}
	i = start(t, cfg)
	i.barrier(t)
	state = i.waitFor(t, "past the row", func(s *loggerv1.GetStateResponse) bool { return s.GetPosition().GetLsn() > to.GetLsn() })
	end := i.barrier(t)
	follow(t, i, to, end)
	if warnings := strings.Join(i.state(t).GetWarnings(), "\n"); !strings.Contains(warnings, "id=9") {
		t.Errorf("warnings %q", warnings)
	}
}
