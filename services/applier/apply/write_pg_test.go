package apply

import (
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestPartIsUndoneAlone has the server read nothing of what is sent for a part of a slice, not even its savepoint: what was written before
// it must not be rolled back in its place.
func TestPartIsUndoneAlone(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE first (id int PRIMARY KEY)")
	session := openSession(t.Context(), t, g.url)
	defer session.Close()
	w := newWriter(&Config{Session: session})
	fixed := newFixedStatements()
	part := func(sql string) step {
		text := []byte{}
		in := inserts{plan: &Plan{copyBinarySQL: sql}, rows: make([]netRow, copyRows), binary: &text}
		in.plan.copyGuard.lock = "INSERT INTO public.first SELECT max(id) + 1 FROM (SELECT 0 AS id UNION ALL SELECT id FROM public.first) f"
		in.plan.copyGuard.check.sql = "SELECT 1"
		return step{sets: &sets{inserts: []inserts{in}}}
	}
	if _, err := w.exec(t.Context(), "BEGIN; INSERT INTO public.first VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	// The first part is refused when its savepoint is there, and undone; the row before it stays.
	if err := w.setWise(t.Context(), part("COPY nowhere FROM STDIN"), &fixed); err != nil {
		t.Fatal(err)
	}
	if n := pgtest.QueryRow[int](t, session.Conn(), "SELECT count(*) FROM public.first"); n != 1 || w.fallbacks != 1 {
		t.Fatalf("%d rows and %d fallbacks", n, w.fallbacks)
	}
	w.pipe.sendLater(&w.points[w.parts%2].set, "set savepoint")
	w.parts++
	if _, err := w.exec(t.Context(), "INSERT INTO public.first VALUES (100)"); err != nil {
		t.Fatal(err)
	}
	w.pipe.sendLater(&w.points[(w.parts-1)%2].release, "release savepoint")
	if err := w.setWise(t.Context(), part("COPY nowhere ("), &fixed); err == nil {
		t.Errorf("what came before was rolled back without a word: %d rows are left", pgtest.QueryRow[int](t, session.Conn(), "SELECT count(*) FROM public.first"))
	}
}
