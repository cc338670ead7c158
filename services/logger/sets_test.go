package logger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// readSet returns what a stream of a set holds between two positions, and the error that ended it.
func readSet(t testing.TB, i *instance, from, to *changev1.Position, set string, parameters map[string]string) (*reader, error) {
	t.Helper()
	r := &reader{t: t}
	err := r.read(t.Context(), i.client, &loggerv1.FollowRequest{Position: from, ToLsn: to.GetLsn(), Set: set, Parameters: parameters})
	return r, err
}

func mustMakeSet(t testing.TB, i *instance, name string, tables ...*loggerv1.SetTable) *loggerv1.Set {
	t.Helper()
	answer, err := i.client.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: name, Spec: &loggerv1.SetSpec{Tables: tables}})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	return answer.GetSet()
}

// TestSetStream tells what becomes of each operation whose row enters a set, stays, leaves it, or was never in it.
func TestSetStream(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
		CREATE TABLE whole (id int PRIMARY KEY, org text, body text); ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE keyed (org text, id int, body text, PRIMARY KEY (org, id)); ALTER TABLE keyed ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE parted (org text, id int, PRIMARY KEY (org, id)) PARTITION BY RANGE (id);
		CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
		CREATE TABLE tagged (id int PRIMARY KEY, tag text, body text); ALTER TABLE tagged REPLICA IDENTITY FULL; ALTER TABLE tagged ALTER tag SET STORAGE EXTERNAL;
		CREATE TABLE other (id int PRIMARY KEY)`)
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	mine := `{"org": {"$param": "org"}}`
	mustMakeSet(t, i, "mine", &loggerv1.SetTable{Pattern: "public.whole", Rows: mine}, &loggerv1.SetTable{Pattern: "public.keyed", Rows: mine},
		&loggerv1.SetTable{Pattern: "public.parted", Rows: mine}, &loggerv1.SetTable{Pattern: "public.tagged", Rows: `{"tag": {"$regex": "^in"}}`})
	large := strings.Repeat("x", 5000)
	acme := map[string]string{"org": "a"}
	for _, c := range []struct {
		name, before, do string
		want             []string
	}{
		{"never in it", "INSERT INTO whole VALUES (1, 'b')", "UPDATE whole SET body = 'c'; DELETE FROM whole", nil},
		{"null is not in it", "INSERT INTO whole VALUES (1, NULL)", "UPDATE whole SET body = 'c'; DELETE FROM whole", nil},
		{"stays", "INSERT INTO whole VALUES (1, 'a', 'b')", "UPDATE whole SET body = 'c'; DELETE FROM whole", []string{"update", "delete"}},
		{"enters", "INSERT INTO whole VALUES (1, 'b', '" + large + "')", "UPDATE whole SET org = 'a'", []string{"insert"}},
		{"leaves", "INSERT INTO whole VALUES (1, 'a', '" + large + "')", "UPDATE whole SET org = 'b'", []string{"delete"}},
		{"leaves and comes back", "INSERT INTO whole VALUES (1, 'a', 'b')", "BEGIN; UPDATE whole SET org = NULL; UPDATE whole SET org = 'a'; COMMIT", []string{"delete", "insert"}},
		{"enters by its key", "INSERT INTO keyed VALUES ('b', 1, 'c')", "UPDATE keyed SET org = 'a'", []string{"insert"}},
		{"leaves by its key", "INSERT INTO keyed VALUES ('a', 1, 'c')", "UPDATE keyed SET org = 'b'", []string{"delete"}},
		{"another key", "INSERT INTO keyed VALUES ('a', 1, '" + large + "')", "UPDATE keyed SET id = 2", []string{"update"}},
		{"the same key", "INSERT INTO keyed VALUES ('a', 1, 'c'), ('b', 1, 'c')", "UPDATE keyed SET body = 'd'", []string{"update"}},
		// The column that decides is stored out of line, and an update that leaves it alone does not log it again.
		{"stays, by a value that does not come", "INSERT INTO tagged VALUES (1, 'in" + large + "', 'b'), (2, 'out" + large + "', 'b')", "UPDATE tagged SET body = 'c'", []string{"update"}},
		{"leaves by a large value", "INSERT INTO tagged VALUES (1, 'in" + large + "', 'b')", "UPDATE tagged SET tag = 'out' || tag; UPDATE tagged SET body = 'c'", []string{"delete"}},
		{"enters by a large value", "INSERT INTO tagged VALUES (1, 'out" + large + "', 'b')", "UPDATE tagged SET tag = 'in' || tag; UPDATE tagged SET body = 'c'; DELETE FROM tagged",
			[]string{"insert", "update", "delete"}},
		{"a partition", "INSERT INTO parted VALUES ('b', 1), ('a', 2)", "UPDATE parted SET org = 'a' WHERE id = 1; DELETE FROM parted", []string{"insert", "delete", "delete"}},
		{"a table that is not in it", "INSERT INTO other VALUES (1)", "DELETE FROM other; SELECT pg_logical_emit_message(true, 'mine', 'text')", nil},
		{"a truncate of both", "", "TRUNCATE whole, other", []string{"truncate"}},
		{"a large transaction", "", "INSERT INTO whole SELECT n, CASE WHEN n % 100 = 0 THEN 'a' ELSE 'b' END, repeat('y', 1000) FROM generate_series(1, 3000) n",
			slices.Repeat([]string{"insert"}, 30)},
		{"a large value", "", "INSERT INTO whole VALUES (1, 'a', repeat('z', 3000000)), (2, 'b', repeat('z', 3000000))", []string{"insert"}},
	} {
		pgtest.Exec(t, conn, "TRUNCATE whole, keyed, parted, tagged, other; "+c.before)
		from := i.barrier(t)
		pgtest.Exec(t, conn, c.do)
		to := i.barrier(t)
		r, err := readSet(t, i, from, to, "mine", acme)
		if err != nil {
			t.Fatalf("%s: %s", c.name, rpc.Message(err))
		}
		var got []string
		count := 0
		for _, done := range r.history.done {
			count += done.count
			for _, event := range done.events {
				got = append(got, strings.ToLower(strings.Fields(event)[0]))
			}
		}
		if len(c.want) > eventsKept {
			got = slices.Repeat([]string{"insert"}, count)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q\n%v", c.name, got, c.want, r.history.done)
		}
		if r.position.GetLsn() < to.GetLsn() {
			t.Errorf("%s: the stream ends at %v, before %v", c.name, r.position, to)
		}
		for _, relation := range r.relations {
			if relation.GetName() == "other" {
				t.Errorf("%s: the stream describes a table that is not in the set", c.name)
			}
		}
	}

	// A row that enters without its large value cannot be made up.
	pgtest.Exec(t, conn, "TRUNCATE keyed; INSERT INTO keyed VALUES ('b', 1, '"+large+"')")
	from := i.barrier(t)
	pgtest.Exec(t, conn, "UPDATE keyed SET org = 'a'")
	if _, err := readSet(t, i, from, i.barrier(t), "mine", acme); rpc.Reason(err) != ReasonSetUndecidable || !strings.Contains(rpc.Message(err), `ALTER TABLE "public"."keyed" REPLICA IDENTITY FULL`) {
		t.Errorf("a row without its value: %v", err)
	}
	// So cannot be judged what loses the columns that decide.
	from = i.barrier(t)
	pgtest.Exec(t, conn, "ALTER TABLE whole REPLICA IDENTITY DEFAULT; DELETE FROM whole WHERE id = 1")
	if _, err := readSet(t, i, from, i.barrier(t), "mine", acme); rpc.Reason(err) != ReasonSetUndecidable {
		t.Errorf("a delete that does not tell: %v", err)
	}
}

// TestSetMarks follows a set of which nothing changes: the position moves all the same, and a bounded stream ends.
func TestSetMarks(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE mine (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	mustMakeSet(t, i, "mine", &loggerv1.SetTable{Pattern: "public.mine"})
	from := i.barrier(t)
	for n := range 50 {
		pgtest.Exec(t, conn, fmt.Sprintf("INSERT INTO other VALUES (%d)", n))
	}
	to := i.barrier(t)
	r := &reader{t: t}
	if err := r.read(t.Context(), i.client, &loggerv1.FollowRequest{Position: from, Set: "mine", Wait: durationpb.New(0)}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	if len(r.history.done) != 0 || r.ended.GetMore() || r.ended.GetPosition().GetLsn() < to.GetLsn() {
		t.Errorf("%d transactions, ended %v, want %v", len(r.history.done), r.ended, to)
	}
	if r.blocks > 10 {
		t.Errorf("%d marks were sent at once", r.blocks)
	}
}

// TestSetChanges changes and deletes a set under its followers, also by a logger that has just started.
func TestSetChanges(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE mine (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	made := mustMakeSet(t, i, "mine", &loggerv1.SetTable{Pattern: "public.mine"})
	ended := func(i *instance, version int64) chan error {
		failed, started := make(chan error, 1), make(chan struct{})
		go func() {
			stream, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Set: "mine", SetVersion: version, Heartbeat: durationpb.New(minHeartbeat)})
			for first := true; err == nil; first = false {
				if _, err = stream.Recv(); first {
					close(started)
				}
			}
			failed <- err
		}()
		select {
		case <-started:
		case <-time.After(patience):
			t.Fatal("the stream does not begin")
		}
		return failed
	}
	expect := func(failed chan error, reason string) {
		t.Helper()
		select {
		case err := <-failed:
			if rpc.Reason(err) != reason {
				t.Errorf("ended with %v, want %s", err, reason)
			}
		case <-time.After(patience):
			t.Fatalf("the stream does not end with %s", reason)
		}
	}
	following := ended(i, made.GetVersion())
	updated, err := i.client.UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "mine", Spec: &loggerv1.SetSpec{Description: "all"}})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	expect(following, ReasonSetChanged)
	i.stop()
	i = start(t, cfg)
	i.waitCapturing(t)
	found, err := i.client.GetSet(t.Context(), &loggerv1.GetSetRequest{Name: "mine"})
	if err != nil || found.GetSet().String() != updated.GetSet().String() {
		t.Errorf("after a restart: %v, %v; want %v", found, err, updated)
	}
	following = ended(i, updated.GetSet().GetVersion())
	if _, err := i.client.DeleteSet(t.Context(), &loggerv1.DeleteSetRequest{Name: "mine"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	expect(following, ReasonSetUnknown)
	// One that is made anew is not the old one, whatever it selects.
	if again := mustMakeSet(t, i, "mine"); again.GetVersion() <= updated.GetSet().GetVersion() {
		t.Errorf("version %d after %d", again.GetVersion(), updated.GetSet().GetVersion())
	}
}
