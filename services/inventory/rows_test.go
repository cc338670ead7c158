package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/copytext"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// rowsOf returns the rows of a call as text, sorted; NULL is ∅.
func (b *bench) rowsOf(t *testing.T, request *inventoryv1.ReadRowsRequest) ([]string, error) {
	t.Helper()
	stream, err := b.ReadRows(t.Context(), request)
	if err != nil {
		return nil, err
	}
	var data []byte
	var end *inventoryv1.ReadRowsEnd
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(answer.GetData()) > DefaultChunkBytes {
			t.Errorf("a piece of %d bytes", len(answer.GetData()))
		}
		data, end = append(data, answer.GetData()...), answer.GetEnd()
	}
	var rows []string
	for line := range bytes.Lines(data) {
		values, err := copytext.Parse(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, v := range values {
			if v == nil {
				v = []byte("∅")
			}
			texts = append(texts, string(v))
		}
		rows = append(rows, strings.Join(texts, "|"))
	}
	if end.GetLines() != int64(len(rows)) {
		t.Errorf("%d rows, and the end says %d", len(rows), end.GetLines())
	}
	slices.Sort(rows)
	return rows, nil
}

func key(values ...string) *inventoryv1.RowKey { return &inventoryv1.RowKey{Values: values} }

func TestReadRows(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN code AS text;
		CREATE TABLE composite (note text, m mood, c code, made integer GENERATED ALWAYS AS (1) STORED, PRIMARY KEY (m, c));
		INSERT INTO composite VALUES (NULL, 'sad', 'a"b\'), ('', 'happy', 'ü,{}'), (E'tab\tline\n', 'sad', ''), ('other', 'happy', 'x');
		CREATE TABLE numbers (n numeric PRIMARY KEY, i integer); INSERT INTO numbers VALUES (1.0, 1), (2, 2);
		CREATE TABLE keyless (b text, a integer); INSERT INTO keyless SELECT 'row', n % 3 FROM generate_series(1, 10) n; INSERT INTO keyless VALUES (NULL, NULL);
		CREATE TABLE wide (id integer PRIMARY KEY, body text); INSERT INTO wide SELECT n, repeat(n::text, 300000) FROM generate_series(1, 4) n`)
	snapshot := b.mustOpen(t)
	request := func(table string) *inventoryv1.ReadRowsRequest {
		return &inventoryv1.ReadRowsRequest{SnapshotId: snapshot.GetSnapshotId(), Schema: "public", Table: table}
	}
	pgtest.Exec(t, b.admin, "UPDATE composite SET note = 'later'; DELETE FROM numbers")

	composite := request("composite")
	composite.Columns, composite.Key = []string{"note", "c", "m"}, []string{"m", "c"}
	composite.Keys = []*inventoryv1.RowKey{key("sad", `a"b\`), key("happy", "ü,{}"), key("sad", ""), key("sad", "none"), key("sad", "")}
	want := []string{"tab\tline\n||sad", `∅|a"b\|sad`, "|ü,{}|happy"}
	slices.Sort(want)
	if rows, err := b.rowsOf(t, composite); err != nil || !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q; %v", rows, want, err)
	}
	numbers := request("numbers")
	numbers.Key, numbers.Keys = []string{"n"}, []*inventoryv1.RowKey{key("1.00"), key("2")}
	if rows, err := b.rowsOf(t, numbers); err != nil || !slices.Equal(rows, []string{"2|2"}) { // 1.0 prints differently
		t.Errorf("rows %q, %v", rows, err)
	}
	numbers.Keys = []*inventoryv1.RowKey{key("x"), key("1.0")}
	if _, err := b.rowsOf(t, numbers); err == nil {
		t.Error("a key that is no number is taken")
	} else {
		requireStatus(t, err, codes.InvalidArgument, "INVALID_RANGE")
	}
	numbers.KeysAsText = true
	if rows, err := b.rowsOf(t, numbers); err != nil || !slices.Equal(rows, []string{"1.0|1"}) {
		t.Errorf("rows %q, %v", rows, err)
	}

	sums := b.mustChecksums(t, &inventoryv1.ChecksumRequest{SnapshotId: snapshot.GetSnapshotId(), Schema: "public", Table: "keyless", Rows: true})
	keyless := request("keyless")
	for _, r := range sums.GetRows() {
		if r.GetKey()[0] != `a="2", b="row"` {
			keyless.Hashes = append(keyless.Hashes, r.GetHash())
		}
	}
	keyless.Hashes = append(keyless.Hashes, make([]byte, 16))
	if rows, err := b.rowsOf(t, keyless); err != nil || !slices.Equal(rows, []string{"1|∅|∅", "3|row|0", "4|row|1"}) {
		t.Errorf("rows %q, %v", rows, err)
	}
	wide := request("wide")
	wide.Key, wide.Keys = []string{"id"}, []*inventoryv1.RowKey{key("1"), key("3")}
	if rows, err := b.rowsOf(t, wide); err != nil || len(rows) != 2 || rows[1] != "3|"+strings.Repeat("3", 300000) {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	for name, test := range map[string]struct {
		edit   func(*inventoryv1.ReadRowsRequest)
		code   codes.Code
		reason string
	}{
		"no snapshot":   {func(r *inventoryv1.ReadRowsRequest) { r.SnapshotId = "" }, codes.InvalidArgument, "INVALID_FIELD"},
		"lost snapshot": {func(r *inventoryv1.ReadRowsRequest) { r.SnapshotId = "none" }, codes.NotFound, "SNAPSHOT_GONE"},
		"no keys":       {func(r *inventoryv1.ReadRowsRequest) { r.Keys = nil }, codes.InvalidArgument, "INVALID_FIELD"},
		"short key":     {func(r *inventoryv1.ReadRowsRequest) { r.Keys = []*inventoryv1.RowKey{key("sad")} }, codes.InvalidArgument, "INVALID_FIELD"},
		"zero byte":     {func(r *inventoryv1.ReadRowsRequest) { r.Keys = []*inventoryv1.RowKey{key("sad", "\x00")} }, codes.InvalidArgument, "INVALID_FIELD"},
		"both":          {func(r *inventoryv1.ReadRowsRequest) { r.Hashes = [][]byte{make([]byte, 16)} }, codes.InvalidArgument, "INVALID_FIELD"},
		"short hash":    {func(r *inventoryv1.ReadRowsRequest) { r.Key, r.Keys, r.Hashes = nil, nil, [][]byte{{1}} }, codes.InvalidArgument, "INVALID_FIELD"},
		"generated":     {func(r *inventoryv1.ReadRowsRequest) { r.Columns = append(r.Columns, "made") }, codes.InvalidArgument, "INVALID_COLUMN"},
		"key not read":  {func(r *inventoryv1.ReadRowsRequest) { r.Columns = []string{"note"} }, codes.InvalidArgument, "INVALID_FIELD"},
		"twice":         {func(r *inventoryv1.ReadRowsRequest) { r.Columns = []string{"m", "c", "m"} }, codes.InvalidArgument, "INVALID_COLUMN"},
		"own schema":    {func(r *inventoryv1.ReadRowsRequest) { r.Schema = "syncline" }, codes.InvalidArgument, "NOT_A_TABLE"},
		"too many": {func(r *inventoryv1.ReadRowsRequest) {
			for i := range maxRowsAsked {
				r.Keys = append(r.Keys, key("sad", fmt.Sprint(i)))
			}
		}, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := request("composite")
			bad.Columns, bad.Key, bad.Keys = []string{"note", "c", "m"}, []string{"m", "c"}, []*inventoryv1.RowKey{key("sad", "")}
			test.edit(bad)
			_, err := b.rowsOf(t, bad)
			requireStatus(t, err, test.code, test.reason)
		})
	}
	pgtest.Exec(t, b.admin, "TRUNCATE composite")
	_, err := b.rowsOf(t, composite)
	requireStatus(t, err, codes.FailedPrecondition, "TABLE_REWRITTEN")
}
