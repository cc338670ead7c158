package apply

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

// TestApplyPositionMovesWithRows looks at the target's own WAL: each of its transactions begins with the origin, and holds rows
// and the position together.
func TestApplyPositionMovesWithRows(t *testing.T) {
	for _, edit := range []func(*Options){
		func(*Options) {}, func(o *Options) { o.GroupTransactions = 3; o.SliceBytes = 1 }, func(o *Options) { o.GroupBytes = 1 },
	} {
		l := newTestLog(t)
		l.every = 2
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, name text); CREATE TABLE other (id int PRIMARY KEY)")
		items, other := testRelation("items", byKey, "id*", "name"), testRelation("other", byKey, "id*")
		changes := g.watch()
		for i := range 20 {
			l.tx(func() {
				l.insert(items, i, "n")
				l.update(items, i, "m")
				if i%5 == 0 {
					l.truncate(false, false, other)
				}
			})
		}
		g.apply(l, allQueued, withOptions(edit))
		rows, transactions := 0, changes()
		for _, tx := range transactions {
			if tx.first != "message" || len(tx.origins) != 1 || !tx.position {
				t.Errorf("a target transaction begins with %q, has %d origins, and position %v", tx.first, len(tx.origins), tx.position)
			}
			for _, o := range tx.origins {
				if o.ServerID != testSource || o.LogID != l.id.String() || o.CommitTime == "0" || o.LSN == "0" {
					t.Errorf("origin %+v", o)
				}
			}
			rows += tx.rows
		}
		t.Logf("%d target transactions", len(transactions))
		if g.requireAt(l.lsn); len(transactions) == 0 || len(g.table("items")) != 20 {
			t.Errorf("%d transactions, %d rows", len(transactions), rows)
		}
	}
}

// TestApplyOriginsApart has transactions of several origins in turn, some of which write nothing here. Those of different
// origins never share a transaction of the target, and each says its own origin.
func TestApplyOriginsApart(t *testing.T) {
	for name, edit := range map[string]func(*Options){
		"large slices": func(*Options) {}, "tiny slices": func(o *Options) { o.SliceBytes = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLog(t)
			l.every = 4
			g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, server text)")
			items, ignored := testRelation("items", byKey, "id*", "server"), testRelation("ignored", byKey, "id*")
			changes := g.watch()
			servers := []string{"A", "A", "", "", "B", "A", "B", "B", "", "A", "A", "A"}
			for i, server := range servers {
				l.begin()
				if server != "" {
					l.origin(server, change.LSN(0x100+i), change.Timestamp(1000+i))
				}
				if i == 5 {
					l.insert(ignored, 1)
				} else {
					l.insert(items, i, server)
				}
				if i == 7 {
					l.padding(1000)
				}
				l.commit()
			}
			// One that writes with a truncate alone.
			l.begin()
			l.origin("C", 0x900, 9000)
			l.truncate(false, false, ignored, items)
			l.commit()
			g.apply(l, allQueued, withOptions(edit), func(r *testRun) {
				r.Table = func(n schema.Name, _ uint32) (Table, bool) {
					return Table{Apply: n.Name == "items", Target: n, Own: true}, true
				}
			})
			var got []string
			for _, tx := range changes() {
				if len(tx.origins) != 1 {
					t.Fatalf("%d origins in one transaction", len(tx.origins))
				}
				got = append(got, fmt.Sprint(tx.origins[0].ServerID, " ", tx.rows))
			}
			want := []string{"A 2", testSource + " 2", "B 1", "B 2", testSource + " 1", "A 3", "C 0"}
			if !slices.Equal(got, want) {
				t.Errorf("target transactions %q\nwant %q", got, want)
			}
			g.requireAt(l.lsn)
		})
	}
}

// TestApplyOriginOfGroup says which transaction's origin a group has: one of its own.
func TestApplyOriginOfGroup(t *testing.T) {
	l := newTestLog(t)
	l.every = 0
	g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY)")
	items := testRelation("items", byKey, "id*")
	changes := g.watch()
	for i := range 3 {
		l.begin()
		l.origin("A", change.LSN(0x100+i), change.Timestamp(1000+i))
		l.insert(items, i)
		l.commit()
	}
	l.begin()
	l.origin("B", 0x500, 5000)
	l.insert(items, 100)
	l.commit()
	g.apply(l, allQueued)
	transactions := changes()
	if len(transactions) != 2 {
		t.Fatalf("%d target transactions, want 2", len(transactions))
	}
	a, b := transactions[0].origins[0], transactions[1].origins[0]
	if a.ServerID != "A" || a.LogID != (change.LogID{0xe}).String() || a.LSN < "256" || a.LSN > "258" || a.CommitTime < "1000" || a.CommitTime > "1002" {
		t.Errorf("first origin %+v", a)
	}
	if want := (originSeen{"B", change.LogID{0xe}.String(), "1280", "5000"}); b != want {
		t.Errorf("second origin %+v, want %+v", b, want)
	}
}

// TestApplySkipsWhatIsCopied has tables whose copies contain the first transactions, each up to a position of its own.
func TestApplySkipsWhatIsCopied(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE a (n int PRIMARY KEY); CREATE TABLE b (n int PRIMARY KEY); CREATE TABLE c (n int PRIMARY KEY)")
		a, b, c := testRelation("a", byKey, "n*"), testRelation("b", byKey, "n*"), testRelation("c", byKey, "n*")
		excluded := testRelation("excluded", byKey, "n*")
		var ends []change.LSN
		for i := range 6 {
			ends = append(ends, l.tx(func() {
				for _, r := range []*change.Relation{a, b, c, excluded} {
					l.insert(r, i)
				}
			}))
		}
		copied := map[string]change.LSN{"a": ends[1], "b": ends[3] + 0x10, "c": 0}
		how = append(slices.Clone(how), func(r *testRun) {
			r.Table = func(n schema.Name, _ uint32) (Table, bool) {
				return Table{Apply: n.Name != "excluded", CopyLSN: copied[n.Name], Target: n, Own: true}, true
			}
		})
		g.apply(l, how...)
		g.requireTable("a", "(2)", "(3)", "(4)", "(5)")
		g.requireTable("b", "(4)", "(5)")
		g.requireTable("c", "(0)", "(1)", "(2)", "(3)", "(4)", "(5)")
	})
}

// TestApplySkipsOldShapes has a table whose copy was made after it lost a column, and one that is gone by now: what happened
// to them before does not concern the target.
func TestApplySkipsOldShapes(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY)")
	before, after := testRelation("items", byKey, "id*", "dropped"), testRelation("items", byKey, "id*")
	gone := testRelation("gone", byKey, "id*")
	copied := l.tx(func() {
		l.insert(before, 1, "x")
		l.update(before, 1, "y")
		l.truncate(false, false, before, gone)
		l.insert(gone, 1)
	})
	end := l.tx(func() { l.insert(after, 2) })
	tables := func(r *testRun) {
		r.Table = func(n schema.Name, _ uint32) (Table, bool) {
			return Table{Apply: true, Target: n, Own: true, CopyLSN: copied}, true
		}
	}
	g.apply(l, tables)
	g.requireTable("items", "(2)")
	g.requireAt(end)
	l.tx(func() { l.insert(before, 3, "z") })
	var mismatch *MismatchError
	if err := g.try(l, tables); !errors.As(err, &mismatch) {
		t.Errorf("got %v", err)
	}
	g.requireAt(end)
}

// TestApplyFromTheMiddleOfABlock begins at a position inside the first block, and again at the end.
func TestApplyFromTheMiddleOfABlock(t *testing.T) {
	l := newTestLog(t)
	l.every = 5
	g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
	items := testRelation("items", byKey, "n*")
	var ends []change.LSN
	for i := range 8 {
		ends = append(ends, l.tx(func() { l.insert(items, i) }))
	}
	l.flush()
	g.setPosition(l.id, ends[2])
	g.apply(l)
	g.requireTable("items", "(3)", "(4)", "(5)", "(6)", "(7)")
	g.requireAt(ends[7])
	g.apply(l)
	l.tx(func() { l.insert(items, 8) })
	g.apply(l)
	g.requireTable("items", "(3)", "(4)", "(5)", "(6)", "(7)", "(8)")
}

// TestApplyErrMoved has somebody else move the position while an engine runs.
func TestApplyErrMoved(t *testing.T) {
	for _, step := range []string{"before the rows", "during the rows", "marks only"} {
		t.Run(step, func(t *testing.T) {
			l := newTestLog(t)
			g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
			items := testRelation("items", byKey, "n*")
			moved := l.start + 8
			move := func() { g.setPosition(l.id, moved) }
			if step == "marks only" {
				l.mark()
			} else {
				l.tx(func() { l.insert(items, 1) })
			}
			err := g.try(l, withOptions(func(o *Options) { o.StoreInterval = time.Millisecond }), func(r *testRun) {
				r.until = l.lsn + 1
				switch step {
				case "before the rows":
					r.Position = change.Position{LogID: l.id, LSN: l.start}
					move()
				case "during the rows":
					r.Table = func(n schema.Name, _ uint32) (Table, bool) {
						move()
						return Table{Apply: true, Target: n, Own: true}, true
					}
				case "marks only":
					r.Applied = func(Progress) error { move(); return nil }
				}
			})
			if !errors.Is(err, ErrMoved) {
				t.Errorf("got %v", err)
			}
			g.requireTable("items")
			g.requireAt(moved)
		})
	}
}

func TestApplyErrInUse(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "")
	first := openSession(t.Context(), t, g.url)
	if _, err := OpenSession(t.Context(), g.url, testReplication); !errors.Is(err, ErrInUse) {
		t.Errorf("a second session: %v", err)
	}
	other, err := OpenSession(t.Context(), g.url, "another")
	if err != nil {
		t.Fatalf("a session of another replication: %v", err)
	}
	other.Close()
	first.Close()
	openSession(t.Context(), t, g.url).Close()
}

func TestReadPositionBeforeFirstCopy(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "")
	g.exec("DELETE FROM syncline.positions")
	s := openSession(t.Context(), t, g.url)
	defer s.Close()
	if p, found, err := s.ReadPosition(t.Context()); err != nil || found || p != (change.Position{}) {
		t.Errorf("got %v, %v, %v", p, found, err)
	}
}

// TestApplyMarks moves the position without rows: told at once, written seldom, and never with rows of a later transaction.
func TestApplyMarks(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
	items := testRelation("items", byKey, "n*")
	l.tx(func() { l.insert(items, 1) })
	g.apply(l)
	changes := g.watch()

	const marks = 200
	for range marks {
		l.mark()
	}
	var told []change.LSN
	g.apply(l, withOptions(func(o *Options) { o.StoreInterval = time.Hour }), func(r *testRun) {
		r.Applied = func(p Progress) error { told = append(told, p.Position.LSN); return nil }
	})
	if len(told) != marks || !slices.IsSorted(told) || told[marks-1] != l.lsn {
		t.Errorf("told %d positions up to %v", len(told), told[len(told)-1])
	}
	if got := changes(); len(got) != 0 {
		t.Errorf("%d target transactions for marks", len(got))
	}

	// They are written after the interval, also when nothing happens any more.
	const interval = 50 * time.Millisecond
	began := time.Now()
	stored := change.LSN(0)
	for range marks {
		l.mark()
	}
	err := g.try(l, withOptions(func(o *Options) { o.StoreInterval = interval }), func(r *testRun) {
		r.until = l.lsn + 1
		r.Applied = func(p Progress) error {
			if stored = p.Stored; stored == l.lsn {
				return errEnough
			}
			return nil
		}
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	g.requireAt(l.lsn)
	writes, most := len(changes()), int(time.Since(began)/interval)+1
	if writes < 1 || writes > most {
		t.Errorf("%d writes, want 1 to %d", writes, most)
	}
	// A transaction after unwritten marks takes the position along from where it is stored.
	l.mark()
	end := l.tx(func() { l.insert(items, 2) })
	g.apply(l, withOptions(func(o *Options) { o.StoreInterval = time.Hour }))
	g.requireAt(end)
	g.requireTable("items", "(1)", "(2)")
}

var errEnough = errors.New("enough")

// TestApplyAppliedError stops at what Applied returns, after the commit that it was told of.
func TestApplyAppliedError(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
	items := testRelation("items", byKey, "n*")
	first := l.tx(func() { l.insert(items, 1) })
	l.tx(func() { l.insert(items, 2) })
	err := g.try(l, func(r *testRun) { r.Applied = func(Progress) error { return errEnough } })
	if !errors.Is(err, errEnough) {
		t.Errorf("got %v", err)
	}
	g.requireTable("items", "(1)")
	g.requireAt(first)
}

// TestApplyCommitTime keeps the time of the last transaction, also when only marks come after a restart.
func TestApplyCommitTime(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
	items := testRelation("items", byKey, "n*")
	stored := func() *int64 {
		return pgtest.QueryRow[*int64](t, g.conn, "SELECT commit_time FROM syncline.positions")
	}
	l.tx(func() { l.insert(items, 1) })
	g.apply(l)
	if at := stored(); at == nil || change.Timestamp(*at) != l.commitTime() || g.progress.CommitTime != l.commitTime() || !g.progress.HasCommit {
		t.Fatalf("stored %v, told %+v, want %d", at, g.progress, l.commitTime())
	}
	l.mark()
	err := g.try(l, withOptions(func(o *Options) { o.StoreInterval = time.Millisecond }), func(r *testRun) {
		r.until = l.lsn + 1
		r.Applied = func(p Progress) error {
			if p.Stored == l.lsn {
				return errEnough
			}
			return nil
		}
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if at := stored(); at == nil || change.Timestamp(*at) != l.commitTime() {
		t.Errorf("after a restart and a mark the commit time is %v, want %d", at, l.commitTime())
	}
}

// TestApplyAtOnce commits what is whole although the next thing in the queue brings no transaction.
func TestApplyAtOnce(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY)")
	items := testRelation("items", byKey, "n*")
	l.tx(func() { l.insert(items, 1) })
	l.use(testRelation("next", byKey, "id*"))
	g.apply(l, allQueued)
	g.requireTable("items", "(1)")
}

// TestApplyBoundsGroups has a queue that never ends: groups are committed all the same.
func TestApplyBoundsGroups(t *testing.T) {
	for name, edit := range map[string]func(*Options){
		"transactions": func(o *Options) { o.GroupTransactions = 4 },
		"bytes":        func(o *Options) { o.GroupBytes = 4 * (4000 + opOverheadBytes) },
		"time":         func(o *Options) { o.GroupTime = time.Nanosecond },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLog(t)
			l.every = 0
			g := newTestTarget(t, l, "CREATE TABLE items (n int PRIMARY KEY, v text)")
			items := testRelation("items", byKey, "n*", "v")
			changes := g.watch()
			for i := range 40 {
				l.tx(func() { l.insert(items, i, fmt.Sprintf("%04000d", i)) })
			}
			g.apply(l, allQueued, withOptions(edit))
			for _, tx := range changes() {
				if tx.rows > 4 || name == "time" && tx.rows != 1 {
					t.Errorf("%d rows in one target transaction", tx.rows)
				}
			}
		})
	}
}
