package apply

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// TestBinaryFormsAreThoseOfPostgreSQL compares with what each type's send function makes of a value, for values at the edges and
// others at random.
func TestBinaryFormsAreThoseOfPostgreSQL(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn, err := postgres.Connect(t.Context(), url, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	const microsOfFiveMillennia = 5000 * 365.25 * 24 * 3600 * 1e6
	for typ, test := range map[string]struct {
		send   string
		values string // SQL: one column v
		text   int    // how many of the values have no binary form here
	}{
		"smallint": {"int2send", "SELECT unnest(ARRAY[0, 1, -1, 32767, -32768])::smallint v", 0},
		"integer":  {"int4send", "SELECT unnest(ARRAY[0, -7, 2147483647, -2147483648]) v", 0},
		"bigint":   {"int8send", "SELECT unnest(ARRAY[0, 10, -10, 9223372036854775807, -9223372036854775808]) v UNION ALL SELECT ((random() - 0.5) * 1.8e19)::bigint FROM generate_series(1, 1000)", 0},
		"numeric": {"numeric_send", `SELECT unnest(ARRAY['0', '0.000', '-0.0', '1', '10000', '100000000', '1.10', '-1.1', '12345678901234567890.123456789', '1e200', '-1e-200', '0.0001', '0.00001234',
				'9999', '99990000.00009999', '1000.5', '0.10000', '1e131071', '1e-16383', 'NaN', 'Infinity', '-Infinity'])::numeric v
			UNION ALL SELECT ((random() - 0.5) * 10 ^ (random() * 40 - 20))::numeric FROM generate_series(1, 2000)
			UNION ALL SELECT round((random() * 10 ^ (n % 30))::numeric, n % 7) FROM generate_series(1, 2000) n`, 2},
		"real": {"float4send", `SELECT unnest(ARRAY['0', '-0', '0.1', '1e-45', '3.4028235e38', 'NaN', 'Infinity', '-Infinity'])::real v
			UNION ALL SELECT ((random() - 0.5) * 10 ^ (random() * 70 - 35))::real FROM generate_series(1, 2000)`, 0},
		"double precision": {"float8send", `SELECT unnest(ARRAY['0', '-0', '0.1', '5e-324', '1.7976931348623157e308', '0.30000000000000004', 'NaN', 'Infinity', '-Infinity'])::float8 v
			UNION ALL SELECT (random() - 0.5) * 10 ^ (random() * 600 - 300) FROM generate_series(1, 2000)`, 0},
		"boolean": {"boolsend", "SELECT unnest(ARRAY[true, false]) v", 0},
		"uuid":    {"uuid_send", "SELECT gen_random_uuid() v FROM generate_series(1, 100)", 0},
		"bytea":   {"byteasend", `SELECT decode(md5(n::text), 'hex') v FROM generate_series(1, 10) n UNION ALL SELECT ''`, 0},
		"text":    {"textsend", `SELECT unnest(ARRAY['', 'ä', '"{}\', 'null', ' a ']) v`, 0},
		"varchar": {"varcharsend", `SELECT 'x'::varchar v`, 0},
		"bpchar":  {"bpcharsend", `SELECT 'x '::character(5) v`, 0},
		"json":    {"json_send", `SELECT '{"a" : [1,"ü"] }'::json v`, 0},
		"jsonb":   {"jsonb_send", `SELECT '{"a" : [1,"ü"] }'::jsonb v`, 0},
		"date": {"date_send", `SELECT unnest(ARRAY['0001-01-01', '9999-12-31', '2000-02-29', '1900-02-28', '1999-12-31', 'infinity', '-infinity', '10000-01-01', '0044-03-15 BC'])::date v
			UNION ALL SELECT '2000-01-01'::date + ((random() - 0.4) * 1e6)::int FROM generate_series(1, 2000)`, 2},
		"timestamp": {"timestamp_send", fmt.Sprintf(`SELECT unnest(ARRAY['0001-01-01 00:00:00', '9999-12-31 23:59:59.999999', '2000-01-01', '1999-12-31 23:59:59.9', '2024-02-29 12:00:00.00001', 'infinity', '-infinity', '12345-01-01', '0001-12-31 BC'])::timestamp v
			UNION ALL SELECT '2000-01-01'::timestamp + ((random() - 0.3) * 1e0 * %f) * '1 microsecond'::interval FROM generate_series(1, 2000)`, microsOfFiveMillennia), 2},
		"timestamptz": {"timestamptz_send", fmt.Sprintf(`SELECT unnest(ARRAY['0001-01-02 00:00:00Z', '9999-12-30 23:59:59.999999Z', '2000-01-01 00:00:00Z', 'infinity', '-infinity', '12345-01-01Z', '0002-12-31 BC'])::timestamptz v
			UNION ALL SELECT '2000-01-01'::timestamptz + ((random() - 0.3) * 1e0 * %f) * '1 microsecond'::interval FROM generate_series(1, 2000)`, microsOfFiveMillennia), 2},
	} {
		zones := []string{"UTC"}
		if typ == "timestamptz" {
			zones = append(zones, "Europe/Amsterdam", "America/St_Johns", "Pacific/Kiritimati")
		}
		for _, zone := range zones {
			t.Run(typ+" "+zone, func(t *testing.T) {
				pgtest.Exec(t, conn, "SET TimeZone = '"+zone+"'")
				rows, err := conn.Query(t.Context(), fmt.Sprintf("SELECT format('%%s', v), encode(%s(v), 'hex'), '%s'::regtype::oid FROM (%s) x", test.send, typ, test.values))
				if err != nil {
					t.Fatal(err)
				}
				var text, want string
				var oid uint32
				unknown := 0
				_, err = pgx.ForEachRow(rows, []any{&text, &want, &oid}, func() error {
					got, ok := binaryForms[oid](nil, []byte(text))
					switch {
					case !ok && len(got) == 0:
						unknown++
					case hex.EncodeToString(got) != want:
						t.Errorf("%s became %x, PostgreSQL makes %s of it", text, got, want)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if unknown != test.text {
					t.Errorf("%d values stay text, expected %d", unknown, test.text)
				}
			})
		}
	}
}

// FuzzBinaryForms refuses or converts, and leaves what stood before alone.
func FuzzBinaryForms(f *testing.F) {
	for _, seed := range []string{"", "-", "-0", "007", "+1", "99999999999999999999", "-9223372036854775809", "2000-13-01", "2000-02-30", "0000-01-01",
		"2000-01-01 24:00:00", "2000-01-01 00:00:60", "2000-01-01 00:00:00.", "2000-01-01 00:00:00.1234567", "2000-01-01 00:00:00+1", "2000-01-01 00:00:00+16",
		"2000-01-01 00:00:00+01:60", "2000-01-01 00:00:00+01-30", "infinity", "1.", ".1", "1..2", "1e5", "-", "0x1p3", "1_0", "\\x0", "\\xzz", "true", "00000000-0000-0000-0000-00000000000g"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for oid, form := range binaryForms {
			got, ok := appendBinaryElement([]byte("before"), text, form)
			if !bytes.HasPrefix(got, []byte("before")) || !ok && len(got) != len("before") {
				t.Errorf("type %d: %q became %q, %v", oid, text, got, ok)
			}
		}
	})
}

// TestNumbersThatDoNotFit leaves to the server what a type cannot hold: it says so, where a conversion would make another number of it.
func TestNumbersThatDoNotFit(t *testing.T) {
	for _, test := range []struct {
		oid  uint32
		text string
		fits bool
	}{
		{pgtype.Float4OID, "1e-50", false}, {pgtype.Float4OID, "-1e-46", false}, {pgtype.Float4OID, "1e+39", false}, {pgtype.Float4OID, "0.0000000000000000000000000000000000000000000000000001", false},
		{pgtype.Float8OID, "1e-400", false}, {pgtype.Float8OID, "1e+309", false}, {pgtype.Float8OID, "0e-400", true}, {pgtype.Float4OID, "-0", true}, {pgtype.Float4OID, "1e-45", true},
		{pgtype.Int2OID, "32768", false}, {pgtype.Int4OID, "1.5", false}, {pgtype.Int8OID, "9223372036854775808", false},
	} {
		got, ok := binaryForms[test.oid](nil, []byte(test.text))
		if ok != test.fits || !ok && len(got) > 0 {
			t.Errorf("type %d: %s became %x, %v", test.oid, test.text, got, ok)
		}
	}
}

// TestColumnFallsBackToText has values in a set that have no binary form here, before and after others.
func TestColumnFallsBackToText(t *testing.T) {
	const tables = "CREATE TABLE moments (id integer PRIMARY KEY, at timestamptz, day date)"
	s := newSourceDatabase(t, tables)
	var changes string
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 400 {
		changes += fmt.Sprintf("INSERT INTO moments VALUES (%d, '2020-01-01'::timestamptz + '%d hours', '2020-01-01');", n, r.IntN(10000))
	}
	pgtest.Exec(t, s.conn, changes)
	pgtest.Exec(t, s.conn, `UPDATE moments SET at = CASE WHEN id = 200 THEN '0044-03-15 BC' WHEN id % 7 = 0 THEN NULL ELSE at + '1 microsecond' END, day = CASE id WHEN 399 THEN '20000-01-01'::date ELSE day + id END`)
	pgtest.Exec(t, s.conn, "UPDATE moments SET at = at + '1 day'")
	pgtest.Exec(t, s.conn, "DELETE FROM moments WHERE id % 3 = 0")
	messages := s.read()
	l := encodeLog(t, s, messages, 1, nil)
	g := newTestTarget(t, l, tables)
	g.apply(l, allQueued)
	pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
	if g.progress.Fallbacks > 0 {
		t.Errorf("%d slices could not be written set-wise", g.progress.Fallbacks)
	}
}

// TestCopiedRows inserts rows of all types that have a binary form, some of which change before they are written, and then a value
// without one.
func TestCopiedRows(t *testing.T) {
	const tables = `CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "good"');
		CREATE TABLE every (id integer PRIMARY KEY, s smallint, l bigint, n numeric, n2 numeric(12,2), f real, d double precision, b boolean, t text, v varchar(20), c character(6),
			j json, jb jsonb, u uuid, by bytea, day date, ts timestamp, tz timestamptz, m mood, double bigint GENERATED ALWAYS AS (l * 2) STORED);
		CREATE TABLE nothing ();
		CREATE TABLE moments (day date)`
	s := newSourceDatabase(t, tables)
	pgtest.Exec(t, s.conn, `INSERT INTO every SELECT n, n, n * 1e12, (random() - 0.5) * 10 ^ (n % 20), n / 3.0, random(), random() * 1e300, n % 2 = 0, repeat('ä"\', n % 5), 'v' || n, n::text,
		'{"a" :1}', '{"a": 1}', gen_random_uuid(), decode(md5(n::text), 'hex'), '2000-01-01'::date + n, now(), now(), (enum_range(NULL::mood))[1 + n % 3] FROM generate_series(1, 300) n`)
	pgtest.Exec(t, s.conn, `INSERT INTO every (id) SELECT n FROM generate_series(301, 350) n; UPDATE every SET t = NULL, n = 1.50, day = 'infinity' WHERE id % 3 = 0`)
	pgtest.Exec(t, s.conn, "INSERT INTO nothing SELECT FROM generate_series(1, 70); INSERT INTO moments SELECT '2000-01-01'::date + n FROM generate_series(1, 70) n")
	pgtest.Exec(t, s.conn, "INSERT INTO moments SELECT '2000-01-01'::date - 20000 * n FROM generate_series(1, 70) n; INSERT INTO moments SELECT '2000-01-01'::date + n FROM generate_series(1, 70) n")
	l := encodeLog(t, s, s.read(), 1, nil)
	for name, how := range map[string][]testTweak{"in one group": {allQueued}, "each transaction": {func(r *testRun) { r.Options.GroupTransactions = 1 }}} {
		t.Run(name, func(t *testing.T) {
			g := newTestTarget(t, l, tables)
			g.apply(l, how...)
			pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
			if g.progress.Fallbacks > 0 {
				t.Errorf("%d slices could not be written set-wise", g.progress.Fallbacks)
			}
		})
	}
}

// TestRowsThatTravelAsText finds out before COPY begins that rows have no binary form.
func TestRowsThatTravelAsText(t *testing.T) {
	relation := testRelation("things", change.IdentityDefault, "id*", "day", "net")
	target := &Target{Schema: "public", Name: "things", Columns: []TargetColumn{
		{Name: "id", TypeOID: pgtype.Int4OID, HasArray: true}, {Name: "day", TypeOID: pgtype.DateOID, HasArray: true}, {Name: "net", TypeOID: pgtype.TextOID, HasArray: true},
	}}
	rows := func(values ...string) inserts {
		plan, err := NewPlan(relation, target)
		if err != nil {
			t.Fatal(err)
		}
		in := inserts{plan: plan}
		for i := range copyRows {
			in.rows = append(in.rows, netRow{merged: []value{{'t', []byte(fmt.Sprint(i))}, {'t', []byte(values[i%len(values)])}, {'n', nil}}})
		}
		in.ops = make([]op, 1)
		return in
	}
	in := rows("2000-01-01", "infinity")
	if in.encode(); in.binary == nil || !bytes.HasPrefix(*in.binary, []byte(copySignature)) {
		t.Error("rows travel as text for no reason")
	}
	in = rows("2000-01-01", "2000-01-02", "0044-03-15 BC")
	if in.encode(); in.binary != nil || in.plan.binary[1] != nil || in.plan.binary[0] == nil {
		t.Error("a year before our era has a binary form")
	}
	if in.encode(); in.binary != nil {
		t.Error("a column that is known to travel as text is encoded")
	}
	target.Columns[2].TypeOID = pgtype.InetOID
	in = rows("2000-01-01")
	if in.encode(); in.binary != nil {
		t.Error("an address has a binary form")
	}
	target.Columns[2].TypeOID = pgtype.TextOID
	in = rows("2000-01-01")
	in.rows[3].merged[2] = value{'t', bytes.Repeat([]byte("x"), mostEncoded)}
	if in.encode(); in.binary != nil || in.plan.binary[2] == nil {
		t.Error("a huge row is held twice")
	}
}
