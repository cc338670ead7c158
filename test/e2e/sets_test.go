package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// orgTables are what several organisations share: with the old row whole and with a key that says whose a row is, partitioned,
// without a key, with large values; and tables that are everybody's or nobody's.
const orgTables = `
CREATE SCHEMA org;
CREATE TABLE org.orders (id bigint PRIMARY KEY, org text, amount numeric(10,2), note text, body text);
ALTER TABLE org.orders REPLICA IDENTITY FULL;
ALTER TABLE org.orders ALTER body SET STORAGE EXTERNAL;
CREATE TABLE org.items (org text, id bigint, note text, PRIMARY KEY (org, id)) PARTITION BY HASH (id);
CREATE TABLE org.items_0 PARTITION OF org.items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE org.items_1 PARTITION OF org.items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE org.visits (org text, at timestamptz, page text);
ALTER TABLE org.visits REPLICA IDENTITY FULL;
CREATE TABLE org.countries (code text PRIMARY KEY, name text);
CREATE TABLE org.salaries (id bigint PRIMARY KEY, org text, amount int);
CREATE TABLE org.events (id bigint, org text, day date, PRIMARY KEY (id, org, day)) PARTITION BY RANGE (day);
CREATE TABLE org.events_1 PARTITION OF org.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO org.orders SELECT n, (ARRAY['acme','globex','initech',NULL])[1 + n % 4], n, 'o' || n, repeat(md5(n::text), 100) FROM generate_series(1, 2000) n;
INSERT INTO org.items SELECT (ARRAY['acme','globex','initech'])[1 + n % 3], n, 'i' || n FROM generate_series(1, 2000) n;
INSERT INTO org.visits SELECT (ARRAY['acme','globex','initech'])[1 + n % 3], '2026-01-01'::timestamptz + (n % 50) * interval '1 minute', 'p' || n % 7 FROM generate_series(1, 500) n;
INSERT INTO org.countries SELECT 'c' || n, 'country ' || n FROM generate_series(1, 50) n;
INSERT INTO org.salaries SELECT n, 'acme', n FROM generate_series(1, 50) n;
INSERT INTO org.events SELECT n, (ARRAY['acme','globex'])[1 + n % 2], '2026-01-15' FROM generate_series(1, 200) n;`

// orgRows are the rows of an organisation in each table, as the set "by-org" selects them.
func orgRows(org string) map[string]string {
	mine := "WHERE org = '" + org + "'"
	return map[string]string{
		"org.orders": mine + " AND amount >= 10", "org.items": mine, "org.visits": mine, "org.countries": "", "org.events_1": mine, "org.events_2": mine,
	}
}

const orgSelector = `{"org": {"$param": "org"}}`

func byOrg() *loggerv1.SetSpec {
	return &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{
		{Pattern: "org.orders", Rows: `{"org": {"$param": "org"}, "amount": {"$gte": 10}}`},
		{Pattern: "org.items", Rows: orgSelector}, {Pattern: "org.visits", Rows: orgSelector}, {Pattern: "org.events", Rows: orgSelector},
		{Pattern: "org.*"},
	}, ExcludeTables: []string{"org.salaries"}}
}

// digest tells rows of a table apart from others.
func digest(t testing.TB, conn *pgx.Conn, table, where string) string {
	t.Helper()
	return pgtest.QueryRow[string](t, conn, "SELECT count(*) || ' rows, ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM "+table+" t "+where)
}

// requireSet compares what a replica holds with what a set selects of its source.
func requireSet(t testing.TB, source, target *pgx.Conn, rows map[string]string) {
	t.Helper()
	for table, where := range rows {
		if want, got := digest(t, source, table, where), digest(t, target, table, ""); want != got {
			t.Errorf("table %s: the source selects %s, the replica holds %s", table, want, got)
		}
	}
}

// orgLoad writes to the tables until ctx ends: rows go from one organisation to another by every way that there is.
func orgLoad(ctx context.Context, t *testing.T, url string, seed uint64) {
	conn := pgtest.Connect(t, url)
	r := rand.New(rand.NewPCG(seed, 1))
	orgs := []string{"'acme'", "'globex'", "'initech'", "NULL"}
	for n := 10_000 + int(seed)*1_000_000; ctx.Err() == nil; n++ {
		org, known := orgs[r.IntN(4)], orgs[r.IntN(3)]
		id, low := 1+r.IntN(2200), 1+r.IntN(1800)
		statements := []string{
			fmt.Sprintf("INSERT INTO org.orders VALUES (%d, %s, %d, 'new', repeat('x', %d))", n, org, r.IntN(40), r.IntN(9000)),
			fmt.Sprintf("UPDATE org.orders SET org = %s WHERE id BETWEEN %d AND %d", org, id, id+5),
			fmt.Sprintf("UPDATE org.orders SET amount = %d, note = 'changed' WHERE id = %d", r.IntN(40), id),
			fmt.Sprintf("UPDATE org.orders SET body = repeat('y', %d) WHERE id = %d", r.IntN(9000), id),
			fmt.Sprintf("DELETE FROM org.orders WHERE id = %d", id),
			fmt.Sprintf("INSERT INTO org.items VALUES (%s, %d, 'new')", known, n),
			fmt.Sprintf("UPDATE org.items SET org = %s WHERE id = %d", known, id),
			fmt.Sprintf("UPDATE org.items SET note = 'changed', id = id + 100000 WHERE id = %d AND org = %s", id, known),
			fmt.Sprintf("DELETE FROM org.items WHERE id BETWEEN %d AND %d", low, low+2),
			fmt.Sprintf("UPDATE org.visits SET org = %s WHERE ctid = (SELECT ctid FROM org.visits LIMIT 1 OFFSET %d)", known, r.IntN(100)),
			fmt.Sprintf("INSERT INTO org.visits VALUES (%s, '2026-03-01', 'p')", org),
			fmt.Sprintf("UPDATE org.countries SET name = 'renamed %d' WHERE code = 'c%d'", n, 1+r.IntN(50)),
			fmt.Sprintf("UPDATE org.salaries SET amount = %d WHERE id = %d", n, 1+r.IntN(50)),
			fmt.Sprintf("UPDATE org.events SET org = CASE org WHEN 'acme' THEN 'globex' ELSE 'acme' END WHERE id = %d", 1+r.IntN(200)),
		}
		if n%500 == 0 {
			batch := fmt.Sprintf("INSERT INTO org.orders VALUES (%d, 'acme', 20, 'large', repeat('large', 400000))", n+500_000)
			statements = append(statements, batch+"; UPDATE org.orders SET org = CASE WHEN org = 'acme' THEN 'globex' ELSE 'acme' END, note = repeat('z', 300)")
		}
		var batch strings.Builder
		batch.WriteString("BEGIN;")
		for range 1 + r.IntN(4) {
			batch.WriteString(statements[r.IntN(len(statements))] + ";")
		}
		if n%500 == 0 {
			batch.WriteString(statements[len(statements)-1] + ";")
		}
		// Two writers may take each other's rows; what fails has happened nowhere.
		_, _ = conn.PgConn().Exec(context.WithoutCancel(ctx), batch.String()+[]string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}[r.IntN(4)]).ReadAll()
		if conn.PgConn().TxStatus() != 'I' {
			_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}
}

// TestSets replicates two organisations' rows into two replicas while rows move between them, kills both sides, and changes the set
// meanwhile: each replica ends with exactly the rows that the set selects, and never has anything else.
func TestSets(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL := source.Database(t)
	admin := pgtest.Connect(t, primaryURL)
	pgtest.Exec(t, admin, orgTables)
	primary := startPrimary(t, primaryURL)
	created, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "by-org", Spec: byOrg()})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	if p := created.GetSet().GetParameters(); len(p) != 1 || p[0] != "org" {
		t.Errorf("parameters: %q", p)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for n := range 2 {
		load.Go(func() { orgLoad(ctx, t, primaryURL, uint64(n)) })
	}
	replicas, conns := map[string]*node{}, map[string]*pgx.Conn{}
	for _, org := range []string{"acme", "globex"} {
		url := target.Database(t)
		replicas[org], conns[org] = startReplica(t, url), pgtest.Connect(t, url)
		replicas[org].mustCreate("mine", primary.grpc, func(spec *applierv1.ReplicationSpec) {
			spec.Set, spec.Parameters = "by-org", map[string]string{"org": org}
		})
	}
	each := func(do func(org string, replica *node)) {
		for org, replica := range replicas {
			do(org, replica)
		}
	}
	each(func(_ string, replica *node) { replica.waitState("mine", 2*time.Minute, applierv1.State_STATE_RUNNING) })
	each(func(_ string, replica *node) { replica.mustVerify("mine").requireEqual(t) })

	replicas["acme"].kill9()
	replicas["acme"].start()
	primary.kill9()
	// A partition belongs to the set by the table above it, from its beginning on and up to its end.
	for _, conn := range []*pgx.Conn{conns["acme"], conns["globex"], admin} {
		pgtest.Exec(t, conn, "CREATE TABLE org.events_2 PARTITION OF org.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
	}
	pgtest.Exec(t, admin, "UPDATE org.events SET org = 'acme' WHERE id = 7; ALTER TABLE org.events DETACH PARTITION org.events_1")
	primary.start()
	primary.waitCapturing(time.Minute)
	pgtest.Exec(t, admin, "INSERT INTO org.events SELECT n, (ARRAY['acme','globex'])[1 + n % 2], '2026-02-15' FROM generate_series(1, 200) n")
	each(func(_ string, replica *node) { replica.waitApplied("mine", time.Minute) })
	each(func(org string, _ *node) {
		requireEvents := "WHERE id = 7 AND org = 'acme'"
		if n := pgtest.QueryRow[int](t, conns[org], "SELECT count(*) FROM org.events_1 "+requireEvents); n != map[string]int{"acme": 1, "globex": 0}[org] {
			t.Errorf("%s: %d of the row that was changed before its partition was detached", org, n)
		}
	})

	// Another version: other rows of one table, one table more, one less, the others as they were.
	changed := byOrg()
	changed.Tables[0].Rows = orgSelector
	changed.ExcludeTables = []string{"org.countries"}
	changed.Tables = append([]*loggerv1.SetTable{{Pattern: "org.salaries", Rows: `{"id": {"$lte": 20}}`}}, changed.Tables...)
	if _, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "by-org", Spec: changed, Version: created.GetSet().GetVersion() + 7}); rpc.Reason(err) != "SET_CHANGED" {
		t.Errorf("changed a version that there is not: %v", err)
	}
	visits := func(org string) uint64 {
		r, err := replicas[org].get("mine")
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range r.GetTables() {
			if table.GetName() == "visits" {
				return table.GetCopyLsn()
			}
		}
		return 0
	}
	before := visits("acme")
	updated, err := primary.logger().UpdateSet(t.Context(), &loggerv1.UpdateSetRequest{Name: "by-org", Spec: changed, Version: created.GetSet().GetVersion()})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	each(func(org string, replica *node) {
		pgtest.Eventually(t, 2*time.Minute, func() error {
			held := pgtest.QueryRow[int64](t, conns[org], "SELECT set_version FROM syncline.replications")
			r, err := replica.get("mine")
			if err == nil && (held != updated.GetSet().GetVersion() || r.GetState() != applierv1.State_STATE_RUNNING) {
				err = fmt.Errorf("version %d, %s %s", held, r.GetState(), r.GetReason())
			}
			return err
		})
	})
	if visits("acme") != before {
		t.Error("a table was copied anew that the change does not concern")
	}
	stop()
	load.Wait()
	each(func(_ string, replica *node) { replica.waitApplied("mine", time.Minute) })
	each(func(org string, replica *node) {
		rows := orgRows(org)
		rows["org.orders"], rows["org.salaries"] = "WHERE org = '"+org+"'", "WHERE id <= 20"
		delete(rows, "org.countries")
		requireSet(t, admin, conns[org], rows)
		if n := pgtest.QueryRow[int](t, conns[org], "SELECT count(*) FROM org.countries"); n != 0 {
			t.Errorf("%s: %d rows are left of a table that has left the set", org, n)
		}
		replica.mustVerify("mine").requireEqual(t)
	})

	pgtest.Exec(t, admin, "TRUNCATE org.orders; INSERT INTO org.orders VALUES (1, 'acme', 5, '', ''), (2, 'globex', 5, '', '')")
	each(func(org string, replica *node) {
		replica.waitApplied("mine", time.Minute)
		requireSet(t, admin, conns[org], map[string]string{"org.orders": "WHERE org = '" + org + "'"})
	})
}

// TestSetsRefuse asks for what no set gives.
func TestSetsRefuse(t *testing.T) {
	t.Parallel()
	source := newSource(t, pgtest.WithFsync(false))
	primaryURL := source.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, primaryURL), orgTables+`CREATE VIEW org.hidden AS SELECT 1; CREATE TABLE org.hidden_parts (id int PRIMARY KEY) PARTITION BY RANGE (id);`)
	primary := startPrimary(t, primaryURL)
	logger, inventory := primary.logger(), inventoryv1.NewInventoryServiceClient(primary.dial())
	for _, bad := range []struct {
		name, field string
		spec        *loggerv1.SetSpec
	}{
		{"Name", "name", &loggerv1.SetSpec{}},
		{"a", "spec.tables[0].pattern", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "orders"}}}},
		{"a", "spec.tables[0].pattern", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.order"}}}},
		{"a", "spec.tables[1].rows", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.items"}, {Pattern: "org.orders", Rows: `{"organisation": "a"}`}}}},
		{"a", "spec.tables[0].rows", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.orders", Rows: `{"amount": "much"}`}}}},
		{"a", "spec.exclude_tables: there is no table org.salary", &loggerv1.SetSpec{ExcludeTables: []string{"org.salaries", "org.salary"}}},
		{"a", "ALTER TABLE \"org\".\"salaries\" REPLICA IDENTITY FULL", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "org.salaries", Rows: orgSelector}}}},
	} {
		_, err := logger.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: bad.name, Spec: bad.spec})
		if rpc.Code(err) != codes.InvalidArgument || !strings.Contains(rpc.Message(err), bad.field) {
			t.Errorf("%v: %v", bad.spec, err)
		}
	}
	hiding := byOrg()
	hiding.ExcludeTables = append(hiding.ExcludeTables, "org.hidden", "org.hidden_parts", "org.nowhere*")
	if _, err := logger.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "by-org", Spec: hiding}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	if _, err := logger.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "by-org", Spec: byOrg()}); rpc.Reason(err) != "SET_EXISTS" {
		t.Errorf("made a second set of a name: %v", err)
	}
	acme := map[string]string{"org": "acme"}
	snapshot := openSnapshot(t, inventory)
	dump := func(table, set string, parameters map[string]string) error {
		stream, err := inventory.Dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: snapshot, Schema: "org", Table: table, Set: set, Parameters: parameters})
		for err == nil {
			var answer *inventoryv1.DumpResponse
			if answer, err = stream.Recv(); err == nil && answer.GetEnd() != nil {
				return nil
			}
		}
		return err
	}
	follow := func(set string, parameters map[string]string) error {
		stream, err := logger.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Set: set, Parameters: parameters})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"dump of the set", dump("orders", "by-org", acme), ""},
		{"dump of a table that is not in the set", dump("salaries", "by-org", acme), "TABLE_NOT_FOUND"},
		{"dump of another set", dump("orders", "another", nil), "SET_UNKNOWN"},
		{"dump without the parameter", dump("orders", "by-org", nil), "INVALID_FIELD"},
		{"dump with one too many", dump("orders", "by-org", map[string]string{"org": "a", "b": "c"}), "INVALID_FIELD"},
		{"dump with a parameter and no set", dump("orders", "", acme), "INVALID_FIELD"},
		{"stream of another set", follow("another", nil), "SET_UNKNOWN"},
		{"stream without the parameter", follow("by-org", nil), "INVALID_FIELD"},
	} {
		if rpc.Reason(c.err) != c.want || c.want == "" && c.err != nil {
			t.Errorf("%s: %v, want %q", c.what, c.err, c.want)
		}
	}
	// Nobody finds out what there is beside his set.
	want := rpc.Message(dump("nowhere", "by-org", acme))
	for _, table := range []string{"salaries", "hidden", "hidden_parts"} {
		if got := rpc.Message(dump(table, "by-org", acme)); strings.ReplaceAll(got, table, "nowhere") != want {
			t.Errorf("dump of table %s: %s; of one that there is not: %s", table, got, want)
		}
	}
	answer, err := inventory.GetInventory(t.Context(), &inventoryv1.GetInventoryRequest{Set: "by-org", Parameters: acme})
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	if strings.Contains(answer.String()+string(answer.GetDescriptors()), "salaries") {
		t.Error("the inventory of a set tells of a table that is not in it")
	}
	state, err := logger.GetState(t.Context(), &loggerv1.GetStateRequest{Set: "by-org", Parameters: acme})
	if err != nil || strings.Contains(state.String(), "salaries") || !strings.Contains(state.String(), "items_1") {
		t.Errorf("the state of a set: %v, %v", state, err)
	}
	if _, err := logger.DeleteSet(t.Context(), &loggerv1.DeleteSetRequest{Name: "by-org"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	if err := follow("by-org", acme); rpc.Reason(err) != "SET_UNKNOWN" {
		t.Errorf("followed a deleted set: %v", err)
	}
}

func openSnapshot(t testing.TB, inventory inventoryv1.InventoryServiceClient) string {
	t.Helper()
	stream, err := inventory.OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{})
	for err == nil {
		var answer *inventoryv1.OpenSnapshotResponse
		if answer, err = stream.Recv(); answer.GetSnapshot() != nil {
			return answer.GetSnapshot().GetSnapshotId()
		}
	}
	t.Fatal(rpc.Message(err))
	return ""
}

// TestNewPartition makes a partition of a table that a replication names, while it runs: the partition belongs to it, and a replica
// that lacks it says so.
func TestNewPartition(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	conn, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, conn, `CREATE TABLE days (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
		CREATE TABLE other (id int PRIMARY KEY); INSERT INTO days VALUES (1, '2026-01-05')`)
	primary := startPrimary(t, primaryURL)
	replica := startReplica(t, replicaURL)
	replica.mustCreate("days", primary.grpc, func(spec *applierv1.ReplicationSpec) { spec.IncludeTables = []string{"public.days"} })
	replica.waitState("days", time.Minute, applierv1.State_STATE_RUNNING)
	const second = "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
	pgtest.Exec(t, here, second)
	pgtest.Exec(t, conn, second+"; INSERT INTO other VALUES (1); INSERT INTO days VALUES (2, '2026-02-05')")
	replica.waitApplied("days", time.Minute)
	if got := digest(t, here, "days", ""); got != digest(t, conn, "days", "") {
		t.Errorf("the replica holds %s", got)
	}
	pgtest.Exec(t, conn, "CREATE TABLE days_3 PARTITION OF days FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); INSERT INTO days VALUES (3, '2026-03-05')")
	pgtest.Eventually(t, time.Minute, func() error {
		r, err := replica.get("days")
		if err == nil && (r.GetState() != applierv1.State_STATE_FAILED || !strings.Contains(r.GetReason(), `CREATE TABLE "public"."days_3" PARTITION OF "public"."days" FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')`)) {
			err = fmt.Errorf("%s %s", r.GetState(), r.GetReason())
		}
		return err
	})
	pgtest.Exec(t, here, "CREATE TABLE days_3 PARTITION OF days FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
	if _, err := replica.applier().StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "days"}); err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.waitApplied("days", time.Minute)
	if got := digest(t, here, "days", ""); got != digest(t, conn, "days", "") {
		t.Errorf("the replica holds %s", got)
	}
}
