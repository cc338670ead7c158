package changelog

import (
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

// BenchmarkAppend appends rows of 1 KiB in transactions of ten: full blocks with every sync.
func BenchmarkAppend(b *testing.B) {
	l := openLog(b, Options{Dir: b.TempDir()})
	must(b, l.Reset(b.Context(), testMeta))
	hash := put(b, l)
	a := openAppender(b, l)
	row := tuple("1", strings.Repeat("v", 1000))
	lsn := testMeta.Start
	b.SetBytes(int64(10 * len(row.Raw)))
	for b.Loop() {
		lsn += 10_000
		must(b, a.Begin(b.Context(), lsn, 1, 1))
		for range 10 {
			must(b, a.Change(b.Context(), block.Insert, hash, pgoutput.OldNone, pgoutput.Tuple{}, row))
		}
		must(b, a.Commit(b.Context(), lsn, lsn+5000, 1, 1))
	}
	must(b, a.Flush(b.Context()))
	b.ReportMetric(float64(l.Head().Number)/b.Elapsed().Seconds(), "blocks/s")
}

// BenchmarkLatency appends one small transaction after the other, each until it is durable.
func BenchmarkLatency(b *testing.B) {
	l := openLog(b, Options{Dir: b.TempDir()})
	must(b, l.Reset(b.Context(), testMeta))
	hash := put(b, l)
	a := openAppender(b, l)
	x := transaction{commit: 2000, xid: 1, rows: []string{"small"}}
	for b.Loop() {
		x.commit += 1000
		x.end = x.commit + 10
		must(b, feedOne(b.Context(), a, hash, &x), a.Flush(b.Context()))
	}
}

// BenchmarkRead reads a log of full blocks that is not in memory.
func BenchmarkRead(b *testing.B) {
	l := openLog(b, Options{Dir: b.TempDir(), CacheBytes: 1})
	must(b, l.Reset(b.Context(), testMeta))
	hash := put(b, l)
	a := openAppender(b, l)
	row := strings.Repeat("v", 1000)
	rows := make([]string, 100_000)
	for i := range rows {
		rows[i] = row
	}
	must(b, feedAll(b.Context(), a, hash, []transaction{{commit: 2000, end: 2010, xid: 1, rows: rows}}))
	first, last := l.Ranges().FirstBlock, l.Ranges().LastBlock
	number := first
	var bytes int64
	begun := time.Now()
	for b.Loop() {
		got, err := l.Read(b.Context(), number)
		must(b, err)
		bytes += int64(len(got.Data()))
		if number++; number > last {
			number = first
		}
	}
	b.ReportMetric(float64(bytes)/1e6/time.Since(begun).Seconds(), "MB/s")
}
