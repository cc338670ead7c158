package apply

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

const (
	byKey   = change.IdentityDefault
	byIndex = change.IdentityIndex
	byRow   = change.IdentityFull
	byNone  = change.IdentityNothing
)

func TestApplyRowsByPrimaryKey(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric)")
		items := testRelation("items", byKey, "id*", "name", "price")
		l.tx(func() {
			l.insert(items, 1, "one", "1.10")
			l.insert(items, 2, "", nil)
			l.insert(items, 3, "three", "3")
			l.insert(items, 4, "four", "4")
			for i := 10; i < 20; i++ {
				l.insert(items, i, "goes", nil)
			}
		})
		l.tx(func() {
			for i := 10; i < 20; i++ {
				l.update(items, i, "changed and gone", asIs)
				l.delete(items, i, nil, nil)
			}
		})
		l.tx(func() { l.update(items, 1, "ONE", nil) })
		l.tx(func() {
			l.update(items, 2, nil, "2.0")
			l.update(items, 2, "two", "2.00")
			l.delete(items, 3, nil, nil)
		})
		// Gone, back again, and gone: within one transaction and over several.
		l.tx(func() {
			l.delete(items, 4, nil, nil)
			l.insert(items, 4, "again", "44")
			l.update(items, 4, "again and again", "44")
		})
		l.tx(func() { l.insert(items, 5, "five", "5") })
		l.tx(func() { l.delete(items, 5, nil, nil) })
		end := l.tx(func() { l.insert(items, 3, "\\N\ttab\nline\rreturn\\.", "NaN") })
		g.apply(l, how...)
		g.requireTable("items", "(1,ONE,)", "(2,two,2.00)", "(4,\"again and again\",44)", "(3,\"\\\\N\ttab\nline\rreturn\\\\.\",NaN)")
		g.requireAt(end)
	})
}

func TestApplyRowsByCompositeKey(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		// The key's columns stand in another order, and other columns between them.
		g := newTestTarget(t, l, "CREATE TABLE parts (b text, note text, a int, c date, PRIMARY KEY (a, b, c))")
		parts := testRelation("parts", byKey, "a*", "b*", "note", "c*")
		l.tx(func() {
			for i := range 4 {
				l.insert(parts, i/2, fmt.Sprintf("b%d", i%2), "n", "2026-01-01")
			}
		})
		l.tx(func() {
			l.update(parts, 0, "b1", "changed", "2026-01-01")
			l.delete(parts, 1, "b0", nil, "2026-01-01")
			l.updateFrom(parts, []any{1, "b1", nil, "2026-01-01"}, []any{1, "b1", "moved", "2026-02-02"})
		})
		g.apply(l, how...)
		g.requireTable("parts", "(b0,n,0,2026-01-01)", "(b1,changed,0,2026-01-01)", "(b1,moved,1,2026-02-02)")
	})
}

func TestApplyKeyChange(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, name text, big text)")
		items := testRelation("items", byKey, "id*", "name", "big")
		l.tx(func() {
			for i := 1; i <= 3; i++ {
				l.insert(items, i, fmt.Sprintf("row %d", i), "large")
			}
		})
		// 1 and 2 change places by way of 9, and all of them move up by one, the highest first. Before and after, the rows
		// are changed under the key that they have then.
		l.tx(func() {
			l.update(items, 1, "first", asIs)
			l.updateFrom(items, []any{1, nil, nil}, []any{9, "first", asIs})
			l.updateFrom(items, []any{2, nil, nil}, []any{1, "row 2", asIs})
			l.updateFrom(items, []any{9, nil, nil}, []any{2, "first", asIs})
			l.update(items, 2, "first, now 2", asIs)
		})
		l.tx(func() {
			l.updateFrom(items, []any{3, nil, nil}, []any{4, "row 3", asIs})
			l.updateFrom(items, []any{2, nil, nil}, []any{3, "first, now 3", asIs})
			l.updateFrom(items, []any{1, nil, nil}, []any{2, "row 2", "other"})
			l.insert(items, 1, "new", nil)
		})
		l.tx(func() {
			l.delete(items, 4, nil, nil)
			l.updateFrom(items, []any{3, nil, nil}, []any{4, "last", asIs})
		})
		g.apply(l, how...)
		g.requireTable("items", "(1,new,)", "(2,\"row 2\",other)", "(4,last,large)")
	})
}

func TestApplyRowsByIdentityIndex(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE coded (id int PRIMARY KEY, code text NOT NULL, note text);
			CREATE UNIQUE INDEX coded_code ON coded (code); ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code;
			CREATE TABLE bare (code text NOT NULL, note text)`)
		coded := testRelation("coded", byIndex, "id", "code*", "note")
		bare := testRelation("bare", byIndex, "code*", "note") // the target has no index at all
		l.tx(func() {
			for i := 1; i <= 3; i++ {
				l.insert(coded, i, fmt.Sprintf("c%d", i), "n")
				l.insert(bare, fmt.Sprintf("c%d", i), "n")
			}
		})
		l.tx(func() {
			l.update(coded, 10, "c1", "the primary key changed, the identity did not")
			l.updateFrom(coded, []any{nil, "c2", nil}, []any{2, "C2", "n"})
			l.delete(coded, nil, "c3", nil)
			l.update(bare, "c1", "changed")
			l.updateFrom(bare, []any{"c2", nil}, []any{"C2", nil})
			l.delete(bare, "c3", nil)
		})
		g.apply(l, how...)
		g.requireTable("coded", `(10,c1,"the primary key changed, the identity did not")`, "(2,C2,n)")
		g.requireTable("bare", "(c1,changed)", "(C2,)")
	})
}

func TestApplyFullRowsWithDuplicates(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE heap (a int, b text)")
		heap := testRelation("heap", byRow, "a", "b")
		l.tx(func() {
			for range 4 {
				l.insert(heap, 1, "same")
			}
			for range 3 {
				l.insert(heap, nil, nil)
			}
			l.insert(heap, nil, "x")
			l.insert(heap, 2, nil)
		})
		l.tx(func() { l.updateFrom(heap, []any{1, "same"}, []any{1, "other"}) })
		l.tx(func() { l.delete(heap, 1, "same") })
		l.tx(func() { l.delete(heap, nil, nil) })
		l.tx(func() { l.updateFrom(heap, []any{nil, nil}, []any{3, nil}) })
		l.tx(func() { l.updateFrom(heap, []any{nil, "x"}, []any{nil, nil}) })
		// Several equal rows changed one after the other, as one statement on the source does it.
		l.tx(func() {
			l.updateFrom(heap, []any{nil, nil}, []any{nil, "y"})
			l.updateFrom(heap, []any{nil, nil}, []any{nil, "y"})
		})
		g.apply(l, how...)
		g.requireTable("heap", "(1,other)", "(1,same)", "(1,same)", "(3,)", "(2,)", "(,y)", "(,y)")
	})
}

// TestApplyFullRowsEqualButNotTheSame has values that = takes for equal and that print differently. Each change must hit
// the row that prints as the change says.
func TestApplyFullRowsEqualButNotTheSame(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE odd (f double precision, n numeric, i interval, c char(4), tag text);
			CREATE TABLE lists (n numeric[], f real[], tag text)`)
		odd := testRelation("odd", byRow, "f", "n", "i", "c", "tag")
		lists := testRelation("lists", byRow, "n", "f", "tag")
		l.tx(func() {
			for _, f := range []string{"0", "-0", "NaN"} {
				for _, n := range []string{"1.0", "1.00", "NaN"} {
					for _, i := range []string{"1 mon", "30 days"} {
						l.insert(odd, f, n, i, "ab  ", "old")
					}
				}
			}
			l.insert(lists, "{1.0,NULL}", "{0}", "old")
			l.insert(lists, "{1.00,NULL}", "{0}", "old")
			l.insert(lists, "{1.0,NULL}", "{-0}", "old")
		})
		l.tx(func() {
			l.updateFrom(odd, []any{"-0", "1.00", "30 days", "ab  ", "old"}, []any{"-0", "1.00", "30 days", "ab  ", "new"})
		})
		l.tx(func() {
			l.updateFrom(odd, []any{"0", "1.0", "1 mon", "ab  ", "old"}, []any{"-0", "1.000", "1 mon", "ab  ", "new"})
		})
		l.tx(func() { l.delete(odd, "NaN", "NaN", "30 days", "ab  ", "old") })
		l.tx(func() {
			l.delete(lists, "{1.00,NULL}", "{0}", "old")
			l.updateFrom(lists, []any{"{1.0,NULL}", "{-0}", "old"}, []any{"{1.0,NULL}", "{0}", "new"})
		})
		g.apply(l, how...)
		var want []string
		for _, f := range []string{"0", "-0", "NaN"} {
			for _, n := range []string{"1.0", "1.00", "NaN"} {
				for _, i := range []string{`"1 mon"`, `"30 days"`} {
					row := fmt.Sprintf("(%s,%s,%s,\"ab  \",old)", f, n, i)
					switch row {
					case `(-0,1.00,"30 days","ab  ",old)`:
						row = `(-0,1.00,"30 days","ab  ",new)`
					case `(0,1.0,"1 mon","ab  ",old)`:
						row = `(-0,1.000,"1 mon","ab  ",new)`
					case `(NaN,NaN,"30 days","ab  ",old)`:
						continue
					}
					want = append(want, row)
				}
			}
		}
		g.requireTable("odd", want...)
		g.requireTable("lists", `("{1.0,NULL}",{0},old)`, `("{1.0,NULL}",{0},new)`)
	})
}

// TestApplyFullRowsWithoutEquality has types for which there is no = or one that means something else.
func TestApplyFullRowsWithoutEquality(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TYPE pair AS (j json, p point); CREATE DOMAIN doc AS json;
			CREATE TABLE odd (j json, x xml, p point, b box, c pair, d doc, l json[], tag text)`)
		odd := testRelation("odd", byRow, "j", "x", "p", "b", "c", "d", "l", "tag")
		values := func(json, box, tag string) []any {
			return []any{json, "<a/>", "(1,2)", box, `("` + strings.ReplaceAll(json, `"`, `""`) + `","(1,2)")`, json, nil, tag}
		}
		l.tx(func() {
			l.insert(odd, values(`{"a": 1}`, "(1,1),(0,0)", "old")...)
			l.insert(odd, values(`{"a":  1}`, "(1,1),(0,0)", "old")...)
			l.insert(odd, values(`{"a": 1}`, "(3,3),(2,2)", "old")...) // a box of the same area
			l.insert(odd, nil, nil, nil, nil, nil, nil, `{"{\"a\": 1}",NULL}`, "old")
		})
		l.tx(func() {
			l.updateFrom(odd, values(`{"a":  1}`, "(1,1),(0,0)", "old"), values(`{"a":  1}`, "(1,1),(0,0)", "new"))
		})
		l.tx(func() { l.delete(odd, values(`{"a": 1}`, "(3,3),(2,2)", "old")...) })
		l.tx(func() {
			l.updateFrom(odd, []any{nil, nil, nil, nil, nil, nil, `{"{\"a\": 1}",NULL}`, "old"}, []any{`2`, nil, "(-0,0)", nil, nil, nil, nil, "new"})
		})
		g.apply(l, how...)
		g.requireTable("odd",
			`("{""a"": 1}",<a/>,"(1,2)","(1,1),(0,0)","(""{""""a"""": 1}"",""(1,2)"")","{""a"": 1}",,old)`,
			`("{""a"":  1}",<a/>,"(1,2)","(1,1),(0,0)","(""{""""a"""":  1}"",""(1,2)"")","{""a"":  1}",,new)`,
			`(2,,"(-0,0)",,,,,new)`)
	})
}

// TestApplyFullRowsByTargetKey has whole old rows from the source and a key on the target. The key finds the row.
func TestApplyFullRowsByTargetKey(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE keyed (a int, id int PRIMARY KEY, j json, local text DEFAULT 'kept')")
		keyed := testRelation("keyed", byRow, "id", "a", "j")
		l.tx(func() {
			for i := range 5 {
				l.insert(keyed, i, 7, `{"a": 1}`)
			}
		})
		l.tx(func() {
			l.updateFrom(keyed, []any{0, 7, `{"a": 1}`}, []any{0, nil, `{"a": 2}`})
			l.updateFrom(keyed, []any{0, nil, `{"a": 2}`}, []any{0, 8, asIs})
			l.updateFrom(keyed, []any{1, 7, `{"a": 1}`}, []any{10, 7, `{"a": 1}`})
			l.delete(keyed, 2, 7, `{"a": 1}`)
		})
		g.apply(l, how...)
		g.requireTable("keyed", `(8,0,"{""a"": 2}",kept)`, `(7,10,"{""a"": 1}",kept)`, `(7,3,"{""a"": 1}",kept)`, `(7,4,"{""a"": 1}",kept)`)
	})
}

// TestApplyOrderWithinSlice has changes that are right one after the other and wrong in any other order, because a unique
// constraint beside the key looks at every step.
func TestApplyOrderWithinSlice(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE seats (id int PRIMARY KEY, seat text UNIQUE, note text);
			CREATE TABLE logs (n int, what text)`)
		seats := testRelation("seats", byKey, "id*", "seat", "note")
		logs := testRelation("logs", byRow, "n", "what")
		l.tx(func() {
			for i := 1; i <= 40; i++ {
				l.insert(seats, i, fmt.Sprintf("s%d", i), nil)
				l.insert(logs, i, "insert")
			}
		})
		l.tx(func() {
			l.update(seats, 1, nil, "stands up")
			l.update(seats, 2, "s1", nil)
			l.update(seats, 1, "s2", "sits down")
			l.delete(seats, 3, nil, nil)
			l.insert(seats, 103, "s3", nil)
			l.update(seats, 4, "s104", nil)
			l.insert(seats, 104, "s4", nil)
			l.delete(logs, 1, "insert")
		})
		// Everybody moves on by one seat, the last one first.
		l.tx(func() {
			for i := 40; i >= 5; i-- {
				l.update(seats, i, fmt.Sprintf("s%d", i+1), "moved")
			}
		})
		// The same row in a new shape of itself, over and over.
		l.tx(func() {
			for i := range 30 {
				l.delete(seats, 40, nil, nil)
				l.insert(seats, 40, "s41", fmt.Sprint(i))
			}
		})
		g.apply(l, how...)
		want := []string{"(1,s2,\"sits down\")", "(2,s1,)", "(103,s3,)", "(4,s104,)", "(104,s4,)", "(40,s41,29)"}
		for i := 5; i < 40; i++ {
			want = append(want, fmt.Sprintf("(%d,s%d,moved)", i, i+1))
		}
		g.requireTable("seats", want...)
		if n := len(g.table("logs")); n != 39 {
			t.Errorf("%d rows in logs, want 39", n)
		}
	})
}

// TestApplyInsertWithoutValue refuses an insert that lacks a value, however many inserts there are: it has none to write.
func TestApplyInsertWithoutValue(t *testing.T) {
	for _, rows := range []int{1, 50} {
		l := newTestLog(t)
		g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, big text)")
		items := testRelation("items", byKey, "id*", "big")
		l.tx(func() {
			for i := range rows {
				l.insert(items, i, asIs)
			}
		})
		err := g.try(l)
		var failed *ChangeError
		if !errors.As(err, &failed) || failed.Table.Name != "items" {
			t.Errorf("%d inserts without a value: %v", rows, err)
		}
		g.requireTable("items")
		g.requireAt(l.start)
	}
}
