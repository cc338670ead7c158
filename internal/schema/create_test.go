package schema

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// pair makes two empty databases on one server.
func pair(t *testing.T) (from, to *pgx.Conn) {
	t.Helper()
	s := pgtest.Shared(t)
	return pgtest.Connect(t, s.Database(t)), pgtest.Connect(t, s.Database(t))
}

// create brings to the target what it lacks, and returns the plan.
func create(t *testing.T, from, to *pgx.Conn) Plan {
	t.Helper()
	source, target := read(t, from), read(t, to)
	if err := Refusal(CompareAll(source, target)); err != nil {
		t.Fatal(err)
	}
	p := plan(t, source, target, orNone(Missing(source, target)))
	run(t.Context(), t, to, p.all())
	return p
}

// orNone makes an empty list of no list, which would mean everything.
func orNone(names []Name) []Name {
	if names == nil {
		return []Name{}
	}
	return names
}

func TestMissingFunctions(t *testing.T) {
	source := read(t, allKinds(t, pgtest.Shared(t)))
	target := read(t, pgtest.Connect(t, pgtest.Shared(t).Database(t)))
	_, err := CreateStatements(source, target, nil)
	var missing *MissingObjectsError
	if !errors.As(err, &missing) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, o := range missing.Objects {
		got = append(got, o.Owner.String()+"."+o.Need.Column+" "+o.Need.Used+" "+o.Need.Identity)
	}
	want := []string{
		"shop.by_expression. partition key shop.twice(integer)",
		"shop.customers.doubled generation expression shop.twice(integer)",
		"shop.temperature. range shop.float_diff(double precision,double precision)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	text := "shop.customers column doubled (generation expression) needs function shop.twice(integer), which the target lacks: " +
		"create it on the target first, for example from pg_dump --schema-only of the source, or exclude the table"
	if !strings.Contains(err.Error(), text) {
		t.Errorf("got %s", err)
	}
	_, err = CreateStatements(source, target, []Name{{"shop", "customers"}})
	if !errors.As(err, &missing) || missing.Objects[0].Need.Column != "doubled" || missing.Objects[0].Need.Used != "generation expression" {
		t.Errorf("got %v", err)
	}
	if _, err := CreateStatements(source, target, []Name{{"shop", "nothing"}}); err != nil {
		t.Errorf("a table without needs is refused: %v", err)
	}
}

func TestExtensions(t *testing.T) {
	need := []Need{{Column: "v", Used: "type", Kind: "type", Identity: "ext.citext", Name: Name{"ext", "citext"}, Extension: "citext"}}
	source := Database{
		ServerVersion: 150000, Schemas: []string{"ext", "s"}, Extensions: []Extension{{"citext", "ext", "1.6"}},
		Tables: []Table{{Schema: "s", Name: "t", Kind: KindOrdinary, ReplicaIdentity: "d", Columns: []Column{{Name: "v", Type: "ext.citext"}}, Needs: need}},
	}
	trusted := []AvailableExtension{{"citext", "1.6", true}}
	for _, c := range []struct {
		name   string
		target Database
		want   string // part of the error, or the statement
	}{
		{"trusted", Database{Role: Role{Name: "r", Create: true}, Available: trusted}, `CREATE EXTENSION IF NOT EXISTS "citext" WITH SCHEMA "ext" CASCADE`},
		{"superuser", Database{Role: Role{Superuser: true}, Available: []AvailableExtension{{"citext", "1.6", false}}}, `CREATE EXTENSION IF NOT EXISTS "citext" WITH SCHEMA "ext" CASCADE`},
		{"not trusted", Database{Role: Role{Name: "r", Create: true}, Available: []AvailableExtension{{"citext", "1.6", false}}}, `run on the target as superuser: CREATE EXTENSION IF NOT EXISTS "citext"`},
		{"no privilege", Database{Role: Role{Name: "r"}, Available: trusted}, `role r lacks the CREATE privilege on the database`},
		{"not there", Database{Role: Role{Superuser: true}}, `is not installed on the target's machine; install its package`},
		{"elsewhere", Database{Extensions: []Extension{{"citext", "public", "1.6"}}}, `ALTER EXTENSION "citext" SET SCHEMA "ext"`},
		{"installed", Database{Extensions: []Extension{{"citext", "ext", "1.5"}}}, ""},
	} {
		c.target.ServerVersion = 150000
		p, err := CreateStatements(source, c.target, nil)
		got := ""
		if err != nil {
			got = err.Error()
		}
		for _, s := range p.Before {
			if s.Kind == StatementExtension {
				got = s.SQL
			}
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: got %s", c.name, got)
		}
	}
}

func TestConflicts(t *testing.T) {
	from, to := pair(t)
	exec(t, from, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int, v int)", "CREATE INDEX i ON b (v)", "CREATE TABLE c (id int)", "CREATE SEQUENCE s")
	exec(t, to, "CREATE SEQUENCE a", "CREATE TABLE other (id int)", "CREATE INDEX i ON other (id)", "CREATE TYPE c AS ENUM ()", "CREATE VIEW s AS SELECT 1")
	_, err := CreateStatements(read(t, from), read(t, to), nil)
	var conflict *ConflictError
	want := []string{
		"table public.a: the target has a sequence of that name",
		"index public.i of table public.b: the target has an index of table public.other of that name",
		"table public.c: the target has a type of that name",
		"sequence public.s: the target has a view of that name",
	}
	if !errors.As(err, &conflict) || !slices.Equal(conflict.Problems, want) {
		t.Errorf("got %v", err)
	}

	temporal := Database{ServerVersion: 180000, Tables: []Table{{
		Schema: "s", Name: "t", Kind: KindOrdinary, ReplicaIdentity: "d",
		Constraints: []Constraint{{Name: "pk", Type: "p", Definition: "PRIMARY KEY (a, b WITHOUT OVERLAPS)", Period: true, Validated: true, Enforced: true}},
	}}}
	if _, err := CreateStatements(temporal, Database{ServerVersion: 150000}, nil); !errors.As(err, &conflict) || !strings.Contains(err.Error(), "WITHOUT OVERLAPS, which PostgreSQL 15 on the target does not know") {
		t.Errorf("got %v", err)
	}
	if _, err := CreateStatements(temporal, temporal, []Name{{"s", "unknown"}}); err == nil || !strings.Contains(err.Error(), "s.unknown") {
		t.Errorf("got %v", err)
	}
	loop := Database{Tables: []Table{
		{Schema: "s", Name: "a", Needs: []Need{{Kind: "table", Name: Name{"s", "b"}}}},
		{Schema: "s", Name: "b", Needs: []Need{{Kind: "table", Name: Name{"s", "a"}}}},
	}}
	if _, err := CreateStatements(loop, Database{}, nil); !errors.As(err, &conflict) {
		t.Errorf("got %v", err)
	}
}

// TestSubset creates one table with what it needs, and says what it leaves out.
func TestSubset(t *testing.T) {
	s := pgtest.Shared(t)
	from, to := allKinds(t, s), empty(t, s)
	names := []Name{{"shop", "orders"}, {"shop", "events_2024_ab"}}
	selection, err := ParseSelection([]string{"shop.orders", "shop.events_2024_ab"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	source, err := Read(t.Context(), from, selection)
	if err != nil {
		t.Fatal(err)
	}
	p := plan(t, source, read(t, to), names)
	run(t.Context(), t, to, p.all())
	var skipped []string
	for _, x := range p.Skipped {
		skipped = append(skipped, x.Kind+" "+x.Name+": "+x.Reason)
	}
	want := []string{
		"parent of table shop.events_2024_ab: its parent shop.events_2024 is not on the target, so it stands alone",
		"foreign key orders_customer_fkey of shop.orders: table shop.customers, to which it points, is not replicated",
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("skipped %q", skipped)
	}
	target := read(t, to)
	if len(target.Tables) != 2 || target.Types != nil || len(target.Sequences) != 1 {
		t.Errorf("created %d tables, types %v, sequences %v", len(target.Tables), target.Types, target.Sequences)
	}
	alone := table(t, target, "shop", "events_2024_ab")
	if alone.Kind != KindOrdinary || len(alone.PrimaryKey) != 3 || !slices.ContainsFunc(alone.Constraints, func(c Constraint) bool { return c.Name == "n_positive" }) {
		t.Errorf("got %+v", alone)
	}
}

func TestPartitionedSourceIntoOrdinaryTarget(t *testing.T) {
	from, to := pair(t)
	exec(t, from, "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)", "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (1) TO (10)",
		"CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id)", "CREATE TABLE r2a PARTITION OF r2 DEFAULT")
	exec(t, to, "CREATE TABLE r (v text, id bigint PRIMARY KEY)")
	source, target := read(t, from), read(t, to)
	if missing := Missing(source, target); missing != nil {
		t.Errorf("missing %v", missing)
	}
	if route, ok := Route(source, target, Name{"public", "r2a"}); !ok || route != (Name{"public", "r"}) {
		t.Errorf("r2a goes to %v", route)
	}
	found := CompareAll(source, target)
	if Refusal(found) != nil || len(found) != 1 {
		t.Errorf("found %v", found)
	}
	exec(t, to, "ALTER TABLE r DROP CONSTRAINT r_pkey")
	if err := Refusal(CompareAll(source, read(t, to))); err == nil {
		t.Error("a key that no partition finds on the target is passed over")
	}
}

func TestOrdinarySourceIntoPartitionedTarget(t *testing.T) {
	from, to := pair(t)
	exec(t, from, "CREATE TABLE r (id int PRIMARY KEY, v text, CHECK (id > 0))", "CREATE INDEX ON r (v)")
	exec(t, to, "CREATE TABLE r (id int NOT NULL, v text) PARTITION BY RANGE (id)", "CREATE TABLE mine PARTITION OF r DEFAULT")
	source, target := read(t, from), read(t, to)
	if missing := Missing(source, target); missing != nil {
		t.Errorf("missing %v", missing)
	}
	if err := Refusal(CompareAll(source, target)); err == nil || !strings.Contains(err.Error(), "identity (id)") {
		t.Errorf("got %v", err)
	}
	run(t.Context(), t, to, plan(t, source, target, []Name{{"public", "r"}}).all()) // asked to finish it all the same
	if err := Refusal(CompareAll(source, read(t, to))); err != nil {
		t.Error(err)
	}
}

// TestOwnLayoutStands: a target that is partitioned by other bounds gets none of the source's partitions.
func TestOwnLayoutStands(t *testing.T) {
	from, to := pair(t)
	root := "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)"
	exec(t, from, root, "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (1) TO (10)", "CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20)")
	exec(t, to, root, "CREATE TABLE all_of_it PARTITION OF r FOR VALUES FROM (1) TO (1000)")
	source, target := read(t, from), read(t, to)
	if missing := Missing(source, target); missing != nil {
		t.Errorf("missing %v", missing)
	}
	if err := Refusal(CompareAll(source, target)); err != nil {
		t.Error(err)
	}
}

// TestNewPartitionsJoin: the target has the source's table and one of its partitions, with keys and checks.
func TestNewPartitionsJoin(t *testing.T) {
	from, to := pair(t)
	start := `CREATE TABLE r (id int PRIMARY KEY, v text, CONSTRAINT positive CHECK (id > 0)) PARTITION BY RANGE (id);
		CREATE INDEX r_v ON r (v);
		CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (1) TO (10);
		CREATE TABLE p (id int PRIMARY KEY, v text, CONSTRAINT has_v CHECK (v <> ''))`
	exec(t, from, start, "CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20)", "CREATE INDEX r2_own ON r2 (id, v)",
		"CREATE TABLE c (w int) INHERITS (p)")
	exec(t, to, start)
	p := create(t, from, to)
	if p.Skipped != nil {
		t.Errorf("skipped %v", p.Skipped)
	}
	source, target := read(t, from), read(t, to)
	if found := CompareAll(source, target); found != nil {
		t.Errorf("found %v", found)
	}
	if again := plan(t, source, target, []Name{{"public", "c"}, {"public", "r2"}}).all(); again != nil {
		t.Errorf("still to do: %s", listing(again))
	}
	joined := table(t, target, "public", "r2")
	if len(joined.Indexes) != 3 || joined.Kind != KindLeaf || joined.PrimaryKey == nil {
		t.Errorf("got %+v", joined)
	}
}

func TestWhatIsNoTableIsNamed(t *testing.T) {
	from, to := pair(t)
	exec(t, from, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	exec(t, to, "CREATE UNLOGGED TABLE a (id int PRIMARY KEY)", "CREATE VIEW b AS SELECT 1 AS id")
	err := Refusal(CompareAll(read(t, from), read(t, to)))
	if err == nil || !strings.Contains(err.Error(), "table public.a: what has this name on the target cannot take the rows (source: ordinary, target: unlogged table)") ||
		!strings.Contains(err.Error(), "target: view") {
		t.Errorf("got %v", err)
	}
}

// TestLoadedRowsMayBreakWhatIsNotValidated: rows that a NOT VALID constraint of the source passes over must load.
func TestLoadedRowsMayBreakWhatIsNotValidated(t *testing.T) {
	from, to := pair(t)
	exec(t, from, "CREATE DOMAIN d AS int", "CREATE TABLE t (id int PRIMARY KEY, v d, w int)", "INSERT INTO t VALUES (1, -1, -1)",
		"ALTER TABLE t ADD CHECK (w > 0) NOT VALID", "ALTER DOMAIN d ADD CHECK (VALUE > 0) NOT VALID",
		"ALTER TABLE t ADD FOREIGN KEY (w) REFERENCES t NOT VALID")
	p := plan(t, read(t, from), read(t, to), nil)
	run(t.Context(), t, to, p.Before)
	exec(t, to, "INSERT INTO t VALUES (1, -1, -1)")
	run(t.Context(), t, to, append(p.After, p.ForeignKeys...))
	requireEqual(t, read(t, from), read(t, to))
}
