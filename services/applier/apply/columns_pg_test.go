package apply

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestApplyUnchangedLargeValues has updates that do not bring a large value. The target keeps its own.
func TestApplyUnchangedLargeValues(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE docs (id int PRIMARY KEY, a text, b text, n int);
			CREATE TABLE heap (a text, n int)`)
		docs := testRelation("docs", byKey, "id*", "a", "b", "n")
		heap := testRelation("heap", byRow, "a", "n")
		large := strings.Repeat("large ", 2000)
		l.tx(func() {
			for i := range 4 {
				l.insert(docs, i, large, large, 0)
			}
			l.insert(heap, large, 0)
			l.insert(heap, large, 0)
		})
		l.tx(func() {
			l.update(docs, 0, asIs, "b1", 1)
			l.update(docs, 0, "a1", asIs, 1)
			l.update(docs, 1, asIs, asIs, 2)
			l.update(docs, 1, asIs, nil, asIs)
			l.updateFrom(docs, []any{2, nil, nil, nil}, []any{20, asIs, "b2", 3}) // the row moves and takes its value along
			l.update(docs, 3, asIs, asIs, asIs)
			// Inserted and updated in one transaction: the value that is not sent is the one of the insert.
			l.insert(docs, 5, large+"5", "b", 0)
			l.update(docs, 5, asIs, "b5", 5)
			l.update(docs, 5, asIs, asIs, 55)
			l.delete(docs, 5, nil, nil, nil)
			l.insert(docs, 5, "again", large, 0)
			l.update(docs, 5, asIs, asIs, 5)
			// The old row has the value, the new one does not.
			l.updateFrom(heap, []any{large, 0}, []any{asIs, 1})
		})
		g.apply(l, how...)
		got := g.rows(`SELECT concat_ws(' ', id, length(a), left(a, 2), length(b), left(b, 2), n) FROM docs`)
		want := []string{"0 2 a1 2 b1 1", "1 12000 la 2", "20 12000 la 2 b2 3", "3 12000 la 12000 la 0", "5 5 ag 12000 la 5"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := g.rows(`SELECT length(a) || ' ' || n FROM heap`); fmt.Sprint(got) != "[12000 0 12000 1]" {
			t.Errorf("heap has %q", got)
		}
	})
}

// TestApplyUnchangedLargeKey has a key that is large itself. PostgreSQL sends the old key with every update then.
func TestApplyUnchangedLargeKey(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE docs (k text PRIMARY KEY, n int)")
		docs := testRelation("docs", byKey, "k*", "n")
		key := func(n int) string { return fmt.Sprint(n, strings.Repeat("key ", 500)) }
		l.tx(func() {
			for i := range 3 {
				l.insert(docs, key(i), 0)
			}
		})
		l.tx(func() {
			l.updateFrom(docs, []any{key(0), nil}, []any{asIs, 1})
			l.updateFrom(docs, []any{key(0), nil}, []any{asIs, 2})
			l.updateFrom(docs, []any{key(1), nil}, []any{key(11), 1})
			l.updateFrom(docs, []any{key(11), nil}, []any{asIs, 3})
			l.delete(docs, key(2), nil)
		})
		g.apply(l, how...)
		if got := g.rows("SELECT left(k, 4) || n FROM docs"); fmt.Sprint(got) != "[0key2 11ke3]" {
			t.Errorf("got %q", got)
		}
	})
}

// TestApplyKeyNotInChange refuses an update whose key is not sent, however many changes are around it.
func TestApplyKeyNotInChange(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE docs (k text PRIMARY KEY, n int); INSERT INTO docs VALUES ('', 0), ('k', 0)")
		docs := testRelation("docs", byKey, "k*", "n")
		l.tx(func() { l.update(docs, asIs, 1) })
		err := g.try(l, how...)
		var failed *ChangeError
		if !errors.As(err, &failed) || failed.Table.Name != "docs" {
			t.Errorf("got %v", err)
		}
		g.requireTable("docs", `("",0)`, "(k,0)")
		g.requireAt(l.start)
	})
}

// TestApplyGeneratedColumns has columns that the target computes, whether or not the source sends them.
func TestApplyGeneratedColumns(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE boxes (id int PRIMARY KEY, w int, area int GENERATED ALWAYS AS (w * 10) STORED, note text);
			CREATE TABLE heap (a int, b int GENERATED ALWAYS AS (a % 10) STORED)`)
		boxes := testRelation("boxes", byKey, "id*", "w", "note")
		sent := testRelation("boxes", byKey, "id*", "w", "area", "note") // the source's column is an ordinary one
		sent.OID++
		heap := testRelation("heap", byRow, "a", "b")
		l.tx(func() {
			for i := 1; i <= 3; i++ {
				l.insert(boxes, i, i, "n")
				l.insert(heap, 11, 1)
			}
		})
		l.tx(func() {
			l.update(boxes, 1, 7, asIs)
			l.updateFrom(boxes, []any{2, nil, nil}, []any{20, 2, "moved"})
			l.delete(boxes, 3, nil, nil)
			l.updateFrom(heap, []any{11, 1}, []any{12, 2})
			l.delete(heap, 11, 1)
		})
		l.tx(func() {
			l.insert(sent, 4, 4, 999, "n")
			l.update(sent, 4, 5, 999, "n")
		})
		g.apply(l, how...)
		g.requireTable("boxes", "(1,7,70,n)", "(20,2,20,moved)", "(4,5,50,n)")
		g.requireTable("heap", "(12,2)", "(11,1)")
	})
}

// TestApplyIdentityAlways has GENERATED ALWAYS AS IDENTITY columns, which cannot stand in SET: as the key, beside it, and in
// a partitioned table.
func TestApplyIdentityAlways(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE keyed (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, local text DEFAULT 'local');
			CREATE TABLE beside (id int PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, note text, sum int GENERATED ALWAYS AS (id + 1) STORED);
			CREATE TABLE parted (part int, n bigint GENERATED ALWAYS AS IDENTITY, note text, PRIMARY KEY (part, n)) PARTITION BY LIST (part);
			CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
			CREATE TABLE heap (n bigint GENERATED ALWAYS AS IDENTITY, note text)`)
		keyed := testRelation("keyed", byKey, "id*", "note")
		beside := testRelation("beside", byKey, "id*", "n", "note")
		full := testRelation("beside", byRow, "id", "n", "note")
		parted := testRelation("parted", byKey, "part*", "n*", "note")
		heap := testRelation("heap", byRow, "n", "note")
		l.tx(func() {
			for i := 1; i <= 4; i++ {
				l.insert(keyed, i*100, "n")
				l.insert(beside, i, i*100, "n")
				l.insert(parted, i%2, i, "n")
				l.insert(heap, 5, "same")
			}
		})
		l.tx(func() {
			l.update(keyed, 100, "changed")
			l.updateFrom(keyed, []any{200, nil}, []any{250, "key changed"})
			l.updateFrom(keyed, []any{300, nil}, []any{350, asIs})
			l.delete(keyed, 400, nil)
			l.update(beside, 1, 100, "changed")
			l.update(beside, 2, 777, "the identity changed")
			l.updateFrom(beside, []any{3, nil, nil}, []any{33, 300, "the key changed"})
			l.update(parted, 1, 1, "changed")
			l.updateFrom(parted, []any{0, 2, nil}, []any{1, 22, "other partition"})
			l.updateFrom(heap, []any{5, "same"}, []any{6, "changed"})
			l.updateFrom(heap, []any{5, "same"}, []any{5, "note only"})
		})
		l.tx(func() {
			l.updateFrom(full, []any{4, 400, "n"}, []any{4, 400, "full"})
			l.updateFrom(full, []any{4, 400, "full"}, []any{4, 444, asIs})
		})
		g.apply(l, how...)
		g.requireTable("keyed", "(100,changed,local)", `(250,"key changed",local)`, "(350,n,local)")
		g.requireTable("beside", "(1,100,changed,2)", `(2,777,"the identity changed",3)`, `(33,300,"the key changed",34)`, "(4,444,full,5)")
		g.requireTable("parted", "(1,1,changed)", `(1,22,"other partition")`, "(1,3,n)", "(0,4,n)")
		g.requireTable("heap", "(6,changed)", `(5,"note only")`, "(5,same)", "(5,same)")
	})
}

// TestApplyRowsWithoutColumns has a table of no columns, whose rows can only be counted.
func TestApplyRowsWithoutColumns(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, "CREATE TABLE nothing (); CREATE TABLE more (local text DEFAULT 'local')")
		nothing, more := testRelation("nothing", byRow), testRelation("more", byRow)
		l.tx(func() {
			for range 40 {
				l.insert(nothing)
				l.insert(more)
			}
		})
		l.tx(func() {
			l.delete(nothing)
			l.delete(more)
			l.delete(nothing)
		})
		g.apply(l, how...)
		for table, want := range map[string]int{"nothing": 38, "more": 39} {
			if got := pgtest.QueryRow[int](t, g.conn, "SELECT count(*) FROM "+table); got != want {
				t.Errorf("%d rows in %s, want %d", got, table, want)
			}
		}
	})
}

// TestApplyToOtherLayout has a target whose tables are not quite the source's: columns in another order, more of them, of wider
// types, and an index of its own.
func TestApplyToOtherLayout(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE items (note varchar(100), local text NOT NULL DEFAULT 'local', price numeric, gone int, id bigint PRIMARY KEY,
			made timestamptz DEFAULT '2026-01-01 00:00:00+00'); ALTER TABLE items DROP COLUMN gone; CREATE UNIQUE INDEX ON items (price, id)`)
		items := testRelation("items", byKey, "id*", "price", "note")
		l.tx(func() {
			for i := 1; i <= 20; i++ {
				l.insert(items, i, i, "n")
			}
		})
		l.tx(func() {
			l.update(items, 1, "1.50", asIs)
			l.updateFrom(items, []any{2, nil, nil}, []any{200, 2, "moved"})
			for i := 4; i <= 20; i++ {
				l.delete(items, i, nil, nil)
			}
		})
		g.apply(l, how...)
		if got := g.rows("SELECT concat_ws(' ', id, price, note, local, extract(year FROM made)) FROM items"); fmt.Sprint(got) != "[1 1.50 n local 2026 200 2 moved local 2026 3 3 n local 2026]" {
			t.Errorf("got %q", got)
		}
	})
}

// TestApplyOddNames has names that need quoting, everywhere.
func TestApplyOddNames(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE SCHEMA "Odd ""Schema"" ü"; CREATE TABLE "Odd ""Schema"" ü"."select" ("Mixed Case" int PRIMARY KEY,
			"quo""te" text, "$1" text, "%s" text, "a.b" text, "user" text, " " text, "gone" text, "s" text, "t" text, "c0" text, "ctid2" text)`)
		odd := testRelation("x.select", byKey, "Mixed Case*", `quo"te`, "$1", "%s", "a.b", "user", " ", "gone", "s", "t", "c0", "ctid2")
		odd.Schema = `Odd "Schema" ü`
		whole := testRelation("x.select", byRow, "Mixed Case", `quo"te`, "$1", "%s", "a.b", "user", " ", "gone", "s", "t", "c0", "ctid2")
		whole.Schema, whole.OID = odd.Schema, odd.OID
		values := func(id int, text string) []any {
			return []any{id, text, text, text, text, text, text, text, text, text, text, text}
		}
		l.tx(func() {
			for i := range 20 {
				l.insert(odd, values(i, `"it's", \ %s $1 {}`)...)
			}
		})
		l.tx(func() {
			for i := range 20 {
				l.update(odd, values(i, `NULL`)...)
			}
			l.updateFrom(odd, []any{0, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}, values(100, `\N`))
			for i := 1; i < 18; i++ {
				l.delete(odd, i, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil)
			}
			l.updateFrom(whole, values(18, "NULL"), values(18, "whole"))
		})
		g.apply(l, how...)
		row := func(id int, text string) string { return fmt.Sprintf("(%d%s)", id, strings.Repeat(","+text, 11)) }
		g.requireTable(`"Odd ""Schema"" ü"."select"`, row(100, `"\\N"`), row(18, "whole"), row(19, "NULL"))
	})
}

// TestApplyTypesOfExtensions has a type whose = stands in another schema and means less than its text, as key and as value.
func TestApplyTypesOfExtensions(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE DOMAIN public.word AS ext.citext;
			CREATE TABLE words (w ext.citext PRIMARY KEY, n int); CREATE TABLE domains (w public.word PRIMARY KEY, n int);
			CREATE TABLE heap (w ext.citext, d public.word, l ext.citext[], n int)`)
		words, domains := testRelation("words", byKey, "w*", "n"), testRelation("domains", byKey, "w*", "n")
		heap := testRelation("heap", byRow, "w", "d", "l", "n")
		l.tx(func() {
			for i := range 20 {
				l.insert(words, fmt.Sprint("Word", i), i)
				l.insert(domains, fmt.Sprint("Word", i), i)
				l.insert(heap, []string{"Word", "word"}[i%2], "x", "{a,B}", 0)
			}
		})
		l.tx(func() {
			for i := range 18 {
				l.update(words, fmt.Sprint("Word", i), -i)
				l.update(domains, fmt.Sprint("Word", i), -i)
			}
			for i := 1; i < 18; i++ {
				l.delete(words, fmt.Sprint("Word", i), nil)
				l.delete(domains, fmt.Sprint("Word", i), nil)
			}
			l.updateFrom(words, []any{"Word0", nil}, []any{"WORD0", 1}) // equal, and yet another key
			l.update(words, "WORD0", 2)
			l.delete(words, "Word18", nil)
			l.insert(words, "WORD18", 3)
			l.updateFrom(heap, []any{"word", "x", "{a,B}", 0}, []any{"word", "X", "{A,b}", 1})
			l.updateFrom(heap, []any{"word", "X", "{A,b}", 1}, []any{"word", "X", "{A,b}", 2})
			l.delete(heap, "Word", "x", "{a,B}", 0)
		})
		g.apply(l, how...)
		g.requireTable("words", "(WORD0,2)", "(WORD18,3)", "(Word19,19)")
		g.requireTable("domains", "(Word0,0)", "(Word18,18)", "(Word19,19)")
		if got := g.rows("SELECT concat_ws(' ', count(*), w::text, d::text, l, n) FROM heap GROUP BY w::text, d::text, l::text, l, n"); fmt.Sprint(got) != "[1 word X {A,b} 2 9 Word x {a,B} 0 9 word x {a,B} 0]" {
			t.Errorf("heap has %q", got)
		}
	})
}
