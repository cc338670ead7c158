package apply

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// about is which rows the changes in quarantine of a table are about.
func (g *testTarget) about(table string, key ...string) ([]AboutRows, error) {
	g.t.Helper()
	name := schema.Name{Schema: "public", Name: table}
	return EntryRows(g.t.Context(), g.conn, testReplication, []schema.Name{name}, name, key)
}

func (g *testTarget) mustResolve(ids []int64) (released int64) {
	g.t.Helper()
	err := pgx.BeginFunc(g.t.Context(), g.conn, func(tx pgx.Tx) (err error) {
		released, err = Resolve(g.t.Context(), tx, testReplication, ids)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return released
}

// TestEntryRows: each kind of change tells the rows that it is about, or that it does not.
func TestEntryRows(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, asideTables+"; CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL, note text CHECK (note <> 'poison'))")
	full := testRelation("indexed", byKey, "id", "code*", "note") // by an index of the code
	full.Identity = change.IdentityFull
	byCode := testRelation("indexed", byKey, "id", "code*", "note")
	l.tx(func() {
		l.insert(asideItems, 1, "poison", nil)
		l.updateFrom(asideItems, []any{1, nil, nil}, []any{2, "moved", nil})
		l.update(asideItems, 2, "again", nil)
		l.delete(asideItems, 2, nil, nil)
		l.insert(asideItems, 3, "good", nil)
		l.insert(asideHeap, 1, "poison")
	})
	g.apply(l, setsAside(100))
	about, err := g.about("items", "id")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range about {
		got = append(got, fmt.Sprint(one.Keys))
	}
	if want := []string{"[[1]]", "[[2] [1]]", "[[2]]", "[[2]]"}; !slices.Equal(got, want) {
		t.Errorf("about %v, want %v", got, want)
	}
	var untold *UntoldRowsError
	if _, err := g.about("heap"); !errors.As(err, &untold) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := g.about("items", "name"); !errors.As(err, &untold) {
		t.Errorf("by a column whose old value is not sent: %v", err)
	}
	if rows, err := g.about("none"); err != nil || rows != nil {
		t.Errorf("%v, %v", rows, err)
	}
	for name, c := range map[string]struct {
		relation *change.Relation
		told     bool
	}{"the old row is whole": {full, true}, "only the index's columns are sent": {byCode, false}} {
		t.Run(name, func(t *testing.T) {
			l := newTestLog(t)
			g := newTestTarget(t, l, "CREATE TABLE indexed (id int PRIMARY KEY, code text UNIQUE, note text CHECK (note <> 'poison')); INSERT INTO indexed VALUES (1, 'a', 'x')")
			l.tx(func() {
				if c.told {
					l.updateFrom(c.relation, []any{1, "a", "x"}, []any{7, "a", "poison"})
				} else {
					l.update(c.relation, 7, "a", "poison")
				}
			})
			g.apply(l, setsAside(100))
			about, err := g.about("indexed", "id")
			switch {
			case c.told && (err != nil || fmt.Sprint(about[0].Keys) != "[[7] [1]]"):
				t.Errorf("about %v, %v", about, err)
			case !c.told && !errors.As(err, &untold):
				t.Errorf("about %v, %v", about, err)
			}
		})
	}
}

// TestResolveReleasesWhatWaits: what waited behind a change that is resolved, for a unique value, waits for a retry.
func TestResolveReleasesWhatWaits(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, asideTables)
	l.tx(func() {
		l.insert(asideItems, 1, "poison", "m")
		l.update(asideItems, 1, "good", "other")
		l.insert(asideItems, 2, "good", "m")
		l.update(asideItems, 2, "better", "m")
	})
	g.apply(l, setsAside(100))
	g.requireQuarantine("I items 23514", "U items waits", "I items waits", "U items waits")
	g.exec("INSERT INTO items VALUES (1, 'good', 'other')") // as the source has it
	ids := g.ids()
	if released := g.mustResolve(ids[:2]); released != 1 {
		t.Errorf("%d were released", released)
	}
	g.requireQuarantine("I items ", "U items waits")
	if got := g.rows("SELECT message FROM syncline.quarantine WHERE waits_behind IS NULL"); len(got) != 1 || !strings.Contains(got[0], "retried") {
		t.Errorf("told %v", got)
	}
	if got := g.rows("SELECT count(*) FROM syncline.quarantine_values WHERE entry NOT IN (SELECT id FROM syncline.quarantine)"); got[0] != "0" {
		t.Errorf("%s values are left of nothing", got)
	}
	l.tx(func() { l.update(asideItems, 1, "later", "other") })
	g.apply(l, setsAside(100)) // it is held no more
	g.retryAll(2, 0)
	g.requireTable("items", "(1,later,other)", "(2,better,m)")
}

// mendRandomly makes a row that changes in quarantine are about, and all that these lead to, equal to the source's, as a repair does. It changes nothing
// where the target refuses that.
func (g *testTarget) mendRandomly(r *rand.Rand, source map[int][2]string) {
	g.t.Helper()
	about, err := g.about("items", "id")
	if err != nil {
		g.t.Fatal(err)
	}
	if len(about) > 0 {
		g.mend(about, source, about[r.IntN(len(about))].Keys[0][0])
	}
}

// mend does so with some rows, and reports whether the target took it.
func (g *testTarget) mend(about []AboutRows, source map[int][2]string, first ...string) bool {
	g.t.Helper()
	keys := map[string]bool{}
	for _, key := range first {
		keys[key] = true
	}
	var ids []int64
	for n := -1; n != len(keys); {
		n, ids = len(keys), nil
		for _, one := range about {
			if slices.ContainsFunc(one.Keys, func(key []string) bool { return keys[key[0]] }) {
				ids = append(ids, one.ID)
				for _, key := range one.Keys {
					keys[key[0]] = true
				}
			}
		}
	}
	err := pgx.BeginFunc(g.t.Context(), g.conn, func(tx pgx.Tx) error {
		for key := range keys {
			if _, err := tx.Exec(g.t.Context(), "DELETE FROM items WHERE id = $1::text::int", key); err != nil {
				return err
			}
		}
		for id, row := range source {
			if !keys[fmt.Sprint(id)] {
				continue
			}
			if _, err := tx.Exec(g.t.Context(), "INSERT INTO items VALUES ($1, $2, nullif($3, ''))", id, row[0], row[1]); err != nil {
				return err
			}
		}
		_, err := Resolve(g.t.Context(), tx, testReplication, ids)
		return err
	})
	if code := postgres.Code(err); code == "23514" || code == "23505" {
		return false
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return true
}

// mendAll mends what changes in quarantine are about, and what is in the way of that, until nothing is in quarantine.
func (g *testTarget) mendAll(source map[int][2]string) {
	g.t.Helper()
	about, err := g.about("items", "id")
	if err != nil {
		g.t.Fatal(err)
	}
	if len(about) == 0 {
		return
	}
	var all []string
	for id := range 20 {
		all = append(all, fmt.Sprint(id))
	}
	if !g.mend(about, source, all...) {
		g.t.Fatal("the source's rows are refused")
	}
	g.requireQuarantine()
}
