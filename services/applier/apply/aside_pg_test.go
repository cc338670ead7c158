package apply

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/schema"
)

// setsAside has poison set aside, and at most so many changes.
func setsAside(rows int64) testTweak {
	return func(r *testRun) {
		r.Quarantine.SetAside, r.Quarantine.MaxRows, r.Quarantine.MaxBytes = true, rows, DefaultQuarantineBytes
	}
}

// quarantine is what is in it: operation, table, SQLSTATE or what it waits behind, by number.
func (g *testTarget) quarantine() []string {
	g.t.Helper()
	return g.rows(`SELECT format('%s %s%s %s %s', lpad((row_number() OVER (ORDER BY id))::text, 2, '0'), operation, CASE WHEN has_old THEN '+' END, target_table,
		CASE WHEN waits_behind IS NULL THEN sqlstate ELSE 'waits' END) FROM syncline.quarantine`)
}

func (g *testTarget) requireQuarantine(want ...string) {
	g.t.Helper()
	for i := range want {
		want[i] = fmt.Sprintf("%02d %s", i+1, want[i])
	}
	if got := g.quarantine(); !slices.Equal(got, want) {
		g.t.Fatalf("in quarantine are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// settle settles all of the quarantine, or what edit says.
func (g *testTarget) settle(edit func(*Settle)) (Settled, error) {
	g.t.Helper()
	session := openSession(g.t.Context(), g.t, g.url)
	defer session.Close()
	s := &Settle{Replication: testReplication}
	if edit != nil {
		edit(s)
	}
	for {
		more, err := s.Run(g.t.Context(), session.Conn(), time.Now().Add(time.Minute))
		if err != nil || !more {
			return s.Settled, err
		}
	}
}

func (g *testTarget) retryAll(applied, left int64) {
	g.t.Helper()
	got, err := g.settle(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if got.Applied != applied || got.Left != left {
		g.t.Fatalf("%d changes were applied and %d are left, want %d and %d: %+v", got.Applied, got.Left, applied, left, got.Refused)
	}
}

// ids are those of the entries, the oldest first.
func (g *testTarget) ids() (ids []int64) {
	g.t.Helper()
	rows, err := g.conn.Query(g.t.Context(), "SELECT id FROM syncline.quarantine ORDER BY id")
	if err != nil {
		g.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			g.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

const asideTables = `CREATE TABLE items (id int PRIMARY KEY, name text CONSTRAINT no_poison CHECK (name <> 'poison'), mail text UNIQUE);
	CREATE TABLE heap (a int, b text CONSTRAINT no_heap_poison CHECK (b <> 'poison'))`

var (
	asideItems = intKey(testRelation("items", byKey, "id*", "name", "mail"))
	asideHeap  = testRelation("heap", byRow, "a", "b")
)

// intKey gives the first column the type integer, as the target has it.
func intKey(r *change.Relation) *change.Relation {
	r.Columns[0].TypeOID = 23
	return r
}

const cured = "ALTER TABLE items DROP CONSTRAINT no_poison; ALTER TABLE heap DROP CONSTRAINT no_heap_poison"

func TestPoisonIsSetAside(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, asideTables)
		l.tx(func() { // first, in the middle, last
			l.insert(asideItems, 1, "poison", nil)
			for i := 2; i < 100; i++ {
				l.insert(asideItems, i, "good", nil)
				if i == 50 {
					l.insert(asideItems, 1000, "poison", "m")
				}
			}
			l.insert(asideItems, 1001, "poison", nil)
		})
		l.tx(func() {
			l.update(asideItems, 2, "better", nil)
			l.update(asideItems, 1, "waits", nil)
			l.update(asideItems, 404, "missing", nil)
			l.delete(asideItems, 405, nil, nil)
			l.insert(asideItems, 3, "there", nil)
			l.update(asideItems, 3, "waits too", "x")
		})
		end := l.tx(func() { l.insert(asideItems, 2000, "good", nil) })
		g.apply(l, append(how, setsAside(100))...)
		g.requireAt(end)
		g.requireQuarantine("I items 23514", "I items 23514", "I items 23514", "U items waits", "U items 02000", "D+ items 02000", "I items 23505", "U items waits")
		if got := g.rows("SELECT count(*) FROM items"); got[0] != "99" {
			t.Fatalf("%s rows, want 99", got)
		}
		if got := g.rows("SELECT name FROM items WHERE id IN (2, 3)"); !slices.Equal(got, []string{"better", "good"}) {
			t.Fatalf("the rows beside are %v", got)
		}
		if got := g.progress.Unsynced; got.Quarantined != 6 || got.Waiting != 2 {
			t.Fatalf("%+v is told", got)
		}
		g.exec(cured)
		g.retryAll(4, 4)
		g.exec("DELETE FROM items WHERE id = 3; INSERT INTO items VALUES (404), (405)")
		g.retryAll(4, 0)
		g.requireQuarantine()
		if got := g.rows("SELECT (id, name, mail) FROM items WHERE id IN (1, 3, 404, 405, 1000, 1001)"); !slices.Equal(got,
			[]string{"(1,waits,)", "(1000,poison,m)", "(1001,poison,)", "(3,\"waits too\",x)", "(404,missing,)"}) {
			t.Fatalf("the rows are %v", got)
		}
	})
}

func TestKeyMovesWaitBehindPoison(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, asideTables+"; INSERT INTO items VALUES (1, 'one', 'a'), (2, 'two', 'b')")
		l.tx(func() {
			l.update(asideItems, 1, "poison", "a")
			l.updateFrom(asideItems, []any{1, nil, nil}, []any{10, "moved", "a"}) // 10 is held from here on
			l.updateFrom(asideItems, []any{2, nil, nil}, []any{1, "two", "b"})    // into the key that is held: so 2 is, too
			l.insert(asideItems, 2, "new", "c")
			l.delete(asideItems, 10, nil, nil)
			l.insert(asideItems, 11, "takes the mail", "a") // a unique value that is held
			l.insert(asideItems, 12, "free", "d")
		})
		end := l.tx(func() { l.delete(asideItems, 2, nil, nil) })
		g.apply(l, append(how, setsAside(100))...)
		g.requireAt(end)
		g.requireQuarantine("U items 23514", "U+ items waits", "U+ items waits", "I items waits", "D+ items waits", "I items waits", "D+ items waits")
		g.requireTable("items", "(1,one,a)", "(2,two,b)", "(12,free,d)")
		g.exec(cured)
		g.retryAll(7, 0)
		g.requireTable("items", "(1,two,b)", "(11,\"takes the mail\",a)", "(12,free,d)")
	})
}

func TestHeapRowsWaitBehindPoison(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, asideTables+"; INSERT INTO heap VALUES (1, 'x'), (1, 'x'), (2, 'y')")
		end := l.tx(func() {
			l.updateFrom(asideHeap, []any{1, "x"}, []any{1, "poison"})
			l.updateFrom(asideHeap, []any{1, "poison"}, []any{1, "z"})
			l.updateFrom(asideHeap, []any{2, "y"}, []any{3, "y"})
			l.delete(asideHeap, 4, "missing")
			l.insert(asideHeap, 4, "missing") // if it were applied, the delete would find it later
		})
		g.apply(l, append(how, setsAside(100))...)
		g.requireAt(end)
		g.requireQuarantine("U+ heap 23514", "U+ heap waits", "D+ heap 02000", "I heap waits")
		g.requireTable("heap", "(1,x)", "(1,x)", "(3,y)")
		g.exec(cured)
		g.retryAll(2, 2)
		g.requireTable("heap", "(1,x)", "(1,z)", "(3,y)")
		first := g.ids()[0]
		got, err := g.settle(func(s *Settle) { s.Pick.IDs, s.Discard = []int64{first}, true })
		if err != nil || got.Discarded != 1 || got.Applied != 1 {
			t.Fatal(got, err)
		}
		g.requireTable("heap", "(1,x)", "(1,z)", "(3,y)", "(4,missing)")
		g.requireQuarantine()
	})
}

// TestCoarseKeysHoldTheTable has a key whose type takes 1.0 and 1.00 for equal: a delete that is set aside would find the other one.
func TestCoarseKeysHoldTheTable(t *testing.T) {
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE prices (price numeric PRIMARY KEY)")
		prices := testRelation("prices", byKey, "price*")
		l.tx(func() {
			l.delete(prices, "1.0")
			l.insert(prices, "1.00")
			l.insert(prices, "2")
		})
		g.apply(l, append(how, setsAside(100))...)
		g.requireQuarantine("D+ prices 02000", "I prices waits", "I prices waits")
		got, err := g.settle(func(s *Settle) { s.Pick.IDs, s.Discard = g.ids()[:1], true })
		if err != nil || got.Applied != 2 {
			t.Fatal(got, err)
		}
		g.requireTable("prices", "(1.00)", "(2)")
	})
}

func TestTruncateDiscardsWhatIsSetAside(t *testing.T) {
	t.Run("whole", func(t *testing.T) { truncateDiscards(t, nil) })
	t.Run("selected rows", func(t *testing.T) {
		truncateDiscards(t, func([]filter.Column) (string, error) { return "id < 100", nil })
	})
}

func truncateDiscards(t *testing.T, rows func([]filter.Column) (string, error)) {
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		how = append(how, func(r *testRun) {
			r.Table = func(n schema.Name, _ uint32) (Table, bool) {
				return Table{Apply: true, Target: n, Own: true, Rows: rows}, true
			}
		})
		g := newTestTarget(t, l, asideTables)
		end := l.tx(func() {
			l.insert(asideItems, 1, "poison", nil)
			l.insert(asideHeap, 1, "poison")
			l.insert(asideItems, 2, "good", nil)
			l.truncate(false, false, asideItems)
			l.insert(asideItems, 1, "after", nil)
		})
		g.apply(l, append(how, setsAside(100))...)
		g.requireAt(end)
		g.requireTable("items", "(1,after,)")
		g.requireQuarantine("I heap 23514")
		if got := g.rows("SELECT count(*) FROM syncline.quarantine_values"); got[0] != "2" {
			t.Fatalf("%s values are left", got)
		}
	})
}

func TestQuarantineIsBounded(t *testing.T) {
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, asideTables)
		good := l.tx(func() {
			l.insert(asideItems, 1, "poison", nil)
			l.update(asideItems, 1, "waits", nil)
		})
		l.tx(func() { l.update(asideItems, 1, "waits", nil) })
		err := g.try(l, append(how, setsAside(2), withOptions(func(o *Options) { o.GroupTransactions = 1 }))...)
		var full *QuarantineFullError
		if !errors.As(err, &full) || full.Now.Rows() != 2 {
			t.Fatalf("the engine ended with %v", err)
		}
		g.requireAt(good)
		g.requireQuarantine("I items 23514", "U items waits")
		// A policy that sets nothing aside any more leaves what waits waiting.
		stop := func(r *testRun) { r.Quarantine.SetAside = false }
		g.apply(l, append(how, setsAside(3), stop)...)
		g.requireQuarantine("I items 23514", "U items waits", "U items waits")
		end := l.tx(func() { l.insert(asideItems, 2, "poison", nil) })
		var refused *ChangeError
		if err := g.try(l, append(how, setsAside(9), stop)...); !errors.As(err, &refused) || g.position() >= end {
			t.Fatalf("the engine ended with %v", err)
		}
	})
}

func TestSystemFaultsAreNotSetAside(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, `CREATE TABLE items (id int PRIMARY KEY, name text, mail text);
		CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM missing_table.x; RETURN NEW; END$$;
		CREATE TRIGGER broken BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION broken(); ALTER TABLE items ENABLE ALWAYS TRIGGER broken`)
	l.tx(func() { l.insert(asideItems, 1, "x", nil) })
	var refused *ChangeError
	if err := g.try(l, setsAside(100)); !errors.As(err, &refused) {
		t.Fatalf("the engine ended with %v", err)
	}
	g.requireAt(l.start)
	g.requireQuarantine()
	g.exec("CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not this one'; END$$")
	g.apply(l, setsAside(100))
	g.requireQuarantine("I items P0001")
}

func TestEditOfWhatIsSetAside(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, name text CONSTRAINT no_poison CHECK (name <> 'poison'), mail text)")
	large := strings.Repeat("large \\ \" value ", 200_000)
	l.tx(func() {
		l.insert(asideItems, 1, "poison", large)
		l.update(asideItems, 1, "after", asIs)
	})
	g.apply(l, setsAside(100))
	ids := g.ids()
	edit := func(column, text string) func(*Settle) {
		return func(s *Settle) { s.Pick.IDs, s.Edits = ids[:1], []Edit{{Column: column, Text: text}} }
	}
	var wrong *EditError
	if _, err := g.settle(edit("colour", "red")); !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	if _, err := g.settle(edit("id", "no number")); !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	g.requireQuarantine("I items 23514", "U items waits")
	if got, err := g.settle(edit("name", "cured")); err != nil || got.Applied != 2 {
		t.Fatal(got, err)
	}
	if got := g.rows(fmt.Sprintf("SELECT (id, name, mail = repeat('large \\ \" value ', %d)) FROM items", 200_000)); !slices.Equal(got, []string{"(1,after,t)"}) {
		t.Fatal(got)
	}
	var missing *NotInQuarantineError
	if _, err := g.settle(edit("name", "again")); !errors.As(err, &missing) {
		t.Fatal(err)
	}
}

// TestPartitionsShareWhatIsHeld has two partitions of the source in one table of the target.
func TestPartitionsShareWhatIsHeld(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, `CREATE TABLE parted (id int PRIMARY KEY, name text CHECK (name <> 'poison')) PARTITION BY RANGE (id);
		CREATE TABLE all_of_it PARTITION OF parted DEFAULT`)
	low, high := intKey(testRelation("low", byKey, "id*", "name")), intKey(testRelation("high", byKey, "id*", "name"))
	l.tx(func() {
		l.insert(low, 1, "poison")
		l.delete(low, 1, nil)
		l.insert(high, 1, "moved")
		l.insert(high, 2, "free")
	})
	root := schema.Name{Schema: "public", Name: "parted"}
	g.apply(l, setsAside(10), func(r *testRun) {
		r.Table = func(schema.Name, uint32) (Table, bool) { return Table{Apply: true, Target: root}, true }
	})
	g.requireQuarantine("I parted 23514", "D+ parted waits", "I parted waits")
	g.exec("ALTER TABLE parted DROP CONSTRAINT parted_name_check")
	g.retryAll(3, 0)
	g.requireTable("parted", "(1,moved)", "(2,free)")
}

// TestRandomPoison applies random histories to a target that refuses some rows, stopping now and then, with retries in between. Rows that
// are not held must be as the source has them all the time, and all rows in the end, when nothing is refused any more.
func TestRandomPoison(t *testing.T) {
	r := testSeed(t)
	for round := range 12 {
		t.Run(fmt.Sprint(round), func(t *testing.T) { randomPoison(t, r, round%2 == 1) })
	}
}

// randomPoison mends rows now and then, if it is to, as a repair does.
func randomPoison(t *testing.T, r *rand.Rand, mends bool) {
	l := newTestLog(t)
	l.noise, l.every = r.IntN(2)*sliceRows, 1+r.IntN(4)
	g := newTestTarget(t, l, asideTables)
	source := map[int][2]string{}
	heap := map[string]int{}
	free := func(mail string) string {
		for _, row := range source {
			if row[1] == mail {
				return ""
			}
		}
		return mail
	}
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	name := func() string {
		if r.IntN(6) == 0 {
			return "poison"
		}
		return fmt.Sprint("n", r.IntN(5))
	}
	step := func() {
		if r.IntN(4) == 0 {
			row := name()
			if r.IntN(2) == 0 && len(heap) > 0 {
				var was string
				for was = range heap {
					break
				}
				if heap[was]--; heap[was] == 0 {
					delete(heap, was)
				}
				if r.IntN(3) == 0 {
					l.delete(asideHeap, 1, was)
					return
				}
				l.updateFrom(asideHeap, []any{1, was}, []any{1, row})
			} else {
				l.insert(asideHeap, 1, row)
			}
			heap[row]++
			return
		}
		id := r.IntN(20)
		_, there := source[id]
		row := [2]string{name(), free(fmt.Sprint("m", r.IntN(12)))}
		switch {
		case !there:
			l.insert(asideItems, id, row[0], null(row[1]))
		case r.IntN(4) == 0:
			l.delete(asideItems, id, nil, nil)
			delete(source, id)
			return
		case r.IntN(4) == 0:
			to := r.IntN(20)
			if _, taken := source[to]; taken && to != id {
				return
			}
			l.updateFrom(asideItems, []any{id, nil, nil}, []any{to, row[0], null(row[1])})
			delete(source, id)
			id = to
		default:
			l.update(asideItems, id, row[0], null(row[1]))
		}
		source[id] = row
	}
	for range 6 {
		for range 8 {
			l.tx(func() {
				for range 1 + r.IntN(12) {
					step()
				}
			})
		}
		how := []testTweak{setsAside(100_000), withOptions(func(o *Options) { o.SliceBytes, o.GroupTransactions = 200+r.IntN(20_000), 1+r.IntN(20) })}
		if r.IntN(2) == 0 {
			how = append(how, allQueued)
		}
		g.apply(l, how...)
		g.requireFreeRows(source)
		if r.IntN(3) == 0 {
			if _, err := g.settle(nil); err != nil {
				t.Fatal(err)
			}
			g.requireFreeRows(source)
		}
		if mends && r.IntN(2) == 0 {
			g.mendRandomly(r, source)
			g.requireFreeRows(source)
		}
	}
	before := len(g.ids())
	g.exec(cured)
	if mends { // a change may meet a unique value that a mended row has by now: then its row is to be mended, too
		got, err := g.settle(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("of %d changes %d were left by a retry", before, got.Left)
		g.requireFreeRows(source)
		g.mendAll(source)
	} else {
		g.retryAll(int64(before), 0)
	}
	var want []string
	for id, row := range source {
		want = append(want, fmt.Sprintf("(%d,%s,%s)", id, row[0], row[1]))
	}
	g.requireTable("items", want...)
	want = nil
	for row, n := range heap {
		for range n {
			want = append(want, fmt.Sprintf("(1,%s)", row))
		}
	}
	g.requireTable("heap", want...)
	t.Logf("%d changes were set aside in the end", before)
}

// requireFreeRows compares the rows whose ids no change in quarantine has, and tells of changes that are there twice.
func (g *testTarget) requireFreeRows(source map[int][2]string) {
	g.t.Helper()
	held := map[string]bool{}
	for _, id := range g.rows(`SELECT DISTINCT convert_from(v.value, 'UTF8') FROM syncline.quarantine q JOIN syncline.quarantine_values v ON v.entry = q.id
		WHERE q.target_table = 'items' AND v.ordinal = 0 AND v.kind = 't'`) {
		held[id] = true
	}
	here := map[string]string{}
	for _, row := range g.rows("SELECT id || ' ' || coalesce(name, '') || ' ' || coalesce(mail, '') FROM items") {
		id, rest, _ := strings.Cut(row, " ")
		here[id] = rest
	}
	for id := range 20 {
		row, there := source[id]
		got, isHere := here[fmt.Sprint(id)]
		if held[fmt.Sprint(id)] {
			continue
		}
		if there != isHere || there && got != row[0]+" "+row[1] {
			g.t.Fatalf("row %d is %q (%v), want %q (%v); nothing of it is in quarantine", id, got, isHere, row, there)
		}
	}
	if twice := g.rows("SELECT (commit_lsn, number) FROM syncline.quarantine GROUP BY commit_lsn, number HAVING count(*) > 1"); len(twice) > 0 {
		g.t.Fatalf("twice in quarantine: %v", twice)
	}
}
