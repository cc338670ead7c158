package schema

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

func table(t testing.TB, d Database, schema, name string) Table {
	t.Helper()
	found, ok := d.Table(Name{schema, name})
	if !ok {
		t.Fatalf("table %s.%s is not described", schema, name)
	}
	return found
}

func TestReadTables(t *testing.T) {
	s := pgtest.Shared(t)
	conn := allKinds(t, s)
	exec(t, conn, "INSERT INTO shop.by_index SELECT i, repeat('x', 100), i FROM generate_series(1, 1000) i", "ANALYZE shop.by_index",
		"INSERT INTO shop.full_identity SELECT i, repeat('x', 10000) FROM generate_series(1, 100) i")
	d := read(t, conn)

	if d.ServerVersion/10000 != s.Major() || d.Role.Name != "postgres" || !d.Role.Superuser || !d.Role.Create {
		t.Errorf("server %d, role %+v", d.ServerVersion, d.Role)
	}
	kinds := map[string]string{"customers": KindOrdinary, "events": KindPartitioned, "events_2024": KindPartitioned, "events_2024_ab": KindLeaf}
	for name, kind := range kinds {
		if got := table(t, d, "shop", name).Kind; got != kind {
			t.Errorf("%s is %s", name, got)
		}
	}
	for _, c := range []struct {
		name, identity, index string
		columns               []string
		reason                string
	}{
		{"customers", "d", "customers_pkey", []string{"id"}, ""},
		{"by_index", "i", "by_index_ab", []string{"b", "a"}, ""},
		{"full_identity", "f", "", []string{"a", "b"}, ""},
		{"nothing", "n", "", nil, "its REPLICA IDENTITY is NOTHING"},
		{"no_key", "d", "", nil, "it has no primary key and no other REPLICA IDENTITY"},
		{"deferrable_key", "d", "", nil, "its key deferrable_key_pkey is deferrable"},
		{"events_2024_ab", "d", "events_2024_ab_pkey", []string{"id", "at", "kind"}, ""},
	} {
		got := table(t, d, "shop", c.name)
		if got.ReplicaIdentity != c.identity || got.IdentityIndex != c.index || !slices.Equal(got.IdentityColumns, c.columns) || got.NoIdentity != c.reason {
			t.Errorf("%s: identity %q by %q %v: %s", c.name, got.ReplicaIdentity, got.IdentityIndex, got.IdentityColumns, got.NoIdentity)
		}
	}
	counted := table(t, d, "shop", "by_index")
	if counted.EstimatedRows != 1000 || counted.Pages == 0 || counted.EstimatedBytes < counted.Pages*8192 || counted.Filenode == 0 {
		t.Errorf("by_index: %d rows, %d pages, %d bytes, filenode %d", counted.EstimatedRows, counted.Pages, counted.EstimatedBytes, counted.Filenode)
	}
	uncounted := table(t, d, "shop", "full_identity")
	if uncounted.EstimatedRows <= 0 || uncounted.EstimatedBytes <= uncounted.Pages*8192 {
		t.Errorf("full_identity: %d rows, %d bytes in %d pages", uncounted.EstimatedRows, uncounted.EstimatedBytes, uncounted.Pages)
	}
	if !uncounted.ReplicaTriggers || table(t, d, "shop", "no_key").ReplicaTriggers || !table(t, d, "shop", "no_key").RowSecurity {
		t.Error("triggers or row security are wrong")
	}
	if root := table(t, d, "shop", "events"); root.EstimatedRows != 0 || root.Pages != 0 || root.PartitionKey != "RANGE (at)" {
		t.Errorf("events: %+v", root)
	}
	if leaf := table(t, d, "shop", "events_2024_ab"); leaf.Bound != `FOR VALUES IN ('a', 'b''s')` || leaf.Parents[0] != (Name{"shop", "events_2024"}) {
		t.Errorf("events_2024_ab: %s of %v", leaf.Bound, leaf.Parents)
	}

	var skipped []string
	for _, s := range d.NotReplicated {
		if s.Reason == "" {
			t.Errorf("%s %s has no reason", s.Kind, s.Name)
		}
		skipped = append(skipped, s.Kind+" "+s.Name)
	}
	for _, want := range []string{"unlogged table shop.scratch", "view shop.happy", "materialized view shop.totals", "statistics shop.stats", "large objects 1 large objects", "role postgres"} {
		if !slices.Contains(skipped, want) {
			t.Errorf("%q is not listed in %q", want, skipped)
		}
	}
}

func TestReadSequences(t *testing.T) {
	conn := allKinds(t, pgtest.Shared(t))
	d := read(t, conn)
	tickets, _ := d.sequence(Name{"shop", "tickets"})
	tickets.OID = 0
	value := *tickets.Value
	tickets.Value = nil
	want := Sequence{Schema: "shop", Name: "tickets", Type: "integer", Start: 100, Min: -1000, Max: 1000, Increment: -5, Cache: 7, Cycle: true}
	if tickets != want || value != (SequenceValue{Last: 42}) {
		t.Errorf("got %+v at %+v", tickets, value)
	}
	serial, _ := d.sequence(Name{"shop", "customers_legacy_seq"})
	identity, _ := d.sequence(Name{"shop", "customers_id_seq"})
	customers := Name{"shop", "customers"}
	if serial.Owner != customers || serial.OwnerColumn != "legacy" || serial.Identity || identity.Owner != customers || !identity.Identity {
		t.Errorf("serial %+v, identity %+v", serial, identity)
	}
	statements, err := SequenceStatements(d, d)
	if err != nil {
		t.Fatal(err)
	}
	var odd string
	for _, s := range statements {
		if strings.Contains(s.SQL, "Odd Seq") {
			odd = s.SQL
		}
	}
	if want := `SELECT pg_catalog.setval('"Odd ""Schema"."Odd Seq"'::pg_catalog.regclass, 9007199254740993, true)`; odd != want {
		t.Errorf("got %s, want %s", odd, want)
	}
}

// TestSequencesMove sets a target's sequences, where an identity column's has another name.
func TestSequencesMove(t *testing.T) {
	s := pgtest.Shared(t)
	from, to := pgtest.Connect(t, s.Database(t)), pgtest.Connect(t, s.Database(t))
	exec(t, from, "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME a_seq), b int)",
		"INSERT INTO t (b) VALUES (1), (2), (3)", "CREATE SEQUENCE alone", "CREATE SEQUENCE unused")
	exec(t, to, "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, b int)", "CREATE SEQUENCE alone", "SELECT setval('alone', 77)")
	statements, err := SequenceStatements(read(t, from), read(t, to))
	if err != nil {
		t.Fatal(err)
	}
	run(t.Context(), t, to, statements)
	if got := pgtest.QueryRow[int64](t, to, "SELECT nextval('t_id_seq')"); got != 4 {
		t.Errorf("the identity goes on at %d", got)
	}
	if got := pgtest.QueryRow[int64](t, to, "SELECT nextval('alone')"); got != 1 {
		t.Errorf("the sequence that was never called goes on at %d", got)
	}
}

func TestLeastPrivileges(t *testing.T) {
	s := pgtest.Shared(t)
	url := s.Database(t)
	owner := pgtest.Connect(t, url)
	runFile(t, owner, "functions.sql")
	runFile(t, owner, "kinds.sql")
	role := fmt.Sprintf("reader_%d", time.Now().UnixNano())
	exec(t, owner, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() {
		if _, err := owner.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	full := read(t, owner)
	exec(t, owner, "SET ROLE "+role)
	d := read(t, owner)
	_, err := SequenceStatements(d, d)
	var unreadable *UnreadableSequencesError
	if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), `GRANT SELECT ON SEQUENCE "Odd ""Schema"."Odd Seq"`) {
		t.Errorf("got %v", err)
	}
	requireEqual(t, full, d)
	exec(t, owner, "RESET ROLE", `GRANT USAGE ON SCHEMA shop, "Odd ""Schema" TO `+role, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA shop TO "+role,
		`GRANT SELECT ON ALL SEQUENCES IN SCHEMA "Odd ""Schema" TO `+role, "SET ROLE "+role)
	d = read(t, owner)
	if _, err := SequenceStatements(d, d); err != nil {
		t.Error(err)
	}
	exec(t, owner, "RESET ROLE")
}

func TestReadSelection(t *testing.T) {
	conn := allKinds(t, pgtest.Shared(t))
	selection, err := ParseSelection([]string{"shop.events", "shop.orders", "*.*nothing*"}, []string{"shop.events_2024_rest"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Read(t.Context(), conn, selection)
	if err != nil {
		t.Fatal(err)
	}
	var names, sequences []string
	for _, x := range d.Tables {
		names = append(names, x.Name)
	}
	for _, x := range d.Sequences {
		sequences = append(sequences, x.Name)
	}
	if want := []string{"events", "events_2023", "events_2024", "events_2024_ab", "events_default", "nothing", "orders"}; !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	if !slices.Equal(sequences, []string{"orders_id_seq"}) || d.Types != nil || !slices.Equal(d.Schemas, []string{"shop"}) {
		t.Errorf("sequences %q, types %v, schemas %q", sequences, d.Types, d.Schemas)
	}
	if err := d.Check(selection); err != nil {
		t.Error(err)
	}

	selection, err = ParseSelection([]string{"shop.customers"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = Read(t.Context(), conn, selection); err != nil {
		t.Fatal(err)
	}
	sequences = nil
	for _, x := range d.Sequences {
		sequences = append(sequences, x.Name)
	}
	if want := []string{"customers_id_seq", "customers_legacy_seq", "tickets"}; !slices.Equal(sequences, want) || len(d.Types) != 8 || len(d.Collations) != 1 {
		t.Errorf("sequences %q, %d types, %d collations", sequences, len(d.Types), len(d.Collations))
	}
}

func TestUnknownTables(t *testing.T) {
	conn := allKinds(t, pgtest.Shared(t))
	selection, err := ParseSelection([]string{"shop.customers", "shop.custmers", "nowhere.*", "shop.scratch", "shop.happy", "pg_catalog.pg_class", "shop.orders"}, []string{"shop.orders"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Read(t.Context(), conn, selection)
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownTablesError
	if err := d.Check(selection); !errors.As(err, &unknown) {
		t.Fatalf("got %v", err)
	}
	want := []string{
		"table shop.custmers does not exist",
		"no table matches nowhere.*",
		"unlogged table shop.scratch cannot be replicated: its changes are not in the write-ahead log; ALTER TABLE … SET LOGGED makes it replicable",
		"view shop.happy cannot be replicated: it holds no rows; create it on the target where it is wanted",
		"pg_catalog.pg_class is in a schema that is never replicated",
		"shop.orders is both included and excluded",
	}
	if !slices.Equal(unknown.Problems, want) {
		t.Errorf("got\n%s", strings.Join(unknown.Problems, "\n"))
	}
}

// TestReadInsideATransaction: a keeper's snapshot gives the tables of that time, and its session stays as it was.
func TestReadInsideATransaction(t *testing.T) {
	s := pgtest.Shared(t)
	url := s.Database(t)
	keeper, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
	exec(t, other, "CREATE TABLE before (id int PRIMARY KEY)", "CREATE TABLE dropped (id serial PRIMARY KEY, v text DEFAULT 'x', CHECK (v <> ''))")
	exec(t, keeper, "SET search_path = pg_catalog, public")
	tx, err := keeper.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	var snapshot string
	if err := tx.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	exec(t, other, "CREATE TABLE after (id int PRIMARY KEY)", "CREATE SEQUENCE after_seq", "DROP TABLE dropped")
	d := read(t, tx)
	if len(d.Tables) != 1 || d.Tables[0].Name != "before" || d.Sequences != nil {
		t.Errorf("got %+v, %+v", d.Tables, d.Sequences)
	}
	var path string
	if err := tx.QueryRow(t.Context(), "SELECT current_setting('search_path')").Scan(&path); err != nil || path != "pg_catalog, public" {
		t.Errorf("search_path is %q: %v", path, err)
	}
	if err := tx.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot); err != nil {
		t.Errorf("the keeper can export no more: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	if d := read(t, keeper); len(d.Tables) != 2 {
		t.Errorf("afterwards the session reads %d tables", len(d.Tables))
	}
}

// TestReadSaysWhichTableIsLocked: somebody's VACUUM FULL holds up no inventory for long.
func TestReadSaysWhichTableIsLocked(t *testing.T) {
	s := pgtest.Shared(t)
	url := s.Database(t)
	conn, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, v text)", "SET lock_timeout = '200ms'")
	exec(t, other, "BEGIN", "LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	_, err := Read(t.Context(), conn, Selection{})
	if !errors.Is(err, ErrTableLocked) || !strings.Contains(err.Error(), fmt.Sprintf("public.t by process %d", other.PgConn().PID())) || !postgres.IsTransient(err) {
		t.Errorf("got %v", err)
	}
	exec(t, other, "ROLLBACK")
	read(t, conn)
	exec(t, other, "BEGIN", "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE")
	read(t, conn)
	exec(t, other, "ROLLBACK")
}

type queryCounter struct{ n atomic.Int64 }

func (c *queryCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}
func (c *queryCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestNumberOfQueriesIsFixed(t *testing.T) {
	s := pgtest.Shared(t)
	var counts []int64
	for _, tables := range []int{1, 300} {
		config, err := pgx.ParseConfig(s.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		counter := &queryCounter{}
		config.Tracer = counter
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		exec(t, conn, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
			EXECUTE format('CREATE TABLE t%%s (id bigserial PRIMARY KEY, a text DEFAULT ''x'' UNIQUE, b int CHECK (b > 0))', i);
			END LOOP; END $$`, tables))
		counter.n.Store(0)
		start := time.Now()
		if d := read(t, conn); len(d.Tables) != tables || len(d.Sequences) != tables {
			t.Fatalf("%d tables and %d sequences of %d", len(d.Tables), len(d.Sequences), tables)
		}
		t.Logf("%d tables: %d queries in %v", tables, counter.n.Load(), time.Since(start))
		counts = append(counts, counter.n.Load())
	}
	if counts[0] != counts[1] || counts[0] > 25 {
		t.Errorf("queries: %v", counts)
	}
}

// TestReadAmongSchemaChanges: tables, types and sequences that come and go must not break a reading of the others.
func TestReadAmongSchemaChanges(t *testing.T) {
	s := pgtest.Shared(t)
	url := s.Database(t)
	conn, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE stays (id serial PRIMARY KEY, v text CHECK (v <> ''))")
	want, _ := read(t, conn).Table(Name{"public", "stays"})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			ctx := context.WithoutCancel(t.Context())
			_, err := other.Exec(ctx, `
				CREATE TYPE mood AS ENUM ('a', 'b');
				CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
				CREATE TABLE p (id int GENERATED ALWAYS AS IDENTITY, m mood DEFAULT 'a', g int, PRIMARY KEY (id), CHECK (g > 0)) PARTITION BY RANGE (id);
				CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (100);
				CREATE INDEX ON p ((f(g)));
				CREATE SEQUENCE sq`)
			if err == nil {
				_, err = other.Exec(ctx, "DROP TABLE p CASCADE; DROP TYPE mood; DROP FUNCTION f; DROP SEQUENCE sq")
			}
			if err != nil {
				stopped <- err
				return
			}
		}
	}()
	const readings = 60
	for range readings {
		d, err := Read(t.Context(), conn, Selection{})
		if err != nil {
			t.Errorf("read among changes: %v", err)
			break
		}
		got, _ := d.Table(Name{"public", "stays"})
		got.EstimatedRows, got.Pages, got.EstimatedBytes = want.EstimatedRows, want.Pages, want.EstimatedBytes
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
