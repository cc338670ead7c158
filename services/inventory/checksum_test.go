package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

const (
	orderKey    = inventoryv1.ChecksumOrder_CHECKSUM_ORDER_KEY
	orderDigest = inventoryv1.ChecksumOrder_CHECKSUM_ORDER_DIGEST
)

// checksums returns all that a call answers.
func (b *bench) checksums(ctx context.Context, request *inventoryv1.ChecksumRequest) (*inventoryv1.ChecksumResponse, error) {
	stream, err := b.Checksum(ctx, request)
	if err != nil {
		return nil, err
	}
	all := &inventoryv1.ChecksumResponse{}
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && all.GetEnd() != nil:
			return all, nil
		case errors.Is(err, io.EOF):
			return all, errors.New("stream ended without an end")
		case err != nil:
			return all, err
		case all.GetEnd() != nil:
			return all, errors.New("more after the end")
		}
		if n := proto.Size(answer); n > 2*batchBytes {
			return all, fmt.Errorf("an answer of %d bytes", n)
		}
		proto.Merge(all, answer)
	}
}

func (b *bench) mustChecksums(t *testing.T, request *inventoryv1.ChecksumRequest) *inventoryv1.ChecksumResponse {
	t.Helper()
	all, err := b.checksums(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// total adds up chunks.
func total(t *testing.T, chunks []*inventoryv1.ChecksumChunk) (sum checksum.Sum) {
	t.Helper()
	for _, c := range chunks {
		one, ok := checksum.ParseSum(c.GetRows(), c.GetHash())
		if !ok {
			t.Fatalf("chunk %v", c)
		}
		sum.Add(one)
	}
	return sum
}

const checksumTable = `CREATE TABLE items (note text, id int PRIMARY KEY, made int GENERATED ALWAYS AS (id * 2) STORED, name text UNIQUE NOT NULL);
	INSERT INTO items (note, id, name) SELECT 'note ' || n, n, 'name ' || n FROM generate_series(1, 2500) n`

// TestChecksumDescends goes from a whole table over chunks and their parts to rows, by key and by digest, while the table is
// written to: everything is as of the snapshot.
func TestChecksumDescends(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, checksumTable)
	s := b.mustOpen(t)
	pgtest.Exec(t, b.admin, "UPDATE items SET note = 'later'; DELETE FROM items WHERE id % 2 = 0; INSERT INTO items VALUES ('new', 9999, DEFAULT, 'new')")
	request := func(order inventoryv1.ChecksumOrder, edit func(*inventoryv1.ChecksumRequest)) *inventoryv1.ChecksumRequest {
		r := &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "items", Key: []string{"id"}, Order: order}
		edit(r)
		return r
	}
	whole := b.mustChecksums(t, request(orderKey, func(*inventoryv1.ChecksumRequest) {}))
	if len(whole.GetChunks()) != 1 || whole.GetChunks()[0].GetRows() != 2500 || whole.GetEnd().GetRows() != 2500 {
		t.Fatalf("the whole: %v", whole)
	}
	want := total(t, whole.GetChunks())
	named := b.mustChecksums(t, request(orderDigest, func(r *inventoryv1.ChecksumRequest) { r.Columns = []string{"name", "note"} }))
	if total(t, named.GetChunks()) != want {
		t.Error("it matters in which order columns are named, and whether the key is")
	}
	for _, order := range []inventoryv1.ChecksumOrder{orderKey, orderDigest} {
		chunks := b.mustChecksums(t, request(order, func(r *inventoryv1.ChecksumRequest) { r.RowsPerChunk, r.Chunks = 300, 9 })).GetChunks()
		if len(chunks) != 9 || total(t, chunks) != want {
			t.Fatalf("%v: %d chunks, %v, want %v", order, len(chunks), total(t, chunks), want)
		}
		one := chunks[4]
		parts := b.mustChecksums(t, request(order, func(r *inventoryv1.ChecksumRequest) {
			r.RowsPerChunk, r.Chunks, r.Ranges = 50, 6, []*inventoryv1.KeyRange{one.GetRange()}
		})).GetChunks()
		if len(parts) != 6 || total(t, parts) != total(t, []*inventoryv1.ChecksumChunk{one}) {
			t.Errorf("%v: %d parts of a chunk, %v", order, len(parts), total(t, parts))
		}
		rows := b.mustChecksums(t, request(order, func(r *inventoryv1.ChecksumRequest) {
			r.Rows, r.Ranges = true, []*inventoryv1.KeyRange{parts[1].GetRange(), parts[3].GetRange()}
		}))
		if n := parts[1].GetRows() + parts[3].GetRows(); int64(len(rows.GetRows())) != n || rows.GetEnd().GetRows() != n || len(rows.GetChunks()) != 0 {
			t.Errorf("%v: %d rows of parts with %d", order, len(rows.GetRows()), n)
		}
		for _, row := range rows.GetRows() {
			if len(row.GetKey()) != 1 || len(row.GetHash()) != checksum.HashBytes || len(row.GetColumnHashes()) != 3 || row.GetCount() != 1 {
				t.Errorf("row %v", row)
			}
		}
	}
	last := b.mustChecksums(t, request(orderKey, func(r *inventoryv1.ChecksumRequest) {
		r.Rows, r.Ranges = true, []*inventoryv1.KeyRange{{After: []string{"2499"}}}
	}))
	if len(last.GetRows()) != 1 || last.GetRows()[0].GetKey()[0] != "2500" {
		t.Errorf("after 2499: %v", last)
	}
}

func TestChecksumRefusals(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, checksumTable)
	pgtest.Exec(t, b.admin, "CREATE TABLE parts (id int) PARTITION BY LIST (id)")
	s := b.mustOpen(t)
	for name, test := range map[string]struct {
		edit   func(*inventoryv1.ChecksumRequest)
		code   codes.Code
		reason string
	}{
		"no snapshot":         {func(r *inventoryv1.ChecksumRequest) { r.SnapshotId = "" }, codes.InvalidArgument, "INVALID_FIELD"},
		"another snapshot":    {func(r *inventoryv1.ChecksumRequest) { r.SnapshotId = "other" }, codes.NotFound, "SNAPSHOT_GONE"},
		"no table":            {func(r *inventoryv1.ChecksumRequest) { r.Table = "" }, codes.InvalidArgument, "INVALID_FIELD"},
		"unknown table":       {func(r *inventoryv1.ChecksumRequest) { r.Table = "other" }, codes.NotFound, "TABLE_NOT_FOUND"},
		"partitioned":         {func(r *inventoryv1.ChecksumRequest) { r.Table = "parts" }, codes.InvalidArgument, "PARTITIONED_TABLE"},
		"system table":        {func(r *inventoryv1.ChecksumRequest) { r.Schema, r.Table = "pg_catalog", "pg_class" }, codes.InvalidArgument, "NOT_A_TABLE"},
		"unknown column":      {func(r *inventoryv1.ChecksumRequest) { r.Columns = []string{"other"} }, codes.InvalidArgument, "INVALID_COLUMN"},
		"generated column":    {func(r *inventoryv1.ChecksumRequest) { r.Columns = []string{"made"} }, codes.InvalidArgument, "INVALID_COLUMN"},
		"column twice":        {func(r *inventoryv1.ChecksumRequest) { r.Columns = []string{"note", "note"} }, codes.InvalidArgument, "INVALID_COLUMN"},
		"unknown key":         {func(r *inventoryv1.ChecksumRequest) { r.Key = []string{"other"} }, codes.InvalidArgument, "INVALID_COLUMN"},
		"text sorted":         {func(r *inventoryv1.ChecksumRequest) { r.Key, r.Order = []string{"name"}, orderKey }, codes.InvalidArgument, "INVALID_COLUMN"},
		"no key to sort by":   {func(r *inventoryv1.ChecksumRequest) { r.Key, r.Order = nil, orderKey }, codes.InvalidArgument, "INVALID_FIELD"},
		"too many chunks":     {func(r *inventoryv1.ChecksumRequest) { r.Chunks = 1 << 20 }, codes.InvalidArgument, "INVALID_FIELD"},
		"negative chunks":     {func(r *inventoryv1.ChecksumRequest) { r.Chunks = -1 }, codes.InvalidArgument, "INVALID_FIELD"},
		"negative rows":       {func(r *inventoryv1.ChecksumRequest) { r.RowsPerChunk = -1 }, codes.InvalidArgument, "INVALID_FIELD"},
		"a key for a digest":  {func(r *inventoryv1.ChecksumRequest) { r.Ranges = []*inventoryv1.KeyRange{{After: []string{"5"}}} }, codes.InvalidArgument, "INVALID_FIELD"},
		"overlapping digests": {func(r *inventoryv1.ChecksumRequest) { r.Ranges = []*inventoryv1.KeyRange{{}, {}} }, codes.InvalidArgument, "INVALID_RANGE"},
		"a key of two": {func(r *inventoryv1.ChecksumRequest) {
			r.Order = orderKey
			r.Ranges = []*inventoryv1.KeyRange{{After: []string{"5", "6"}}}
		}, codes.InvalidArgument, "INVALID_FIELD"},
		"a key of no number": {func(r *inventoryv1.ChecksumRequest) {
			r.Order = orderKey
			r.Ranges = []*inventoryv1.KeyRange{{After: []string{"five"}}}
		}, codes.InvalidArgument, "INVALID_RANGE"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "items", Key: []string{"id"}}
			test.edit(r)
			_, err := b.checksums(t.Context(), r)
			requireStatus(t, err, test.code, test.reason)
		})
	}
	request := &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "items", Key: []string{"id"}}
	pgtest.Exec(t, b.admin, "ALTER TABLE items RENAME note TO renamed")
	_, err := b.checksums(t.Context(), request)
	requireStatus(t, err, codes.FailedPrecondition, "TABLE_REWRITTEN")
	pgtest.Exec(t, b.admin, "ALTER TABLE items RENAME renamed TO note; TRUNCATE items")
	_, err = b.checksums(t.Context(), request)
	requireStatus(t, err, codes.FailedPrecondition, "TABLE_REWRITTEN")
}

// TestChecksumNeedsSelect: what is missing is named with its GRANT.
func TestChecksumNeedsSelect(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, "CREATE ROLE summer LOGIN REPLICATION; CREATE TABLE a (n int); ALTER TABLE a ENABLE ROW LEVEL SECURITY")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err == nil {
			_, err = conn.Exec(context.Background(), "DROP OWNED BY summer; DROP ROLE summer")
			conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	b := serve(t, url, func(c *Config) { c.PostgresURL = strings.Replace(url, "postgres@", "summer@", 1) })
	s := b.mustOpen(t)
	request := &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}
	for _, step := range []struct{ want, mend string }{
		{`GRANT SELECT ON TABLE "public"."a" TO "summer"`, "GRANT SELECT ON a TO summer"}, {`ALTER ROLE "summer" BYPASSRLS`, "ALTER ROLE summer BYPASSRLS"},
	} {
		_, err := b.checksums(t.Context(), request)
		requireStatus(t, err, codes.PermissionDenied, "PERMISSION_DENIED")
		if !strings.Contains(err.Error(), step.want) {
			t.Errorf("%v lacks %q", err, step.want)
		}
		pgtest.Exec(t, admin, step.mend)
	}
	b.mustChecksums(t, request)
}

// TestChecksumEndsWithItsSnapshot: a lease that expires ends what reads from it.
func TestChecksumEndsWithItsSnapshot(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items SELECT generate_series(1, 2000000)")
	s, _, err := b.open(t.Context(), MinTTL, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.checksums(t.Context(), &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "items", Key: []string{"id"}, Rows: true})
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s = b.mustOpen(t)
	if _, err := b.checksums(ctx, &inventoryv1.ChecksumRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "items"}); err == nil {
		t.Error("a client that is gone got an answer")
	}
	b.requireSessions(t, 1) // the keeper
}
