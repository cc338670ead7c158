package apply

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

// failingLog is a log whose last transaction cannot be applied: fail adds what is wrong to it. What comes before it can.
func failingLog(l *testLog, items *change.Relation, fail func()) (good change.LSN) {
	good = l.tx(func() {
		for i := 1; i <= 3; i++ {
			l.insert(items, i, "before")
		}
	})
	l.tx(func() {
		l.insert(items, 4, "of the failing transaction")
		l.update(items, 1, "of the failing transaction")
		fail()
		l.insert(items, 5, "of the failing transaction")
	})
	return good
}

const failingTables = "CREATE TABLE items (id int PRIMARY KEY, name text); CREATE TABLE heap (a int, b text); INSERT INTO heap VALUES (1, NULL)"

// requireFailed fails unless nothing of the last transaction is there. What came before it may be there, with its position,
// as a whole or not at all.
func (g *testTarget) requireFailed(l *testLog, good change.LSN) {
	g.t.Helper()
	switch at := g.position(); at {
	case l.start:
		g.requireTable("items")
	case good:
		g.requireTable("items", "(1,before)", "(2,before)", "(3,before)")
	default:
		g.t.Fatalf("the position is %s, want %s or %s", at, l.start, good)
	}
	g.requireTable("heap", "(1,)")
}

func TestApplyMissingRow(t *testing.T) {
	items, heap := testRelation("items", byKey, "id*", "name"), testRelation("heap", byRow, "a", "b")
	cases := []struct {
		name, table, key string
		operation        Operation
		change           func(l *testLog)
	}{
		{"update", "items", "(id=77)", Update, func(l *testLog) { l.update(items, 77, "x") }},
		{"update of the key", "items", "(id=78)", Update, func(l *testLog) { l.updateFrom(items, []any{78, nil}, []any{79, "x"}) }},
		{"update of nothing", "items", "(id=77)", Update, func(l *testLog) { l.update(items, 77, asIs) }},
		{"delete", "items", "(id=77)", Delete, func(l *testLog) { l.delete(items, 77, nil) }},
		{"second delete", "items", "(id=3)", Delete, func(l *testLog) {
			l.delete(items, 3, nil)
			l.delete(items, 3, nil)
		}},
		{"update after delete", "items", "(id=3)", Update, func(l *testLog) {
			l.delete(items, 3, nil)
			l.update(items, 3, "x")
		}},
		{"whole row", "heap", "(a=1, b=" + strings.Repeat("y", 80) + "…)", Update, func(l *testLog) {
			l.updateFrom(heap, []any{1, strings.Repeat("y", 100)}, []any{2, nil})
		}},
		{"whole row with null", "heap", "(a=NULL, b=NULL)", Delete, func(l *testLog) { l.delete(heap, nil, nil) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
				g := newTestTarget(t, l, failingTables)
				good := failingLog(l, items, func() { c.change(l) })
				err := g.try(l, how...)
				var failed *ChangeError
				var count *RowCountError
				if !errors.As(err, &failed) || !errors.As(err, &count) {
					t.Fatalf("got %v", err)
				}
				if failed.Table != (schema.Name{Schema: "public", Name: c.table}) || failed.Operation != c.operation || failed.Key != c.key || count.Want != 1 || count.Got != 0 {
					t.Errorf("got %+v, %+v", failed, count)
				}
				if !strings.Contains(err.Error(), "the replica does not have this row") || !strings.Contains(err.Error(), c.key) {
					t.Errorf("text: %v", err)
				}
				g.requireFailed(l, good)
			})
		})
	}
}

func TestApplyRowAlreadyThere(t *testing.T) {
	items, other := testRelation("items", byKey, "id*", "name"), testRelation("other", byKey, "id*", "code")
	cases := []struct {
		name, table, key string
		change           func(l *testLog)
	}{
		{"insert", "items", "(id=1)", func(l *testLog) { l.insert(items, 1, "again") }},
		{"insert among many", "items", "(id=2)", func(l *testLog) {
			for i := 100; i < 200; i++ {
				l.insert(items, i, "many")
			}
			l.insert(items, 2, "again")
			for i := 200; i < 300; i++ {
				l.insert(items, i, "many")
			}
		}},
		{"key change", "items", "(id=2)", func(l *testLog) { l.updateFrom(items, []any{2, nil}, []any{1, "x"}) }},
		{"other unique index", "other", "(id=2)", func(l *testLog) { l.insert(other, 2, "local") }},
		{"update into another unique index", "other", "(id=3)", func(l *testLog) {
			l.insert(other, 3, "c")
			l.update(other, 3, "local")
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
				g := newTestTarget(t, l, failingTables+"; CREATE TABLE other (id int PRIMARY KEY, code text UNIQUE); INSERT INTO other VALUES (1, 'local')")
				good := failingLog(l, items, func() { c.change(l) })
				err := g.try(l, how...)
				var failed *ChangeError
				var pg *pgconn.PgError
				if !errors.As(err, &failed) || !errors.As(err, &pg) || pg.Code != "23505" {
					t.Fatalf("got %v", err)
				}
				if failed.Table.Name != c.table || failed.Key != c.key || !strings.Contains(err.Error(), "the replica already has such a row") {
					t.Errorf("got %v", err)
				}
				g.requireFailed(l, good)
				g.requireTable("other", "(1,local)")
			})
		})
	}
}

// TestApplyRefusedValue has rows that a constraint or a type of the target refuses.
func TestApplyRefusedValue(t *testing.T) {
	items, other := testRelation("items", byKey, "id*", "name"), testRelation("other", byKey, "id*", "n")
	for name, c := range map[string]struct {
		value any
		code  string
	}{
		"check": {-1, "23514"}, "not null": {nil, "23502"}, "syntax": {"seven", "22P02"}, "range": {"99999999999", "22003"},
	} {
		t.Run(name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
				g := newTestTarget(t, l, failingTables+"; CREATE TABLE other (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0)); INSERT INTO other VALUES (1, 1)")
				good := failingLog(l, items, func() {
					l.update(other, 1, 2)
					l.update(other, 1, c.value)
				})
				err := g.try(l, how...)
				var failed *ChangeError
				var pg *pgconn.PgError
				if !errors.As(err, &failed) || !errors.As(err, &pg) || pg.Code != c.code || failed.Table.Name != "other" || failed.Key != "(id=1)" {
					t.Fatalf("got %v", err)
				}
				g.requireFailed(l, good)
				g.requireTable("other", "(1,1)")
			})
		})
	}
}

func TestApplyMissingColumnOrTable(t *testing.T) {
	for name, c := range map[string]struct {
		relation *change.Relation
		want     string
	}{
		"column": {testRelation("other", byKey, "id*", "odd \"Column"), `"odd \"Column"`},
		"table":  {testRelation("gone", byKey, "id*", "n"), "public.gone"},
		"view":   {testRelation("view", byKey, "id*", "n"), "public.view"},
	} {
		t.Run(name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
				g := newTestTarget(t, l, failingTables+"; CREATE TABLE other (id int PRIMARY KEY, n int); CREATE VIEW view AS SELECT * FROM other")
				good := failingLog(l, testRelation("items", byKey, "id*", "name"), func() { l.insert(c.relation, 1, 2) })
				err := g.try(l, how...)
				var mismatch *MismatchError
				if !errors.As(err, &mismatch) || mismatch.Table.Name != c.relation.Name || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v", err)
				}
				g.requireFailed(l, good)
				g.requireTable("other")
			})
		})
	}
}

// TestApplyRelationChange has a column come and another go in mid-stream, within one group.
func TestApplyRelationChange(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, old text, added text)")
		before := testRelation("items", byKey, "id*", "old")
		both := testRelation("items", byKey, "id*", "old", "added")
		after := testRelation("items", byKey, "added", "id*")
		full := testRelation("items", byRow, "added", "id")
		l.tx(func() {
			for i := range 40 {
				l.insert(before, i, "old")
			}
			l.update(before, 1, "changed")
		})
		l.tx(func() {
			l.update(both, 1, "changed again", "new")
			l.insert(both, 100, "o", "a")
			l.update(before, 2, "an old shape again") // ALTER TABLE … DROP COLUMN
			l.delete(both, 3, nil, nil)
			l.update(both, 2, asIs, "and a new one")
		})
		l.tx(func() {
			l.insert(after, "after", 101)
			l.update(after, "after", 4)
			l.delete(after, nil, 5)
			l.updateFrom(full, []any{"after", 4}, []any{"full", 4})
			l.delete(full, "full", 4)
			for i := 6; i < 40; i++ {
				l.delete(after, nil, i)
			}
		})
		g.apply(l, how...)
		g.requireTable("items", "(0,old,)", `(1,"changed again",new)`, `(2,"an old shape again","and a new one")`, "(100,o,a)", "(101,,after)")
	})
}

func TestApplyNewTable(t *testing.T) {
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		items, fresh := testRelation("items", byKey, "id*", "name"), testRelation("fresh", byKey, "id*")
		g := newTestTarget(t, l, failingTables+"; CREATE TABLE fresh (id int PRIMARY KEY)")
		good := failingLog(l, items, func() { l.insert(fresh, 1) })
		known := false
		how = append(how, func(r *testRun) {
			r.Table = func(n schema.Name, _ uint32) (Table, bool) {
				return Table{Apply: true, Target: n, Own: true}, n.Name != "fresh" || known
			}
		})
		err := g.try(l, how...)
		var newTable *NewTableError
		if !errors.As(err, &newTable) || len(newTable.Tables) != 1 || newTable.Tables[0].Name != "fresh" {
			t.Fatalf("got %v", err)
		}
		g.requireFailed(l, good)
		known = true
		g.apply(l, how...)
		g.requireTable("fresh", "(1)")
		if n := len(g.table("items")); n != 5 {
			t.Errorf("%d rows in items", n)
		}
	})
}

// TestApplyTableOfTheSameName stops at a change of a table that was dropped and made again on the source since it was copied.
func TestApplyTableOfTheSameName(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, failingTables)
	items := testRelation("items", byKey, "id*", "name")
	failingLog(l, items, func() { l.insert(items, 100, "x") })
	copied := func(oid uint32) testTweak {
		return func(r *testRun) {
			r.Table = func(n schema.Name, _ uint32) (Table, bool) {
				return Table{Apply: true, Target: n, Own: true, OID: oid}, true
			}
		}
	}
	var newTable *NewTableError
	if err := g.try(l, copied(items.OID+1)); !errors.As(err, &newTable) || newTable.LSN == 0 {
		t.Fatalf("another table: got %v", err)
	}
	g.requireFailed(l, l.start)
	g.apply(l, copied(items.OID))
}

// TestApplyAnnouncedTables stops where the source begins to capture a table, and tells of those that it captures no longer.
func TestApplyAnnouncedTables(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, failingTables)
	items := testRelation("items", byKey, "id*", "name")
	good := failingLog(l, items, func() {
		l.message("syncline.tables", `{"captured":[{"oid":7,"schema":"public","name":"fresh"},{"oid":8,"schema":"public","name":"copied"}],"removed":[{"oid":9,"schema":"public","name":"gone"}]}`)
	})
	var removed []schema.Name
	tweak := func(wanted bool) testTweak {
		return func(r *testRun) {
			r.Captured = func(n schema.Name, from change.LSN) bool { return from > 0 && n.Name == "fresh" && wanted }
			r.Removed = func(n []schema.Name) { removed = append(removed, n...) }
		}
	}
	var newTable *NewTableError
	if err := g.try(l, tweak(true)); !errors.As(err, &newTable) || len(newTable.Tables) != 1 || newTable.Tables[0].Name != "fresh" {
		t.Fatalf("got %v", err)
	}
	g.requireFailed(l, good)
	if len(removed) == 0 || removed[0].Name != "gone" {
		t.Errorf("removed: %v", removed)
	}
	g.apply(l, tweak(false))
}

// TestApplyStreamOrder refuses a stream that is not the continuation: another log, a hole, blocks twice, a change before its relation.
func TestApplyStreamOrder(t *testing.T) {
	build := func(t *testing.T) (*testLog, *testTarget) {
		l := newTestLog(t)
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY)")
		items := testRelation("items", byKey, "id*")
		for i := range 4 {
			l.tx(func() { l.insert(items, i) })
		}
		return l, g
	}
	blocks := func(l *testLog) []Event { return l.events[1:] }
	cases := map[string]struct {
		edit func(l *testLog, r *testRun)
		want error
		rows int // most rows that may be applied
	}{
		"another log": {func(l *testLog, r *testRun) { r.Position.LogID, r.Position.LSN = change.LogID{9}, l.start }, ErrStreamOrder, 0},
		"a hole": {func(l *testLog, r *testRun) {
			r.events = append(append([]Event{l.events[0]}, blocks(l)[:1]...), blocks(l)[2:]...)
		}, block.ErrChain, 1},
		"a late beginning":          {func(l *testLog, r *testRun) { r.events = append([]Event{l.events[0]}, blocks(l)[1:]...) }, block.ErrChain, 0},
		"a block twice":             {func(l *testLog, r *testRun) { r.events = append(append([]Event{}, l.events[:3]...), blocks(l)[1:]...) }, block.ErrChain, 2},
		"a change without relation": {func(l *testLog, r *testRun) { r.events = blocks(l) }, ErrStreamOrder, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l, g := build(t)
			err := g.try(l, allQueued, func(r *testRun) {
				c.edit(l, r)
			})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := pgtest.QueryRow[int](t, g.conn, "SELECT count(*) FROM items"); n > c.rows {
				t.Errorf("%d rows were applied, at most %d are right", n, c.rows)
			}
			if name != "another log" {
				g.apply(l)
				g.requireTable("items", "(0)", "(1)", "(2)", "(3)")
			}
		})
	}
}

// TestApplyRowOfOtherShape refuses a row that has not the columns of its relation.
func TestApplyRowOfOtherShape(t *testing.T) {
	for columns := range 4 {
		if columns == 2 {
			continue
		}
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			l := newTestLog(t)
			g := newTestTarget(t, l, failingTables)
			items := testRelation("items", byKey, "id*", "name")
			good := failingLog(l, items, func() { l.update(items, []any{1, "x", "y"}[:columns]...) })
			if err := g.try(l, allQueued); err == nil || !strings.Contains(err.Error(), "items") {
				t.Errorf("got %v", err)
			}
			g.requireFailed(l, good)
		})
	}
}
