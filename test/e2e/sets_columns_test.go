package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// TestSetColumns replicates some columns, keys and operations into a database in which nothing is: the tables are made without what is
// left out and all that hangs on it. Then the list of columns changes, both ways, under load.
func TestSetColumns(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, `
		CREATE TABLE teams (id int PRIMARY KEY, "Code" text UNIQUE, name text);
		CREATE TABLE people (id int PRIMARY KEY, team int REFERENCES teams, code text REFERENCES teams ("Code"), name text, secret text, n serial,
			CHECK (secret <> ''), twice int GENERATED ALWAYS AS (n * 2) STORED, initial text GENERATED ALWAYS AS (left(name, 1)) STORED);
		ALTER TABLE people REPLICA IDENTITY FULL;
		CREATE INDEX ON people (name); CREATE INDEX ON people (lower(secret)); CREATE INDEX ON people (name) WHERE secret IS NULL; CREATE INDEX ON people (team) INCLUDE (n);
		CREATE TABLE bag (a int, secret text); ALTER TABLE bag REPLICA IDENTITY FULL;
		CREATE TABLE listed (org text, id int, note text, PRIMARY KEY (org, id));
		CREATE TABLE audit (id int PRIMARY KEY, note text);
		INSERT INTO teams SELECT n, 'c' || n, 'team ' || n FROM generate_series(1, 20) n;
		INSERT INTO people (id, team, code, name, secret) SELECT n, 1 + n % 20, 'c' || 1 + n % 20, 'name ' || n, 'hidden ' || n FROM generate_series(1, 2000) n;
		INSERT INTO bag SELECT n % 5, 'hidden ' || n FROM generate_series(1, 100) n;
		INSERT INTO listed SELECT o, n, 'note' FROM generate_series(1, 100) n, unnest('{a,b}'::text[]) o;
		INSERT INTO audit SELECT n, 'note' FROM generate_series(1, 100) n`)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	spec := func(people ...string) *loggerv1.SetSpec {
		s := &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{
			{Pattern: "public.people", Columns: people, Expression: `secret != "x" && id <= 1900`},
			{Pattern: "public.teams", LeaveOutColumns: []string{"Code"}},
			{Pattern: "public.bag", LeaveOutColumns: []string{"secret"}},
			{Pattern: "public.audit", Operations: []loggerv1.SetOperation{loggerv1.SetOperation_SET_OPERATION_INSERT}},
			{Pattern: "public.listed"},
		}}
		for n := range 50 {
			s.Tables[4].Keys = append(s.Tables[4].Keys, &loggerv1.SetKey{Values: []string{"a", fmt.Sprint(2*n + 1)}})
		}
		return s
	}
	set, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "some", Spec: spec("id", "team", "code", "name")})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.mustCreate("some", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Set = "some" })
	replica.mustCreate("renamed", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Set, s.Rename = "some", renames("public.*", "archive.*") })
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	writing.Go(func() {
		conn := pgtest.Connect(t, primaryURL)
		for n := 0; ctx.Err() == nil; n++ {
			pgtest.Exec(t, conn, fmt.Sprintf(`UPDATE people SET secret = CASE secret WHEN 'x' THEN 'hidden' ELSE 'x' END WHERE id %% 100 = %d; UPDATE people SET name = 'renamed %d', secret = 'hidden' WHERE id = %d;
				DELETE FROM people WHERE id = %d; INSERT INTO people (id, team, code, name, secret, n) VALUES (%[3]d + 100000, 1, 'c1', 'new', 'hidden', 7) ON CONFLICT DO NOTHING; UPDATE people SET n = n + 1 WHERE id %% 50 = %[1]d;
				UPDATE bag SET a = a + 1, secret = 'hidden' WHERE ctid = (SELECT ctid FROM bag LIMIT 1); DELETE FROM bag WHERE ctid = (SELECT ctid FROM bag OFFSET 3 LIMIT 1); INSERT INTO bag VALUES (%[1]d, 'hidden');
				UPDATE listed SET note = 'changed' WHERE id = %[1]d; DELETE FROM listed WHERE id = %[5]d; INSERT INTO listed VALUES ('a', %[5]d, 'again') ON CONFLICT DO NOTHING;
				UPDATE teams SET "Code" = "Code", name = 'changed' WHERE id = %[6]d`, n%50, n, 1+n%1900, 1+n*7%500, 1+n%100, 1+n%20))
		}
	})
	replica.waitState("some", time.Minute, applierv1.State_STATE_RUNNING)
	compare := func(columns string) {
		t.Helper()
		replica.waitApplied("some", time.Minute)
		for table, query := range map[string][2]string{
			"people": {"SELECT " + columns + " FROM people WHERE secret <> 'x' AND id <= 1900", "SELECT " + columns + " FROM people"},
			"teams":  {"SELECT id, name FROM teams", "SELECT id, name FROM teams"}, "bag": {"SELECT a FROM bag", "SELECT a FROM bag"},
			"listed": {"SELECT org, id, note FROM listed WHERE org = 'a' AND id % 2 = 1", "SELECT * FROM listed"},
		} {
			if want, got := digest(t, there, "("+query[0]+")", ""), digest(t, here, "("+query[1]+")", ""); want != got || strings.HasPrefix(want, "0 rows") {
				t.Errorf("table %s: the source selects %s, the replica holds %s", table, want, got)
			}
		}
		for _, v := range replica.mustVerify("some").tables {
			if equal := v.GetOutcome() == applierv1.TableOutcome_TABLE_OUTCOME_EQUAL; equal == (v.GetTable() == "audit") {
				t.Errorf("table %s: %s %s", v.GetTable(), v.GetOutcome(), v.GetReason())
			}
		}
	}
	const shape = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attnum > 0 AND NOT attisdropped"
	if got := pgtest.QueryRow[string](t, here, shape); got != "id,team,code,name" {
		t.Errorf("the table was made with columns %s", got)
	}
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'people'"); n != 2 {
		t.Errorf("%d indexes, want those of the key and the name", n)
	}
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM pg_constraint WHERE conrelid = 'people'::regclass AND contype = 'f'"); n > 1 {
		t.Errorf("%d foreign keys, one of which refers to a column that is left out", n)
	}

	// What is left out cannot be read by the set in any other way.
	inventory := inventoryv1.NewInventoryServiceClient(primary.dial())
	snapshot := openSnapshot(t, inventory)
	stream, err := inventory.Dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: snapshot, Schema: "public", Table: "people", Columns: []string{"secret"}, Set: "some"})
	if err == nil {
		_, err = stream.Recv()
	}
	if !strings.Contains(rpc.Message(err), "no such column") {
		t.Errorf("dumped a column that is left out: %v", err)
	}
	rows, err := inventory.ReadRows(t.Context(), &inventoryv1.ReadRowsRequest{SnapshotId: snapshot, Schema: "public", Table: "people", Key: []string{"secret"}, Keys: []*inventoryv1.RowKey{{Values: []string{"hidden"}}}, Set: "some"})
	if err == nil {
		_, err = rows.Recv()
	}
	if !strings.Contains(rpc.Message(err), "no such column") {
		t.Errorf("found rows by a column that is left out: %v", err)
	}

	// A column more, for which there is none here yet, and one less.
	if _, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "some", Spec: spec("id", "team", "name", "n"), Version: set.GetSet().GetVersion()}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	pgtest.Eventually(t, time.Minute, func() error {
		r, err := replica.get("some")
		if err == nil && (r.GetState() != applierv1.State_STATE_FAILED || !strings.Contains(r.GetReason(), "column n: the column is missing")) {
			err = fmt.Errorf("%s %s", r.GetState(), r.GetReason())
		}
		return err
	})
	pgtest.Exec(t, here, "ALTER TABLE people ADD n int")
	if _, err := replica.applier().StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "some"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.waitState("some", time.Minute, applierv1.State_STATE_RUNNING)
	pgtest.Exec(t, there, "UPDATE audit SET note = 'changed' WHERE id < 10; DELETE FROM audit WHERE id = 11; INSERT INTO audit VALUES (101, 'new')")
	stop()
	writing.Wait()
	compare("id, team, name, n")
	s := renamedColumns{t, primary, replica, there, here}
	s.comesAndGoes(func(columns ...string) { s.update(spec(columns...)) })
	if got := digest(t, here, "audit", "WHERE note = 'note'"); !strings.HasPrefix(got, "100 rows") {
		t.Errorf("updates or deletes have come that are left out: %s", got)
	}
}

// renamedColumns is a replication of a set's columns under other names.
type renamedColumns struct {
	testing.TB
	primary, replica *node
	there, here      *pgx.Conn
}

// update changes the set and waits until the replication holds the new version and runs.
func (s renamedColumns) update(spec *loggerv1.SetSpec) {
	s.Helper()
	updated, err := s.primary.logger().UpdateSet(s.Context(), &loggerv1.UpdateSetRequest{Name: "some", Spec: spec})
	if err != nil {
		s.Fatal(rpc.Message(err))
	}
	s.held(updated.GetSet().GetVersion())
}

func (s renamedColumns) held(version int64) {
	s.Helper()
	pgtest.Eventually(s, time.Minute, func() error {
		held := pgtest.QueryRow[int64](s, s.here, "SELECT set_version FROM syncline.replications WHERE name = 'renamed'")
		r, err := s.replica.get("renamed")
		if err == nil && (held != version || r.GetState() != applierv1.State_STATE_RUNNING) {
			err = fmt.Errorf("version %d of %d, %s %s", held, version, r.GetState(), r.GetReason())
		}
		return err
	})
	s.replica.waitApplied("renamed", time.Minute)
}

func (s renamedColumns) equal(columns string) {
	s.Helper()
	if want, got := digest(s, s.there, "(SELECT "+columns+" FROM people WHERE secret <> 'x' AND id <= 1900)", ""), digest(s, s.here, "(SELECT "+columns+" FROM archive.people)", ""); want != got || strings.HasPrefix(want, "0 rows") {
		s.Errorf("the source selects %s, archive.people holds %s", want, got)
	}
}

// comesAndGoes takes a column out of the set and in again. What was changed of it meanwhile has to be there then: that it was not taken is
// known of the table by its name at the source.
func (s renamedColumns) comesAndGoes(take func(columns ...string)) {
	s.Helper()
	pgtest.Exec(s, s.here, "ALTER TABLE archive.people ADD n int")
	if _, err := s.replica.applier().StartReplication(s.Context(), &applierv1.StartReplicationRequest{Name: "renamed"}); err != nil {
		s.Fatal(rpc.Message(err))
	}
	s.replica.waitState("renamed", time.Minute, applierv1.State_STATE_RUNNING)
	s.replica.waitApplied("renamed", time.Minute)
	s.equal("id, team, name, n")
	take("id", "team", "name")
	pgtest.Exec(s, s.there, "UPDATE people SET n = n + 1000 WHERE id % 3 = 0")
	pgtest.Exec(s, s.there, "UPDATE teams SET name = 'after that'") // which comes, so nothing before it is read once more
	s.replica.waitApplied("renamed", time.Minute)
	s.equal("id, team, name")
	take("id", "team", "name", "n")
	s.equal("id, team, name, n")
	s.replica.mustVerify("renamed")
}

// TestSetColumnDuringCopy: the set gets a column, with a sequence of its own, when the rows and indexes of a first copy are there, and it is not finished.
func TestSetColumnDuringCopy(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, "CREATE TABLE people (id int PRIMARY KEY, name text, n serial); INSERT INTO people SELECT i, 'name ' || i FROM generate_series(1, 100) i")
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	spec := func(columns ...string) *loggerv1.SetSpec {
		return &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.people", Columns: columns}}}
	}
	set, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "some", Spec: spec("id", "name")})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.kill9()
	replica.start(faultEnv(applier.FaultBuilt, 1, filepath.Join(t.TempDir(), "faults"))...)
	pgtest.Eventually(t, time.Minute, func() error {
		if replica.exited() {
			return nil
		}
		// It may be gone before it answers.
		_, err := replica.create("some", primary.grpc, func(s *applierv1.ReplicationSpec) { s.Set = "some" })
		return fmt.Errorf("the indexes are not built yet: %w", err)
	})
	if _, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "some", Spec: spec("id", "name", "n"), Version: set.GetSet().GetVersion()}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	pgtest.Exec(t, here, "ALTER TABLE people ADD n int")
	replica.start()
	replica.waitState("some", time.Minute, applierv1.State_STATE_RUNNING)
	replica.waitApplied("some", time.Minute)
	requireSet(t, there, here, map[string]string{"people": ""})
	if got := pgtest.QueryRow[string](t, here, "SELECT pg_get_serial_sequence('people', 'n')"); got != "public.people_n_seq" {
		t.Errorf("the column owns %s", got)
	}
}
