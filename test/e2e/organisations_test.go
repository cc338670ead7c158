package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// setFaultPoints are those of a set's change, in the transaction that removes rows of tables that others write too.
var setFaultPoints = []faultPoint{
	{name: applier.FaultNarrowed, process: "applier", counts: []int{1}},
	{name: applier.FaultLeftSet, process: "applier", counts: []int{1}},
}

// orgTypes are what a table under another name rests on.
const orgTypes = `
CREATE TYPE org.mood AS ENUM ('sad', 'happy');
CREATE TABLE org.tickets (id serial PRIMARY KEY, org text, mood org.mood DEFAULT 'happy'::org.mood CHECK (mood <> 'sad'::org.mood), country text REFERENCES org.countries);
CREATE INDEX tickets_mood ON org.tickets (mood) WHERE mood = 'happy';
ALTER TABLE org.tickets REPLICA IDENTITY FULL;
INSERT INTO org.tickets (org, country) SELECT (ARRAY['acme','globex'])[1 + n % 2], 'c' || 1 + n % 50 FROM generate_series(1, 100) n;`

// sharedTables are where several organisations meet: each key holds the column that tells them apart.
const sharedTables = `
CREATE SCHEMA shared;
CREATE TABLE shared.orders (id bigint, org text, amount numeric(10,2), note text, body text, PRIMARY KEY (org, id));
CREATE TABLE shared.items (org text, id bigint, note text, PRIMARY KEY (org, id)) PARTITION BY HASH (id);
CREATE TABLE shared.items_0 PARTITION OF shared.items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shared.items_1 PARTITION OF shared.items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shared.visits (org text, at timestamptz, page text);
INSERT INTO shared.items SELECT 'stranger', n, 'ours' FROM generate_series(1, 20) n;
INSERT INTO shared.orders SELECT n, 'stranger', 1, 'ours', '' FROM generate_series(1, 20) n;
INSERT INTO shared.visits SELECT 'stranger', now(), 'ours' FROM generate_series(1, 20) n;`

func meeting() *loggerv1.SetSpec {
	return &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.orders", Rows: orgSelector}, {Pattern: "org.items", Rows: orgSelector}, {Pattern: "org.visits", Rows: orgSelector}}}
}

func renames(rules ...string) []*applierv1.TableRename {
	var list []*applierv1.TableRename
	for i := 0; i < len(rules); i += 2 {
		list = append(list, &applierv1.TableRename{Source: rules[i], Target: rules[i+1]})
	}
	return list
}

func orgSpec(set, org string, shared bool, rules ...string) func(*applierv1.ReplicationSpec) {
	return func(s *applierv1.ReplicationSpec) {
		s.Set, s.Parameters, s.Shared, s.Rename = set, map[string]string{"org": org}, shared, renames(rules...)
	}
}

// requireRenamed compares what a replica holds under other names with what a set selects of its source.
func requireRenamed(t testing.TB, source, target *pgx.Conn, schema string, rows map[string]string, here string) {
	t.Helper()
	for table, where := range rows {
		name := schema + strings.TrimPrefix(table, "org")
		columns := pgtest.QueryRow[string](t, source, "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped", table)
		of := func(conn *pgx.Conn, table, where string) string {
			return digest(t, conn, "(SELECT "+columns+" FROM "+table+" "+where+")", "")
		}
		if want, got := of(source, table, where), of(target, name, here); want != got {
			t.Errorf("table %s: the source selects %s, %s holds %s", table, want, name, got)
		}
	}
}

// TestOrganisations brings two organisations of one primary into one database: each into its own schema, and both into tables that they
// share, while rows move between them, tables are truncated, and the replica is killed.
func TestOrganisations(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, orgTables+orgTypes)
	pgtest.Exec(t, here, sharedTables)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	own := byOrg()
	own.Tables = append([]*loggerv1.SetTable{{Pattern: "org.tickets", Rows: orgSelector}}, own.Tables...)
	for name, spec := range map[string]*loggerv1.SetSpec{"by-org": own, "meeting": meeting()} {
		if _, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: name, Spec: spec}); err != nil {
			t.Fatal(rpc.Message(err))
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	load.Go(func() { orgLoad(ctx, t, primaryURL, 1) })
	orgs := []string{"acme", "globex"}
	var names []string
	for _, org := range orgs {
		replica.mustCreate(org, primary.grpc, orgSpec("by-org", org, false, "org.*", org+".*"))
		replica.mustCreate("shared-"+org, primary.grpc, orgSpec("meeting", org, true, "org.*", "shared.*"))
		names = append(names, org, "shared-"+org)
	}
	for _, name := range names {
		replica.waitState(name, 2*time.Minute, applierv1.State_STATE_RUNNING)
	}
	hits := t.TempDir() + "/faults"
	for _, fault := range []string{apply.FaultSliceWritten, apply.FaultBeforeCommit, apply.FaultAfterCommit} {
		replica.kill9()
		replica.start(faultEnv(fault, 3, hits)...)
		replica.wait(time.Minute)
		replica.start()
		execLocked(t, there, "TRUNCATE org.items; TRUNCATE org.orders; INSERT INTO org.items SELECT (ARRAY['acme','globex','initech'])[1 + n % 3], n, 'again' FROM generate_series(1, 500) n; "+
			"INSERT INTO org.orders SELECT n, (ARRAY['acme','globex'])[1 + n % 2], n, 'again', repeat(md5(n::text), 100) FROM generate_series(1, 500) n")
		execLocked(t, there, "UPDATE org.orders SET org = CASE org WHEN 'acme' THEN 'globex' ELSE 'acme' END WHERE id <= 250; UPDATE org.items SET org = CASE org WHEN 'acme' THEN 'globex' ELSE 'acme' END WHERE org <> 'initech' AND id <= 250 AND id % 3 = 0")
	}
	if n := len(faultsHit(t, hits)); n != 3 {
		t.Errorf("%d of 3 faults acted", n)
	}
	// One is copied anew among the others' rows, and killed while it is.
	replica.waitHealthy(time.Minute)
	if _, err := replica.applier().ResyncReplication(t.Context(), &applierv1.ResyncReplicationRequest{Name: "shared-acme"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.kill9()
	replica.start(faultEnv(applier.FaultTableBegun, 1, hits)...)
	replica.wait(time.Minute)
	replica.start()
	stop()
	load.Wait()
	for _, name := range names {
		replica.waitApplied(name, 2*time.Minute)
	}
	check := func() {
		t.Helper()
		for _, org := range orgs {
			rows := orgRows(org)
			delete(rows, "org.events_2")
			rows["org.tickets"] = "WHERE org = '" + org + "'"
			requireRenamed(t, there, here, org, rows, "")
			mine := "WHERE org = '" + org + "'"
			requireRenamed(t, there, here, "shared", map[string]string{"org.orders": mine, "org.items": mine, "org.visits": mine}, mine)
		}
		for _, table := range []string{"items", "orders", "visits"} {
			if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM shared."+table+" WHERE org = 'stranger'"); n != 20 {
				t.Errorf("shared.%s: %d of 20 rows of a stranger are left", table, n)
			}
			if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM shared."+table+" WHERE org NOT IN ('stranger', 'acme', 'globex')"); n != 0 {
				t.Errorf("shared.%s: %d rows of others", table, n)
			}
		}
		for _, name := range names {
			replica.mustVerify(name).requireEqual(t)
		}
	}
	check()
	requireOrgObjects(t, here)

	pgtest.Exec(t, here, `DELETE FROM shared.items WHERE org = 'acme' AND id % 2 = 0; UPDATE shared.orders SET note = 'spoilt' WHERE org = 'acme'; INSERT INTO shared.visits VALUES ('acme', now(), 'spoilt');
		DELETE FROM acme.items WHERE id % 2 = 0`)
	replica.mustRepair("shared-acme").requireEqual(t)
	replica.mustRepair("acme").requireEqual(t)
	check()
	pgtest.Exec(t, here, `UPDATE shared.orders SET note = 'spoilt' WHERE org = 'globex'; INSERT INTO shared.items VALUES ('globex', -1, 'spoilt')`)
	requireSync(t, replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "shared-globex", Mode: syncCopy}).GetSyncId()), syncCompleted, true)
	check()

	// The set changes to other rows, and one table less: only the own rows go. The replica is killed before and after that is committed.
	less := meeting()
	less.Tables = less.Tables[:2]
	less.Tables[1] = &loggerv1.SetTable{Pattern: "org.items", Rows: `{"org": {"$param": "org"}, "id": {"$gt": 100}}`}
	const countShared = "SELECT (SELECT count(*) FROM shared.items) + (SELECT count(*) FROM shared.visits)"
	before := pgtest.QueryRow[int](t, here, countShared)
	replica.kill9()
	updated, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "meeting", Spec: less})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	for _, point := range setFaultPoints {
		replica.start(faultEnv(point.name, 1, hits)...)
		replica.wait(time.Minute)
		if now := pgtest.QueryRow[int](t, here, countShared); now != before {
			t.Errorf("%s: %d of %d rows are left of what is not committed", point.name, now, before)
		}
	}
	replica.start(faultEnv(applier.FaultPrepared, 1, hits)...)
	replica.wait(time.Minute)
	replica.start()
	if got := faultsHit(t, hits); got[applier.FaultNarrowed] != 1 || got[applier.FaultLeftSet] != 1 || got[applier.FaultPrepared] != 1 {
		t.Errorf("faults %v", got)
	}
	for _, org := range orgs {
		pgtest.Eventually(t, 2*time.Minute, func() error {
			held := pgtest.QueryRow[int64](t, here, "SELECT set_version FROM syncline.replications WHERE name = '"+"shared-"+org+"'")
			r, err := replica.get("shared-" + org)
			if err == nil && (held != updated.GetSet().GetVersion() || r.GetState() != applierv1.State_STATE_RUNNING) {
				err = fmt.Errorf("version %d, %s %s", held, r.GetState(), r.GetReason())
			}
			return err
		})
		replica.waitApplied("shared-"+org, time.Minute)
		mine := "WHERE org = '" + org + "'"
		requireRenamed(t, there, here, "shared", map[string]string{"org.orders": mine}, mine)
		requireRenamed(t, there, here, "shared", map[string]string{"org.items": mine + " AND id > 100"}, mine)
	}
	if got := pgtest.QueryRow[string](t, here, "SELECT string_agg(DISTINCT org, ',') FROM shared.visits"); got != "stranger" {
		t.Errorf("of a table that has left the set the rows of %s are left", got)
	}
}

// execLocked runs SQL beside a load that may hold what it needs.
func execLocked(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		_, err := conn.Exec(t.Context(), sql)
		if code := postgres.Code(err); err != nil && code != "40P01" && code != "23505" {
			t.Fatal(err)
		}
		return err
	})
}

// requireOrgObjects looks for what a table under another name rests on, and for anything of the source's schema.
func requireOrgObjects(t testing.TB, here *pgx.Conn) {
	t.Helper()
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM pg_namespace WHERE nspname = 'org'"); n != 0 {
		t.Error("the replica has the source's schema too")
	}
	for _, org := range []string{"acme", "globex"} {
		for what, sql := range map[string]string{
			"default":  "SELECT count(*) FROM pg_attrdef WHERE adrelid = '%[1]s.tickets'::regclass AND pg_get_expr(adbin, adrelid) LIKE '%%%[1]s.%%'",
			"index":    "SELECT count(*) FROM pg_class WHERE oid = to_regclass('%[1]s.tickets_mood')",
			"key":      "SELECT count(*) FROM pg_constraint WHERE conrelid = '%[1]s.tickets'::regclass AND contype = 'f' AND confrelid = '%[1]s.countries'::regclass",
			"sequence": "SELECT (last_value = 100)::int FROM %[1]s.tickets_id_seq WHERE pg_get_serial_sequence('%[1]s.tickets', 'id') = '%[1]s.tickets_id_seq'",
			"type":     "SELECT count(*) FROM pg_attribute WHERE attrelid = '%[1]s.tickets'::regclass AND atttypid = '%[1]s.mood'::regtype",
			"leaf":     "SELECT count(*) FROM pg_inherits WHERE inhrelid = '%[1]s.items_0'::regclass AND inhparent = '%[1]s.items'::regclass",
		} {
			want := 1
			if what == "default" {
				want = 2
			}
			if n := pgtest.QueryRow[int](t, here, fmt.Sprintf(sql, org)); n != want {
				t.Errorf("%s: %d of its %s", org, n, what)
			}
		}
	}
}

// TestOrganisationsRefuse shares what cannot be shared, and gives names that are taken.
func TestOrganisationsRefuse(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	here := pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, pgtest.Connect(t, primaryURL), orgTables)
	pgtest.Exec(t, here, sharedTables)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	some := &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.items", Rows: `{"org": {"$ne": {"$param": "org"}}}`}}}
	for name, spec := range map[string]*loggerv1.SetSpec{"by-org": byOrg(), "meeting": meeting(), "others": some} {
		if _, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: name, Spec: spec}); err != nil {
			t.Fatal(rpc.Message(err))
		}
	}
	replica.mustCreate("first", primary.grpc, orgSpec("meeting", "acme", true, "org.*", "shared.*"))
	replica.waitState("first", time.Minute, applierv1.State_STATE_RUNNING)
	for _, c := range []struct {
		what, reason, text string
		edit               func(*applierv1.ReplicationSpec)
	}{
		{"a second one that does not share", "REPLICATION_EXISTS", "--shared", orgSpec("meeting", "globex", false, "org.*", "shared.*")},
		{"the same rows by another set", "SHARED_ROWS_NOT_APART", "items", orgSpec("others", "globex", true, "org.*", "shared.*")},
		{"the same rows", "REPLICATION_EXISTS", "first", orgSpec("meeting", "acme", true, "org.*", "shared.*")},
		{"keys that do not tell organisations apart", "SHARED_ROWS_NOT_APART", "orders_pkey (id)", orgSpec("meeting", "globex", true)},
		{"no set", "INVALID_FIELD", "spec.shared", func(s *applierv1.ReplicationSpec) { s.Shared = true }},
		{"two tables under one name", "RENAME_CONFLICT", "org.countries and org.events", orgSpec("by-org", "acme", false, "org.*", "acme.same")},
		{"a name that there is not", "UNKNOWN_TABLE", "org.evnts", orgSpec("by-org", "acme", false, "org.evnts", "acme.events")},
		{"a schema of ours", "INVALID_FIELD", "spec.rename[1]", orgSpec("by-org", "acme", false, "a.*", "b.*", "org.*", "syncline.*")},
		{"a backup under other names", "INVALID_FIELD", "spec.rename", func(s *applierv1.ReplicationSpec) { s.FromRestore, s.Rename = true, renames("org.*", "acme.*") }},
	} {
		if _, err := replica.create("second", primary.grpc, c.edit); rpc.Reason(err) != c.reason || !strings.Contains(rpc.Message(err), c.text) {
			t.Errorf("%s: %s %s", c.what, rpc.Reason(err), rpc.Message(err))
		}
	}
	// Rows of its own that came otherwise are refused, those of others are not.
	pgtest.Exec(t, here, "INSERT INTO shared.items VALUES ('globex', -1, 'by hand')")
	globex := orgSpec("meeting", "globex", true, "org.*", "shared.*")
	if _, err := replica.create("second", primary.grpc, globex); rpc.Reason(err) != "TABLE_NOT_EMPTY" {
		t.Errorf("took rows for its own: %v", err)
	}
	replica.mustCreate("second", primary.grpc, globex, initialIncremental)
	replica.waitState("second", time.Minute, applierv1.State_STATE_RUNNING)
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM shared.items WHERE id < 0 OR org = 'initech'"); n != 0 {
		t.Errorf("%d rows that nobody selects", n)
	}
	replica.mustVerify("first").requireEqual(t)
	replica.mustVerify("second").requireEqual(t)
	for _, field := range []string{"rename", "shared"} {
		spec := &applierv1.ReplicationSpec{}
		_, err := replica.applier().UpdateReplication(t.Context(), &applierv1.UpdateReplicationRequest{Name: "second", Spec: spec, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}}})
		if rpc.Reason(err) != "INVALID_FIELD" {
			t.Errorf("changed %s: %v", field, err)
		}
	}
}
