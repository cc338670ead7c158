package logger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(runChild())
	}
	os.Exit(pgtest.Main(m))
}

// TestEvents compares every kind of event with what an independent slot delivers.
func TestEvents(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
		CREATE TABLE a (id int PRIMARY KEY, v text, big text, at timestamptz DEFAULT now(), d double precision, raw bytea, doc jsonb);
		ALTER TABLE a ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE whole (v text, big text); ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE lines (n int, v text);
		CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (id int PRIMARY KEY, m mood, g int GENERATED ALWAYS AS (id * 2) STORED);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE ref (id int PRIMARY KEY REFERENCES parent);
		CREATE TABLE parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
		CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
		CREATE SCHEMA "Odd ""S"; CREATE TABLE "Odd ""S"."T ü" ("Key ""K" int PRIMARY KEY, "select" text)`)
	cfg := testConfig(t, url)
	cfg.InsertOnly = []string{"public.lines"}
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)

	for _, sql := range []string{
		`INSERT INTO a (id, v, big, d, raw) VALUES (1, 'one', repeat('x', 20000), 0.1, '\x00ff'), (2, NULL, '', 'NaN', '')`,
		`UPDATE a SET v = 'uno' WHERE id = 1`,              // big is unchanged and not in the stream
		`UPDATE a SET id = 10 WHERE id = 1`,                // the key changes
		`UPDATE a SET doc = '{"a": [1, "ü"]}', big = NULL`, // several rows
		`DELETE FROM a WHERE id = 2`,
		`INSERT INTO whole VALUES ('a', repeat('y', 9000)), ('a', repeat('y', 9000)), (NULL, NULL)`,
		`UPDATE whole SET v = 'b' WHERE v = 'a'`,
		`DELETE FROM whole WHERE v IS NULL`,
		`INSERT INTO lines VALUES (1, 'x')`, `UPDATE lines SET n = 2`, `DELETE FROM lines`, `TRUNCATE lines`,
		`INSERT INTO moods (id, m) VALUES (1, 'ok')`, `UPDATE moods SET m = 'sad'`,
		`INSERT INTO parent VALUES (1)`, `INSERT INTO ref VALUES (1)`, `TRUNCATE parent CASCADE`, `TRUNCATE moods RESTART IDENTITY`,
		`INSERT INTO parted VALUES (1, 5), (1, 15)`, `UPDATE parted SET day = 16 WHERE day = 5`, `DELETE FROM parted`, `TRUNCATE parted`,
		`INSERT INTO "Odd ""S"."T ü" VALUES (1, 'a' || chr(8364))`, `UPDATE "Odd ""S"."T ü" SET "select" = E'\\ '' "'`,
		// savepoints and rollbacks
		`BEGIN; INSERT INTO a (id) VALUES (20); SAVEPOINT s; INSERT INTO a (id) VALUES (21); ROLLBACK TO s; INSERT INTO a (id) VALUES (22); RELEASE s; COMMIT`,
		`BEGIN; INSERT INTO a (id) VALUES (30); ROLLBACK`,
		`BEGIN; INSERT INTO a (id) VALUES (40); PREPARE TRANSACTION 'events_no'`, `ROLLBACK PREPARED 'events_no'`,
		`BEGIN; INSERT INTO a (id) VALUES (41); PREPARE TRANSACTION 'events_yes'`, `INSERT INTO a (id) VALUES (42)`, `COMMIT PREPARED 'events_yes'`,
		// messages
		`SELECT pg_logical_emit_message(true, 'mine', E'\\x0001'::bytea)`,
		`SELECT pg_logical_emit_message(false, 'mine', 'dropped')`,
		`BEGIN; SELECT pg_logical_emit_message(true, 'mine', 'gone'), pg_logical_emit_message(false, 'mine', 'dropped too'); ROLLBACK`,
		`BEGIN; SELECT pg_logical_emit_message(true, 'syncline.origin', '{"server_id":"s1","log_id":"000102030405060708090a0b0c0d0e0f","lsn":"18446744073709551615","commit_time":"-5"}');
		 INSERT INTO a (id) VALUES (50); SELECT pg_logical_emit_message(false, 'mine', 'dropped inside'); COMMIT`,
		`SELECT pg_logical_emit_message(true, 'syncline.origin', 'no JSON')`,
		`CREATE TABLE later (id int PRIMARY KEY)`,
		// a table's shape changes in the middle
		`BEGIN; INSERT INTO a (id) VALUES (60); ALTER TABLE a DROP COLUMN v, ADD COLUMN w int DEFAULT 7; INSERT INTO a (id) VALUES (61); COMMIT`,
	} {
		pgtest.Exec(t, conn, sql)
	}
	origin := fmt.Sprintf("origin_%d", conn.PgConn().PID())
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_create($1)", origin)
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_session_setup($1)", origin)
	pgtest.Exec(t, conn, "BEGIN; SELECT pg_replication_origin_xact_setup('0/123', '2026-01-02 03:04:05+00'); INSERT INTO a (id) VALUES (70); COMMIT")
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_session_reset()")
	pgtest.Exec(t, conn, "SELECT pg_replication_origin_drop($1)", origin)

	to := i.barrier(t)
	r := follow(t, i, from, to)
	w.requireSame(t, url, r.history.done, to.GetLsn())
	all := ""
	for _, x := range r.history.done {
		all += strings.Join(x.events, "\n") + "\n"
	}
	for _, want := range []string{
		"origin s1 18446744073709551615 -5", "origin " + origin, "message mine 0001", "truncate [public.parent public.ref] true false",
		"truncate [public.moods] false true", `insert Odd "S.T ü`, "message syncline.origin 6e6f204a534f4e", "insert public.parted_2", "truncate [public.lines] false false",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
	for _, not := range []string{"gone", "dropped", "update public.lines", "delete public.lines"} {
		if strings.Contains(all, not) {
			t.Errorf("%q is in\n%s", not, all)
		}
	}
	// The stream has to be the same from each position in it.
	for n := 0; n < len(r.history.done); n += 7 {
		at := &changev1.Position{LogId: from.GetLogId(), Lsn: r.history.done[n].end}
		part := follow(t, i, at, to).history.done
		if len(part) != len(r.history.done)-n-1 || len(part) > 0 && part[0].digest != r.history.done[n+1].digest {
			t.Errorf("from %v: %d transactions of %d", at, len(part), len(r.history.done)-n-1)
		}
	}
	state := i.state(t)
	if state.GetChanges() == 0 || state.GetTransactions() < int64(len(r.history.done)) || state.GetLogBytes() == 0 || state.GetLastCommitTime() == nil ||
		!slices.Contains(state.GetTables(), `"public"."parted_1"`) || state.GetServerId() != cfg.ServerID {
		t.Errorf("state: %v", state)
	}
}

func TestPositions(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	begin := i.barrier(t)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (1)")
	end := i.barrier(t)
	if got := withoutBarriers(follow(t, i, begin, end).history.done); len(got) != 1 || got[0].events[0] != `insert public.a  t"1" ` {
		t.Errorf("after a barrier: %v", got)
	}
	if got := withoutBarriers(follow(t, i, nil, end).history.done); len(got) < 1 || got[len(got)-1].events[0] != `insert public.a  t"1" ` {
		t.Errorf("from the start: %v", got)
	}
	ranges, err := i.client.GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
	if err != nil || ranges.GetLogId() != end.GetLogId() || ranges.GetFirstLsn() == 0 || ranges.GetLastLsn() < end.GetLsn() || ranges.GetBytes() == 0 {
		t.Errorf("ranges: %v, %v", ranges, err)
	}
	// A stream that begins now shows only what comes.
	follower := &reader{t: t}
	stream, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Heartbeat: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	follower.relations = make(map[string]*changev1.Relation)
	for follower.beats < 3 {
		answer, err := stream.Recv()
		if err == nil {
			err = follower.take(answer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(follower.history.done) != 0 || follower.lastBeat.GetHead().GetLsn() < end.GetLsn() {
		t.Errorf("now: %v, %v", follower.history.done, follower.lastBeat)
	}
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (2)")
	for len(follower.history.done) == 0 {
		answer, err := stream.Recv()
		if err == nil {
			err = follower.take(answer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if follower.history.done[0].events[0] != `insert public.a  t"2" ` {
		t.Errorf("now: %v", follower.history.done)
	}

	other := strings.Repeat("ab", 16)
	for _, c := range []struct {
		name    string
		request *loggerv1.FollowRequest
		code    codes.Code
		reason  string
	}{
		{"nothing", &loggerv1.FollowRequest{}, codes.InvalidArgument, rpc.ReasonInvalid},
		{"both", &loggerv1.FollowRequest{Position: end, Start: loggerv1.Start_START_NOW}, codes.InvalidArgument, rpc.ReasonInvalid},
		{"no log id", &loggerv1.FollowRequest{Position: &changev1.Position{LogId: "x", Lsn: 1}}, codes.InvalidArgument, rpc.ReasonInvalid},
		{"zero", &loggerv1.FollowRequest{Position: &changev1.Position{LogId: end.GetLogId()}}, codes.InvalidArgument, rpc.ReasonInvalid},
		{"heartbeat too short", &loggerv1.FollowRequest{Position: end, Heartbeat: durationpb.New(time.Millisecond)}, codes.InvalidArgument, rpc.ReasonInvalid},
		{"another log", &loggerv1.FollowRequest{Position: &changev1.Position{LogId: other, Lsn: end.GetLsn()}}, codes.OutOfRange, ReasonLogIDMismatch},
		{"too old", &loggerv1.FollowRequest{Position: &changev1.Position{LogId: end.GetLogId(), Lsn: ranges.GetFirstLsn() - 1}}, codes.OutOfRange, ReasonPositionTooOld},
		{"ahead", &loggerv1.FollowRequest{Position: &changev1.Position{LogId: end.GetLogId(), Lsn: end.GetLsn() + 1<<40}}, codes.OutOfRange, ReasonPositionAhead},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := new(reader).read(t.Context(), i.client, c.request)
			if rpc.Code(err) != c.code || rpc.Reason(err) != c.reason {
				t.Errorf("got %v, reason %q", err, rpc.Reason(err))
			}
			if c.code == codes.OutOfRange {
				meta := rpc.Metadata(err)
				if meta["log_id"] != end.GetLogId() || meta["first_lsn"] != change.LSN(ranges.GetFirstLsn()).String() || meta["last_lsn"] == "" {
					t.Errorf("metadata %v", meta)
				}
			}
		})
	}
}

// TestPositionsInsideLargeTransaction follows from positions that lie between two transactions, of which the later one is larger
// than a block: its beginning ends, as a block, before them.
func TestPositionsInsideLargeTransaction(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	before := i.barrier(t)
	const rows = 2000
	pgtest.Exec(t, conn, "INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, $1) i", rows)
	end := i.barrier(t)
	whole := follow(t, i, before, end)
	if got := withoutBarriers(whole.history.done); len(got) != 1 || got[0].count != rows || whole.blocks < 5 {
		t.Fatalf("%d blocks: %v", whole.blocks, got)
	}
	large := withoutBarriers(whole.history.done)[0]
	for _, at := range []uint64{before.GetLsn() + 1, (before.GetLsn() + large.end) / 2, large.end - 100} {
		got := follow(t, i, &changev1.Position{LogId: before.GetLogId(), Lsn: at}, end)
		if done := withoutBarriers(got.history.done); len(done) != 1 || done[0].count != rows || done[0].digest != large.digest {
			t.Errorf("from %v, between %v and %v: %v", change.LSN(at), change.LSN(before.GetLsn()), change.LSN(large.end), done)
		}
	}
	if got := withoutBarriers(follow(t, i, &changev1.Position{LogId: before.GetLogId(), Lsn: large.end}, end).history.done); len(got) != 0 {
		t.Errorf("from its end: %v", got)
	}
}

// TestFollowers checks that all followers see the same bytes, that PostgreSQL has one slot and walsender for all of them,
// and that one that reads nothing keeps no other back.
func TestFollowers(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	slow, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Position: from, Follower: "slow"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Recv(); err != nil {
		t.Fatal(err)
	}
	const count = 8
	type result struct {
		r   *reader
		err error
	}
	for n := range 200 {
		pgtest.Exec(t, conn, "INSERT INTO a SELECT $1 * 1000 + i, repeat(md5(i::text), 30) FROM generate_series(1, 200) i", n)
	}
	to := i.barrier(t)
	results := make(chan result, count)
	for n := range count {
		go func() {
			r := &reader{t: t}
			err := r.read(t.Context(), i.client, &loggerv1.FollowRequest{Position: from, ToLsn: to.GetLsn(), Follower: fmt.Sprint("follower ", n)})
			results <- result{r, err}
		}()
	}
	var first *reader
	for range count {
		got := <-results
		if got.err != nil {
			t.Fatal(got.err)
		}
		if first == nil {
			first = got.r
		}
		if got.r.digest != first.digest || got.r.blocks != first.blocks || len(withoutBarriers(got.r.history.done)) != 200 {
			t.Errorf("%d blocks, %d transactions, first follower had %d blocks", got.r.blocks, len(got.r.history.done), first.blocks)
		}
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 1 {
		t.Errorf("%d slots", n)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.database = current_database()"); n != 1 {
		t.Errorf("%d walsenders", n)
	}

	// What followers report is kept over a restart of the logger.
	if _, err := i.client.ReportApplied(t.Context(), &loggerv1.ReportAppliedRequest{Follower: "slow", Position: from}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.client.ReportApplied(t.Context(), &loggerv1.ReportAppliedRequest{Follower: "gone", Position: to}); err != nil {
		t.Fatal(err)
	}
	for name, position := range map[string]*changev1.Position{
		ReasonPositionAhead: {LogId: to.GetLogId(), Lsn: to.GetLsn() + 1<<40}, ReasonLogIDMismatch: {LogId: strings.Repeat("00", 16), Lsn: 1},
	} {
		if _, err := i.client.ReportApplied(t.Context(), &loggerv1.ReportAppliedRequest{Follower: "slow", Position: position}); rpc.Reason(err) != name {
			t.Errorf("report of a wrong position: %v", err)
		}
	}
	list, err := i.client.ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	if err != nil || len(list.GetFollowers()) != 2 {
		t.Fatal(list, err)
	}
	if f := list.GetFollowers()[1]; f.GetName() != "slow" || !f.GetConnected() || f.GetLagBytes() == 0 || f.GetAddress() == "" || f.GetApplied().GetLsn() != from.GetLsn() {
		t.Errorf("slow follower: %v", f)
	}
	if _, err := i.client.DeleteFollower(t.Context(), &loggerv1.DeleteFollowerRequest{Follower: "slow"}); rpc.Reason(err) != ReasonFollowerConnected {
		t.Errorf("delete a connected follower: %v", err)
	}
	// A follower that comes back takes the place of its old stream.
	again, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Position: from, Follower: "slow"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Recv(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = slow.Recv()
	}
	if rpc.Reason(err) != ReasonFollowerReplaced {
		t.Errorf("the old stream ended with %v", err)
	}
	i.stop()

	i = start(t, cfg)
	i.waitCapturing(t)
	pgtest.Eventually(t, patience, func() error {
		list, err = i.client.ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
		if err != nil || len(list.GetFollowers()) != 2 || list.GetFollowers()[0].GetApplied().GetLsn() != to.GetLsn() || list.GetFollowers()[0].GetConnected() {
			return fmt.Errorf("followers after a restart: %v, %w", list, err)
		}
		return nil
	})
	if _, err := i.client.DeleteFollower(t.Context(), &loggerv1.DeleteFollowerRequest{Follower: "gone"}); err != nil {
		t.Error(err)
	}
	if _, err := i.client.DeleteFollower(t.Context(), &loggerv1.DeleteFollowerRequest{Follower: "gone"}); rpc.Code(err) != codes.NotFound {
		t.Errorf("deleted twice: %v", err)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM syncline.followers"); n != 1 {
		t.Errorf("%d followers in the table", n)
	}
}

func TestTooManyFollowers(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	cfg := testConfig(t, url)
	cfg.MaxFollowers = 1
	i := start(t, cfg)
	i.waitCapturing(t)
	stream, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	err = new(reader).read(t.Context(), i.client, &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW})
	if rpc.Code(err) != codes.ResourceExhausted || rpc.Reason(err) != ReasonTooManyFollowers {
		t.Errorf("second follower: %v", err)
	}
}

// TestTablesComeAndGo follows the state while tables appear, lose their identity and get it back. Statements on them never
// fail for longer than a look at the catalog takes, and capture goes on.
func TestTablesComeAndGo(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	captured := func(name string) func(*loggerv1.GetStateResponse) bool {
		return func(s *loggerv1.GetStateResponse) bool { return slices.Contains(s.GetTables(), name) }
	}
	pgtest.Exec(t, conn, "CREATE TABLE keyless (id int); CREATE TABLE b (id int PRIMARY KEY)")
	pgtest.Exec(t, conn, "INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2; DELETE FROM keyless")
	state := i.waitFor(t, "with table b", captured(`"public"."b"`))
	pgtest.Exec(t, conn, "INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2; DELETE FROM keyless")
	if captured(`"public"."keyless"`)(state) || !strings.Contains(strings.Join(state.GetWarnings(), "\n"), "table public.keyless is not captured: it has no primary key") {
		t.Errorf("keyless table: %v", state)
	}
	pgtest.Exec(t, conn, "INSERT INTO b VALUES (1)")
	pgtest.Exec(t, conn, "BEGIN; ALTER TABLE b DROP CONSTRAINT b_pkey; UPDATE b SET id = 1; COMMIT; UPDATE b SET id = 1")
	i.waitFor(t, "without table b", func(s *loggerv1.GetStateResponse) bool { return !captured(`"public"."b"`)(s) })
	pgtest.Exec(t, conn, "UPDATE b SET id = 2; DELETE FROM b; INSERT INTO b VALUES (3)")
	pgtest.Exec(t, conn, "ALTER TABLE b ADD PRIMARY KEY (id)")
	i.waitFor(t, "with table b again", captured(`"public"."b"`))
	pgtest.Exec(t, conn, "UPDATE b SET id = 4; DROP TABLE a")
	i.waitFor(t, "without table a", func(s *loggerv1.GetStateResponse) bool { return !captured(`"public"."a"`)(s) })
	to := i.barrier(t)
	var events []string
	for _, x := range follow(t, i, from, to).history.done {
		for _, event := range x.events {
			if strings.Contains(event, "public.") || strings.Contains(event, "syncline.tables") {
				events = append(events, strings.Fields(event)[0]+" "+strings.Fields(event)[1])
			}
		}
	}
	want := "message syncline.tables|insert public.b|message syncline.tables|message syncline.tables|update public.b"
	if got := strings.Join(events, "|"); got != want {
		t.Errorf("events\n%s, want\n%s", got, want)
	}

	// A restart with a keyless table present goes on: it is an error at the first start only.
	i.stop()
	i = start(t, cfg)
	if state := i.waitCapturing(t); !strings.Contains(strings.Join(state.GetWarnings(), "\n"), "public.keyless") {
		t.Errorf("after a restart: %v", state)
	}
	if again := i.barrier(t); again.GetLogId() != to.GetLogId() {
		t.Error("the restart began a new log")
	}
}

func TestCheck(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE keyless (id int); CREATE TABLE named (id int)")
	left := func() int {
		return pgtest.QueryRow[int](t, conn, `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
			+ (SELECT count(*) FROM pg_publication)`)
	}
	check := func(edit func(*Config)) *SetupError {
		t.Helper()
		cfg := testConfig(t, url)
		edit(&cfg)
		service, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var setup *SetupError
		if err := service.Check(t.Context()); err != nil && !errors.As(err, &setup) {
			t.Fatal(err)
		}
		return setup
	}
	refused := check(func(*Config) {})
	if refused == nil || refused.Code() != CodeTableRefused || len(refused.Problems) != 2 {
		t.Fatalf("keyless tables: %v", refused)
	}
	for _, way := range []string{`table public.keyless`, `ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL`, "--exclude-table public.keyless", "--insert-only-table public.named"} {
		if !strings.Contains(refused.Error(), way) {
			t.Errorf("%q is missing in %v", way, refused)
		}
	}
	if setup := check(func(c *Config) { c.Exclude, c.InsertOnly = []string{"public.keyless"}, []string{"public.named"} }); setup != nil {
		t.Errorf("with ways out taken: %v", setup)
	}
	if setup := check(func(c *Config) { c.Include = []string{"public.nope"} }); setup == nil || setup.Code() != CodeTableUnknown || !strings.Contains(setup.Error(), "public.nope") {
		t.Errorf("unknown table: %v", setup)
	}
	pgtest.Exec(t, conn, "DROP TABLE keyless, named")

	role := fmt.Sprintf("checked_%d", conn.PgConn().PID())
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	pgtest.Exec(t, conn, "CREATE ROLE "+role+" LOGIN; GRANT USAGE ON SCHEMA syncline TO "+role)
	t.Cleanup(func() {
		conn, err := pgx.Connect(t.Context(), url)
		if err == nil {
			defer conn.Close(t.Context())
		}
	})
	setup := check(func(c *Config) { c.PostgresURL = withUser(t, url, role) })
	if setup == nil || len(setup.Problems) != 5 {
		t.Fatalf("plain role: %v", setup)
	}
	for _, way := range []string{"ALTER ROLE \"" + role + "\" REPLICATION", "GRANT CREATE ON DATABASE", "syncline.announcements, which belongs to postgres", "ON ALL TABLES IN SCHEMA syncline TO", "ALTER TABLE \"public\".\"a\" OWNER TO"} {
		if !strings.Contains(setup.Error(), way) {
			t.Errorf("%q is missing in %v", way, setup)
		}
	}
	pgtest.Exec(t, conn, "DROP OWNED BY "+role+"; DROP ROLE "+role)

	pgtest.Exec(t, conn, "SELECT pg_create_logical_replication_slot('taken_' || pg_backend_pid(), 'test_decoding')")
	if setup := check(func(c *Config) { c.Slot = fmt.Sprintf("taken_%d", conn.PgConn().PID()) }); setup == nil || setup.Code() != CodeSlotForeign {
		t.Errorf("foreign slot: %v", setup)
	}
	pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot('taken_' || pg_backend_pid())")
	beside := pgtest.Connect(t, pgtest.Shared(t).Database(t)) // a database of the same server, with a primary of its own
	pgtest.Exec(t, beside, "SELECT pg_create_logical_replication_slot('beside_' || pg_backend_pid(), 'pgoutput')")
	if setup := check(func(c *Config) { c.Slot = fmt.Sprintf("beside_%d", beside.PgConn().PID()) }); setup == nil || setup.Code() != CodeSlotForeign ||
		!strings.Contains(setup.Error(), "choose another name with --slot") || strings.Contains(setup.Error(), "drop") {
		t.Errorf("slot of another database: %v", setup)
	}
	pgtest.Exec(t, beside, "SELECT pg_drop_replication_slot('beside_' || pg_backend_pid())")
	pgtest.Exec(t, conn, "CREATE PUBLICATION syncline FOR ALL TABLES")
	if setup := check(func(*Config) {}); setup == nil || setup.Code() != CodePublicationForeign {
		t.Errorf("foreign publication: %v", setup)
	}
	pgtest.Exec(t, conn, "DROP PUBLICATION syncline")
	if n := left(); n != 0 {
		t.Errorf("checks have left %d things", n)
	}
	for name, edit := range map[string]func(*Config){
		"slot":    func(c *Config) { c.Slot = `x"; DROP` },
		"pattern": func(c *Config) { c.Exclude = []string{"a.b.c"} }, "dir": func(c *Config) { c.Dir = "" },
		"rows": func(c *Config) { c.MaxRowBytes = 5 }, "publication": func(c *Config) { c.Publication = "A" },
	} {
		cfg := testConfig(t, url)
		edit(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func withUser(t testing.TB, url, role string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("postgres://%s@%s:%d/%s", role, cfg.Host, cfg.Port, cfg.Database)
}

// TestLeastPrivileges captures as a role that owns its tables, may replicate and may create in its database, and no more.
func TestLeastPrivileges(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	admin := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, admin, "CREATE ROLE plain LOGIN REPLICATION; GRANT CREATE ON SCHEMA public TO plain")
	database := pgtest.QueryRow[string](t, admin, "SELECT current_database()::text")
	pgtest.Exec(t, admin, `GRANT CREATE ON DATABASE "`+database+`" TO plain; CREATE TABLE not_mine (id int PRIMARY KEY)`)
	url := withUser(t, server.URL(database), "plain")
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE mine (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.not_mine"}
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	pgtest.Exec(t, conn, "INSERT INTO mine VALUES (1)")
	pgtest.Exec(t, admin, "INSERT INTO not_mine VALUES (1); SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
	to := i.barrier(t)
	if got := withoutBarriers(follow(t, i, from, to).history.done); len(got) != 1 || got[0].count != 1 {
		t.Errorf("got %v", got)
	}
	if _, err := i.client.ReportApplied(t.Context(), &loggerv1.ReportAppliedRequest{Follower: "f", Position: to}); err != nil {
		t.Error(err)
	}
	i.stop()
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM syncline.followers"); n != 1 {
		t.Errorf("%d followers are saved", n)
	}
}

// TestFirstStartWaitsForWriters starts while transactions write: the state names them.
func TestFirstStartWaitsForWriters(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	url := server.Database(t)
	writer, preparer := pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, writer, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	pgtest.Exec(t, writer, "SET application_name = 'busy writer'; BEGIN; INSERT INTO a VALUES (1)")
	pgtest.Exec(t, preparer, "BEGIN; INSERT INTO a VALUES (2); PREPARE TRANSACTION 'forgotten'")
	i := start(t, cfg)
	state := i.waitFor(t, "waiting", func(s *loggerv1.GetStateResponse) bool { return s.GetReasonCode() == "WAITS_FOR_TRANSACTIONS" })
	if !strings.Contains(state.GetReason(), "busy writer") || !strings.Contains(state.GetReason(), "prepared transaction forgotten") {
		t.Errorf("reason %q", state.GetReason())
	}
	pgtest.Exec(t, writer, "COMMIT")
	pgtest.Exec(t, preparer, "COMMIT PREPARED 'forgotten'")
	i.waitCapturing(t)
	to := i.barrier(t)
	if got := withoutBarriers(follow(t, i, nil, to).history.done); len(got) != 0 {
		t.Errorf("the log begins with %v, which was committed before its start", got)
	}
}

// TestPurgedPosition purges what a follower still wants.
func TestPurgedPosition(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id serial PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	cfg.MaxBytes = 1 << 20
	i := start(t, cfg)
	i.waitCapturing(t)
	old := i.barrier(t)
	slow, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Position: old})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		pgtest.Exec(t, conn, "INSERT INTO a (v) SELECT repeat('x', 1000) FROM generate_series(1, 200)")
	}
	end := i.barrier(t)
	if err := i.changes.Purge(); err != nil {
		t.Fatal(err)
	}
	err = new(reader).read(t.Context(), i.client, &loggerv1.FollowRequest{Position: old})
	if rpc.Code(err) != codes.OutOfRange || rpc.Reason(err) != ReasonPositionTooOld {
		t.Errorf("from before the start: %v", err)
	}
	// A stream that was too slow ends in the same way, and never passes over what is gone.
	r := &reader{t: t, relations: make(map[string]*changev1.Relation)}
	for err = nil; err == nil && r.position.GetLsn() < end.GetLsn(); {
		var answer *loggerv1.FollowResponse
		if answer, err = slow.Recv(); err == nil {
			err = r.take(answer)
		}
	}
	if rpc.Reason(err) != ReasonPositionTooOld {
		t.Errorf("slow follower: %v", err)
	}
	ranges := rangesOf(t, i)
	first := &changev1.Position{LogId: ranges.GetLogId(), Lsn: ranges.GetFirstLsn()}
	if got := follow(t, i, first, end).history.done; len(got) == 0 || len(got) > 50 {
		t.Errorf("from the new start: %d transactions", len(got))
	}
}

// TestServerNotReady starts on a server that cannot be captured: nothing is created, the state tells what to do, and
// capture begins by itself once that is done.
func TestServerNotReady(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false), pgtest.WithSetting("wal_level", "replica"))
	url := server.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	i := start(t, testConfig(t, url))
	state := i.waitFor(t, "failed", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseFailed })
	if state.GetReasonCode() != CodeWALLevel || !strings.Contains(state.GetReason(), "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Errorf("state %v", state)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_publication"); n != 0 {
		t.Errorf("%d publications", n)
	}
	if _, err := i.client.GetRanges(t.Context(), &loggerv1.GetRangesRequest{}); rpc.Reason(err) != ReasonNotReady {
		t.Errorf("ranges: %v", err)
	}
	pgtest.Exec(t, conn, "ALTER SYSTEM SET wal_level = 'logical'")
	server.Restart(t)
	i.waitCapturing(t)
}

func TestOriginMessage(t *testing.T) {
	valid, err := json.Marshal(map[string]string{"server_id": "s", "log_id": strings.Repeat("0a", 16), "lsn": "7", "commit_time": "-1"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseOrigin(valid)
	if err != nil || got.ServerID != "s" || got.Position.LSN != 7 || got.CommitTime != -1 || got.Position.LogID.String() != strings.Repeat("0a", 16) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"server_id":"s"}`, strings.Replace(string(valid), `"7"`, `"x"`, 1), strings.Replace(string(valid), `"s"`, `""`, 1)} {
		if got, err := parseOrigin([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
}
