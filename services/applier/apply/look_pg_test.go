package apply

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// looking gives the engine other sessions for looking at the target's tables. It looks at all of them so often.
func looking(g *testTarget, interval time.Duration) testTweak {
	return func(r *testRun) {
		pool, err := pgxpool.New(g.t.Context(), g.url)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(pool.Close)
		r.Reader = pool
		r.Options.LookInterval, r.Options.LookShare = interval, 1
	}
}

// TestAlteredTables alters a target's table while the engine runs, and then has the source send what fits the table as it is now.
func TestAlteredTables(t *testing.T) {
	before := testRelation("things", change.IdentityDefault, "id*", "v")
	more := testRelation("things", change.IdentityDefault, "id*", "v", "more")
	less := testRelation("things", change.IdentityDefault, "id*")
	for _, test := range []struct {
		name, create, alter string
		after               *change.Relation
		row                 []any
		want                string
	}{
		{name: "column added", alter: "ALTER TABLE things ADD more int", after: more, row: []any{2, "b", 7}, want: "(2,b,7)"},
		{name: "column dropped", alter: "ALTER TABLE things DROP v", after: less, row: []any{2}, want: "(2)"},
		{name: "column computed no longer", create: "ALTER TABLE things ADD more int GENERATED ALWAYS AS (id * 2) STORED",
			alter: "ALTER TABLE things ALTER more DROP EXPRESSION", after: more, row: []any{2, "b", 7}, want: "(2,b,7)"},
		{name: "column computed from now on", create: "ALTER TABLE things ADD more int",
			alter: "ALTER TABLE things DROP more, ADD more int GENERATED ALWAYS AS (id * 2) STORED", after: more, row: []any{2, "b", 7}, want: "(2,b,4)"},
		{name: "type widened", alter: "ALTER TABLE things ALTER id TYPE bigint", after: more, create: "ALTER TABLE things ADD more int",
			row: []any{int64(1) << 40, "b", 7}, want: fmt.Sprintf("(%d,b,7)", int64(1)<<40)},
		{name: "made anew", alter: "DROP TABLE things; CREATE TABLE things (more int, id int PRIMARY KEY, v text)", after: more, row: []any{2, "b", 7}, want: "(7,2,b)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
				l.every = 1
				first := l.tx(func() { l.insert(before, 1, "a") })
				l.tx(func() { l.insert(test.after, test.row...) })
				g := newTestTarget(t, l, "CREATE TABLE things (id int PRIMARY KEY, v text); "+test.create)
				g.apply(l, append(how, withEvents(g, l), altering(g, first, test.alter), looking(g, time.Hour))...)
				g.requireRow("things", test.want)
			})
		})
	}
}

// requireRow fails unless the table has the row.
func (g *testTarget) requireRow(table, want string) {
	g.t.Helper()
	for _, row := range g.table(table) {
		if row == want {
			return
		}
	}
	g.t.Fatalf("table %s has no row %s: %v", table, want, g.table(table))
}

// TestAlteredInOneSlice changes a row before and after its table was altered; both changes wait in one slice.
func TestAlteredInOneSlice(t *testing.T) {
	before := testRelation("things", change.IdentityDefault, "id*", "v")
	after := testRelation("things", change.IdentityDefault, "id*", "v", "more")
	after.OID = before.OID
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		first := l.tx(func() { l.insert(noiseTable, -1) })
		l.tx(func() {
			for n := range 20 {
				l.insert(before, n, "a")
			}
			for n := range 20 {
				l.update(after, n, "b", n)
				l.delete(after, n, nil, nil)
				l.insert(before, n, "c")
				l.update(after, n, "d", n)
			}
		})
		g := newTestTarget(t, l, "CREATE TABLE things (id int PRIMARY KEY, v text)")
		g.apply(l, append(how, withEvents(g, l), altering(g, first, "ALTER TABLE things ADD more int"), looking(g, time.Hour))...)
		var want []string
		for n := range 20 {
			want = append(want, fmt.Sprintf("(%d,d,%d)", n, n))
		}
		g.requireTable("things", want...)
	})
}

// TestAlteredOnTheReplicaAlone alters the target's table while the source's stays what it is: the engine notices it by the way.
func TestAlteredOnTheReplicaAlone(t *testing.T) {
	relation := testRelation("things", change.IdentityDefault, "id*", "v", "more")
	l := newTestLog(t)
	l.tx(func() { l.insert(relation, 1, "a", 5) })
	g := newTestTarget(t, l, "CREATE TABLE things (id int PRIMARY KEY, v text, more int GENERATED ALWAYS AS (id * 2) STORED)")
	events := make(chan Event)
	stream := func(r *testRun) { r.stream = events }
	ended := make(chan error, 1)
	rows := 1
	write := func() {
		rows++
		sent := len(l.events)
		l.tx(func() { l.insert(relation, rows, "b", 7) })
		for _, e := range l.events[sent:] {
			select {
			case events <- e:
			case err := <-ended:
				t.Fatalf("the engine ended: %v", err)
			case <-t.Context().Done():
				t.FailNow()
			}
		}
	}
	first := l.after(g.position())
	end := make(chan struct{})
	go func() {
		ended <- g.try(l, stream, looking(g, time.Millisecond), func(r *testRun) {
			r.until = change.LSN(1 << 60)
			r.Applied = func(Progress) error {
				select {
				case <-end:
					return errEnough
				default:
					return nil
				}
			}
		})
	}()
	for _, e := range first {
		events <- e
	}
	observer := pgtest.Connect(t, g.url)
	count := func(where string) int {
		return pgtest.QueryRow[int](t, observer, "SELECT count(*) FROM things WHERE "+where)
	}
	pgtest.Eventually(t, applyDeadline, func() error {
		if count("more = 2") == 0 {
			return errors.New("the first row is not there")
		}
		return nil
	})
	pgtest.Exec(t, observer, "ALTER TABLE things ALTER more DROP EXPRESSION")
	pgtest.Eventually(t, applyDeadline, func() error {
		write()
		if count("more = 7") == 0 {
			return errors.New("the column is not written")
		}
		return nil
	})
	close(end)
	write()
	if err := <-ended; !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
}

// TestRetypedOnTheReplicaAlone changes a column's type into one whose values have the same size, while the engine knows nothing of it:
// what goes in binary must not be taken for something else.
func TestRetypedOnTheReplicaAlone(t *testing.T) {
	relation := testRelation("things", change.IdentityDefault, "id*", "n")
	testFewWays(t, func(t *testing.T, l *testLog, how ...testTweak) {
		const rows = 4 * sliceRows
		want := make([]string, 0, 2*rows)
		write := func(from int) change.LSN {
			return l.tx(func() {
				for n := from; n < from+rows; n++ {
					l.insert(relation, n, n)
					want = append(want, fmt.Sprintf("(%d,%d)", n, n))
				}
			})
		}
		first := write(0)
		write(rows)
		g := newTestTarget(t, l, "CREATE TABLE things (id int PRIMARY KEY, n bigint)")
		g.apply(l, append(how, withEvents(g, l), altering(g, first, "ALTER TABLE things ALTER n TYPE double precision"), looking(g, time.Hour))...)
		g.requireTable("things", want...)
	})
}
