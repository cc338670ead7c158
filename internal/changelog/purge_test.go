package changelog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// wideHistory has transactions of about a block each, from a LSN on, with a large one at index 3.
func wideHistory(n int) []transaction {
	history := make([]transaction, n)
	for i := range history {
		lsn := change.LSN(1000 + 100*i)
		history[i] = transaction{commit: lsn, end: lsn + 40, xid: uint32(i + 1), rows: []string{strings.Repeat("r", 260_000)}}
		if i == 3 {
			for range 8 {
				history[i].rows = append(history[i].rows, strings.Repeat("s", 200_000))
			}
		}
	}
	return history
}

// checkStart requires that the log begins between two transactions and holds everything from there on.
func checkStart(t *testing.T, l *Log, history []transaction) int {
	t.Helper()
	ranges := l.Ranges()
	for i := range history {
		if ranges.First == history[i].commit-60 || ranges.First == testMeta.Start && i == 0 {
			after := change.Position{LogID: testMeta.LogID, LSN: ranges.First}
			requireLines(t, fmt.Sprint("log from ", ranges.First), read(t, l, after), lines(history[i:]))
			if i > 0 {
				after.LSN--
				if _, err := l.Find(t.Context(), after); !errors.Is(err, ErrTooOld) {
					t.Errorf("find before the start: %v", err)
				}
				if _, err := l.Read(t.Context(), ranges.FirstBlock-1); !errors.Is(err, ErrPurged) {
					t.Errorf("read a purged block: %v", err)
				}
			}
			return i
		}
	}
	t.Fatalf("the log begins inside a transaction, at %v", ranges.First)
	return 0
}

func TestPurgeByBytes(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, PurgeInterval: time.Hour})
	must(t, err, l.Reset(t.Context(), testMeta))
	history := wideHistory(12)
	must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), history))
	total := int64(l.Ranges().Bytes)
	seen := map[int]bool{}
	for limit := total; limit > 0; limit -= 200_000 {
		must(t, l.purge(Retention{MaxBytes: limit, MaxAge: 0}))
		seen[checkStart(t, l, history)] = true
		if got := int64(l.Ranges().Bytes); got > limit && len(seen) < 10 && limit > 300_000 {
			t.Errorf("%d bytes with a limit of %d", got, limit)
		}
	}
	if seen[11] != true || len(seen) < 8 {
		t.Errorf("the log began with transactions %v", seen)
	}
	must(t, l.purge(Retention{MaxBytes: 1, MaxAge: 0}))
	if i := checkStart(t, l, history); i != 11 {
		t.Errorf("the last block is gone: transaction %d", i)
	}
	must(t, l.Close())
	l = openLog(t, Options{Dir: dir})
	if i := checkStart(t, l, history); i != 11 {
		t.Errorf("opened again it begins with transaction %d", i)
	}
	must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), history)) // older ones are dropped unverified
	checkStart(t, l, history)
}

func TestPurgeByAge(t *testing.T) {
	l := newLog(t)
	history := wideHistory(6)
	hash := put(t, l)
	a := openAppender(t, l)
	must(t, feedAll(t.Context(), a, hash, history[:5]))
	between := time.Now()
	must(t, feedAll(t.Context(), a, hash, history[5:]))
	must(t, l.purge(Retention{MaxBytes: 0, MaxAge: time.Hour}))
	if i := checkStart(t, l, history); i != 0 {
		t.Errorf("young transactions are gone up to %d", i)
	}
	must(t, l.purge(Retention{MaxBytes: 0, MaxAge: time.Since(between)}))
	if i := checkStart(t, l, history); i < 4 {
		t.Errorf("old transactions are there from %d", i)
	}
	must(t, l.purge(Retention{MaxBytes: 0, MaxAge: time.Nanosecond}))
	checkStart(t, l, history)
	if l.Ranges().LastBlock != l.Head().Number || l.Ranges().FirstBlock > l.Head().Number {
		t.Errorf("%+v", l.Ranges())
	}
}

// An unfinished transaction stays whole, whatever its size.
func TestPurgeSparesTheOpenTransaction(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := wideHistory(4)
	a := openAppender(t, l)
	must(t, feedAll(t.Context(), a, hash, history[:3]))
	open := history[3]
	must(t, a.Begin(t.Context(), open.commit, open.time(), open.xid))
	for i, row := range open.rows {
		must(t, a.Change(t.Context(), 1, hash, 0, tuple(), tuple(fmt.Sprint(i), row)))
	}
	for l.ledger.view().last.Part == nil {
		<-a.DurableChanged()
	}
	must(t, l.purge(Retention{MaxBytes: 1, MaxAge: time.Nanosecond}))
	must(t, a.Commit(t.Context(), open.commit, open.end, open.time(), open.xid), a.Flush(t.Context()))
	checkStart(t, l, history)
}

func TestPurgeLoop(t *testing.T) {
	l := openLog(t, Options{Dir: t.TempDir(), Retention: Retention{MaxBytes: 600_000}, PurgeInterval: time.Millisecond})
	must(t, l.Reset(t.Context(), testMeta))
	history := wideHistory(12)
	must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), history))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); l.Ranges().Bytes > 600_000; {
		select {
		case <-deadline:
			t.Fatalf("not purged: %+v", l.Ranges())
		case <-tick.C:
		}
	}
	checkStart(t, l, history)
}
