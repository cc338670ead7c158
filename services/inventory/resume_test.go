package inventory

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestSteps: the statements of a dump read each page once, in order, and the last one reads to where the dump shall end.
func TestSteps(t *testing.T) {
	for from := int64(0); from < 25; from++ {
		for _, to := range []int64{0, from + 1, from + 9, 100} {
			for pages := int64(0); pages < 30; pages += 3 {
				steps := dumpPlan{from: from, to: to}.steps(pages, 10)
				next := from
				for i, s := range steps {
					last := i == len(steps)-1
					if s.from != next || last && s.to != to || !last && (s.to != s.from+10 || s.to >= pages || to != 0 && s.to >= to) {
						t.Fatalf("from %d to %d of %d pages: step %d of %+v", from, to, pages, i, steps)
					}
					next = s.to
				}
			}
		}
	}
	if steps := (dumpPlan{format: formatBin}).steps(1000, 10); len(steps) != 1 {
		t.Errorf("%d binary steps", len(steps))
	}
}

// TestDumpIsResumed breaks dumps off at each place from which they can go on, and puts the parts together.
func TestDumpIsResumed(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TABLE a (n int, x text) WITH (fillfactor = 10, autovacuum_enabled = off); ALTER TABLE a ALTER x SET STORAGE PLAIN;
		INSERT INTO a SELECT n, repeat('x', 810) FROM generate_series(1, 8300) n`)
	s := b.mustOpen(t)
	pgtest.Exec(t, b.admin, "INSERT INTO a SELECT n, 'later' FROM generate_series(1, 100) n; DELETE FROM a WHERE n % 2 = 0")
	for _, format := range []inventoryv1.DumpFormat{formatText, formatCSV, formatJSON} {
		request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", Columns: []string{"n"}, Format: format}
		whole := b.mustDump(t, request)
		if rows := strings.Count(whole, "\n"); rows != 8300 {
			t.Fatalf("%v: %d rows", format, rows)
		}
		var parts strings.Builder
		var places []int64
		for {
			data, next := b.dumpUntilPlace(t, request)
			parts.WriteString(data)
			if next == 0 {
				break
			}
			places = append(places, next)
			request.FromPage = next
		}
		if parts.String() != whole || !slices.Equal(places, []int64{resumePages, 2 * resumePages}) {
			t.Errorf("%v: %d bytes in parts, %d at once; parts end at pages %v", format, parts.Len(), len(whole), places)
		}
	}
	request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", Columns: []string{"n"}, Format: formatBin}
	if _, next := b.dumpUntilPlace(t, request); next != 0 {
		t.Errorf("the binary dump can go on at page %d", next)
	}
}

// dumpUntilPlace breaks a dump off at the first answer from which it can go on, and returns that page; 0 when it came to its end.
func (b *bench) dumpUntilPlace(t *testing.T, request *inventoryv1.DumpRequest) (string, int64) {
	t.Helper()
	stream, err := b.Dump(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	var data strings.Builder
	for {
		answer, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("no end: %w", io.ErrUnexpectedEOF)
			}
			t.Fatal(err)
		}
		data.Write(answer.GetData())
		if answer.GetResumePage() > 0 || answer.GetEnd() != nil {
			return data.String(), answer.GetResumePage()
		}
	}
}
