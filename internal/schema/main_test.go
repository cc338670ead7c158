package schema

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// servers are one server for both sides, unless the environment asks for two versions, as the test of version pairs does.
func servers(t testing.TB) (source, target *pgtest.Server) {
	t.Helper()
	of := func(variable string) *pgtest.Server {
		if version := os.Getenv(variable); version != "" {
			return pgtest.New(t, pgtest.WithVersion(version), pgtest.WithFsync(false))
		}
		return pgtest.Shared(t)
	}
	return of("SYNCLINE_TEST_SOURCE_VERSION"), of("SYNCLINE_TEST_TARGET_VERSION")
}

// runFile runs an SQL file of testdata.
func runFile(t testing.TB, conn *pgx.Conn, name string) {
	t.Helper()
	sql, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().Exec(t.Context(), string(sql)).ReadAll(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// allKinds makes a database with every kind of thing that the server's version knows.
func allKinds(t testing.TB, s *pgtest.Server) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, s.Database(t))
	runFile(t, conn, "functions.sql")
	runFile(t, conn, "kinds.sql")
	if s.Major() >= 18 {
		runFile(t, conn, "kinds18.sql")
	}
	return conn
}

// empty makes a database with nothing but the functions that the tables of allKinds need.
func empty(t testing.TB, s *pgtest.Server) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, s.Database(t))
	runFile(t, conn, "functions.sql")
	return conn
}

func read(t testing.TB, conn session) Database {
	t.Helper()
	d, err := Read(t.Context(), conn, Selection{})
	if conn, ok := conn.(*pgx.Conn); ok && err == nil {
		err = d.ReadAvailable(t.Context(), conn, Database{Extensions: []Extension{{Name: "one that is not there"}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func exec(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		pgtest.Exec(t, conn, sql)
	}
}

func run(ctx context.Context, t testing.TB, conn *pgx.Conn, statements []Statement) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s.SQL); err != nil {
			t.Fatalf("%s: %v", s.SQL, err)
		}
	}
}

func plan(t testing.TB, source, target Database, tables []Name) Plan {
	t.Helper()
	p, err := CreateStatements(source, target, tables)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// all is the plan's statements in the order in which they run.
func (p Plan) all() []Statement {
	var all []Statement
	for _, part := range [][]Statement{p.Before, p.After, p.ForeignKeys} {
		all = append(all, part...)
	}
	return all
}
