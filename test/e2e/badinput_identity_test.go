package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// withoutIdentity has tables that PostgreSQL cannot identify rows of. Each is refused by name with three ways out; each way is
// gone, one for each table, and then the primary starts.
func (s *servers) withoutIdentity(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, `CREATE TABLE whole (a int, b text); CREATE TABLE "Left Out" (a int); CREATE TABLE added (a int, b text);
		CREATE TABLE keyed (id int PRIMARY KEY, v int); CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
		CREATE TABLE later (id int PRIMARY KEY DEFERRABLE);
		INSERT INTO whole VALUES (1, 'x'), (1, 'x'), (2, 'y'); INSERT INTO "Left Out" VALUES (1); INSERT INTO added VALUES (1, 'x');
		INSERT INTO keyed VALUES (1, 1); INSERT INTO nothing VALUES (1); INSERT INTO later VALUES (1)`)
	data := filepath.Join(t.TempDir(), "log")
	before := objects(t, conn)
	text := refusal(t, "primary", "--postgres", sourceURL, "--data", data)
	t.Log(text)
	requireWords(t, text,
		"table public.whole is not captured: it has no primary key; ALTER TABLE \"public\".\"whole\" REPLICA IDENTITY FULL, or leave it out with --exclude-table public.whole, or capture its inserts only with --insert-only-table public.whole",
		`--exclude-table 'public."Left Out"'`, "public.added", "public.nothing is not captured: it has REPLICA IDENTITY NOTHING",
		"public.later is not captured: its primary key is deferrable")
	if strings.Contains(text, "keyed") {
		t.Error("a table with a key is refused too")
	}
	requireUnchanged(t, before, objects(t, conn))
	requireEmptyDir(t, data)

	pgtest.Exec(t, conn, "ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE nothing REPLICA IDENTITY DEFAULT; ALTER TABLE later REPLICA IDENTITY FULL")
	primary := startPrimary(t, sourceURL, "--data", data, "--exclude-table", `public."Left Out"`, "--insert-only-table", "public.added")
	replica := startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	for _, table := range []string{"whole", `"Left Out"`, "added"} {
		pgtest.Exec(t, conn, fmt.Sprintf("INSERT INTO %s VALUES (7), (8); UPDATE %[1]s SET a = a + 100 WHERE a < 3; DELETE FROM %[1]s WHERE a = 8", table))
	}
	pgtest.Exec(t, conn, "UPDATE whole SET b = 'one of two' WHERE ctid = (SELECT min(ctid) FROM whole WHERE a = 101); UPDATE keyed SET v = 2; DELETE FROM nothing; UPDATE later SET id = 2")
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Except: []string{"public.Left Out", "public.added"}})

	target := pgtest.Connect(t, targetURL)
	if pgtest.QueryRow[bool](t, target, `SELECT to_regclass('"Left Out"') IS NOT NULL`) {
		t.Error("the table that was left out is on the replica")
	}
	if rows := pgtest.QueryRow[string](t, target, "SELECT string_agg(a::text, ',' ORDER BY a) FROM added"); rows != "1,7,8" {
		t.Errorf("the insert-only table holds %s instead of 1,7,8: what was inserted and nothing else", rows)
	}
	state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(state.GetWarnings(), func(w string) bool {
		return strings.Contains(w, "public.added") && strings.Contains(w, "only inserts")
	}) {
		t.Errorf("no standing warning about the insert-only table: %q", state.GetWarnings())
	}
}

// longestGap is how long statements may fail after a table has lost its identity, where the logger's role may not make an
// event trigger: docs/adr and the logger's own message say half a second, which is the time between two looks.
const longestGap = 10 * time.Second

// identityLost takes the identity away from captured tables while they are written to, and makes tables without one. With a
// superuser no statement ever fails; without one the documented gap is measured.
func (s *servers) identityLost(t *testing.T) {
	for _, superuser := range []bool{true, false} {
		t.Run(fmt.Sprintf("superuser %t", superuser), func(t *testing.T) {
			sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
			conn := pgtest.Connect(t, sourceURL)
			newRole(t, conn, "capturer", "REPLICATION")
			if superuser {
				pgtest.Exec(t, conn, "ALTER ROLE capturer SUPERUSER")
			}
			pgtest.Exec(t, conn, `GRANT CREATE ON DATABASE `+postgres.Ident(databaseOf(t, sourceURL))+` TO capturer; GRANT ALL ON SCHEMA public TO capturer;
				SET ROLE capturer;
				CREATE TABLE dropped (id int CONSTRAINT dropped_key PRIMARY KEY, v int); CREATE TABLE nothing (id int PRIMARY KEY, v int);
				CREATE TABLE by_index (id int NOT NULL, v int); CREATE UNIQUE INDEX by_index_id ON by_index (id); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id;
				CREATE TABLE parted (id int, day int, v int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
				CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
				CREATE TABLE kept (id int PRIMARY KEY, v int);
				INSERT INTO dropped VALUES (1, 0), (2, 0); INSERT INTO nothing VALUES (1, 0); INSERT INTO by_index VALUES (1, 0);
				INSERT INTO parted VALUES (1, 5, 0), (1, 15, 0); INSERT INTO kept VALUES (1, 0)`)
			primary, replica := startPrimary(t, asRole(t, sourceURL, "capturer")), startReplica(t, targetURL)
			replica.mustCreate("all", primary.grpc)
			replica.waitApplied("all", time.Minute)

			for _, step := range []struct{ table, sql string }{
				{"created", "CREATE TABLE created (id int, v int); INSERT INTO created VALUES (1, 0)"},
				{"dropped", "ALTER TABLE dropped DROP CONSTRAINT dropped_key"},
				{"nothing", "ALTER TABLE nothing REPLICA IDENTITY NOTHING"},
				{"by_index", "DROP INDEX by_index_id"},
				{"parted", "ALTER TABLE parted_1 REPLICA IDENTITY NOTHING"},
				{"attached", "CREATE TABLE attached (id int, day int, v int); INSERT INTO attached VALUES (1, 25, 0); ALTER TABLE attached REPLICA IDENTITY NOTHING; " +
					"ALTER TABLE attached ALTER id SET NOT NULL, ALTER day SET NOT NULL; ALTER TABLE parted ATTACH PARTITION attached FOR VALUES FROM (20) TO (30)"},
			} {
				pgtest.Exec(t, conn, step.sql)
				failed, gap := refusedFor(t, conn, step.table)
				t.Logf("%s: %d statements were refused, for %v", step.table, failed, gap)
				if superuser && failed > 0 || gap > longestGap {
					t.Errorf("%s: %d statements were refused, for %v", step.table, failed, gap)
				}
				requireWarning(t, primary, step.table)
			}
			pgtest.Exec(t, conn, "UPDATE kept SET v = 7; INSERT INTO kept VALUES (2, 2)")
			replica.waitApplied("all", time.Minute)
			pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Tables: []string{"public.kept"}})
			r, err := replica.get("all")
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{"dropped", "nothing", "by_index"} {
				if !slices.ContainsFunc(r.GetWarnings(), func(w string) bool { return strings.Contains(w, "public."+table) }) {
					t.Errorf("the replication does not warn that table %s stands still: %q", table, r.GetWarnings())
				}
			}
		})
	}
}

// quietAfter is how many statements in a row the server has to take until a gap is over, over at least two looks of the logger.
const quietAfter = 2 * time.Second

// refusedFor updates a table until the server has taken every statement for a while. It returns how many statements were
// refused, and the time until the last of them.
func refusedFor(t testing.TB, conn *pgx.Conn, table string) (failed int, gap time.Duration) {
	t.Helper()
	began := time.Now()
	last := began
	for time.Since(last) < quietAfter {
		if time.Since(began) > time.Minute {
			t.Fatalf("statements on table %s still fail after %v", table, time.Since(began))
		}
		for _, sql := range []string{"UPDATE %s SET v = v + 1", "INSERT INTO %s SELECT * FROM %[1]s", "DELETE FROM %s WHERE ctid NOT IN (SELECT min(ctid) FROM %[1]s)"} {
			_, err := conn.Exec(t.Context(), "BEGIN; "+fmt.Sprintf(sql, postgres.Ident(table))+"; ROLLBACK")
			switch code := postgres.Code(err); {
			case err == nil, code == "23505": // the second row of a key
			case code == "55000": // without a replica identity
				failed++
				last = time.Now()
				gap = last.Sub(began)
			default:
				t.Fatal(err)
			}
			if err != nil {
				pgtest.Exec(t, conn, "ROLLBACK")
			}
		}
	}
	return failed, gap
}

// requireWarning waits until the logger warns that a table is not captured.
func requireWarning(t testing.TB, primary *node, table string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		state, err := primary.logger().GetState(ctx, &loggerv1.GetStateRequest{})
		if err != nil {
			return err
		}
		name := "public." + table
		if table == "parted" {
			name = "public.parted_1"
		}
		if !slices.ContainsFunc(state.GetWarnings(), func(w string) bool { return strings.Contains(w, "table "+name+" is not captured") }) {
			return errors.New("no warning about table " + name + " in " + strings.Join(state.GetWarnings(), "; "))
		}
		return nil
	})
}
