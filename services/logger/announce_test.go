package logger

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// TestForgedAnnouncements has somebody without any privilege write what a follower would take for the logger's word, and
// what the logger really said once more.
func TestForgedAnnouncements(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	pgtest.Exec(t, conn, "CREATE TABLE b (id int PRIMARY KEY)")
	i.waitFor(t, "with table b", func(s *loggerv1.GetStateResponse) bool { return strings.Contains(fmt.Sprint(s.GetTables()), `"b"`) })

	role := fmt.Sprintf("forger_%d", conn.PgConn().PID())
	pgtest.Exec(t, conn, "CREATE ROLE "+role+" LOGIN")
	pgtest.Exec(t, conn, "GRANT INSERT ON a TO "+role)
	t.Cleanup(func() {
		admin, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer admin.Close(context.Background())
		if _, err := admin.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	forger := pgtest.Connect(t, url)
	pgtest.Exec(t, forger, "SET ROLE "+role)
	const forged = `{"captured":[{"oid":1,"schema":"public","name":"a"}],"removed":[{"oid":2,"schema":"public","name":"b"}]}`
	for _, sql := range []string{
		"INSERT INTO syncline.announcements VALUES ('syncline', '{}')", "SELECT FROM syncline.announcements", "TRUNCATE syncline.announcements",
		"CREATE TABLE syncline.announcement (publication text, content text)",
	} {
		if _, err := forger.Exec(t.Context(), sql); postgres.Code(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	pgtest.Exec(t, forger, "SELECT pg_logical_emit_message(true, 'syncline.tables', $1::text)", forged)
	pgtest.Exec(t, forger, "BEGIN; INSERT INTO a VALUES (1); SELECT pg_logical_emit_message(true, 'syncline.tables', '"+forged+"'); INSERT INTO a VALUES (2); COMMIT")
	// Whoever may write to the table may also announce for somebody else's publication, or in another operation.
	pgtest.Exec(t, conn, `BEGIN; INSERT INTO syncline.announcements VALUES ('another', '{"removed":[]}'); UPDATE syncline.announcements SET publication = 'syncline';
		DELETE FROM syncline.announcements; TRUNCATE syncline.announcements; INSERT INTO a VALUES (3); TRUNCATE syncline.announcements, a; INSERT INTO a VALUES (4); COMMIT`)
	to := i.barrier(t)

	r := follow(t, i, from, to)
	w.requireSame(t, url, r.history.done, to.GetLsn())
	var seen []string
	for _, x := range withoutBarriers(r.history.done) {
		for _, event := range x.events {
			seen = append(seen, strings.Join(strings.Fields(event)[:2], " "))
		}
	}
	want := "message syncline.tables|insert public.a|insert public.a|insert public.a|truncate [public.a]|insert public.a"
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("the log has\n%s, want\n%s", got, want)
	}
	for _, relation := range r.relations {
		if relation.GetSchema() == "syncline" {
			t.Errorf("followers get %v", relation)
		}
	}
	if warnings := strings.Join(i.state(t).GetWarnings(), "\n"); !strings.Contains(warnings, "syncline.tables") {
		t.Errorf("the state does not tell: %s", warnings)
	}
}

// TestForgeriesAreToldOnceAMinute bounds what is logged.
func TestForgeriesAreToldOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	f := forgeries{log: slog.New(slog.NewTextHandler(&out, nil)), status: &status{}}
	now := time.Unix(1e9, 0)
	for range 100_000 {
		f.dropped(7, 8, now)
		now = now.Add(time.Millisecond)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), "count=60000") || len(f.status.standing) != 1 {
		t.Errorf("%d lines, warnings %v:\n%s", lines, f.status.standing, &out)
	}
}
