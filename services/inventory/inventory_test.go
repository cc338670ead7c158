package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

func (b *bench) inventory(t *testing.T, tables *inventoryv1.TableSelection) *inventoryv1.GetInventoryResponse {
	t.Helper()
	answer, err := b.GetInventory(t.Context(), &inventoryv1.GetInventoryRequest{Tables: tables}, rpc.LargeAnswer())
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestInventory(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, `CREATE SCHEMA "S s"; CREATE SEQUENCE q;
		CREATE TABLE "S s"."a""b" (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, t varchar(10) NOT NULL UNIQUE, CHECK (id > 0));
		INSERT INTO "S s"."a""b" (id, t) SELECT n, n::text FROM generate_series(1, 1000) n; ANALYZE "S s"."a""b";
		CREATE TABLE nokey (n int); CREATE TABLE p (n int PRIMARY KEY) PARTITION BY LIST (n); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
		CREATE UNLOGGED TABLE u (n int); CREATE MATERIALIZED VIEW m AS SELECT 1 AS n`)
	answer := b.inventory(t, nil)
	if answer.GetServerId() != "primary-1" || answer.GetPostgresVersion() < 150000 || answer.GetPosition().GetLsn() == 0 || answer.GetPosition().GetLogId() != b.logger.logID {
		t.Errorf("answer %v", answer)
	}
	tables := make(map[string]*inventoryv1.Table)
	for _, table := range answer.GetTables() {
		tables[table.GetSchema()+"/"+table.GetName()] = table
	}
	if len(tables) != 4 {
		t.Errorf("tables %v", tables)
	}
	odd := tables[`S s/a"b`]
	if odd.GetKind() != "table" || odd.GetReplicaIdentity() != "d" || !slices.Equal(odd.GetIdentityColumns(), []string{"id"}) || odd.GetEstimatedRows() != 1000 ||
		odd.GetPages() != 6 || odd.GetBytes() < 6*8192 || odd.GetIndexes() != 2 || odd.GetConstraints() < 3 || odd.GetOid() == 0 {
		t.Errorf("table %v", odd)
	}
	var columns []string
	for _, c := range odd.GetColumns() {
		columns = append(columns, fmt.Sprint(c.GetName(), " ", c.GetType(), " ", c.GetNotNull(), " ", c.GetGenerated()))
	}
	if want := []string{"id integer true false", "twice integer false true", "t character varying(10) true false"}; !slices.Equal(columns, want) {
		t.Errorf("columns %q, want %q", columns, want)
	}
	if p := tables["public/p"]; p.GetKind() != "partitioned" || p.GetPages() != 0 {
		t.Errorf("partitioned table %v", p)
	}
	if p := tables["public/p1"]; p.GetKind() != "partition" || p.GetParent() != `"public"."p"` {
		t.Errorf("partition %v", p)
	}
	if n := tables["public/nokey"]; len(n.GetIdentityColumns()) != 0 {
		t.Errorf("table without a key %v", n)
	}
	var skipped []string
	for _, n := range answer.GetNotReplicated() {
		skipped = append(skipped, n.GetName())
		if n.GetReason() == "" || n.GetKind() == "" {
			t.Errorf("not replicated: %v", n)
		}
	}
	if !slices.Contains(skipped, "public.u") || !slices.Contains(skipped, "public.m") {
		t.Errorf("not replicated: %q", skipped)
	}
	var db schema.Database
	if err := json.Unmarshal(answer.GetDescriptors(), &db); err != nil {
		t.Fatal(err)
	}
	if len(db.Tables) != 4 || len(db.Sequences) != 1 || db.Sequences[0].Value == nil {
		t.Errorf("descriptors %+v", db)
	}
	b.requireSessions(t, 0)

	only := b.inventory(t, &inventoryv1.TableSelection{Include: []string{"public.*"}, Exclude: []string{"public.nokey"}})
	if len(only.GetTables()) != 2 {
		t.Errorf("selected %v", only.GetTables())
	}
	for _, c := range []struct {
		include string
		code    codes.Code
		reason  string
	}{{"public.nobody", codes.NotFound, "TABLE_NOT_FOUND"}, {"public.u", codes.NotFound, "TABLE_NOT_FOUND"}, {`"open`, codes.InvalidArgument, rpc.ReasonInvalid}} {
		_, err := b.GetInventory(t.Context(), &inventoryv1.GetInventoryRequest{Tables: &inventoryv1.TableSelection{Include: []string{c.include}}})
		requireStatus(t, err, c.code, c.reason)
	}

	for _, edit := range []func(*fakeLogger){func(f *fakeLogger) { f.err = errors.New("away") }, func(f *fakeLogger) { f.err, f.serverID = nil, "another" }} {
		b.logger.set(edit)
		if without := b.inventory(t, nil); without.GetPosition() != nil || len(without.GetTables()) != 4 {
			t.Errorf("without a logger: %v", without)
		}
	}
}

// TestEveryKindRoundTrips dumps tables of every kind and type, and reads the dumps back.
func TestEveryKindRoundTrips(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.LoadAllKinds(t, b.admin)
	for name, value := range postgres.SessionSettings() {
		pgtest.Exec(t, b.admin, "SELECT set_config($1, $2, false)", name, value)
	}
	s := b.mustOpen(t)
	rows, tables := int64(0), 0
	for _, table := range b.inventory(t, nil).GetTables() {
		if table.GetKind() == "partitioned" {
			continue
		}
		name := postgres.Ident(table.GetSchema(), table.GetName())
		var columns []string
		for _, c := range table.GetColumns() {
			if !c.GetGenerated() {
				columns = append(columns, c.GetName())
			}
		}
		if len(columns) == 0 {
			continue
		}
		tables++
		for format, options := range map[inventoryv1.DumpFormat]string{formatText: "", formatCSV: "(FORMAT csv)", formatJSON: ""} {
			data, end, err := b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: table.GetSchema(), Table: table.GetName(), Format: format})
			if err != nil {
				t.Errorf("%s as %v: %v", name, format, err)
				continue
			}
			rows += end.GetRows()
			if format == formatJSON {
				for line := range strings.Lines(string(data)) {
					if !json.Valid([]byte(line)) {
						t.Errorf("%s has a line that is no JSON: %.200q", name, line)
					}
				}
				continue
			}
			pgtest.Exec(t, b.admin, "CREATE TEMP TABLE back AS SELECT "+postgres.Idents(columns)+" FROM ONLY "+name+" LIMIT 0")
			if _, err := b.admin.PgConn().CopyFrom(t.Context(), strings.NewReader(string(data)), "COPY pg_temp.back FROM STDIN "+options); err != nil {
				t.Errorf("%s as %v: %v", name, format, err)
			}
			same := "SELECT count(*) FROM (SELECT r::text FROM (SELECT " + postgres.Idents(columns) + " FROM ONLY " + name + ") r EXCEPT ALL SELECT back::text FROM pg_temp.back) x"
			if n := pgtest.QueryRow[int](t, b.admin, same); n != 0 || pgtest.QueryRow[int64](t, b.admin, "SELECT count(*) FROM pg_temp.back") != end.GetRows() {
				t.Errorf("%s as %v: %d rows differ", name, format, n)
			}
			pgtest.Exec(t, b.admin, "DROP TABLE pg_temp.back")
		}
	}
	t.Logf("%d rows of %d tables", rows, tables)
	if tables < 20 || rows < 100 {
		t.Errorf("only %d rows of %d tables", rows, tables)
	}
}
