package logger

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// largeDatabase is one of which large transactions are sent in pieces, as large as largeRows or not much more.
func largeDatabase(t *testing.T) string {
	t.Helper()
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = %L', current_database(), '64kB'); END $$")
	return url
}

// largeRows is a statement of which the server sends pieces.
func largeRows(table string, first int) string {
	return fmt.Sprintf("INSERT INTO %s SELECT n, repeat(md5(n::text), 10) FROM generate_series(%d, %d) n;", table, first, first+2000)
}

// TestStreamedTransactions writes transactions that are sent in pieces, several at a time. What stands in the log is what protocol 1 makes of
// it, which knows no pieces.
func TestStreamedTransactions(t *testing.T) {
	url := largeDatabase(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (LIKE a INCLUDING ALL); CREATE TABLE c (LIKE a INCLUDING ALL); CREATE TABLE never (LIKE a INCLUDING ALL); CREATE TABLE left_out (LIKE a INCLUDING ALL)")
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.left_out"}
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	one, two := pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, one, "BEGIN;"+largeRows("a", 1))
	pgtest.Exec(t, two, "BEGIN;"+largeRows("a", 10_000))
	pgtest.Eventually(t, patience, func() error {
		if kept := i.spool.Load().Bytes(); kept < 1<<20 {
			return fmt.Errorf("%d bytes are kept", kept)
		}
		return nil
	})
	pgtest.Exec(t, one, "SAVEPOINT s;"+largeRows("b", 1)+"SAVEPOINT deep;"+largeRows("b", 10_000)+"RELEASE s; DELETE FROM b WHERE id < 500; UPDATE b SET v = v || 'x';")
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (-1, 'small'); BEGIN; "+largeRows("a", 50_000)+"ROLLBACK;")
	pgtest.Exec(t, two, largeRows("c", 1)+"SELECT pg_logical_emit_message(true, 'p', 'c'); TRUNCATE never; COMMIT")
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (-2, 'small')")
	remotely(t, conn, largeRows("a", 60_000))
	pgtest.Exec(t, one, "DELETE FROM b; COMMIT")
	pgtest.Exec(t, conn, largeRows("left_out", 1)) // of which pieces come, with nothing in them
	to := i.barrier(t)
	w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
	if n := pieces(t, conn, cfg.Slot); n < 20 {
		t.Errorf("%d pieces were sent", n)
	}
	if left := i.spool.Load().Bytes(); left != 0 {
		t.Errorf("%d bytes are kept of transactions that have ended", left)
	}
}

// TestTakenWhole writes large transactions that are not taken in pieces: they alter tables, or parts of them are rolled back. One of them
// cannot be decoded by the server itself while it runs.
func TestTakenWhole(t *testing.T) {
	altered := strings.ReplaceAll(largeRows("a", 10_000), "10) FROM", "10), 7 FROM")
	for name, sql := range map[string]string{
		"part rolled back":        largeRows("a", 1) + "SAVEPOINT s;" + largeRows("b", 1) + "ROLLBACK TO s;" + largeRows("b", 1),
		"table altered":           largeRows("a", 1) + "ALTER TABLE a ADD w int DEFAULT 5;" + altered,
		"altering rolled back":    largeRows("a", 1) + "SAVEPOINT s; ALTER TABLE a RENAME v TO w; ROLLBACK TO s;" + largeRows("a", 10_000),
		"altered in a lost part":  largeRows("a", 1) + "SAVEPOINT s; ALTER TABLE a ADD w int;" + altered + "ROLLBACK TO s;" + largeRows("a", 10_000),
		"altered once more":       "SAVEPOINT s; ALTER TABLE a ADD w int;" + altered + "ROLLBACK TO s;" + largeRows("a", 1) + "ALTER TABLE a ADD w int DEFAULT 5;" + altered,
		"truncated":               largeRows("a", 1) + "TRUNCATE a;" + largeRows("a", 10_000) + "TRUNCATE b, a;" + largeRows("b", 1),
		"made and used":           "CREATE TABLE made (LIKE a INCLUDING ALL);" + largeRows("a", 1) + "DROP TABLE made;" + largeRows("a", 10_000),
		"altered after the first": largeRows("b", 1) + "SAVEPOINT s; ALTER TABLE a RENAME v TO x; ROLLBACK TO s; ALTER TABLE a ADD w int;" + altered,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := largeDatabase(t)
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (LIKE a INCLUDING ALL)")
			cfg := testConfig(t, url)
			i := start(t, cfg)
			i.waitCapturing(t)
			w := newWitness(t, url, cfg)
			from := i.barrier(t)
			pgtest.Exec(t, conn, "BEGIN;"+sql+"COMMIT; INSERT INTO b VALUES (-1)")
			to := i.barrier(t)
			if from.GetLogId() != to.GetLogId() {
				t.Fatal("a new log was begun")
			}
			w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
		})
	}
}

// pieces is how many the server has sent.
func pieces(t *testing.T, conn *pgx.Conn, slot string) int64 {
	t.Helper()
	return pgtest.QueryRow[int64](t, conn, "SELECT stream_count FROM pg_stat_replication_slots WHERE slot_name = $1", slot)
}

// TestDecodingMemory writes transactions of more than 64 MB, which a walsender keeps by default, on a server that nobody has told how much to keep; and
// smaller ones where somebody has.
func TestDecodingMemory(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false), func(c *pgserver.Config) { delete(c.Settings, "logical_decoding_work_mem") })
	const more, less = "INSERT INTO a SELECT n, repeat('x', 300) FROM generate_series(1, 200000) n", "INSERT INTO a SELECT n, repeat('x', 300) FROM generate_series(1, 5000) n"
	for _, test := range []struct {
		name, sql, database string // a setting of the database
		memory              int64
		pieces              bool
	}{
		{name: "ours", sql: more, memory: DefaultConfig().DecodingMemory},
		{name: "the servers own", sql: more, memory: 0, pieces: true},
		{name: "little", sql: less, memory: 64 << 10, pieces: true},
		{name: "said by somebody", sql: less, memory: DefaultConfig().DecodingMemory, database: "SET logical_decoding_work_mem = '64kB'", pieces: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := server.Database(t)
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
			if test.database != "" {
				pgtest.Exec(t, conn, fmt.Sprintf("ALTER DATABASE %s %s", pgtest.QueryRow[string](t, conn, "SELECT quote_ident(current_database())"), test.database))
			}
			cfg := testConfig(t, url)
			cfg.Slot, cfg.DecodingMemory = pgtest.QueryRow[string](t, conn, "SELECT current_database()"), test.memory
			i := start(t, cfg)
			i.waitCapturing(t)
			pgtest.Exec(t, conn, test.sql)
			i.barrier(t)
			// What the slot has sent is counted when a transaction ends, and shown a little later.
			pgtest.Eventually(t, patience, func() error {
				if n := pgtest.QueryRow[int64](t, conn, "SELECT total_bytes FROM pg_stat_replication_slots WHERE slot_name = $1", cfg.Slot); n < 1<<20 {
					return fmt.Errorf("%d bytes are counted", n)
				}
				return nil
			})
			spilled := pgtest.QueryRow[int64](t, conn, "SELECT spill_count FROM pg_stat_replication_slots WHERE slot_name = $1", cfg.Slot)
			if n := pieces(t, conn, cfg.Slot); n > 0 != test.pieces || spilled > 0 {
				t.Errorf("%d pieces were sent, %d went over the disk", n, spilled)
			}
		})
	}
}

func walsenderOf(t *testing.T, conn *pgx.Conn, slot string) int32 {
	t.Helper()
	return pgtest.QueryRow[int32](t, conn, "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1", slot)
}

// TestLargeRowRolledBack writes a row that is too large in a part of a transaction that is rolled back: it stops nothing.
func TestLargeRowRolledBack(t *testing.T) {
	url := largeDatabase(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text); ALTER TABLE a ALTER v SET STORAGE EXTERNAL")
	cfg := testConfig(t, url)
	cfg.MaxRowBytes = 2 << 20
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	first := walsenderOf(t, conn, cfg.Slot)
	writer := pgtest.Connect(t, url)
	pgtest.Exec(t, writer, "BEGIN; INSERT INTO a VALUES (1, 'small'); SAVEPOINT s; INSERT INTO a VALUES (2, repeat('x', 3000000))")
	pgtest.Eventually(t, patience, func() error {
		if now := walsenderOf(t, conn, cfg.Slot); now == 0 || now == first {
			return errors.New("it was not sent")
		}
		return nil
	})
	pgtest.Exec(t, writer, "ROLLBACK TO s; INSERT INTO a VALUES (3, repeat('x', 1000000)); COMMIT")
	to := i.barrier(t)
	w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
	if to.GetLogId() != from.GetLogId() {
		t.Error("a new log was begun")
	}
}

// TestInPieces has the log go on to where large transactions are sent in pieces again.
func TestInPieces(t *testing.T) {
	long := time.Now().Add(-wholeAtLeast)
	for _, test := range []struct {
		through, wholeThrough change.LSN
		since                 time.Time
		want                  bool
	}{
		{through: 100, want: true},
		{through: 99, wholeThrough: 100, since: long},
		{through: 100, wholeThrough: 100, since: long, want: true},
		{through: 100, wholeThrough: 100, since: time.Now()},
	} {
		s := &Service{wholeThrough: test.wholeThrough, wholeSince: test.since}
		if got := s.inPieces(test.through); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}
