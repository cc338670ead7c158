package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestInventoryDetails reads what tables are made of, sizes of partitions and of tables that were never analyzed, and which tables are
// captured.
func TestInventoryDetails(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int NOT NULL CHECK (VALUE > 0);
		CREATE TYPE pair AS (a int, b text); CREATE TYPE span AS RANGE (subtype = int); CREATE SEQUENCE tickets;
		CREATE TABLE a (id bigserial PRIMARY KEY, m mood, n positive, v text CONSTRAINT a_short CHECK (length(v) < 100));
		CREATE INDEX a_v ON a (lower(v)); CREATE TABLE ref (a bigint REFERENCES a, x int UNIQUE);
		INSERT INTO a (m, n, v) SELECT 'ok', 1, 'x' FROM generate_series(1, 10) n; SELECT nextval('tickets');
		CREATE TABLE fresh (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off); INSERT INTO fresh SELECT n, repeat('x', 60) FROM generate_series(1, 10000) n;
		CREATE TABLE p (n int, v text) PARTITION BY RANGE (n); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
		CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (2000) PARTITION BY RANGE (n);
		CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (1000) TO (1500); CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (1500) TO (2000);
		INSERT INTO p SELECT n, 'x' FROM generate_series(0, 1999) n; ANALYZE p1; ANALYZE p21; ANALYZE p22; ANALYZE a`)
	b.logger.set(func(f *fakeLogger) {
		f.tables, f.insertOnly = []string{`"public"."a"`, `"public"."p1"`, `"public"."p21"`, `"public"."p22"`, `"public"."ref"`}, []string{`"public"."ref"`, `"public"."p1"`}
		f.uncaptured = []*loggerv1.UncapturedTable{{Schema: "public", Name: "fresh", Reason: "it is fresh", Mend: "wait", Sql: "SELECT 1"}}
	})
	answer := b.inventory(t, nil)
	tables := make(map[string]*inventoryv1.Table)
	var rows, bytes int64
	for _, table := range answer.GetTables() {
		tables[table.GetName()] = table
		rows, bytes = rows+table.GetEstimatedRows(), bytes+table.GetBytes()
	}
	if rows != answer.GetTotalRows() || bytes != answer.GetTotalBytes() || rows < 10000 {
		t.Errorf("in all %d rows and %d bytes, the tables have %d and %d", answer.GetTotalRows(), answer.GetTotalBytes(), rows, bytes)
	}
	for name, want := range map[string][2]int64{"a": {10, 10}, "p": {0, 2000}, "p1": {1000, 1000}, "p2": {0, 1000}, "p21": {500, 500}} {
		if got := tables[name]; got.GetEstimatedRows() != want[0] || got.GetTotalRows() != want[1] || (got.GetBytes() > 0) != (want[0] > 0) || got.GetTotalBytes() == 0 {
			t.Errorf("%s has %d rows and %d bytes, in all %d and %d", name, got.GetEstimatedRows(), got.GetBytes(), got.GetTotalRows(), got.GetTotalBytes())
		}
	}
	if got := tables["fresh"]; got.GetEstimatedRows() < 3000 || got.GetEstimatedRows() > 30000 || got.GetBytes() < 10000*60 { // never analyzed
		t.Errorf("fresh has %d rows, %d bytes", got.GetEstimatedRows(), got.GetBytes())
	}
	var got []string
	for _, c := range tables["a"].GetConstraintList() {
		if c.GetKind() != "not null" { // 18 has them
			got = append(got, fmt.Sprint(c.GetKind(), " ", c.GetName(), " ", c.GetDefinition(), " ", c.GetValidated()))
		}
	}
	for _, x := range tables["a"].GetIndexList() {
		got = append(got, fmt.Sprint(x.GetName(), " ", x.GetConstraint(), " ", x.GetUnique(), x.GetPrimary(), x.GetValid(), " ", x.GetDefinition()))
	}
	got = append(got, fmt.Sprint(tables["ref"].GetConstraintList()[0].GetKind(), " ", tables["ref"].GetConstraintList()[0].GetDefinition()))
	for _, q := range answer.GetSequences() {
		got = append(got, fmt.Sprint(q.GetName(), " ", q.GetType(), " ", q.GetOwnerTable(), " ", q.GetOwnerColumn(), " ", q.GetLastValue()))
	}
	for _, u := range answer.GetTypes() {
		got = append(got, fmt.Sprint(u.GetKind(), " ", u.GetName(), " ", u.GetDefinition()))
	}
	want := []string{
		"primary key a_pkey PRIMARY KEY (id) true", "check a_short CHECK ((length(v) < 100)) true",
		"a_pkey a_pkey true true true CREATE UNIQUE INDEX a_pkey ON public.a USING btree (id)",
		"a_v  false false true CREATE INDEX a_v ON public.a USING btree (lower(v))",
		"foreign key FOREIGN KEY (a) REFERENCES public.a(id)",
		`a_id_seq bigint "public"."a" id 10`, "tickets bigint   1",
		"enum mood sad, ok", "composite pair a integer, b text", "domain positive integer NOT NULL CHECK ((VALUE > 0))", "range span integer",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, want := range map[string]string{"a": "yes", "ref": "inserts", "fresh": "no", "p1": "inserts", "p2": "yes", "p": "partly"} {
		if got := tables[name].GetCaptured(); got != want {
			t.Errorf("%s is captured: %q", name, got)
		}
	}
	if f := tables["fresh"]; f.GetNotCapturedReason() != "it is fresh" || f.GetMend() != "wait" || f.GetMendSql() != "SELECT 1" {
		t.Errorf("fresh %v", f)
	}
	b.logger.set(func(f *fakeLogger) { f.tables, f.uncaptured = f.tables[1:], nil })
	again := b.inventory(t, &inventoryv1.TableSelection{Include: []string{"public.a"}}).GetTables()[0]
	if again.GetCaptured() != "no" || !strings.Contains(again.GetMend(), "syncline logger config") {
		t.Errorf("left out: %v", again)
	}
}

// TestInventoryIncludesSystem lists the tables that are never replicated, and only when asked to.
func TestInventoryIncludesSystem(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a (id int PRIMARY KEY); CREATE SCHEMA syncline; CREATE TABLE syncline.server (id int)")
	if plain := b.inventory(t, nil); len(plain.GetTables()) != 1 {
		t.Errorf("tables %v", plain.GetTables())
	}
	answer, err := b.GetInventory(t.Context(), &inventoryv1.GetInventoryRequest{IncludeSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, table := range answer.GetTables() {
		if table.GetKind() == kindSystem {
			reasons[table.GetSchema()+"."+table.GetName()] = table.GetNotCapturedReason()
		}
	}
	if !strings.Contains(reasons["pg_catalog.pg_class"], "PostgreSQL's own") || !strings.Contains(reasons["syncline.server"], "Syncline's own") ||
		len(reasons) != len(answer.GetTables())-1 || answer.GetTotalBytes() != answer.GetTables()[0].GetBytes() {
		t.Errorf("%d tables: %v", len(answer.GetTables()), reasons)
	}
}

// TestNoSnapshotWhileStopped refuses a snapshot that could not be followed, and names the way out; an inventory is given all the same.
func TestNoSnapshotWhileStopped(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	b.logger.set(func(f *fakeLogger) { f.stopped = true })
	stream, err := b.OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	requireStatus(t, err, codes.Unavailable, "LOGGER_UNAVAILABLE")
	if !strings.Contains(err.Error(), "syncline logger start") {
		t.Error(err)
	}
	if b.inventory(t, nil).GetPosition() == nil {
		t.Error("the inventory has no position")
	}
	b.logger.set(func(f *fakeLogger) { f.stopped = false })
	s := b.mustOpen(t)
	list, err := b.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
	if err != nil || len(list.GetSnapshots()) != 1 {
		t.Fatalf("snapshots %v, %v", list, err)
	}
	one := list.GetSnapshots()[0]
	holder := pgtest.QueryRow[int](t, b.admin, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND backend_xmin IS NOT NULL", int(one.GetSessionPid()))
	if one.GetSnapshotId() != s.GetSnapshotId() || one.GetTtl().AsDuration() <= 0 || one.GetClient() == "" || holder != 1 || one.GetReads() != 0 {
		t.Errorf("snapshot %v, %d sessions hold it", one, holder)
	}
}
