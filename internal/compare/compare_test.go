package compare_test

import (
	"context"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/compare"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const schema = `
CREATE TABLE numbers (id bigint PRIMARY KEY, v text);
CREATE TABLE "Odd ""Name" ("Key, one" text, "key	two" int, big text, PRIMARY KEY ("key	two", "Key, one"));
CREATE TABLE keyless (a int, b text);
CREATE TABLE nothing ();
CREATE TABLE stamps (at timestamptz PRIMARY KEY, u uuid UNIQUE NOT NULL, f float8, g float8 GENERATED ALWAYS AS (f * 2) STORED);
CREATE TABLE ids (u uuid PRIMARY KEY);
CREATE TABLE ident (n int NOT NULL UNIQUE, v text); ALTER TABLE ident REPLICA IDENTITY USING INDEX ident_n_key;
CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (0);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (0) TO (MAXVALUE);
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (w text) INHERITS (parent); ALTER TABLE child ADD PRIMARY KEY (id);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE SCHEMA syncline; CREATE TABLE syncline.state (id int PRIMARY KEY);
CREATE SEQUENCE seq;

INSERT INTO numbers SELECT n, 'v' || n FROM generate_series(-1500, 1500) n;
INSERT INTO numbers VALUES (-9223372036854775808, NULL), (9223372036854775807, '');
INSERT INTO "Odd ""Name" SELECT chr(n), n % 7, repeat(E'\\\t\n', n) FROM generate_series(1, 800) n;
INSERT INTO keyless SELECT n / 2, E'tab\tback\\slash\nline' FROM generate_series(1, 100) n;
INSERT INTO keyless VALUES (NULL, NULL), (NULL, NULL), (NULL, '');
INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
INSERT INTO stamps SELECT '2026-03-29 00:00Z'::timestamptz + n * '17 minutes'::interval, gen_random_uuid(), n / 3.0 FROM generate_series(1, 300) n;
INSERT INTO stamps VALUES ('infinity', gen_random_uuid(), 'NaN'), ('-infinity', gen_random_uuid(), '-0');
INSERT INTO ids SELECT gen_random_uuid() FROM generate_series(1, 500);
INSERT INTO ident SELECT n, 'v' FROM generate_series(1, 20) n;
INSERT INTO parts SELECT n, 'v' FROM generate_series(-20, 20) n;
INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'p', 'c');
INSERT INTO unlogged VALUES (1); INSERT INTO syncline.state VALUES (1);`

// pair makes two databases with the same content and conflicting settings.
func pair(t *testing.T) (a, b *pgx.Conn) {
	t.Helper()
	s := pgtest.Shared(t)
	urlA, urlB := s.Database(t), s.Database(t)
	a = pgtest.Connect(t, urlA)
	pgtest.Exec(t, a, schema)
	nameA, nameB := a.Config().Database, pgtest.Connect(t, urlB).Config().Database
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := pgtest.Connect(t, s.URL("postgres"))
	quoted := postgres.Ident(nameB)
	pgtest.Exec(t, admin, "DROP DATABASE "+quoted+" WITH (FORCE)")
	pgtest.Exec(t, admin, "CREATE DATABASE "+quoted+" TEMPLATE "+postgres.Ident(nameA))
	for _, setting := range []string{
		"timezone = 'Asia/Kathmandu'", "datestyle = 'German'", "extra_float_digits = -5", "bytea_output = 'escape'",
		"search_path = child", "intervalstyle = 'iso_8601'",
	} {
		pgtest.Exec(t, admin, "ALTER DATABASE "+quoted+" SET "+setting)
	}
	return pgtest.Connect(t, urlA), pgtest.Connect(t, urlB)
}

func run(t *testing.T, a, b *pgx.Conn, opts compare.Options) compare.Report {
	t.Helper()
	report, err := compare.Databases(t.Context(), a, b, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []*pgx.Conn{a, b} {
		if conn.PgConn().TxStatus() != 'I' {
			t.Fatal("the transaction was left open")
		}
	}
	return report
}

func TestEqual(t *testing.T) {
	a, b := pair(t)
	report := run(t, a, b, compare.Options{Sequences: true})
	if !report.Equal() {
		t.Fatal(report)
	}
	want := int64(3003 + 800 + 103 + 2 + 302 + 500 + 20 + 41 + 1 + 1)
	if report.Rows() != want || len(report.Tables) != 10 {
		t.Errorf("%d rows in %d tables, want %d: %+v", report.Rows(), len(report.Tables), want, report.Tables)
	}
}

// TestPlanted changes one thing on the tested side and must see exactly that.
func TestPlanted(t *testing.T) {
	a, b := pair(t)
	for _, test := range []struct {
		plant string
		table string
		kind  compare.Kind
		count int64
		key   string
	}{
		{"UPDATE public.numbers SET v = v || ' ' WHERE id = -7", "public.numbers", compare.Changed, 1, "id=-7"},
		{"UPDATE public.numbers SET v = '' WHERE v IS NULL", "public.numbers", compare.Changed, 1, "id=-9223372036854775808"},
		{"UPDATE public.numbers SET v = NULL WHERE v = ''", "public.numbers", compare.Changed, 1, "id=9223372036854775807"},
		{"DELETE FROM public.numbers WHERE id = 1500", "public.numbers", compare.Missing, 1, "id=1500"},
		{"DELETE FROM public.numbers WHERE id > 1490 AND id < 1501", "public.numbers", compare.Missing, 10, "id=1491"},
		{"INSERT INTO public.numbers VALUES (1501, 'v')", "public.numbers", compare.Extra, 1, "id=1501"},
		{"INSERT INTO public.numbers VALUES (-1501, 'v')", "public.numbers", compare.Extra, 1, "id=-1501"},
		{`UPDATE public."Odd ""Name" SET big = left(big, -1) || '!' WHERE "Key, one" = chr(10)`, `public.Odd "Name`,
			compare.Changed, 1, "key	two=3, Key, one=\n"},
		{`DELETE FROM public."Odd ""Name" WHERE "Key, one" = '\'`, `public.Odd "Name`, compare.Missing, 1, `key	two=1, Key, one=\`},
		{"DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE a = 7)", "public.keyless", compare.Missing, 1, `(7,"tab`},
		{"INSERT INTO public.keyless SELECT * FROM public.keyless WHERE a IS NULL AND b IS NULL LIMIT 1", "public.keyless", compare.Doubled, 1, `(,)`},
		{"INSERT INTO public.keyless SELECT * FROM public.keyless WHERE a = 7", "public.keyless", compare.Doubled, 2, `(7,"tab`},
		{"INSERT INTO public.keyless VALUES (-1, 'new')", "public.keyless", compare.Extra, 1, `(-1,new)`},
		{"DELETE FROM public.nothing WHERE ctid = '(0,1)'", "public.nothing", compare.Missing, 1, "()"},
		{"INSERT INTO public.nothing DEFAULT VALUES", "public.nothing", compare.Doubled, 1, "()"},
		{"UPDATE public.stamps SET f = 0 WHERE f = 0", "public.stamps", compare.Changed, 1, "at=-infinity"},
		{"UPDATE public.stamps SET at = at + '1 microsecond' WHERE at = '2026-03-29 00:17Z'", "public.stamps", compare.Missing, 1, "at=2026-03-29 00:17:00+00"},
		{"DELETE FROM public.ids WHERE u = (SELECT max(u::text)::uuid FROM public.ids)", "public.ids", compare.Missing, 1, "u="},
		{"UPDATE public.ident SET v = 'other' WHERE n = 20", "public.ident", compare.Changed, 1, "n=20"},
		{"UPDATE public.parts SET v = 'other' WHERE id = -20", "public.parts", compare.Changed, 1, "id=-20"},
		{"UPDATE public.child SET w = 'other'", "public.child", compare.Changed, 1, "id=2"},
		{"UPDATE ONLY public.parent SET v = 'other'", "public.parent", compare.Changed, 1, "id=1"},
		{"DROP TABLE public.ident", "public.ident", compare.MissingTable, 1, ""},
		{"CREATE TABLE public.more ()", "public.more", compare.ExtraTable, 1, ""},
		{"ALTER TABLE public.ident DROP COLUMN v", "public.ident", compare.Columns, 1, ""},
		{"ALTER TABLE public.ids ADD COLUMN v int", "public.ids", compare.Columns, 1, ""},
		{"SELECT nextval('public.seq')", "public.seq", compare.Sequence, 1, ""},
		// The copy lost its key, and has a row twice.
		{"ALTER TABLE public.numbers DROP CONSTRAINT numbers_pkey; INSERT INTO public.numbers VALUES (3, 'v3')", "public.numbers", compare.Doubled, 1, "id=3"},
	} {
		t.Run(test.plant, func(t *testing.T) {
			if strings.Contains(test.plant, "nextval") {
				pgtest.Exec(t, b, test.plant) // does not roll back
				t.Cleanup(func() { b.Exec(context.Background(), "SELECT setval('public.seq', 1, false)") })
			}
			pgtest.Exec(t, b, "BEGIN")
			defer b.Exec(context.Background(), "ROLLBACK")
			pgtest.Exec(t, b, test.plant)
			report, err := compare.Databases(t.Context(), a, b, compare.Options{Sequences: true})
			if err != nil {
				t.Fatal(err)
			}
			if report.Equal() || len(report.Differences) == 0 {
				t.Fatal("not seen")
			}
			d := report.Differences[0]
			if d.Table != test.table || d.Kind != test.kind || report.Counts[test.kind] != test.count || !strings.HasPrefix(d.Key, test.key) {
				t.Fatalf("want %v %v %d %q\n%v", test.table, test.kind, test.count, test.key, report)
			}
			// Seen from the other side it is a difference as well.
			other, err := compare.Databases(t.Context(), b, a, compare.Options{Sequences: true})
			if err != nil || other.Equal() {
				t.Fatalf("not seen the other way round: %v", err)
			}
		})
	}
	if report := run(t, a, b, compare.Options{}); !report.Equal() {
		t.Errorf("something was left behind: %v", report)
	}
}

func TestOptions(t *testing.T) {
	a, b := pair(t)
	pgtest.Exec(t, b, "DELETE FROM public.numbers; DROP TABLE public.ident")
	only := compare.Options{Tables: []string{"public.keyless", "public.parts"}}
	if report := run(t, a, b, only); !report.Equal() || len(report.Tables) != 2 {
		t.Error(report)
	}
	if report := run(t, a, b, compare.Options{Except: []string{"public.numbers", "public.ident"}}); !report.Equal() {
		t.Error(report)
	}
	report := run(t, a, b, compare.Options{Details: 3})
	want := map[compare.Kind]int64{compare.Missing: 3003, compare.MissingTable: 1}
	if len(report.Differences) != 3 || !reflect.DeepEqual(report.Counts, want) {
		t.Error(report)
	}
	if _, err := compare.Databases(t.Context(), a, b, compare.Options{Tables: []string{"public.typo"}}); err == nil {
		t.Error("a table that is nowhere was accepted")
	}
	if _, err := compare.Databases(t.Context(), a, a, compare.Options{}); err == nil {
		t.Error("one connection for both sides was accepted")
	}
}

// TestCancel ends a comparison in the middle.
func TestCancel(t *testing.T) {
	a, b := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	opts := compare.Options{Progress: func(string) { cancel() }}
	if _, err := compare.Databases(ctx, a, b, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled comparison: %v", err)
	}
}

// TestLargeValues passes rows that are larger than every buffer.
func TestLargeValues(t *testing.T) {
	a, b := pair(t)
	for _, conn := range []*pgx.Conn{a, b} {
		pgtest.Exec(t, conn, `CREATE TABLE public.large (id int PRIMARY KEY, v text);
			INSERT INTO public.large SELECT n, repeat(n::text || E'\n', 2000000) FROM generate_series(1, 4) n`)
	}
	if report := run(t, a, b, compare.Options{Tables: []string{"public.large"}}); !report.Equal() || report.Rows() != 4 {
		t.Fatal(report)
	}
	pgtest.Exec(t, b, "UPDATE public.large SET v = left(v, -3) || 'X' || right(v, 2) WHERE id = 3")
	report := run(t, a, b, compare.Options{})
	if report.Counts[compare.Changed] != 1 || len(report.String()) > 2000 || !strings.Contains(report.String(), "X") {
		t.Fatal(report)
	}
}
