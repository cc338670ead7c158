package apply

import (
	"fmt"
	"slices"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// TestApplyTriggers has triggers of every sort. Those that a user has enabled for replicated rows fire, once for each row and
// in the rows' order; ordinary ones do not.
func TestApplyTriggers(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE seen (n bigserial, who text, op text, id int);
			CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO public.seen (who, op, id) VALUES (TG_NAME || ' ' || TG_TABLE_NAME, TG_OP, CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
				RETURN coalesce(NEW, OLD); END $$;
			CREATE FUNCTION see_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO public.seen (who, op) VALUES (TG_NAME || ' ' || TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
			CREATE TABLE always (id int PRIMARY KEY, name text); CREATE TABLE replica (LIKE always INCLUDING ALL);
			CREATE TABLE plain (LIKE always INCLUDING ALL); CREATE TABLE disabled (LIKE always INCLUDING ALL);
			CREATE TRIGGER fires BEFORE INSERT OR UPDATE OR DELETE ON always FOR EACH ROW EXECUTE FUNCTION see();
			ALTER TABLE always ENABLE ALWAYS TRIGGER fires;
			CREATE TRIGGER empties AFTER TRUNCATE ON always EXECUTE FUNCTION see_all(); ALTER TABLE always ENABLE ALWAYS TRIGGER empties;
			CREATE TRIGGER fires AFTER INSERT OR UPDATE OR DELETE ON replica FOR EACH ROW EXECUTE FUNCTION see();
			ALTER TABLE replica ENABLE REPLICA TRIGGER fires;
			CREATE TRIGGER fires AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION see();
			CREATE TRIGGER empties AFTER TRUNCATE ON plain EXECUTE FUNCTION see_all();
			CREATE TRIGGER fires AFTER INSERT ON disabled FOR EACH ROW EXECUTE FUNCTION see(); ALTER TABLE disabled DISABLE TRIGGER fires`)
		var relations []*change.Relation
		for _, name := range []string{"always", "replica", "plain", "disabled"} {
			relations = append(relations, testRelation(name, byKey, "id*", "name"))
		}
		for _, r := range relations {
			l.tx(func() {
				for i := range 20 {
					l.insert(r, i, "n")
				}
				l.update(r, 1, "changed")
				l.delete(r, 2, nil)
				l.insert(r, 2, "again")
				l.truncate(false, false, r)
				l.insert(r, 1, "after")
			})
		}
		g.apply(l, how...)
		var want []string
		for _, table := range []string{"always", "replica"} {
			for i := range 20 {
				want = append(want, fmt.Sprintf("fires %s INSERT %d", table, i))
			}
			want = append(want, "fires "+table+" UPDATE 1", "fires "+table+" DELETE 2", "fires "+table+" INSERT 2")
			if table == "always" {
				want = append(want, "empties always TRUNCATE")
			}
			want = append(want, "fires "+table+" INSERT 1")
		}
		got := g.rows("SELECT to_char(n, '000 ') || concat_ws(' ', who, op, id) FROM seen")
		for i := range got {
			got[i] = got[i][len(" 000 "):]
		}
		if !slices.Equal(got, want) {
			t.Errorf("triggers saw\n%q\nwant\n%q", got, want)
		}
		for _, r := range relations {
			g.requireTable(r.Name, "(1,after)")
		}
	})
}

// TestTriggersPlanAsUsual has triggers tell what the planner may do for them.
func TestTriggersPlanAsUsual(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE seen (who text, may text);
			CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO public.seen VALUES (TG_NAME || ' ' || TG_OP, concat_ws(' ', current_setting('enable_nestloop'), current_setting('enable_hashjoin'),
					current_setting('enable_mergejoin'), current_setting('enable_seqscan')));
				RETURN NULL; END $$;
			CREATE TABLE plain (id int PRIMARY KEY, name text); CREATE TABLE watched (LIKE plain INCLUDING ALL); CREATE TABLE cleared (LIKE plain INCLUDING ALL);
			CREATE TRIGGER at_once AFTER INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION see(); ALTER TABLE watched ENABLE ALWAYS TRIGGER at_once;
			CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see();
			ALTER TABLE watched ENABLE REPLICA TRIGGER deferred;
			CREATE TRIGGER emptied AFTER TRUNCATE ON cleared EXECUTE FUNCTION see(); ALTER TABLE cleared ENABLE ALWAYS TRIGGER emptied`)
		plain, watched, cleared := testRelation("plain", byKey, "id*", "name"), testRelation("watched", byKey, "id*", "name"), testRelation("cleared", byKey, "id*", "name")
		l.tx(func() {
			for i := range 300 {
				l.insert(plain, i, "n")
			}
		})
		l.tx(func() {
			for i := range 300 {
				l.update(plain, i, "changed")
			}
			l.insert(watched, 1, "n")
			l.update(watched, 1, "changed")
			for i := range 300 {
				l.delete(plain, i, nil)
			}
		})
		l.tx(func() { l.insert(watched, 2, "n") })
		l.tx(func() { l.truncate(false, false, cleared) })
		g.apply(l, how...)
		got := g.rows("SELECT DISTINCT who || ': ' || may FROM seen")
		want := []string{"at_once INSERT: on on on on", "at_once UPDATE: on on on on", "deferred INSERT: on on on on", "emptied TRUNCATE: on on on on"}
		if !slices.Equal(got, want) {
			t.Errorf("triggers saw\n%q\nwant\n%q", got, want)
		}
	})
}

// TestApplyForeignKeys has rows come before those that they refer to, as the source's order allows with deferred constraints.
func TestApplyForeignKeys(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE parents (id int PRIMARY KEY);
			CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE)`)
		parents, children := testRelation("parents", byKey, "id*"), testRelation("children", byKey, "id*", "parent")
		l.tx(func() {
			l.insert(children, 1, 1)
			l.insert(parents, 1)
			l.insert(parents, 2)
			l.insert(children, 2, 2)
		})
		// The source sends the rows that a cascade changes as changes of their own.
		l.tx(func() {
			l.updateFrom(parents, []any{1}, []any{10})
			l.update(children, 1, 10)
			l.delete(parents, 2)
			l.delete(children, 2, nil)
		})
		g.apply(l, how...)
		g.requireTable("parents", "(10)")
		g.requireTable("children", "(1,10)")
	})
}

// TestApplyDeferrable has constraints that the source looks at only at the transaction's end.
func TestApplyDeferrable(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE places (id int PRIMARY KEY, place int, UNIQUE (place) DEFERRABLE INITIALLY DEFERRED);
			CREATE TABLE keyed (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, code text NOT NULL UNIQUE);
			ALTER TABLE keyed REPLICA IDENTITY USING INDEX keyed_code_key`)
		places, keyed := testRelation("places", byKey, "id*", "place"), testRelation("keyed", byIndex, "id", "code*")
		l.tx(func() {
			for i := range 20 {
				l.insert(places, i, i)
				l.insert(keyed, i, fmt.Sprint("c", i))
			}
		})
		l.tx(func() {
			for i := range 20 {
				l.update(places, i, (i+1)%20)
				l.update(keyed, (i+1)%20, fmt.Sprint("c", i))
			}
		})
		g.apply(l, how...)
		var wantPlaces, wantKeyed []string
		for i := range 20 {
			wantPlaces = append(wantPlaces, fmt.Sprintf("(%d,%d)", i, (i+1)%20))
			wantKeyed = append(wantKeyed, fmt.Sprintf("(%d,c%d)", (i+1)%20, i))
		}
		g.requireTable("places", wantPlaces...)
		g.requireTable("keyed", wantKeyed...)
	})
}

// TestApplyExclusion has a constraint that is no index of equal values: rows make room for one another step by step.
func TestApplyExclusion(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE bookings (id int PRIMARY KEY, booked int4range, EXCLUDE USING gist (booked WITH &&))`)
		bookings := testRelation("bookings", byKey, "id*", "booked")
		slot := func(n int) string { return fmt.Sprintf("[%d,%d)", n*10, n*10+10) }
		l.tx(func() {
			for i := range 20 {
				l.insert(bookings, i, slot(i))
			}
		})
		l.tx(func() {
			for i := 19; i >= 0; i-- {
				l.update(bookings, i, slot(i+1))
			}
			l.insert(bookings, 20, slot(0))
			l.delete(bookings, 5, nil)
			l.insert(bookings, 21, slot(6))
			l.update(bookings, 20, "empty")
			l.insert(bookings, 22, slot(0))
		})
		g.apply(l, how...)
		want := []string{"(20,empty)", `(21,"[60,70)")`, `(22,"[0,10)")`}
		for i := range 20 {
			if i != 5 {
				want = append(want, fmt.Sprintf(`(%d,"%s")`, i, slot(i+1)))
			}
		}
		g.requireTable("bookings", want...)
	})
}

// TestApplyPartitionsToOtherLayout brings the rows of the source's partitions into a target that is partitioned otherwise, or
// not at all; also rows that move from one partition to another, which the source sends as a delete and an insert.
func TestApplyPartitionsToOtherLayout(t *testing.T) {
	targets := map[string]string{
		"ordinary": "CREATE TABLE events (note text, day int, id int, PRIMARY KEY (id, day))",
		"by hash": `CREATE TABLE events (id int, day int, note text, PRIMARY KEY (id, day)) PARTITION BY HASH (id);
			CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 1)`,
		"two levels": `CREATE TABLE events (id int, day int, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
			CREATE TABLE events_a PARTITION OF events FOR VALUES FROM (MINVALUE) TO (15) PARTITION BY LIST (id);
			CREATE TABLE events_a_rest PARTITION OF events_a DEFAULT;
			CREATE TABLE events_b PARTITION OF events DEFAULT`,
		"keyless": "CREATE TABLE events (id int, day int, note text)",
	}
	for name, sql := range targets {
		t.Run(name, func(t *testing.T) {
			testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
				g := newTestTarget(t, l, sql)
				// The leaves have other column orders, as attached partitions may.
				low, high := testRelation("low", byKey, "id*", "day*", "note"), testRelation("high", byKey, "note", "day*", "id*")
				full := testRelation("full", byRow, "id", "day", "note")
				l.tx(func() {
					for i := range 10 {
						l.insert(low, i, i, "low")
						l.insert(high, "high", i+10, i)
						l.insert(full, i, i+100, "full")
					}
				})
				l.tx(func() {
					l.update(low, 1, 1, "changed")
					l.updateFrom(low, []any{2, 2, nil}, []any{2, 9, "within"})
					l.delete(low, 3, 3, nil)
					l.insert(high, "moved", 33, 3)
					l.update(high, "moved and changed", 33, 3)
					l.delete(high, nil, 14, 4)
					l.insert(low, 4, 5, "moved back")
					// To and fro.
					l.delete(low, 5, 5, nil)
					l.insert(high, "fro", 55, 5)
					l.delete(high, nil, 55, 5)
					l.insert(low, 5, 5, "to")
					l.updateFrom(full, []any{6, 106, "full"}, []any{6, 166, "far"})
					l.delete(full, 7, 107, "full")
				})
				toEvents := func(r *testRun) {
					r.Table = func(n schema.Name, _ uint32) (Table, bool) {
						if n.Name != "noise" {
							n.Name = "events"
						}
						return Table{Apply: true, Target: n, Own: true}, true
					}
				}
				g.apply(l, append(slices.Clone(how), toEvents)...)
				want := map[string]string{
					"1 1": "changed", "2 9": "within", "3 33": "moved and changed", "4 5": "moved back", "5 5": "to", "6 166": "far",
					"0 0": "low", "4 4": "low", "6 6": "low", "7 7": "low", "8 8": "low", "9 9": "low",
				}
				for i := range 10 {
					if i != 4 {
						want[fmt.Sprint(i, " ", i+10)] = "high"
					}
					if i != 6 && i != 7 {
						want[fmt.Sprint(i, " ", i+100)] = "full"
					}
				}
				var rows []string
				for key, note := range want {
					rows = append(rows, key+" "+note)
				}
				slices.Sort(rows)
				if got := g.rows("SELECT concat_ws(' ', id, day, note) FROM events"); !slices.Equal(got, rows) {
					t.Errorf("got %q\nwant %q", got, rows)
				}
			})
		})
	}
}
