package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/gather"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

const (
	testReplication = "test"
	testSource      = "11111111-1111-1111-1111-111111111111"
	applyDeadline   = 2 * time.Minute
)

// testTarget is a replica's database with one replication.
type testTarget struct {
	t        testing.TB
	url      string
	conn     *pgx.Conn
	progress Progress // as the engine told it last
}

// newTestTarget makes an empty target whose position is the log's start, and runs SQL on it. The target before is gone then.
func newTestTarget(t testing.TB, l *testLog, sql string) *testTarget {
	t.Helper()
	g := &testTarget{t: t, url: commonDatabase(t)}
	g.conn = pgtest.Connect(t, g.url)
	g.exec(emptyDatabase)
	g.exec("CREATE TABLE noise (id int PRIMARY KEY)")
	g.exec(sql)
	g.setPosition(l.id, l.start)
	return g
}

// commonDatabase is the database of all targets, one after the other, because making one takes a while. It goes with the
// shared server.
func commonDatabase(t testing.TB) string {
	t.Helper()
	if common == "" {
		server := pgtest.Shared(t)
		pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "CREATE DATABASE apply_common")
		url := server.URL("apply_common")
		if _, err := node.Prepare(t.Context(), url, node.Replica); err != nil {
			t.Fatal(err)
		}
		common = url
	}
	return common
}

var common string

const emptyDatabase = `DO $$
	DECLARE name text;
	BEGIN
		FOR name IN SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'syncline') LOOP
			EXECUTE format('DROP SCHEMA %I CASCADE', name);
		END LOOP;
	END $$;
	CREATE SCHEMA public; DROP PUBLICATION IF EXISTS watch; DELETE FROM syncline.positions; DELETE FROM syncline.quarantine; DELETE FROM syncline.quarantine_values; SET client_min_messages = warning`

func (g *testTarget) setPosition(id change.LogID, lsn change.LSN) {
	g.t.Helper()
	g.exec(fmt.Sprintf(`INSERT INTO syncline.positions (replication, log_id, lsn) VALUES ('%s', '%s', '%s')
		ON CONFLICT (replication) DO UPDATE SET log_id = EXCLUDED.log_id, lsn = EXCLUDED.lsn`, testReplication, id, lsn))
}

func (g *testTarget) exec(sql string, args ...any) {
	g.t.Helper()
	pgtest.Exec(g.t, g.conn, sql, args...)
}

// position is what the target's row says.
func (g *testTarget) position() change.LSN {
	g.t.Helper()
	lsn, err := change.ParseLSN(pgtest.QueryRow[string](g.t, g.conn, "SELECT lsn::text FROM syncline.positions WHERE replication = $1", testReplication))
	if err != nil {
		g.t.Fatal(err)
	}
	return lsn
}

// run is how a test runs an engine.
type testRun struct {
	Config
	url    string
	events []Event
	stream <-chan Event // instead of events
	queued bool         // all events wait from the beginning, so that transactions are grouped; else each block finds nothing behind it
	until  change.LSN
	// gather is the engine's; the zero value holds nothing up, so that what is grouped is what a test says.
	gather gather.Gather
}

type testTweak func(*testRun)

func withOptions(edit func(*Options)) testTweak { return func(r *testRun) { edit(&r.Options) } }

func allQueued(r *testRun) { r.queued = true }

// openSession opens a session, waiting for one that was just closed or killed to end.
func openSession(ctx context.Context, t testing.TB, url string) (s *Session) {
	t.Helper()
	pgtest.Eventually(t, applyDeadline, func() (err error) {
		if s, err = OpenSession(ctx, url, testReplication); err != nil {
			return err
		}
		rows, _ := s.Conn().Query(ctx, "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')")
		names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[schema.Name])
		if err == nil {
			err = s.Read(ctx, names)
		}
		if err != nil {
			s.Close()
		}
		return err
	})
	return s
}

// try applies the log from the stored position to its end and returns what stopped it before.
func (g *testTarget) try(l *testLog, tweaks ...testTweak) error {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), applyDeadline)
	defer cancel()
	l.flush()
	r := testRun{url: g.url, until: l.lsn, Config: Config{
		Replication: testReplication, SourceID: testSource, Options: DefaultOptions(),
		Table:   func(n schema.Name, _ uint32) (Table, bool) { return Table{Apply: true, Target: n, Own: true}, true },
		Applied: func(Progress) error { return nil },
	}}
	for _, edit := range tweaks {
		edit(&r)
	}
	r.Session = openSession(ctx, g.t, r.url)
	defer r.Session.Close()
	if r.Quarantine.MaxRows > 0 {
		held, err := LoadHeld(ctx, r.Session.Conn(), testReplication)
		if err != nil {
			return err
		}
		r.Quarantine.Held = held
	}
	position, found, err := r.Session.ReadPosition(ctx)
	if err != nil {
		return err
	}
	if !found {
		g.t.Fatal("the target has no position")
	}
	if r.Position == (change.Position{}) {
		r.Position = position
	}
	if r.events == nil {
		r.events = l.after(r.Position.LSN)
	}
	reached := r.Position.LSN >= r.until
	told := r.Applied
	r.Applied = func(p Progress) error {
		g.progress = p
		l.fallbacks = p.Fallbacks
		if err := told(p); err != nil {
			return err
		}
		if p.Position.LSN >= r.until {
			reached = true
			cancel()
		}
		return nil
	}
	if reached {
		return nil
	}
	engine := NewEngine(r.Config)
	engine.gather = r.gather
	err = engine.Run(ctx, r.channel(ctx))
	if reached && errors.Is(err, context.Canceled) {
		return nil
	}
	if err == nil {
		g.t.Fatal("Run returned no error before the end of the log")
	}
	return err
}

func (r *testRun) channel(ctx context.Context) <-chan Event {
	if r.stream != nil {
		return r.stream
	}
	if r.queued {
		events := make(chan Event, len(r.events))
		for _, e := range r.events {
			events <- e
		}
		return events
	}
	events := make(chan Event)
	go func() {
		for _, e := range r.events {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events
}

// apply applies the log to its end.
func (g *testTarget) apply(l *testLog, tweaks ...testTweak) {
	g.t.Helper()
	if err := g.try(l, tweaks...); err != nil {
		g.t.Fatal(err)
	}
}

// rows returns the only column of a query, as text, in the order of its bytes.
func (g *testTarget) rows(sql string) []string { return textRows(g.t, g.conn, sql) }

func textRows(t testing.TB, conn *pgx.Conn, sql string) []string {
	t.Helper()
	result, err := conn.Query(t.Context(), `SELECT coalesce(x.v::text, 'NULL') FROM (`+sql+`) x(v) ORDER BY coalesce(x.v::text, 'NULL') COLLATE "C"`)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := pgx.CollectRows(result, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%v\n  in %s", err, sql)
	}
	return rows
}

// table returns the rows of a table.
func (g *testTarget) table(name string) []string {
	return g.rows("SELECT whole_row FROM " + name + " whole_row")
}

func (g *testTarget) requireTable(name string, want ...string) {
	g.t.Helper()
	slices.Sort(want)
	if got := g.table(name); !slices.Equal(got, want) {
		g.t.Fatalf("table %s has\n  %s\nwant\n  %s", name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// requireAt fails unless the target's row says that position.
func (g *testTarget) requireAt(want change.LSN) {
	g.t.Helper()
	if got := g.position(); got != want {
		g.t.Fatalf("the stored position is %s, want %s", got, want)
	}
}

// testWay is a way in which an engine puts operations and transactions together.
type testWay struct {
	name  string
	noise int // more than a few operations in a slice are written set-wise
	how   []testTweak
}

func testWays() []testWay {
	options := func(edit func(*Options)) []testTweak { return []testTweak{allQueued, withOptions(edit)} }
	return []testWay{
		{"one by one", 0, nil},
		{"grouped", 0, []testTweak{allQueued}},
		{"set-wise in one group", sliceRows, []testTweak{allQueued}},
		{"tiny slices", 0, options(func(o *Options) { o.SliceBytes = 1 })},
		{"groups of two", 0, options(func(o *Options) { o.GroupTransactions = 2; o.SliceBytes = 1000 })},
		{"set-wise", sliceRows, nil},
		{"set-wise in slices", sliceRows, options(func(o *Options) { o.SliceBytes = 20_000 })},
	}
}

// testEachWay runs a case row by row and set-wise, in many ways.
func testEachWay(t *testing.T, run func(t *testing.T, l *testLog, how ...testTweak)) {
	t.Helper()
	runWays(t, testWays(), run)
}

// testFewWays runs a case in the ways that differ most.
func testFewWays(t *testing.T, run func(t *testing.T, l *testLog, how ...testTweak)) {
	t.Helper()
	runWays(t, testWays()[:3], run)
}

func runWays(t *testing.T, ways []testWay, run func(t *testing.T, l *testLog, how ...testTweak)) {
	t.Helper()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			l := newTestLog(t)
			l.noise = way.noise
			run(t, l, way.how...)
			if l.fallbacks > 0 {
				t.Logf("%d slices were replayed row by row", l.fallbacks)
			}
		})
	}
}

// targetTx is one transaction of the target as its own logical decoding shows it.
type targetTx struct {
	first    string // the first message's kind
	origins  []originSeen
	position bool // the row of syncline.positions was written
	rows     int  // rows written outside of the schema syncline
}

type originSeen struct {
	ServerID   string `json:"server_id"`
	LogID      string `json:"log_id"`
	LSN        string `json:"lsn"`
	CommitTime string `json:"commit_time"`
}

// watch starts recording the target's transactions; the function that it returns reads them.
func (g *testTarget) watch() func() []targetTx {
	g.t.Helper()
	slot := fmt.Sprintf("watch_%d", time.Now().UnixNano())
	g.exec("CREATE PUBLICATION watch FOR ALL TABLES")
	g.exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	g.t.Cleanup(func() {
		if _, err := g.conn.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", slot); err != nil {
			g.t.Error(err)
		}
	})
	return func() []targetTx {
		g.t.Helper()
		// The engine's commits are asynchronous, and only WAL that is flushed is decoded: a commit that waits takes it along.
		g.exec("BEGIN; CREATE TEMP TABLE flush () ON COMMIT DROP; COMMIT")
		rows, err := g.conn.Query(g.t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
			'proto_version', '1', 'publication_names', 'watch', 'messages', 'true')`, slot)
		if err != nil {
			g.t.Fatal(err)
		}
		messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			g.t.Fatal(err)
		}
		return targetTransactions(g.t, messages)
	}
}

func targetTransactions(t testing.TB, messages [][]byte) []targetTx {
	t.Helper()
	var d pgoutput.Decoder
	var all []targetTx
	positions := uint32(0)
	row := func(oid uint32) {
		tx := &all[len(all)-1]
		if oid == positions {
			tx.position = true
		} else {
			tx.rows++
		}
	}
	for _, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if kind != pgoutput.KindBegin && kind != pgoutput.KindRelation && kind != pgoutput.KindType && all[len(all)-1].first == "" {
			all[len(all)-1].first = kind.String()
		}
		switch kind {
		case pgoutput.KindBegin:
			all = append(all, targetTx{})
		case pgoutput.KindRelation:
			if d.Relation.Schema == "syncline" && d.Relation.Name == "positions" {
				positions = d.Relation.OID
			}
		case pgoutput.KindInsert:
			row(d.Insert.RelationOID)
		case pgoutput.KindUpdate:
			row(d.Update.RelationOID)
		case pgoutput.KindDelete:
			row(d.Delete.RelationOID)
		case pgoutput.KindMessage:
			var o originSeen
			if d.Message.Prefix != "syncline.origin" || !d.Message.Transactional {
				t.Fatalf("unexpected message %q", d.Message.Prefix)
			}
			if err := json.Unmarshal(d.Message.Content, &o); err != nil {
				t.Fatal(err)
			}
			all[len(all)-1].origins = append(all[len(all)-1].origins, o)
		}
	}
	return all
}
