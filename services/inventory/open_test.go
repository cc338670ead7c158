package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestOpenAndClose(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int); INSERT INTO a VALUES (1)")
	b.requireSessions(t, 0)
	began := time.Now()
	s := b.mustOpen(t)
	if s.GetPosition().GetLogId() != b.logger.logID || s.GetPosition().GetLsn() == 0 || len(s.GetSnapshotId()) != 32 {
		t.Errorf("snapshot %v", s)
	}
	if life := s.GetExpireTime().AsTime().Sub(s.GetCreateTime().AsTime()); life != DefaultTTL {
		t.Errorf("lives %v, want %v", life, DefaultTTL)
	}
	if s.GetCreateTime().AsTime().Before(began) || s.GetActiveDumps() != 0 {
		t.Errorf("snapshot %v", s)
	}
	b.requireSessions(t, 1) // the keeper

	pgtest.Exec(t, b.admin, "INSERT INTO a VALUES (2)")
	if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}); got != "1\n" {
		t.Errorf("dump is %q", got)
	}
	second := b.mustOpen(t)
	if second.GetPosition().GetLsn() <= s.GetPosition().GetLsn() {
		t.Errorf("second snapshot at %d, first at %d", second.GetPosition().GetLsn(), s.GetPosition().GetLsn())
	}
	if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: second.GetSnapshotId(), Schema: "public", Table: "a"}); got != "1\n2\n" {
		t.Errorf("dump is %q", got)
	}
	list, err := b.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range list.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
	}
	if want := []string{s.GetSnapshotId(), second.GetSnapshotId()}; !slices.Equal(ids, want) {
		t.Errorf("listed %v, want %v", ids, want)
	}
	for i, id := range ids {
		if _, err := b.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: id}); err != nil {
			t.Fatal(err)
		}
		b.requireSessions(t, len(ids)-1-i)
		_, err := b.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: id})
		requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	}
}

func TestInvalidRequests(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	for _, d := range []time.Duration{-1, 0, time.Millisecond, 2 * time.Hour} {
		_, err := b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: "x", Ttl: durationpb.New(d)})
		requireStatus(t, err, codes.InvalidArgument, rpc.ReasonInvalid)
		stream, err := b.OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(d)})
		if err == nil {
			_, err = stream.Recv()
		}
		requireStatus(t, err, codes.InvalidArgument, rpc.ReasonInvalid)
	}
	_, _, err := b.open(t.Context(), 0, -time.Second)
	requireStatus(t, err, codes.InvalidArgument, rpc.ReasonInvalid)
	_, err = b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: "nobody"})
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	_, _, err = b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: "nobody", Schema: "public", Table: "a"})
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
}

// own is a server for tests that wait for all writers of a server, or change its settings.
func own(t *testing.T, opts ...pgtest.Option) string {
	t.Helper()
	return pgtest.New(t, append([]pgtest.Option{pgtest.WithFsync(false)}, opts...)...).Database(t)
}

// writing begins a transaction that has written something, in a session named name.
func writing(t *testing.T, url, name string) (tx *pgx.Conn, xid uint64, pid int32) {
	t.Helper()
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "SET application_name = "+pgx.Identifier{name}.Sanitize())
	pgtest.Exec(t, conn, "BEGIN")
	xid = uint64(pgtest.QueryRow[int64](t, conn, "SELECT pg_current_xact_id()::text::int8"))
	return conn, xid, pgtest.QueryRow[int32](t, conn, "SELECT pg_backend_pid()")
}

func TestWritersHoldUpTheSlot(t *testing.T) {
	b := serve(t, own(t))
	long, xid, pid := writing(t, b.url, "long job")
	pgtest.Exec(t, long, "SAVEPOINT s; CREATE TABLE sub (n int)") // another id of the same transaction
	prepared, preparedXID, _ := writing(t, b.url, "two phases")
	pgtest.Exec(t, prepared, "SAVEPOINT s; CREATE TABLE sub2 (n int); PREPARE TRANSACTION 'it''s prepared'")

	_, waits, err := b.open(t.Context(), 0, 1200*time.Millisecond)
	requireStatus(t, err, codes.DeadlineExceeded, "SNAPSHOT_BLOCKED")
	for _, want := range []string{
		fmt.Sprintf("transaction %d (pid %d, long job as postgres", xid, pid), fmt.Sprintf("pg_terminate_backend(%d)", pid),
		fmt.Sprintf("transaction %d (prepared as \"it's prepared\", postgres", preparedXID), "ROLLBACK PREPARED 'it''s prepared'",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if got, want := rpc.Metadata(err)["xids"], fmt.Sprintf("%d,%d", xid, preparedXID); got != want {
		t.Errorf("xids %s, want %s", got, want)
	}
	if got := rpc.Metadata(err)["pids"]; got != fmt.Sprint(pid) {
		t.Errorf("pids %s", got)
	}
	if got := rpc.Metadata(err)["prepared"]; got != "it's prepared" {
		t.Errorf("prepared %s", got)
	}
	if len(waits) == 0 || len(waits[0].GetTransactions()) != 2 {
		t.Fatalf("reported %v", waits)
	}
	first, second := waits[0].GetTransactions()[0], waits[0].GetTransactions()[1]
	if first.GetXid() != xid || first.GetPid() != pid || first.GetWho() != "long job as postgres" || first.GetStartTime() == nil {
		t.Errorf("reported %v", first)
	}
	if second.GetXid() != preparedXID || second.GetPid() != 0 || second.GetWho() != "it's prepared" || second.GetStartTime() == nil {
		t.Errorf("reported %v", second)
	}
	b.requireFreed(t)

	// Once they end the next one goes through, having said what it waited for.
	opened := make(chan error, 1)
	seen := make(chan struct{})
	go func() {
		stream, err := b.OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{})
		for told := false; err == nil; {
			var event *inventoryv1.OpenSnapshotResponse
			if event, err = stream.Recv(); err == nil && !told && event.GetWaiting() != nil {
				told = true
				close(seen)
			}
			if event.GetSnapshot() != nil {
				break
			}
		}
		opened <- err
	}()
	select {
	case <-seen:
	case <-time.After(patience):
		t.Fatal("nothing reported")
	}
	pgtest.Exec(t, long, "COMMIT")
	pgtest.Exec(t, b.admin, "COMMIT PREPARED 'it''s prepared'")
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestCancelledOpeningLeavesNothing(t *testing.T) {
	b := serve(t, own(t), func(c *Config) { c.MaxSnapshots = 1 })
	writer, _, _ := writing(t, b.url, "w")
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := b.OpenSnapshot(ctx, &inventoryv1.OpenSnapshotRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if event, err := stream.Recv(); err != nil || event.GetWaiting() == nil {
			t.Fatalf("%v, %v", event, err)
		}
		_, _, err = b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.ResourceExhausted, "TOO_MANY_SNAPSHOTS")
		cancel()
		b.requireFreed(t)
		pgtest.Eventually(t, patience, func() error { // the place is free again: the next one waits instead of being refused
			_, _, err := b.open(t.Context(), 0, 50*time.Millisecond)
			if rpc.Code(err) != codes.DeadlineExceeded {
				return err
			}
			return nil
		})
	}
	pgtest.Exec(t, writer, "COMMIT")
	b.mustOpen(t)
}

// answer is what open returns.
type answer struct {
	snapshot *inventoryv1.Snapshot
	waits    []*inventoryv1.SnapshotWait
	err      error
}

// openLater opens a snapshot while the test goes on.
func (b *bench) openLater(t *testing.T) <-chan answer {
	opened := make(chan answer, 1)
	go func() {
		snapshot, waits, err := b.open(t.Context(), 0, 2*patience)
		opened <- answer{snapshot, waits, err}
	}()
	return opened
}

// requireWaiting waits until a session waits for the end of a transaction, as the making of a slot does.
func (b *bench) requireWaiting(t *testing.T, xid uint64) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		var waiting bool
		err := b.admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
			AND transactionid::text = $1)`, fmt.Sprint(xid)).Scan(&waiting)
		if err == nil && !waiting {
			err = fmt.Errorf("nobody waits for transaction %d", xid)
		}
		return err
	})
}

// TestSnapshotTooLarge: PostgreSQL refuses a slot whose snapshot would list more transactions than it can have sessions, as
// after many rollbacks beside a long transaction. The next slot meets others.
func TestSnapshotTooLarge(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false), pgtest.WithSetting("max_connections", "20"), pgtest.WithSetting("max_prepared_transactions", "0"))
	b := serve(t, server.Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int)")
	phase1, xid1, _ := writing(t, b.url, "phase 1")
	opened := b.openLater(t)
	b.requireWaiting(t, xid1)
	phase2, xid2, _ := writing(t, b.url, "phase 2")
	pgtest.Exec(t, phase1, "ROLLBACK")
	b.requireWaiting(t, xid2)
	long, longXID, _ := writing(t, b.url, "long")
	for range 200 {
		pgtest.Exec(t, b.admin, "BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
	}
	pgtest.Exec(t, b.admin, "INSERT INTO a VALUES (1)")
	pgtest.Exec(t, phase2, "ROLLBACK")
	b.requireWaiting(t, longXID) // only another slot waits for that one
	if !strings.Contains(server.LogTail(), "initial slot snapshot too large") {
		t.Error("the first slot was not refused: the test does not make the case that it is for")
	}
	pgtest.Exec(t, long, "COMMIT")
	a := <-opened
	if a.err != nil {
		t.Fatal(a.err)
	}
	if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: a.snapshot.GetSnapshotId(), Schema: "public", Table: "a"}); got != "1\n" {
		t.Errorf("the copy has %q", got)
	}
}

// TestCommitIsInWALButNotFinished makes, without luck, the state that loses rows when a snapshot is read in it: the slot's
// snapshot holds a transaction as ended which is still in the list of running ones. A synchronous standby that never answers
// keeps the transaction there. It has the newest id of all, so the running list of pg_current_snapshot() does not show it.
func TestCommitIsInWALButNotFinished(t *testing.T) {
	b := serve(t, own(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int)")
	phase1, xid1, _ := writing(t, b.url, "phase 1")
	committing := pgtest.Connect(t, b.url)
	pgtest.Exec(t, committing, "SET application_name = 'committing'")

	setStandby := func(name string) {
		t.Helper()
		pgtest.Exec(t, b.admin, "ALTER SYSTEM SET synchronous_standby_names = "+pgx.Identifier{name}.Sanitize())
		pgtest.Exec(t, b.admin, "SELECT pg_reload_conf()")
		pgtest.Eventually(t, patience, func() error {
			if got := pgtest.QueryRow[string](t, committing, "SHOW synchronous_standby_names"); strings.Trim(got, `"`) != name {
				return fmt.Errorf("still %s", got)
			}
			return nil
		})
		// Whether anybody has to wait is what the checkpointer says, which reads the configuration before it makes a checkpoint.
		pgtest.Exec(t, b.admin, "CHECKPOINT")
	}

	t.Cleanup(func() { // else the end of the test waits for that standby
		conn, err := pgx.Connect(context.Background(), b.url)
		if err == nil {
			_, err = conn.Exec(context.Background(), "ALTER SYSTEM RESET synchronous_standby_names")
		}
		if err == nil {
			_, err = conn.Exec(context.Background(), "SELECT pg_reload_conf()")
		}
		if err == nil {
			err = conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	opened := b.openLater(t)
	b.requireWaiting(t, xid1)
	phase2, xid2, _ := writing(t, b.url, "phase 2")
	pgtest.Exec(t, phase1, "ROLLBACK")
	b.requireWaiting(t, xid2) // what commits from now on is in the snapshot
	setStandby("nobody")
	pgtest.Exec(t, committing, "BEGIN; INSERT INTO a VALUES (1)")
	xid := uint64(pgtest.QueryRow[int64](t, committing, "SELECT pg_current_xact_id()::text::int8"))
	pid := pgtest.QueryRow[int32](t, committing, "SELECT pg_backend_pid()")
	committed := make(chan error, 1)
	go func() {
		_, err := committing.Exec(context.Background(), "COMMIT")
		committed <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		if got := pgtest.QueryRow[string](t, b.admin, "SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = $1", pid); got != "SyncRep" {
			return fmt.Errorf("waits for %q", got)
		}
		return nil
	})
	if now, err := parseView(pgtest.QueryRow[string](t, b.admin, "SELECT pg_current_snapshot()::text")); err != nil || slices.Contains(now.running, xid) {
		t.Fatalf("transaction %d is in the running list of %+v (%v): the test does not make the case that it is for", xid, now, err)
	}
	pgtest.Exec(t, phase2, "ROLLBACK")
	pgtest.Eventually(t, patience, func() error { // the keeper has the snapshot, and is not let on
		var keepers int
		err := b.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline inventory'
			AND query LIKE 'SELECT pg_current_snapshot%' AND state = 'idle in transaction'`).Scan(&keepers)
		if err == nil && keepers != 1 {
			err = fmt.Errorf("%d keepers", keepers)
		}
		return err
	})
	select {
	case a := <-opened:
		t.Fatalf("opened while transaction %d was committing: %v", xid, a)
	case <-time.After(2 * reportEvery):
	}
	pgtest.Exec(t, b.admin, "SELECT pg_cancel_backend($1)", pid) // ends the waiting for the standby, not the commit
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	a := <-opened
	if a.err != nil {
		t.Fatal(a.err)
	}
	reported := func(w *inventoryv1.SnapshotWait) bool {
		return w.GetReason() == "transactions that are committing" && len(w.GetTransactions()) == 1 &&
			w.GetTransactions()[0].GetXid() == xid && w.GetTransactions()[0].GetPid() == pid
	}
	if !slices.ContainsFunc(a.waits, reported) {
		t.Errorf("transaction %d (pid %d) was not reported: %v", xid, pid, a.waits)
	}
	if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: a.snapshot.GetSnapshotId(), Schema: "public", Table: "a"}); got != "1\n" {
		t.Errorf("the copy has %q", got)
	}
	if n := pgtest.QueryRow[int](t, b.admin, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("the primary has %d rows", n)
	}
}

func TestServerThatCannotSnapshot(t *testing.T) {
	t.Run("wal_level", func(t *testing.T) {
		b := serve(t, own(t, pgtest.WithSetting("wal_level", "replica")))
		_, _, err := b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.FailedPrecondition, "WAL_LEVEL")
		if !strings.Contains(err.Error(), "ALTER SYSTEM SET wal_level = logical") {
			t.Error(err)
		}
	})
	t.Run("slots", func(t *testing.T) {
		b := serve(t, own(t, pgtest.WithSetting("max_replication_slots", "1")))
		pgtest.Exec(t, b.admin, "SELECT pg_create_physical_replication_slot('other')")
		_, _, err := b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.ResourceExhausted, "TOO_MANY_SLOTS")
		if !strings.Contains(err.Error(), "max_replication_slots") {
			t.Error(err)
		}
		pgtest.Exec(t, b.admin, "SELECT pg_drop_replication_slot('other')")
		b.mustOpen(t)
	})
	t.Run("walsenders", func(t *testing.T) {
		b := serve(t, own(t, pgtest.WithSetting("max_wal_senders", "0")))
		_, _, err := b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.ResourceExhausted, "TOO_MANY_SLOTS")
		if !strings.Contains(err.Error(), "max_wal_senders") {
			t.Error(err)
		}
	})
	t.Run("role", func(t *testing.T) {
		url := pgtest.Shared(t).Database(t)
		admin := pgtest.Connect(t, url)
		pgtest.Exec(t, admin, `CREATE ROLE "weak ""one""" LOGIN`)
		t.Cleanup(func() {
			conn, err := pgx.Connect(context.Background(), url)
			if err == nil {
				_, err = conn.Exec(context.Background(), `DROP ROLE "weak ""one"""`)
				conn.Close(context.Background())
			}
			if err != nil {
				t.Error(err)
			}
		})
		b := serve(t, url, func(c *Config) { c.PostgresURL = strings.Replace(url, "postgres@", "weak%20%22one%22@", 1) })
		_, _, err := b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
		if !strings.Contains(err.Error(), `ALTER ROLE "weak ""one""" REPLICATION`) {
			t.Error(err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.PostgresURL = "postgres://postgres:secret@127.0.0.1:1/x" })
		_, _, err := b.open(t.Context(), 0, 0)
		requireStatus(t, err, codes.Unavailable, "POSTGRES_UNAVAILABLE")
		if strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
}

func TestLoggerThatDoesNotFit(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.MaxSnapshots = 1 })
	logID, serverID := b.logger.logID, b.logger.serverID
	for _, c := range []struct {
		name   string
		edit   func(*fakeLogger)
		code   codes.Code
		reason string
	}{
		{"unreachable", func(f *fakeLogger) { f.err = status.Error(codes.Unavailable, "gone fishing") }, codes.Unavailable, "LOGGER_UNAVAILABLE"},
		{"failed", func(f *fakeLogger) { f.state = "failed" }, codes.Unavailable, "LOGGER_UNAVAILABLE"},
		{"no log id", func(f *fakeLogger) { f.logID = "" }, codes.Unavailable, "LOGGER_UNAVAILABLE"},
		{"another server", func(f *fakeLogger) { f.serverID = "primary-2" }, codes.FailedPrecondition, "LOG_CHANGED"},
		{"ahead of the server", func(f *fakeLogger) { f.last = 1 << 60 }, codes.FailedPrecondition, "LOG_CHANGED"},
		{"log id changes", func(f *fakeLogger) {
			f.onRanges = func(f *fakeLogger) { f.logID = change.LogID{9}.String() }
		}, codes.FailedPrecondition, "LOG_CHANGED"},
		{"log begins later", func(f *fakeLogger) { f.first = 1 << 60 }, codes.FailedPrecondition, "LOG_CHANGED"},
		{"stands still", func(f *fakeLogger) { f.last = 1 }, codes.DeadlineExceeded, "SNAPSHOT_BLOCKED"},
		{"goes away", func(f *fakeLogger) { f.onRanges = func(f *fakeLogger) { f.err = errors.New("no more") } }, codes.DeadlineExceeded, "SNAPSHOT_BLOCKED"},
	} {
		b.logger.set(c.edit)
		wait := patience
		if c.code == codes.DeadlineExceeded {
			wait = 4 * time.Second
		}
		_, _, err := b.open(t.Context(), 0, wait)
		t.Logf("%s: %v", c.name, err)
		requireStatus(t, err, c.code, c.reason)
		b.logger.set(func(f *fakeLogger) {
			f.err, f.state, f.logID, f.serverID = nil, "capturing", logID, serverID
			f.last, f.first, f.onRanges = 0, 0, nil
		})
		b.requireFreed(t)
	}
	if b.logger.barriers != 2 {
		t.Errorf("%d barriers were emitted for two logs that stood still", b.logger.barriers)
	}
	// A log that is slow, and one that comes back, are waited for.
	b.logger.set(func(f *fakeLogger) {
		f.last, f.ranges = 1, 0
		f.onRanges = func(f *fakeLogger) {
			f.err = nil
			if f.ranges == 3 {
				f.err = errors.New("for a moment")
			}
			if f.ranges > 5 {
				f.last = 0
			}
		}
	})
	b.mustOpen(t)
}
