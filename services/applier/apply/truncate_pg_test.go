package apply

import (
	"errors"
	"fmt"
	"testing"

	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

func TestApplyTruncate(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE items (id int PRIMARY KEY, name text); CREATE TABLE other (id int PRIMARY KEY);
			CREATE TABLE derived (extra text, PRIMARY KEY (id)) INHERITS (items)`)
		items, derived := testRelation("items", byKey, "id*", "name"), testRelation("derived", byKey, "id*", "name", "extra")
		other := testRelation("other", byKey, "id*")
		l.tx(func() {
			for i := range 30 {
				l.insert(items, i, "before")
				l.insert(other, i)
			}
			l.insert(derived, 1, "kept", "a child's row")
			l.delete(other, 0)
		})
		// What comes before it goes, what comes after it stays: within one transaction and over several.
		l.tx(func() {
			l.update(items, 1, "changed")
			l.truncate(false, false, items)
			l.insert(items, 1, "after")
		})
		l.tx(func() { l.insert(items, 2, "after") })
		l.tx(func() { l.truncate(false, false, items, other, items) })
		l.tx(func() { l.truncate(true, false, other) }) // of an empty table
		end := l.tx(func() {
			l.insert(items, 3, "last")
			l.truncate(false, false, other)
			l.insert(other, 7)
			l.insert(derived, 3, "last", nil)
		})
		g.apply(l, how...)
		g.requireTable("ONLY items", "(3,last)")
		g.requireTable("other", "(7)")
		g.requireTable("derived", `(1,kept,"a child's row")`, "(3,last,)")
		g.requireAt(end)
	})
}

func TestApplyTruncateRestartIdentity(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, `CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE b (id serial PRIMARY KEY);
		SELECT nextval('a_id_seq'), nextval('a_id_seq'), nextval('b_id_seq')`)
	a, b := testRelation("a", byKey, "id*"), testRelation("b", byKey, "id*")
	l.tx(func() {
		l.insert(a, 1)
		l.insert(b, 1)
		l.truncate(false, true, a)
		l.truncate(false, false, b)
	})
	g.apply(l)
	g.requireTable("a")
	g.requireTable("b")
	if got := pgtest.QueryRow[string](t, g.conn, "SELECT nextval('a_id_seq') || ' ' || nextval('b_id_seq')"); got != "1 2" {
		t.Errorf("the next values are %s, want 1 2", got)
	}
}

// TestApplyTruncateReferenced has foreign keys on the target. Those between the tables of the statement are no hindrance, and one
// from outside must neither stop the replication nor take rows of its own table along.
func TestApplyTruncateReferenced(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
			CREATE TABLE local (parent int REFERENCES parents ON DELETE CASCADE)`)
		parents, children := testRelation("parents", byKey, "id*"), testRelation("children", byKey, "id*", "parent")
		l.tx(func() {
			l.insert(parents, 1)
			l.insert(children, 1, 1)
		})
		g.apply(l, how...)
		g.exec("INSERT INTO local VALUES (1)")
		end := l.tx(func() {
			l.insert(parents, 2)
			l.truncate(true, false, parents, children)
			l.insert(parents, 3)
			l.insert(children, 3, 3)
		})
		g.apply(l, how...)
		g.requireTable("parents", "(3)")
		g.requireTable("children", "(3,3)")
		g.requireTable("local", "(1)")
		g.requireAt(end)
	})
}

// TestApplyTruncateOfCopiedTable has a truncate that one of its tables' copies contains already.
func TestApplyTruncateOfCopiedTable(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE copied (id int PRIMARY KEY); CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO copied VALUES (1); INSERT INTO plain VALUES (1)")
	copied, plain := testRelation("copied", byKey, "id*"), testRelation("plain", byKey, "id*")
	until := l.tx(func() { l.truncate(false, false, copied, plain) })
	table := func(n schema.Name, _ uint32) (Table, bool) {
		entry := Table{Apply: true, Target: n, Own: true}
		if n.Name == "copied" {
			entry.CopyLSN = until
		}
		return entry, true
	}
	g.apply(l, func(r *testRun) { r.Table = table })
	g.requireTable("copied", "(1)")
	g.requireTable("plain")
	l.tx(func() { l.truncate(false, false, copied) })
	g.apply(l, func(r *testRun) { r.Table = table })
	g.requireTable("copied")
}

// TestApplyTruncateOfMappedPartition refuses to empty a partition that is not a table of its own on the target.
func TestApplyTruncateOfMappedPartition(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE whole (id int PRIMARY KEY); INSERT INTO whole VALUES (1)")
	leaf := testRelation("leaf", byKey, "id*")
	toWhole := func(r *testRun) {
		r.Table = func(schema.Name, uint32) (Table, bool) {
			return Table{Apply: true, Target: schema.Name{Schema: "public", Name: "whole"}}, true
		}
	}
	l.tx(func() { l.insert(leaf, 2) })
	g.apply(l, toWhole)
	l.tx(func() {
		l.insert(leaf, 3)
		l.truncate(false, false, leaf)
	})
	err := g.try(l, toWhole)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || mismatch.Table.Name != "whole" {
		t.Errorf("got %v", err)
	}
	g.requireTable("whole", "(1)", "(2)")
}

// TestApplyTruncateFallbacks lets many truncates fall back to deletes in one transaction, between many slices.
func TestApplyTruncateFallbacks(t *testing.T) {
	l := newTestLog(t)
	l.every = 0
	g := newTestTarget(t, l, "CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE local (parent int REFERENCES parents)")
	parents := testRelation("parents", byKey, "id*")
	l.tx(func() {
		for i := range 300 {
			l.insert(parents, i)
			l.truncate(false, false, parents)
			l.insert(parents, i)
		}
	})
	g.apply(l, allQueued)
	if got := fmt.Sprint(g.table("parents")); got != "[(299)]" {
		t.Errorf("parents has %s", got)
	}
}

// TestApplyTruncateBehindDeferredTriggers truncates a table of which deferred triggers have still to run.
func TestApplyTruncateBehindDeferredTriggers(t *testing.T) {
	testEachWay(t, func(t *testing.T, l *testLog, how ...testTweak) {
		g := newTestTarget(t, l, `CREATE TABLE seen (id int); CREATE TABLE watched (id int PRIMARY KEY);
			CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (NEW.id); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see();
			ALTER TABLE watched ENABLE ALWAYS TRIGGER deferred`)
		watched := testRelation("watched", byKey, "id*")
		l.tx(func() { l.insert(watched, 1) })
		l.tx(func() { l.truncate(false, false, watched) })
		end := l.tx(func() { l.insert(watched, 2) })
		g.apply(l, how...)
		g.requireTable("watched", "(2)")
		g.requireTable("seen", "(1)", "(2)")
		g.requireAt(end)
	})
}

// TestApplyTruncateOfSelectedRows removes only the rows that are this replication's, in the place of the truncate.
func TestApplyTruncateOfSelectedRows(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE shared (org int, id int, PRIMARY KEY (org, id)); CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO shared VALUES (1, 1), (2, 1), (2, 2)")
	shared, plain := testRelation("shared", byKey, "org*", "id*"), testRelation("plain", byKey, "id*")
	mine := func(r *testRun) {
		r.Table = func(n schema.Name, _ uint32) (Table, bool) {
			entry := Table{Apply: true, Target: n, Own: true}
			if n.Name == "shared" {
				entry.Rows = func(columns []filter.Column) (string, error) { return `("` + columns[0].Name + `" = 1)`, nil }
			}
			return entry, true
		}
	}
	l.tx(func() {
		l.insert(shared, 1, 7)
		l.insert(plain, 1)
		l.truncate(false, true, shared, plain)
		l.insert(shared, 1, 8)
		l.insert(plain, 2)
	})
	end := l.tx(func() { l.insert(shared, 1, 9) })
	g.apply(l, mine)
	g.requireTable("shared", "(1,8)", "(1,9)", "(2,1)", "(2,2)")
	g.requireTable("plain", "(2)")
	g.requireAt(end)
}
