package apply

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestCompression looks at how large values are stored: with LZ4, unless somebody has said something else or the server has no LZ4.
func TestCompression(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE texts (id serial, plain text, chosen text)")
	admin := pgtest.Connect(t, g.url)
	methods := pgtest.QueryRow[[]string](t, admin, "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
	if _, err := admin.Exec(t.Context(), "ALTER TABLE texts ALTER chosen SET COMPRESSION pglz"); err != nil {
		t.Fatal(err)
	}
	best := methods[len(methods)-1]

	check := func(when, want string) {
		t.Helper()
		session := openSession(t.Context(), t, g.url)
		defer session.Close()
		loader, err := ConnectLoader(t.Context(), g.url, testReplication, session.conn.PgConn().PID())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = loader.Close(t.Context()) }()
		for name, conn := range map[string]*pgx.Conn{"session": session.Conn(), "loader": loader} {
			var plain, chosen string
			text := strings.Repeat("large and much alike ", 1000)
			err := conn.QueryRow(t.Context(), "INSERT INTO public.texts (plain, chosen) VALUES ($1, $1) RETURNING id", text).Scan(new(int))
			if err == nil {
				err = conn.QueryRow(t.Context(), "SELECT pg_column_compression(plain), pg_column_compression(chosen) FROM public.texts ORDER BY id DESC LIMIT 1").Scan(&plain, &chosen)
			}
			if err != nil {
				t.Fatal(err)
			}
			if plain != want || chosen != "pglz" {
				t.Errorf("%s, %s: stored as %s and %s", when, name, plain, chosen)
			}
		}
	}
	check("nobody has chosen", best)
	database := pgx.Identifier{pgtest.QueryRow[string](t, admin, "SELECT current_database()")}.Sanitize()
	pgtest.Exec(t, admin, "ALTER DATABASE "+database+" SET default_toast_compression = pglz")
	check("pglz for the database", "pglz")
}
