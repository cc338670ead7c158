package apply

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestApplyLargeTransaction applies a transaction of 300,000 changes that is made while it is applied, and looks at the heap
// all the while.
func TestApplyLargeTransaction(t *testing.T) {
	const (
		inserts, updates, deletes = 200_000, 50_000, 50_000
		sliceBytes                = 256 << 10
		mostHeap                  = 24 << 20 // the transaction has about 70 MB
	)
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, v text, n int)")
	items := testRelation("items", byKey, "id*", "v", "n")
	text := strings.Repeat("large transaction ", 12)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan Event, 4)
	blocks, most, base := 0, uint64(0), heapBytes()
	l.emit = func(e Event) {
		select {
		case events <- e:
		case <-ctx.Done():
			return
		}
		if blocks++; blocks%16 == 0 {
			most = max(most, heapBytes())
		}
		if blocks%100 == 0 && pgtest.QueryRow[bool](t, g.conn, "SELECT EXISTS (SELECT FROM items)") {
			t.Error("rows are visible before the transaction is whole")
		}
	}
	made := make(chan struct{})
	write := func() {
		defer close(made)
		l.tx(func() {
			for i := range inserts {
				l.insert(items, i, text, 0)
			}
			for i := range updates {
				l.update(items, i, asIs, i)
			}
			for i := range deletes {
				l.delete(items, inserts-1-i, nil, nil)
			}
		})
	}
	err := g.try(l, withOptions(func(o *Options) { o.SliceBytes = sliceBytes }), func(r *testRun) {
		r.stream, r.until = events, testStart+1
		go write() // from here on the log is written by nobody else
	})
	cancel()
	<-made
	if err != nil {
		t.Fatal(err)
	}
	got := pgtest.QueryRow[string](t, g.conn, "SELECT concat_ws(' ', count(*), min(id), max(id), sum(n), min(length(v))) FROM items")
	if want := fmt.Sprint(inserts-deletes, 0, inserts-deletes-1, updates*(updates-1)/2, len(text)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Logf("heap %d MiB above %d MiB, %d slices replayed row by row", int64(most-base)>>20, base>>20, g.progress.Fallbacks)
	if most > base+mostHeap {
		t.Errorf("the heap grew by %d MiB", (most-base)>>20)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestApplyManyFallbacks replays every slice of a large transaction row by row. Its savepoints must not pile up: the depth of
// open ones is what PostgreSQL locks and memory grow with.
func TestApplyManyFallbacks(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE)")
	seats := testRelation("seats", byKey, "id*", "seat")
	const rows, rounds = sliceRows, 120
	l.tx(func() {
		for i := range rows {
			l.insert(seats, i, i)
		}
	})
	l.tx(func() {
		for round := range rounds {
			// All change places with their neighbours, in an order that only row by row writing keeps: one stands up first.
			l.update(seats, rows-1, nil)
			for i := rows - 2; i >= 0; i-- {
				l.update(seats, i, (i+round+1)%rows)
			}
			l.update(seats, rows-1, (rows+round)%rows)
		}
	})
	held := 0
	blocker := pgtest.Connect(t, g.url)
	pgtest.Exec(t, blocker, "BEGIN; UPDATE syncline.positions SET updated_at = now()")
	released := make(chan struct{})
	go func() {
		defer close(released)
		// The engine waits at its commit, with all slices written and every savepoint that is still open.
		pgtest.Eventually(t, applyDeadline, func() error {
			held = pgtest.QueryRow[int](t, g.conn, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
				WHERE a.application_name = 'syncline applier test' AND a.wait_event_type = 'Lock' AND a.datname = current_database()
				AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock'`)
			if held == 0 {
				return errors.New("it does not wait yet")
			}
			return nil
		})
		pgtest.Exec(t, blocker, "ROLLBACK")
	}()
	g.apply(l, allQueued, withOptions(func(o *Options) { o.SliceBytes = (sliceRows + 1) * (opOverheadBytes + 12) }))
	<-released
	t.Logf("%d slices replayed row by row, %d transaction ids held", g.progress.Fallbacks, held)
	if g.progress.Fallbacks < rounds/4 || held > 10 {
		t.Errorf("%d slices replayed row by row, %d transaction ids held", g.progress.Fallbacks, held)
	}
}

// TestApplyManyStatements has more statements of different shapes than a session keeps prepared, twice in turn.
func TestApplyManyStatements(t *testing.T) {
	const columns = 11
	for name, sliceBytes := range map[string]int{"one by one": 1000, "set-wise": 50_000} {
		t.Run(name, func(t *testing.T) {
			l := newTestLog(t)
			l.every = 100
			names, sql := []string{"id*"}, "CREATE TABLE wide (id int PRIMARY KEY"
			for c := range columns {
				names = append(names, fmt.Sprint("c", c))
				sql += fmt.Sprintf(", c%d text", c)
			}
			g := newTestTarget(t, l, sql+")")
			wide := testRelation("wide", byKey, names...)
			l.tx(func() {
				for id := range 1 << columns {
					row := []any{id}
					for range columns {
						row = append(row, "0")
					}
					l.insert(wide, row...)
				}
			})
			// Each row is updated with a mask of its own.
			for pass := range 2 {
				for id := range 1 << columns {
					row := []any{id}
					for c := range columns {
						if id>>c&1 == 1 {
							row = append(row, fmt.Sprint("pass ", pass))
						} else {
							row = append(row, asIs)
						}
					}
					l.tx(func() { l.update(wide, row...) })
				}
			}
			var want []string
			for id := range 1 << columns {
				row := fmt.Sprint("(", id)
				for c := range columns {
					row += []string{",0", `,"pass 1"`}[id>>c&1]
				}
				want = append(want, row+")")
			}
			prepared := 0
			g.apply(l, allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupBytes = sliceBytes, 30_000 }), func(r *testRun) {
				r.Applied = func(Progress) error {
					return r.Session.Conn().QueryRow(t.Context(), "SELECT greatest($1, count(*)) FROM pg_prepared_statements", prepared).Scan(&prepared)
				}
			})
			g.requireTable("wide", want...)
			g.requireAt(l.lsn)
			t.Logf("at most %d prepared statements", prepared)
			if prepared > maxPrepared+10 {
				t.Errorf("%d prepared statements", prepared)
			}
		})
	}
}

// TestApplyLargeValues has values of 20 MB, which come in fragments, among small changes.
func TestApplyLargeValues(t *testing.T) {
	l := newTestLog(t)
	l.noise = sliceRows
	g := newTestTarget(t, l, "CREATE TABLE docs (id int PRIMARY KEY, v text, n int); CREATE TABLE heap (v text, n int)")
	docs, heap := testRelation("docs", byKey, "id*", "v", "n"), testRelation("heap", byRow, "v", "n")
	const special = "\\\"'\t\n" // what is escaped on some way
	large := func(c string) string { return strings.Repeat(c+special, 20<<20/(1+len(special))) }
	l.tx(func() {
		l.insert(docs, 1, large("a"), 1)
		l.insert(docs, 2, large("b"), 1)
		l.insert(heap, large("c"), 1)
		l.insert(heap, large("c"), 1)
		l.insert(docs, 3, "small", 1)
	})
	l.tx(func() {
		l.update(docs, 1, asIs, 2)
		l.update(docs, 2, large("d"), 2)
		l.update(docs, 3, large("e"), 3)
		l.updateFrom(docs, []any{3, nil, nil}, []any{4, asIs, 3})
		l.updateFrom(heap, []any{large("c"), 1}, []any{asIs, 2})
		l.padding(700_000)
		l.delete(heap, large("c"), 1)
	})
	g.apply(l, allQueued)
	size := len(large("a"))
	want := fmt.Sprintf("[1 a %d 2 2 d %d 2 4 e %d 3 heap c %d 2]", size, size, size, size)
	if got := fmt.Sprint(g.rows(`SELECT concat_ws(' ', id, left(v, 1), length(v), n) FROM docs WHERE v = repeat(left(v, 6), length(v) / 6)
		UNION ALL SELECT concat_ws(' ', 'heap', left(v, 1), length(v), n) FROM heap WHERE v = repeat(left(v, 6), length(v) / 6)`)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestApplyTransactionInParts spreads transactions over many blocks, so that groups end and begin at every place in them.
func TestApplyTransactionInParts(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, v text)")
		items, other := testRelation("items", byKey, "id*", "v"), testRelation("other", byKey, "id*")
		l.use(other)
		id := 0
		add := func() {
			l.insert(items, id, "v")
			if id > 2 {
				l.update(items, id/2, fmt.Sprint("by ", id))
			}
			id++
		}
		for i := range 6 {
			l.every = i % 3
			l.tx(add)
			l.tx(func() {
				for range 4 {
					l.padding(300_000)
					add()
					l.padding(10)
				}
				if i == 3 {
					l.truncate(false, false, items)
					for again := range id {
						l.insert(items, again, "again")
					}
				}
			})
			l.tx(func() { l.padding(600_000) })
		}
		g.apply(l, how...)
		if got := pgtest.QueryRow[string](t, g.conn, "SELECT count(*) || ' ' || max(id) FROM items"); got != fmt.Sprint(id, " ", id-1) {
			t.Errorf("got %s, want %d rows", got, id)
		}
		g.requireAt(l.lsn)
	})
}
