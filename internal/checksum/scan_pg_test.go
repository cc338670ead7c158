package checksum

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := postgres.Connect(t.Context(), url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestServersAgree computes the checksums of every kind of table on two versions of PostgreSQL, the second with other settings
// of the database, other orders of columns and rows.
func TestServersAgree(t *testing.T) {
	var all []map[string]Sum
	for i, version := range []string{"15", "18"} {
		server := pgtest.New(t, pgtest.WithVersion(version), pgtest.WithFsync(false))
		url := server.Database(t)
		plain := pgtest.Connect(t, url)
		pgtest.LoadAllKinds(t, plain)
		pgtest.Exec(t, plain, "UPDATE kinds.defaults SET key = NULL, at = 'epoch'; ALTER TABLE kinds.altered DROP COLUMN moment; ALTER TABLE kinds.altered ADD moment timestamptz DEFAULT 'epoch'")
		pgtest.Exec(t, plain, `CREATE TABLE shop (id int PRIMARY KEY, at timestamptz, f float8, i interval, b bytea, note text);
			INSERT INTO shop SELECT n, timestamptz '2026-01-01 00:00+00' + n * interval '1 hour', n / 3.0::float8, n * interval '1 day', decode(md5(n::text), 'hex'), NULL FROM generate_series(1, 1000) n`)
		if i > 0 {
			pgtest.Exec(t, plain, `DO $$ BEGIN
				EXECUTE format('ALTER DATABASE %I SET DateStyle = ''SQL, DMY''', current_database()); EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
				EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database()); EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
				EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database()); EXECUTE format('ALTER DATABASE %I SET search_path = ''kinds''', current_database()); END $$`)
			pgtest.Exec(t, plain, `ALTER TABLE shop RENAME TO former; CREATE TABLE shop (note text, b bytea, id int PRIMARY KEY, i interval, at timestamptz, f float8);
				INSERT INTO shop (id, at, f, i, b, note) SELECT id, at, f, i, b, note FROM former ORDER BY md5(id::text); DROP TABLE former`)
		}
		conn := connect(t, url)
		db := must[schema.Database](t)(schema.Read(t.Context(), conn, schema.Selection{}))
		sums := map[string]Sum{}
		for _, table := range db.Tables {
			var columns []string
			for _, c := range table.Columns {
				if c.Generated == "" {
					columns = append(columns, c.Name)
				}
			}
			reading := NewTable(table.FullName(), !table.HasRows(), table.PrimaryKey, columns, ByDigest)
			sums[table.FullName().String()] = must[[]Sum](t)(reading.Sums(t.Context(), conn.PgConn(), []Range{{}}))[0]
		}
		all = append(all, sums)
	}
	rows := int64(0)
	for name, sum := range all[0] {
		if all[1][name] != sum {
			t.Errorf("table %s: %v and %v", name, sum, all[1][name])
		}
		rows += sum.Rows
	}
	if rows < 1500 || len(all[0]) < 100 {
		t.Errorf("only %d rows in %d tables", rows, len(all[0]))
	}
}

// TestOrdersAgree cuts a table by key and by digest in many ways; the parts always add up to the same whole, and hold the rows that
// the ranges say.
func TestOrdersAgree(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.items (a int, b timestamptz, note text, PRIMARY KEY (a, b));
		INSERT INTO public.items SELECT n % 97 - 40, timestamptz '0044-03-15 12:00 BC' + n * interval '77 days 1 microsecond', 'n' || n FROM generate_series(1, 5000) n;
		INSERT INTO public.items VALUES (3, 'infinity', NULL), (3, '-infinity', '')`)
	name := schema.Name{Schema: "public", Name: "items"}
	byKey := NewTable(name, false, []string{"a", "b"}, []string{"note", "a", "b"}, ByKey)
	byDigest := NewTable(name, false, []string{"a", "b"}, []string{"note", "a", "b"}, ByDigest)
	whole := must[[]Sum](t)(byKey.Sums(t.Context(), conn.PgConn(), []Range{{}}))[0]
	if other := must[[]Sum](t)(byDigest.Sums(t.Context(), conn.PgConn(), []Range{{}}))[0]; other != whole || whole.Rows != 5002 {
		t.Fatalf("%v and %v", whole, other)
	}
	for _, rows := range []int64{1, 7, 1000, 5001, 5002, 5003} {
		var total Sum
		var chunks []Chunk
		if err := byKey.Split(t.Context(), conn.PgConn(), Range{}, rows, func(c Chunk) error {
			total.Add(c.Sum)
			chunks = append(chunks, c)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if total != whole || len(chunks) != int((5002+rows-1)/rows) {
			t.Errorf("%d rows each: %d chunks, %v", rows, len(chunks), total)
		}
		for i, c := range chunks {
			if i > 0 && !slices.Equal(c.Range.After, chunks[i-1].Range.Through) {
				t.Errorf("a gap before chunk %d", i)
			}
			if i%100 == 0 {
				if again := must[[]Sum](t)(byKey.Sums(t.Context(), conn.PgConn(), []Range{c.Range})); again[0] != c.Sum {
					t.Errorf("chunk %d: %v, and %v when it is read alone", i, c.Sum, again[0])
				}
			}
		}
	}
	parts := must[[]Range](t)(Range{}.Cut(64))
	var total Sum
	sums := must[[]Sum](t)(byDigest.Sums(t.Context(), conn.PgConn(), parts))
	for _, s := range sums {
		total.Add(s)
	}
	if total != whole {
		t.Errorf("by digest: %v", total)
	}
	var rows Sum
	if err := byDigest.Rows(t.Context(), conn.PgConn(), []Range{parts[3], parts[40]}, func(r Row) error {
		rows.row(r.Hash)
		if len(r.Key) != 2 || len(r.Columns) != 3 || r.Count != 1 {
			return fmt.Errorf("row %v", r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := sums[3]
	if want.Add(sums[40]); rows != want {
		t.Errorf("rows %v, want %v", rows, want)
	}
}

// TestRowsWithoutAKey counts rows that are there many times.
func TestRowsWithoutAKey(t *testing.T) {
	conn := connect(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, conn, `CREATE TABLE public.bag (a int, b text); INSERT INTO public.bag SELECT n % 3, NULL FROM generate_series(1, 3000) n;
		INSERT INTO public.bag SELECT n, repeat('ü', n % 50) FROM generate_series(1, 12000) n`)
	reading := NewTable(schema.Name{Schema: "public", Name: "bag"}, false, nil, []string{"b", "a"}, ByDigest)
	counts := map[string]int64{}
	if err := reading.Rows(t.Context(), conn.PgConn(), []Range{{}}, func(r Row) error {
		counts[r.Key[0]] += r.Count
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(counts) != 12003 || counts[`a="1", b=NULL`] != 1000 || counts[`a="30", b="üüüüüüüüüüüüüüüüüüüü"… (60 bytes)`] != 1 {
		t.Errorf("%d different rows", len(counts))
	}
}

func BenchmarkSums(b *testing.B) {
	url := pgtest.Shared(b).Database(b)
	conn, err := postgres.Connect(b.Context(), url, "test")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	const rows = 1_000_000
	if _, err := conn.Exec(b.Context(), `CREATE TABLE public.accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
		INSERT INTO public.accounts SELECT n, n / 100000, 0, '' FROM generate_series(1, 1000000) n; ANALYZE public.accounts`, pgx.QueryExecModeSimpleProtocol); err != nil {
		b.Fatal(err)
	}
	for _, order := range []Order{ByKey, ByDigest} {
		b.Run(map[Order]string{ByKey: "key", ByDigest: "digest"}[order], func(b *testing.B) {
			reading := NewTable(schema.Name{Schema: "public", Name: "accounts"}, false, []string{"aid"}, []string{"aid", "bid", "abalance", "filler"}, order)
			for b.Loop() {
				var err error
				if order == ByKey {
					err = reading.Split(b.Context(), conn.PgConn(), Range{}, 10_000, func(Chunk) error { return nil })
				} else {
					_, err = reading.Sums(b.Context(), conn.PgConn(), []Range{{}})
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
