package inventory

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/grpc/codes"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	formatText = inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT
	formatCSV  = inventoryv1.DumpFormat_DUMP_FORMAT_CSV
	formatJSON = inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES
	formatBin  = inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY
)

// nasty are values that a format must not change, and names that must be quoted.
var nasty = []string{
	"", " ", "\\", "\\\\", `\n`, `\N`, `\.`, "a\nb", "a\r\nb", "a\tb", "a\vb\bc\fd", `"`, `""`, `'`, `''`, "a,b", ";", "--", "/*", "NULL", "null", "{}",
	"\x01\x02\x7f", "ünï ☃ 🦆", `"a\"b\\c"`, "x'; DROP TABLE a; --", `\\n"` + "\n" + `\`, strings.Repeat(`\`+"\n"+`"`, 1000),
}

func TestFormatsRoundTrip(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TABLE a (r int PRIMARY KEY, t text, j json, jb jsonb, b bytea, d timestamptz, f float8)`)
	for i, v := range nasty {
		doc, err := json.MarshalIndent(map[string]any{v: []any{v, i, nil}}, "\t", "\r\n  ")
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, b.admin, "INSERT INTO a VALUES ($1, $2, $3::text::json, $4::text::jsonb, $5, now(), 'NaN')", i, v, string(doc), string(doc), []byte(v))
	}
	pgtest.Exec(t, b.admin, "INSERT INTO a (r) VALUES (-1)")
	s := b.mustOpen(t)
	request := func(format inventoryv1.DumpFormat, chunk int32) *inventoryv1.DumpRequest {
		return &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", Format: format, ChunkBytes: chunk}
	}
	for format, options := range map[inventoryv1.DumpFormat]string{formatText: "", formatCSV: "(FORMAT csv)", formatBin: "(FORMAT binary)"} {
		pgtest.Exec(t, b.admin, "DROP TABLE IF EXISTS back; CREATE TABLE back (LIKE a)")
		data, end := mustDumpEnd(t, b, request(format, 0))
		if end.GetRows() != int64(len(nasty)+1) {
			t.Errorf("%v: the dump counts %d rows, want %d", format, end.GetRows(), len(nasty)+1)
		}
		if _, err := b.admin.PgConn().CopyFrom(t.Context(), strings.NewReader(data), "COPY back FROM STDIN "+options); err != nil {
			t.Fatal(err)
		}
		if n := pgtest.QueryRow[int](t, b.admin, "SELECT count(*) FROM (SELECT a::text FROM a EXCEPT ALL SELECT back::text FROM back) x"); n != 0 {
			t.Errorf("%v: %d rows differ", format, n)
		}
		for _, chunk := range []int32{1, 7, 1000, MaxChunkBytes} {
			if again := b.mustDump(t, request(format, chunk)); again != data {
				t.Errorf("%v: in pieces of %d bytes it is another dump", format, chunk)
			}
		}
	}
	if records, err := csv.NewReader(strings.NewReader(b.mustDump(t, request(formatCSV, 0)))).ReadAll(); err != nil || len(records) != len(nasty)+1 {
		t.Errorf("%d records (%v), want %d", len(records), err, len(nasty)+1)
	}
	data, end, err := b.dump(t.Context(), request(formatJSON, 5))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != len(nasty)+1 || end.GetRows() != int64(len(lines)) {
		t.Fatalf("%d lines and %d rows, want %d", len(lines), end.GetRows(), len(nasty)+1)
	}
	for i, line := range lines {
		var row struct {
			R     int
			T     *string
			J, JB map[string][]any
			B     *string
			F     *string
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if row.R < 0 {
			if i != len(nasty) || row.T != nil || row.J != nil || row.B != nil {
				t.Errorf("row of nulls is %q", line)
			}
			continue
		}
		v := nasty[row.R]
		if *row.T != v || *row.B != fmt.Sprintf(`\x%x`, v) || *row.F != "NaN" {
			t.Errorf("row %d is %q", row.R, line)
		}
		for _, doc := range []map[string][]any{row.J, row.JB} {
			if got := doc[v]; len(got) != 3 || got[0] != v || got[1] != float64(row.R) || got[2] != nil {
				t.Errorf("row %d has the document %v", row.R, doc)
			}
		}
	}
}

func mustDumpEnd(t *testing.T, b *bench, request *inventoryv1.DumpRequest) (string, *inventoryv1.DumpEnd) {
	t.Helper()
	data, end, err := b.dump(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), end
}

// TestBinaryDump: tables without rows and with a single one are whole, and types outside of the list are refused.
func TestBinaryDump(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TYPE mood AS ENUM ('good', 'bad');
		CREATE TABLE moody (id int, m mood);
		CREATE TABLE empty (id int, note text);
		CREATE TABLE one (id int); INSERT INTO one VALUES (NULL)`)
	s := b.mustOpen(t)
	for table, rows := range map[string]int64{"empty": 0, "one": 1} {
		data, end := mustDumpEnd(t, b, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: table, Format: formatBin})
		tag, err := b.admin.PgConn().CopyFrom(t.Context(), strings.NewReader(data), "COPY "+table+" FROM STDIN (FORMAT binary)")
		if err != nil || tag.RowsAffected() != rows || end.GetRows() != rows {
			t.Errorf("table %s: %d rows were dumped and %d loaded (%v), want %d", table, end.GetRows(), tag.RowsAffected(), err, rows)
		}
	}
	_, _, err := b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "moody", Format: formatBin})
	if err == nil || !strings.Contains(err.Error(), "COPY text") {
		t.Errorf("an enum in the binary format: %v", err)
	}
	_, _, err = b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "moody", Format: 99})
	if rpc.Code(err) != codes.InvalidArgument {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestBinaryDumpOfOtherTypes: bytes that the client would take for those of another type are not sent.
func TestBinaryDumpOfOtherTypes(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE moments (id int, at timestamptz); INSERT INTO moments VALUES (1, now())")
	s := b.mustOpen(t)
	request := func(types ...uint32) *inventoryv1.DumpRequest {
		return &inventoryv1.DumpRequest{
			SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "moments", Columns: []string{"id", "at"}, Format: formatBin, ColumnTypes: types,
		}
	}
	if _, end := mustDumpEnd(t, b, request(pgtype.Int4OID, pgtype.TimestamptzOID)); end.GetRows() != 1 {
		t.Errorf("%d rows", end.GetRows())
	}
	if _, _, err := b.dump(t.Context(), request(pgtype.Int4OID, pgtype.TimestampOID)); rpc.Reason(err) != "TABLE_REWRITTEN" {
		t.Errorf("a column of another type: %v", err)
	}
	if _, _, err := b.dump(t.Context(), request(pgtype.Int4OID)); rpc.Code(err) != codes.InvalidArgument {
		t.Errorf("a type for one of two columns: %v", err)
	}
}

func TestUnescapeJSON(t *testing.T) {
	for escaped, want := range map[string]string{
		"": "", "{}\n": "{}\n", `{"a":"\\n"}`: `{"a":"\n"}`, `\n{\t}\r`: ` { } `, `\\\\`: `\\`, `\\`: `\`, `x\`: `x\`, `a\\b\\`: `a\b\`, `\\\n`: `\ `,
	} {
		if got := string(unescapeJSON([]byte(escaped))); got != want {
			t.Errorf("unescapeJSON(%q) = %q, want %q", escaped, got, want)
		}
	}
}

func TestChunks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		size := 1 + r.IntN(20)
		var sent, want []byte
		c := &chunks{size: size, send: func(piece []byte) error {
			if len(piece) == 0 || len(piece) > size {
				t.Fatalf("a piece of %d bytes, at most %d", len(piece), size)
			}
			sent = append(sent, piece...)
			return nil
		}}
		lines := r.IntN(20)
		for range lines {
			line := bytes.Repeat([]byte{byte('a' + r.IntN(26))}, r.IntN(60))
			want = append(want, line...)
			if _, err := c.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sent, want) || c.bytes != int64(len(want)) || c.rows != int64(lines) || cap(c.buf) > size {
			t.Fatalf("sent %q, want %q; %+v", sent, want, c)
		}
	}
}

func TestPageRanges(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TABLE a WITH (autovacuum_enabled = off) AS SELECT n, repeat('x', n % 700) AS x FROM generate_series(1, 20000) n;
		DELETE FROM a WHERE n % 3 = 0; UPDATE a SET x = 'y' WHERE n % 5 = 0`)
	s := b.mustOpen(t)
	pages := pgtest.QueryRow[int64](t, b.admin, "SELECT pg_relation_size('a') / current_setting('block_size')::int")
	// What happens afterwards moves nothing that the snapshot sees.
	pgtest.Exec(t, b.admin, "UPDATE a SET x = 'later'; DELETE FROM a WHERE n % 7 = 0; INSERT INTO a SELECT n FROM generate_series(30000, 60000) n")
	pgtest.Exec(t, b.admin, "VACUUM a")

	whole := strings.SplitAfter(b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}), "\n")
	if len(whole)-1 != 20000-20000/3 {
		t.Errorf("%d rows", len(whole)-1)
	}
	r := rand.New(rand.NewPCG(3, 4))
	var parts []string
	for from := int64(0); from >= 0; {
		to := from + 1 + r.Int64N(pages/4)
		if to >= pages {
			to = 0
		}
		data := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", FromPage: from, ToPage: to})
		parts = append(parts, strings.SplitAfter(data, "\n")...)
		if from = to; to == 0 {
			break
		}
	}
	slices.Sort(whole)
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	slices.Sort(parts)
	if !slices.Equal(parts, whole[1:]) {
		t.Errorf("page ranges give %d rows, the whole table %d, or others", len(parts), len(whole)-1)
	}
	for _, beyond := range []int64{pages * 1000, maxPages - 1} {
		if data := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", FromPage: beyond}); data != "" {
			t.Errorf("%d bytes from page %d", len(data), beyond)
		}
	}
	plan := dumpPlan{from: 3, to: 9}
	plan.name.Schema, plan.name.Name = "public", "a"
	rows, err := b.admin.Query(t.Context(), "EXPLAIN "+selectColumns(plan.name, []column{{name: "n"}})+plan.where())
	if err != nil {
		t.Fatal(err)
	}
	if explained, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !strings.Contains(strings.Join(explained, "\n"), "Tid Range Scan") {
		t.Errorf("read by %v, %v", explained, err)
	}
}

// rewrites are statements after which a snapshot finds other rows in a table, or none, or not where they were.
var rewrites = []string{
	"TRUNCATE a", "VACUUM FULL a", "CLUSTER a USING a_pkey", "ALTER TABLE a ALTER x TYPE bigint", "ALTER TABLE a ADD COLUMN z float8 DEFAULT random()",
	"DROP TABLE a", "ALTER TABLE a RENAME TO b", "ALTER TABLE a RENAME TO b; CREATE TABLE a (n int PRIMARY KEY, x int)",
	"ALTER TABLE a RENAME x TO y", "ALTER TABLE a DROP COLUMN x", "ALTER TABLE a RENAME x TO y; ALTER TABLE a ADD COLUMN x int",
	"DROP TABLE a; CREATE VIEW a AS SELECT 1 AS n, 2 AS x", "ALTER SCHEMA s RENAME TO s2", "ALTER TABLE a SET UNLOGGED", "ALTER TABLE a SET SCHEMA public",
	"TRUNCATE a; INSERT INTO a VALUES (1, 1)",
}

func TestRewrittenTable(t *testing.T) {
	server := pgtest.Shared(t)
	for _, sql := range rewrites {
		t.Run(sql, func(t *testing.T) {
			b := serve(t, server.Database(t))
			pgtest.Exec(t, b.admin, "CREATE SCHEMA s; SET search_path = s; CREATE TABLE a (n int PRIMARY KEY, x int); INSERT INTO a SELECT n, n FROM generate_series(1, 1000) n")
			s := b.mustOpen(t)
			request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "s", Table: "a"}
			if got := strings.Count(b.mustDump(t, request), "\n"); got != 1000 {
				t.Fatalf("%d rows before", got)
			}
			pgtest.Exec(t, b.admin, sql)
			data, _, err := b.dump(t.Context(), request)
			requireStatus(t, err, codes.FailedPrecondition, "TABLE_REWRITTEN")
			if len(data) != 0 || !strings.Contains(err.Error(), "s.a") || !strings.Contains(err.Error(), "new snapshot") {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
}

// TestHarmlessChanges: these leave a table as it is for the snapshot.
func TestHarmlessChanges(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE mood AS ENUM ('ok');
		CREATE TABLE a (n positive PRIMARY KEY, m mood); INSERT INTO a VALUES (1, 'ok'), (2, NULL)`)
	s := b.mustOpen(t)
	for _, sql := range []string{
		"VACUUM a", "ANALYZE a", "CREATE INDEX ON a (m)", "REINDEX TABLE a", "ALTER TABLE a ADD COLUMN later text", "ALTER TYPE mood ADD VALUE 'good'",
		"INSERT INTO a VALUES (3, 'good')", "DELETE FROM a WHERE n = 1", "ALTER TABLE a ALTER m SET DEFAULT 'ok'", "ALTER TABLE a ADD CHECK (n < 1000)",
	} {
		pgtest.Exec(t, b.admin, sql)
		if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}); got != "1\tok\n2\t\\N\n" {
			t.Errorf("after %s the dump is %q", sql, got)
		}
	}
}

func TestLockedTable(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.LockTimeout = 200e6 })
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int)")
	s := b.mustOpen(t)
	locker := pgtest.Connect(t, b.url)
	pgtest.Exec(t, locker, "BEGIN; LOCK TABLE a")
	pid := pgtest.QueryRow[int](t, locker, "SELECT pg_backend_pid()")
	request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}
	_, _, err := b.dump(t.Context(), request)
	requireStatus(t, err, codes.Unavailable, "TABLE_LOCKED")
	if !strings.Contains(err.Error(), fmt.Sprintf("pid %d", pid)) {
		t.Error(err)
	}
	pgtest.Exec(t, locker, "COMMIT")
	b.mustDump(t, request)
	// A dump does not keep the table locked beyond its end.
	pgtest.Exec(t, locker, "SET lock_timeout = '5s'; LOCK TABLE a")
}

func TestWhatCannotBeDumped(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TABLE a (n int, twice int GENERATED ALWAYS AS (n * 2) STORED, x text); INSERT INTO a VALUES (1, DEFAULT, 'x');
		CREATE TABLE p (n int) PARTITION BY LIST (n); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1);
		CREATE TABLE parent (n int); CREATE TABLE child () INHERITS (parent); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2);
		CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
		CREATE VIEW v AS SELECT 1 AS n; CREATE MATERIALIZED VIEW m AS SELECT 1 AS n; CREATE SEQUENCE q; CREATE UNLOGGED TABLE u (n int)`)
	s := b.mustOpen(t)
	pgtest.Exec(t, b.admin, "CREATE TABLE later (n int)")
	request := func(table string, edits ...func(*inventoryv1.DumpRequest)) *inventoryv1.DumpRequest {
		r := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: table}
		for _, edit := range edits {
			edit(r)
		}
		return r
	}
	columns := func(names ...string) func(*inventoryv1.DumpRequest) {
		return func(r *inventoryv1.DumpRequest) { r.Columns = names }
	}
	for want, r := range map[string]*inventoryv1.DumpRequest{
		"1\tx\n": request("a"), "x\t1\n": request("a", columns("x", "n")), "1\n": request("p1"), "2\n": request("child"), "\n\n": request("nothing"),
		"{\"x\":\"x\"}\n": request("a", columns("x"), func(r *inventoryv1.DumpRequest) { r.Format = formatJSON }),
		"{}\n{}\n":        request("nothing", func(r *inventoryv1.DumpRequest) { r.Format = formatJSON }),
	} {
		if got := b.mustDump(t, r); got != want {
			t.Errorf("%v: %q, want %q", r, got, want)
		}
	}
	if got := b.mustDump(t, request("parent")); got != "1\n" {
		t.Errorf("parent's own rows are %q", got)
	}
	for _, c := range []struct {
		request *inventoryv1.DumpRequest
		code    codes.Code
		reason  string
		text    string
	}{
		{request("later"), codes.NotFound, "TABLE_NOT_FOUND", "public.later"},
		{request("A"), codes.NotFound, "TABLE_NOT_FOUND", `public."A"`},
		{request(strings.Repeat("a", 100)), codes.NotFound, "TABLE_NOT_FOUND", ""},
		{request("a; DROP TABLE a"), codes.NotFound, "TABLE_NOT_FOUND", ""},
		{request("a\x00"), codes.InvalidArgument, rpc.ReasonInvalid, "zero byte"},
		{request("p"), codes.InvalidArgument, "PARTITIONED_TABLE", "dump its partitions"},
		{request("v"), codes.InvalidArgument, "NOT_A_TABLE", "a view"},
		{request("m"), codes.InvalidArgument, "NOT_A_TABLE", "materialized view"},
		{request("q"), codes.InvalidArgument, "NOT_A_TABLE", "sequence"},
		{request("u"), codes.InvalidArgument, "NOT_A_TABLE", "not a permanent table"},
		{request("pg_class", func(r *inventoryv1.DumpRequest) { r.Schema = "pg_catalog" }), codes.InvalidArgument, "NOT_A_TABLE", "pg_catalog"},
		{request("a", columns("twice")), codes.InvalidArgument, "INVALID_COLUMN", "generated"},
		{request("a", columns("n", "N")), codes.InvalidArgument, "INVALID_COLUMN", `"N"`},
		{request("a", columns("n", "n")), codes.InvalidArgument, "INVALID_COLUMN", "twice"},
		{request("a", columns(`n", (SELECT 1) AS "x`)), codes.InvalidArgument, "INVALID_COLUMN", "no such column"},
		{request("a", columns("ctid")), codes.InvalidArgument, "INVALID_COLUMN", "no such column"},
		{request(""), codes.InvalidArgument, rpc.ReasonInvalid, "table"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.Schema = "" }), codes.InvalidArgument, rpc.ReasonInvalid, "schema"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.SnapshotId = "" }), codes.InvalidArgument, rpc.ReasonInvalid, "snapshot_id"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.FromPage = -1 }), codes.InvalidArgument, rpc.ReasonInvalid, "from_page"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.FromPage = 1 << 32 }), codes.InvalidArgument, rpc.ReasonInvalid, "from_page"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.FromPage, r.ToPage = 5, 5 }), codes.InvalidArgument, rpc.ReasonInvalid, "to_page"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.ToPage = 1 << 32 }), codes.InvalidArgument, rpc.ReasonInvalid, "to_page"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.ChunkBytes = 1<<20 + 1 }), codes.InvalidArgument, rpc.ReasonInvalid, "chunk_bytes"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.ChunkBytes = -1 }), codes.InvalidArgument, rpc.ReasonInvalid, "chunk_bytes"},
		{request("a", func(r *inventoryv1.DumpRequest) { r.Format = 99 }), codes.InvalidArgument, rpc.ReasonUnknownValue, ""},
	} {
		_, _, err := b.dump(t.Context(), c.request)
		requireStatus(t, err, c.code, c.reason)
		if !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v lacks %q", c.request, err, c.text)
		}
	}
}

func TestOddIdentifiers(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	odd := []string{`we"ird`, "SELECT", "a b", "ünï☃", `back\slash`, "x;y", "$1", "'", "r", "ctid ", strings.Repeat("é", 31)}
	quoted := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	var columns []string
	for i, name := range odd {
		columns = append(columns, fmt.Sprintf("%s int DEFAULT %d", quoted(name), i))
	}
	for _, name := range odd {
		pgtest.Exec(t, b.admin, fmt.Sprintf("CREATE SCHEMA %s; CREATE TABLE %[1]s.%[1]s (%s); INSERT INTO %[1]s.%[1]s DEFAULT VALUES", quoted(name), strings.Join(columns, ", ")))
	}
	s := b.mustOpen(t)
	for _, name := range odd {
		request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: name, Table: name, Columns: odd, Format: formatJSON}
		var row map[string]int
		if err := json.Unmarshal([]byte(b.mustDump(t, request)), &row); err != nil {
			t.Fatal(err)
		}
		for i, name := range odd {
			if row[name] != i {
				t.Errorf("column %q is %d, want %d", name, row[name], i)
			}
		}
	}
}

func TestPrivileges(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `CREATE ROLE copier LOGIN REPLICATION; CREATE SCHEMA s; CREATE TABLE s.a (n int); INSERT INTO s.a VALUES (1), (2)`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err == nil {
			_, err = conn.Exec(context.Background(), "DROP OWNED BY copier; DROP ROLE copier")
			conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	b := serve(t, url, func(c *Config) { c.PostgresURL = strings.Replace(url, "postgres@", "copier@", 1) })
	writer, _, pid := writing(t, url, "not mine")
	_, _, err := b.open(t.Context(), 0, time.Second)
	requireStatus(t, err, codes.DeadlineExceeded, "SNAPSHOT_BLOCKED")
	if rpc.Metadata(err)["pids"] != fmt.Sprint(pid) { // a weak role finds out who it is, too
		t.Error(err)
	}
	pgtest.Exec(t, writer, "ROLLBACK")
	s := b.mustOpen(t)
	request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "s", Table: "a"}
	refused := func(want string) {
		t.Helper()
		_, _, err := b.dump(t.Context(), request)
		requireStatus(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	refused(`GRANT USAGE ON SCHEMA "s" TO "copier"`)
	pgtest.Exec(t, admin, "GRANT USAGE ON SCHEMA s TO copier")
	refused(`GRANT SELECT ON TABLE "s"."a" TO "copier"`)
	pgtest.Exec(t, admin, "GRANT SELECT ON TABLE s.a TO copier")
	b.mustDump(t, request)
	pgtest.Exec(t, admin, "ALTER TABLE s.a ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.a USING (n = 1)")
	refused(`ALTER ROLE "copier" BYPASSRLS`) // not a dump with rows missing
	pgtest.Exec(t, admin, "ALTER ROLE copier BYPASSRLS")
	if got := b.mustDump(t, request); got != "1\n2\n" {
		t.Errorf("dump is %q", got)
	}
}
