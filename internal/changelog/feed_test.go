package changelog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

// Feeding again from anywhere gives the same log.
func TestFeedAgain(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := smallHistory(30)
	for n := range len(history) + 1 {
		a := openAppender(t, l)
		must(t, feedAll(t.Context(), a, hash, history[max(0, n-10):n]))
		a.Close()
	}
	requireLines(t, "log", read(t, l, start()), lines(history))

	for name, edit := range map[string]func(*transaction){
		"xid": func(x *transaction) { x.xid++ }, "end": func(x *transaction) { x.end++ },
		"commit":      func(x *transaction) { x.commit++; x.end++ },
		"commit time": func(x *transaction) { x.commit-- },
	} {
		a := openAppender(t, l)
		must(t, feedOne(t.Context(), a, hash, &history[9]))
		other := history[10]
		other.mark = 0
		edit(&other)
		if err := feedOne(t.Context(), a, hash, &other); !errors.Is(err, ErrDiverged) {
			t.Errorf("other %s: %v, want ErrDiverged", name, err)
		}
		if err := a.Begin(t.Context(), 9000, 1, 1); !errors.Is(err, ErrDiverged) {
			t.Errorf("other %s: the error does not stick: %v", name, err)
		}
		a.Close()
	}
	requireLines(t, "log", read(t, l, start()), lines(history))
}

// largeHistory has transactions of many parts, and records of many fragments.
func largeHistory() []transaction {
	big := func(c string, n int) string { return strings.Repeat(c, n) }
	many := make([]string, 3000)
	for i := range many {
		many[i] = big("x", i%500)
	}
	return []transaction{
		{commit: 1000, end: 1040, xid: 1, rows: []string{"a"}},
		{commit: 1100, end: 1140, xid: 2, origin: "o", rows: many},
		{commit: 1200, end: 1240, xid: 3, rows: []string{"b", big("y", 1_900_000), "Mm", "M" + big("z", 1_200_000), "c"}},
		{commit: 1300, end: 1340, xid: 4, origin: "p", rows: []string{big("w", 1_500_000)}},
		{commit: 1400, end: 1440, xid: 5, rows: []string{"d"}, mark: 1500},
	}
}

// A log that ends after any of the blocks is continued exactly, whatever is fed again.
func TestContinueAfterEachBlock(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := largeHistory()
	must(t, feedAll(t.Context(), openAppender(t, l), hash, history))
	want := lines(history)
	requireLines(t, "log", read(t, l, start()), want)
	var blocks [][]byte
	for number := l.Ranges().FirstBlock + 1; number <= l.Head().Number; number++ {
		b, err := l.Read(t.Context(), number)
		must(t, err)
		blocks = append(blocks, b.Data())
	}
	for stop := range blocks {
		// The numbers of blocks go on after a Reset, so the prefix is built again rather than copied.
		must(t, l.Reset(t.Context(), testMeta))
		a := openAppender(t, l)
		builder := block.NewBuilder(block.State{LogID: testMeta.LogID, Number: l.Head().Number, Through: testMeta.Start})
		feedPrefix(t, a.store, builder, hash, history, stop+1)
		a = openAppender(t, l)
		tail := a.Tail()
		if got := l.Head(); got.Number != tail.Number || got.Position.LSN != tail.Through {
			t.Fatalf("after %d blocks: tail %+v, head %+v", stop+1, tail, got)
		}
		must(t, feedAll(t.Context(), a, hash, history))
		requireLines(t, fmt.Sprintf("after %d blocks", stop+1), read(t, l, start()), want)

		if tail.Open {
			// Find and Read serve the transaction from its beginning.
			after := change.Position{LogID: testMeta.LogID, LSN: tail.Through}
			number, err := l.Find(t.Context(), after)
			must(t, err)
			b, err := l.Read(t.Context(), number)
			must(t, err)
			if b.Part == nil || b.Part.FirstBlock != number || b.Part.XID != tail.XID {
				t.Fatalf("after %d blocks: block %d does not begin transaction %d: %+v", stop+1, number, tail.XID, b.Header)
			}
		}
	}
}

// feedPrefix stores the first n blocks of a history, as if the process had been killed after them.
func feedPrefix(t testing.TB, s *store, b *block.Builder, hash change.RelationHash, history []transaction, n int) {
	t.Helper()
	cut := func() bool {
		for n > 0 && b.Full() || n > 0 && b.Ready() {
			next := b.Cut()
			must(t, s.append(next.Number, next.Data()))
			n--
		}
		return n > 0
	}
	for i := range history {
		x := &history[i]
		must(t, b.Begin(block.Begin{CommitLSN: x.commit, CommitTime: x.time(), XID: x.xid}))
		if x.origin != "" {
			must(t, b.Origin(block.Origin{Name: x.origin}))
		}
		for j, row := range x.rows {
			if strings.HasPrefix(row, "M") {
				must(t, b.Message(block.Message{Prefix: "m", Content: []byte(row), LSN: x.commit}))
			} else {
				must(t, b.Change(&block.Source{Operation: block.Insert, Relation: hash, New: tuple(fmt.Sprint(j), row)}))
			}
			if b.Full() && !cut() {
				return
			}
		}
		must(t, b.Commit(block.Commit{CommitLSN: x.commit, EndLSN: x.end, CommitTime: x.time(), XID: x.xid}))
		if !cut() {
			return
		}
		if x.mark > 0 {
			must(t, b.Mark(x.mark))
			if !cut() {
				return
			}
		}
	}
}

func TestDivergedInsideTransaction(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := largeHistory()[1:3]
	for name, c := range map[string]struct {
		blocks int
		edit   func(*transaction)
	}{
		"other xid":             {2, func(x *transaction) { x.xid++ }},
		"other commit":          {2, func(x *transaction) { x.commit++ }},
		"fewer changes":         {2, func(x *transaction) { x.rows = x.rows[:3] }},
		"other large row":       {2, nil},
		"ends before its row":   {2, nil},
		"other transaction":     {2, func(x *transaction) { x.commit, x.end, x.xid = 2000, 2040, 99 }},
		"small for a large one": {2, nil},
		// As many changes, but shifted by one, as when some were not published when it was decoded first.
		"one change missing":    {2, func(x *transaction) { x.rows = append(slices.Clone(x.rows[1:]), "z") }},
		"one change more":       {3, func(x *transaction) { x.rows = append([]string{"new"}, x.rows...) }},
		"messages for the rows": {3, func(x *transaction) { x.rows = slices.Repeat([]string{"Mx"}, len(x.rows)) }},
	} {
		must(t, l.Reset(t.Context(), testMeta))
		a := openAppender(t, l)
		builder := block.NewBuilder(block.State{LogID: testMeta.LogID, Number: l.Head().Number, Through: testMeta.Start})
		x := history[0]
		if c.edit == nil {
			x = history[1]
		}
		feedPrefix(t, a.store, builder, hash, []transaction{x}, c.blocks)
		a = openAppender(t, l)
		if !a.Tail().Open {
			t.Fatalf("%s: the log does not end inside the transaction", name)
		}
		switch name {
		case "other large row":
			x.rows = append([]string{x.rows[0], strings.Repeat("Y", len(x.rows[1]))}, x.rows[2:]...)
		case "ends before its row":
			x.rows = x.rows[:1]
		case "small for a large one":
			x.rows = []string{x.rows[0], "small"}
		default:
			c.edit(&x)
		}
		if err := feedOne(t.Context(), a, hash, &x); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: %v, want ErrDiverged", name, err)
		}
	}
}

// What cannot be compared, because it is malformed, says nothing about the history: no new log is begun for it.
func TestMalformedInsideTransaction(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	x := largeHistory()[2]
	a := openAppender(t, l)
	feedPrefix(t, a.store, block.NewBuilder(block.State{LogID: testMeta.LogID, Number: l.Head().Number, Through: testMeta.Start}), hash, []transaction{x}, 1)
	a = openAppender(t, l)
	if !a.Tail().Open || a.Tail().Events == 0 {
		t.Fatalf("the log does not end inside the transaction, after a change: %+v", a.Tail())
	}
	must(t, a.Begin(t.Context(), x.commit, x.time(), x.xid))
	binary := pgoutput.Tuple{N: 1, Raw: []byte{pgoutput.ValueBinary, 0, 0, 0, 1, 'x'}}
	err := a.Change(t.Context(), block.Insert, hash, pgoutput.OldNone, pgoutput.Tuple{}, binary)
	if !errors.Is(err, block.ErrBinaryValue) || errors.Is(err, ErrDiverged) {
		t.Errorf("%v, want ErrBinaryValue", err)
	}
}

// A value of 64 MiB goes through, in blocks that the store takes.
func TestHugeValue(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := []transaction{{commit: 2000, end: 2040, xid: 1, rows: []string{"before", strings.Repeat("0123456789abcdef", 4<<20), "after"}}}
	a := openAppender(t, l)
	must(t, feedAll(t.Context(), a, hash, history))
	requireLines(t, "log", read(t, l, start()), lines(history))
	if blocks := l.Head().Number - l.Ranges().FirstBlock; blocks < 64<<20/block.MaxRecord {
		t.Errorf("%d blocks", blocks)
	}
}

// Small transactions travel alone while the log is idle, and together while it is busy.
func TestGroupCommit(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	a := openAppender(t, l)
	history := smallHistory(5000)
	for i := range 5 {
		before := l.Head().Number
		must(t, feedAll(t.Context(), a, hash, history[i:i+1]))
		if after := l.Head().Number; after == before {
			t.Errorf("transaction %d is in no block", i)
		}
	}
	before := l.Head().Number
	must(t, feedAll(t.Context(), a, hash, history[5:]))
	if blocks := l.Head().Number - before; blocks > uint64(len(history))/4 {
		t.Errorf("%d blocks for %d transactions", blocks, len(history))
	}
	requireLines(t, "log", read(t, l, start()), lines(history))
}
