package apply

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// looseChange is a change after two rows with one code: the source's table has REPLICA IDENTITY FULL and no key.
type looseChange struct {
	name  string
	write func(l *testLog, loose *change.Relation)
	want  []string
}

var looseChanges = []looseChange{
	{"the first one goes", func(l *testLog, loose *change.Relation) { l.delete(loose, 1, "x") }, []string{"(1,y)"}},
	{"the second one goes", func(l *testLog, loose *change.Relation) { l.delete(loose, 1, "y") }, []string{"(1,x)"}},
	{"the first one changes", func(l *testLog, loose *change.Relation) { l.updateFrom(loose, []any{1, "x"}, []any{1, "z"}) }, []string{"(1,y)", "(1,z)"}},
	{"one goes and the other changes", func(l *testLog, loose *change.Relation) {
		l.delete(loose, 1, "y")
		l.updateFrom(loose, []any{1, "x"}, []any{1, "z"})
	}, []string{"(1,z)"}},
	{"one changes into the other", func(l *testLog, loose *change.Relation) {
		l.updateFrom(loose, []any{1, "x"}, []any{1, "y"})
		l.delete(loose, 1, "y")
	}, []string{"(1,y)"}},
}

// log writes two rows with one code and a change of them. Enough other rows go with them to be written set-wise.
func (c *looseChange) log(l *testLog, loose *change.Relation) {
	l.tx(func() {
		for n := range 2 * setRows {
			l.insert(loose, 1000+n, "x")
		}
		l.insert(loose, 1, "x")
		l.insert(loose, 1, "y")
		c.write(l, loose)
	})
}

// eachLooseChange runs a case for each change, row by row and set-wise.
func eachLooseChange(t *testing.T, run func(t *testing.T, l *testLog, loose *change.Relation, c *looseChange, how ...testTweak)) {
	t.Helper()
	loose := testRelation("loose", change.IdentityFull, "code", "v")
	for i := range looseChanges {
		t.Run(looseChanges[i].name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) { run(t, l, loose, &looseChanges[i], how...) })
		})
	}
}

func (c *looseChange) require(g *testTarget) {
	g.t.Helper()
	if rows := g.rows("SELECT x FROM loose x WHERE code BETWEEN 1 AND 999"); !slices.Equal(rows, c.want) {
		g.t.Fatalf("got %v, want %v", rows, c.want)
	}
}

// TestKeyOfTheReplicaAlone has a key on the target that the source's table does not have. What it does not allow stops, and is
// not taken for changes of one row.
func TestKeyOfTheReplicaAlone(t *testing.T) {
	eachLooseChange(t, func(t *testing.T, l *testLog, loose *change.Relation, c *looseChange, how ...testTweak) {
		c.log(l, loose)
		g := newTestTarget(t, l, "CREATE TABLE loose (code int NOT NULL UNIQUE, v text)")
		if err := g.try(l, how...); postgres.Code(err) != "23505" {
			t.Fatalf("got %v; the table has %v", err, g.table("loose"))
		}
		g.requireTable("loose")
		g.requireAt(l.start)
		// The key was wrong for these rows. Without it they fit.
		g.exec("ALTER TABLE loose DROP CONSTRAINT loose_code_key")
		g.apply(l, how...)
		c.require(g)
	})
}

// TestKeyDroppedMeanwhile drops the target's key while the engine believes in it. What it does then is right, or it stops
// because a row count is not, and a fresh session does it.
func TestKeyDroppedMeanwhile(t *testing.T) {
	eachLooseChange(t, func(t *testing.T, l *testLog, loose *change.Relation, c *looseChange, how ...testTweak) {
		first := l.tx(func() { l.insert(loose, 0, "first") })
		c.log(l, loose)
		g := newTestTarget(t, l, "CREATE TABLE loose (code int NOT NULL UNIQUE, v text)")
		err := g.try(l, append(how, withEvents(g, l), altering(g, first, "ALTER TABLE loose DROP CONSTRAINT loose_code_key"))...)
		var rows *RowCountError
		if err != nil && !errors.As(err, &rows) {
			t.Fatal(err)
		}
		t.Log(err)
		g.apply(l, how...)
		c.require(g)
	})
}

// TestLikeNull has rows without a key that differ only in what is easily taken for NULL: no text, and a composite of nulls.
func TestLikeNull(t *testing.T) {
	keyless := testRelation("keyless", change.IdentityFull, "x", "pair", "v")
	rows := [][]any{{nil, nil, "a"}, {"", nil, "a"}, {nil, "(,)", "a"}, {"", "(,)", "a"}}
	changed := []string{"(,,b)", `("",,b)`, `(,"(,)",b)`, `("","(,)",b)`}
	for i, row := range rows {
		for _, other := range rows {
			t.Run(fmt.Sprintf("%v beside %v", row, other), func(t *testing.T) {
				testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
					l.tx(func() {
						l.insert(keyless, other...) // this is the one that is found first
						l.insert(keyless, row...)
						l.updateFrom(keyless, row, []any{row[0], row[1], "b"})
						l.delete(keyless, other...)
					})
					g := newTestTarget(t, l, "CREATE TYPE pair AS (a int, b int); CREATE TABLE keyless (x xml, pair pair, v text)")
					g.apply(l, how...)
					g.requireTable("keyless", changed[i])
				})
			})
		}
	}
}

// TestKeyless changes rows without a key at random, many of which are the same, and some rows several times, with values that are null, that
// have no equality, that did not change and are not sent, and columns that are the target's own.
func TestKeyless(t *testing.T) {
	keyless := testRelation("keyless", change.IdentityFull, "n", "amount", "x", "v")
	for name, create := range map[string]string{
		"looked up by a column": "CREATE TABLE keyless (own text DEFAULT 'own', n int NOT NULL, amount numeric, x xml, v text)",
		"all printed":           "CREATE TABLE keyless (n int, amount numeric, x json, v text, own text DEFAULT 'own')",
	} {
		t.Run(name, func(t *testing.T) {
			testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
				r := testSeed(t)
				large := strings.Repeat("large", 500)
				value := func(list ...any) any { return list[r.IntN(len(list))] }
				var rows [][]any
				add := func() {
					row := []any{r.IntN(20), value(nil, "1.50", "1.5"), value(nil, "1"), value(nil, "", "a", large)}
					rows = append(rows, row)
					l.insert(keyless, row...)
				}
				l.tx(func() {
					for range 300 {
						add()
					}
				})
				for range 20 {
					l.tx(func() {
						for range 40 {
							at := r.IntN(len(rows))
							switch r.IntN(9) {
							case 0:
								add()
							case 1, 2, 3:
								l.delete(keyless, rows[at]...)
								rows = slices.Delete(rows, at, at+1)
							default:
								changed := slices.Clone(rows[at])
								changed[r.IntN(2)] = value(r.IntN(20)+100, r.IntN(20))
								sent := slices.Clone(changed)
								if sent[3] == large {
									sent[3] = asIs
								}
								l.updateFrom(keyless, rows[at], sent)
								rows[at] = changed
							}
						}
					})
				}
				g := newTestTarget(t, l, create)
				g.apply(l, how...)
				var want []string
				for _, row := range rows {
					want = append(want, fmt.Sprintf("%v %v %v %v own", row...))
				}
				got := g.rows("SELECT format('%s %s %s %s %s', coalesce(n::text, '<nil>'), coalesce(amount::text, '<nil>'), coalesce(x::text, '<nil>'), coalesce(v, '<nil>'), own) FROM keyless")
				slices.Sort(want)
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("%d rows, want %d: %.500v\nwant %.500v", len(got), len(want), got, want)
				}
				if l.fallbacks > 0 {
					t.Errorf("%d slices were replayed row by row", l.fallbacks)
				}
			})
		})
	}
}

// TestKeylessGone has changes of rows that the target does not have, or not often enough: it stops.
func TestKeylessGone(t *testing.T) {
	keyless := testRelation("keyless", change.IdentityFull, "n", "v")
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		l.tx(func() {
			for n := range 2 * setRows {
				l.insert(keyless, n, "x")
			}
		})
		l.tx(func() {
			for n := range 2 * setRows {
				l.updateFrom(keyless, []any{n, "x"}, []any{n, "y"})
			}
			l.delete(keyless, 3, "x")
		})
		g := newTestTarget(t, l, "CREATE TABLE keyless (n int NOT NULL, v text)")
		var rows *RowCountError
		if err := g.try(l, how...); !errors.As(err, &rows) {
			t.Fatalf("got %v; the table has %v", err, g.table("keyless"))
		}
		if got := g.rows("SELECT count(*) FROM keyless WHERE v = 'y'"); !slices.Equal(got, []string{"0"}) {
			t.Errorf("%v rows were changed", got)
		}
	})
}
