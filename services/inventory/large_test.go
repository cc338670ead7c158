package inventory

import (
	"errors"
	"io"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// peakMemory calls f and returns how many bytes of live and not yet collected objects came at most on top of those before.
func peakMemory(f func()) uint64 {
	runtime.GC()
	runtime.GC() // the second empties the pools
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(sample)
	before := sample[0].Value.Uint64()
	done := make(chan struct{})
	var peak uint64
	var sampling sync.WaitGroup
	sampling.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			runtimemetrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	f()
	close(done)
	sampling.Wait()
	return max(peak, before) - before
}

// TestLargeValue: a value of 64 MiB is a line of 128 MiB, which the service holds once.
func TestLargeValue(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	const size = 64 << 20
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int, b bytea); INSERT INTO a SELECT 1, decode(repeat('5c', 67108864), 'hex'); INSERT INTO a VALUES (2, 'x')")
	s := b.mustOpen(t)
	for _, format := range []inventoryv1.DumpFormat{formatText, formatCSV, formatJSON} {
		var total int64
		var end inventoryv1.DumpResponse
		request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a", Format: format}
		peak := peakMemory(func() {
			stream, err := rpc.OpenFrames(t.Context(), b.conn, inventoryv1.InventoryService_Dump_FullMethodName, request)
			var frame rpc.Frame // reused: the client's memory is not what is measured
			for err == nil {
				if err = stream.RecvMsg(&frame); err == nil {
					total += int64(len(frame.Data))
				}
				if len(frame.Data) < 1000 {
					if err := proto.Unmarshal(frame.Data, &end); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		})
		t.Logf("%v: peak of %d MiB", format, peak>>20)
		if sent := end.GetEnd().GetBytes(); sent < 2*size || sent > 2*size+100 || total < sent || total > sent+100_000 || end.GetEnd().GetRows() != 2 {
			t.Errorf("%v: %d bytes, end %v", format, total, end.GetEnd())
		}
		if peak > 4*size+(32<<20) { // the line, once more with the race detector, and everything else
			t.Errorf("%v: %d MiB in use for a line of %d MiB", format, peak>>20, 2*size>>20)
		}
	}
}

// TestRowThatCannotBePrinted: PostgreSQL stores values that it cannot print.
func TestRowThatCannotBePrinted(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `SELECT set_config('default_toast_compression', 'lz4', false) FROM pg_settings
		WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)`) // to be done sooner
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int, b bytea); INSERT INTO a VALUES (1, 'x'), (2, repeat('x', 540000000)::bytea), (3, 'x')")
	s := b.mustOpen(t)
	_, _, err := b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
	requireStatus(t, err, codes.FailedPrecondition, "ROW_TOO_LARGE")
	if !strings.Contains(err.Error(), "public.a") || !strings.Contains(err.Error(), "ctid (0,2)") {
		t.Error(err)
	}
}
