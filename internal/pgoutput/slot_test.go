package pgoutput

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// recordVariable set to 1 makes TestSlot write the stream that it read to testdata.
const recordVariable = "SYNCLINE_RECORD"

const (
	lastMark = "pgoutput_test.last"
	deadline = time.Minute
)

//go:embed testdata/stream.sql
var streamSQL string

// TestSlot runs testdata/stream.sql and reads what comes out of a slot. Whatever the server's version, the stream is the
// recorded one but for the numbers that every server gives anew.
func TestSlot(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	messages := stream(t, url, func() {
		for statements := range strings.SplitSeq(streamSQL, "\n\n") {
			pgtest.Exec(t, conn, statements)
		}
	})

	if os.Getenv(recordVariable) == "1" {
		record(t, messages)
	}
	want, err := os.ReadFile(transcriptText)
	if err != nil {
		t.Fatal(err)
	}
	requireText(t, anonymous(dumpAll(t, messages)), anonymous(string(want)))

	for _, data := range messages {
		var d Decoder
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := encode(&d, kind); kind != KindIgnored && !bytes.Equal(got, data) {
			t.Errorf("received %x\nencoded  %x", data, got)
		}
		requireAgreement(t, &d, kind, data)
	}
}

// TestSlotPositions checks against the server what the comments say about the LSNs and times in messages.
func TestSlotPositions(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "create table t (id int primary key); create publication pgoutput_test for table t")
	var emitted, committed LSN
	messages := stream(t, url, func() {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, conn, "insert into t values (1)")
		emitted = parseLSN(t, pgtest.QueryRow[string](t, conn, "select pg_logical_emit_message(true, 'p', 'c')::text"))
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		committed = parseLSN(t, pgtest.QueryRow[string](t, conn, "select pg_current_wal_insert_lsn()::text"))
	})
	now := time.Now()

	var d Decoder
	for _, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if kind == KindCommit {
			break
		}
	}
	if d.Message.LSN != emitted {
		t.Errorf("message has LSN %s, pg_logical_emit_message returned %s", d.Message.LSN, emitted)
	}
	if d.Begin.FinalLSN != d.Commit.CommitLSN || d.Begin.CommitTime != d.Commit.CommitTime {
		t.Errorf("begin %+v does not announce commit %+v", d.Begin, d.Commit)
	}
	if !slices.IsSorted([]LSN{emitted, d.Commit.CommitLSN, d.Commit.EndLSN, committed}) || d.Commit.CommitLSN == d.Commit.EndLSN {
		t.Errorf("not in order: message %s, commit %s, its end %s, after it %s", emitted, d.Commit.CommitLSN, d.Commit.EndLSN, committed)
	}
	if age := now.Sub(Time(d.Commit.CommitTime)); age < 0 || age > deadline {
		t.Errorf("commit time %s is %s ago", Time(d.Commit.CommitTime), age)
	}
}

// TestSlotSpilled reads around transactions and subtransactions that are too large for the server's memory and rolled
// back. PostgreSQL 18.4 sends a STREAM ABORT for the one with value 'small' in it.
func TestSlotSpilled(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "create table t (id int primary key, v text); create publication pgoutput_test for table t")
	messages := stream(t, url, func() {
		pgtest.Exec(t, conn, `begin; insert into t values (1, 'first');
			savepoint s; insert into t select n, repeat('x', 100) from generate_series(10, 5000) n; rollback to s;
			insert into t values (2, 'second'); commit`)
		pgtest.Exec(t, conn, `begin; savepoint s; insert into t values (3, 'small'); release s;
			insert into t select n, repeat('x', 100) from generate_series(10, 5000) n; rollback`)
		pgtest.Exec(t, conn, `begin; insert into t select n, 'kept' from generate_series(10, 5000) n; commit`)
	})
	var d Decoder
	var ids []string
	count := map[Kind]int{}
	for _, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		count[kind]++
		if kind == KindInsert {
			ids = append(ids, columns(d.Insert.New)[0].value)
		}
	}
	want := []string{"1", "2"}
	for n := 10; n <= 5000; n++ {
		want = append(want, strconv.Itoa(n))
	}
	if !slices.Equal(ids, want) || count[KindBegin] != 2 || count[KindCommit] != 2 {
		t.Errorf("%d rows, want %d; messages by kind: %v", len(ids), len(want), count)
	}
	t.Logf("ignored messages: %d", count[KindIgnored])
}

func parseLSN(t *testing.T, s string) LSN {
	t.Helper()
	l, err := change.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// slots makes the names of slots differ: a temporary slot may outlive its connection for a moment.
var slots atomic.Int32

// stream makes a slot, lets load write, and returns the messages of all that it wrote.
func stream(t *testing.T, url string, load func()) [][]byte {
	t.Helper()
	return streamWith(t, url, []string{"proto_version '1'"}, load)
}

// streamWith does so with options of its own.
func streamWith(t *testing.T, url string, options []string, load func()) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["replication"] = "database"
	for name, value := range map[string]string{
		"DateStyle": "ISO", "IntervalStyle": "postgres", "extra_float_digits": "3", "TimeZone": "UTC",
		"logical_decoding_work_mem": "64kB", // the least: large transactions of these tests take the way over the disk
	} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }() // now and not at the test's end: it drops the slot
	slotName := fmt.Sprintf("pgoutput_test_%d", slots.Add(1))
	if _, err := pglogrepl.CreateReplicationSlot(ctx, conn, slotName, "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Temporary: true, Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"}); err != nil {
		t.Fatal(err)
	}
	load()
	pgtest.Exec(t, pgtest.Connect(t, url), "select pg_logical_emit_message(false, $1, '')", lastMark)
	err = pglogrepl.StartReplication(ctx, conn, slotName, 0, pglogrepl.StartReplicationOptions{
		Mode:       pglogrepl.LogicalReplication,
		PluginArgs: append(options, "publication_names 'pgoutput_test'", "messages 'true'"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var messages [][]byte
	for {
		received, err := conn.ReceiveMessage(ctx)
		if err != nil {
			t.Fatalf("receive message %d: %v", len(messages)+1, err)
		}
		if problem, ok := received.(*pgproto3.ErrorResponse); ok {
			t.Fatal(pgconn.ErrorResponseToPgError(problem))
		}
		data, ok := received.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		wal, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			t.Fatal(err)
		}
		if wal.WALData[0] == 'M' && bytes.Contains(wal.WALData, []byte(lastMark)) {
			return messages
		}
		messages = append(messages, bytes.Clone(wal.WALData))
	}
}

func record(t *testing.T, messages [][]byte) {
	t.Helper()
	var lines bytes.Buffer
	for _, data := range messages {
		fmt.Fprintln(&lines, hex.EncodeToString(data))
	}
	for name, content := range map[string]string{transcriptHex: lines.String(), transcriptText: dumpAll(t, messages)} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	givenAnew  = regexp.MustCompile(`\b(?:xid|oid|type|final|lsn|end|time)=\S+`)
	shapeLines = regexp.MustCompile(`(?m)^(?:relation|type) .*(?:\n  column .*)*\n`)
)

// firstUserOID is FirstNormalObjectId of PostgreSQL: lower ones are built in and the same everywhere.
const firstUserOID = 16384

// anonymous replaces what each server numbers anew with the order of first appearance, and leaves out relations and types
// that are sent again as they were: PostgreSQL does so whenever its caches were invalidated, by autovacuum too.
func anonymous(dump string) string {
	latest := map[string]string{}
	dump = shapeLines.ReplaceAllStringFunc(dump, func(shape string) string {
		subject, _, _ := strings.Cut(shape, `"`)
		if latest[subject] == shape {
			return ""
		}
		latest[subject] = shape
		return shape
	})
	numbers := map[string]int{}
	return givenAnew.ReplaceAllStringFunc(dump, func(field string) string {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "time":
			return "time=…"
		case "oid", "type":
			if oid, err := strconv.ParseUint(value, 10, 32); err != nil || oid < firstUserOID {
				return field
			}
			value = "oid " + value
		}
		if numbers[value] == 0 {
			numbers[value] = len(numbers) + 1
		}
		return fmt.Sprintf("%s=#%d", name, numbers[value])
	})
}
