package apply

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

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
		"boolean":  {"boolsend", "SELECT unnest(ARRAY[true, false]) v", 0},
		"uuid":     {"uuid_send", "SELECT gen_random_uuid() v FROM generate_series(1, 100)", 0},
		"bytea":    {"byteasend", `SELECT decode(md5(n::text), 'hex') v FROM generate_series(1, 10) n UNION ALL SELECT ''`, 0},
		"text":     {"textsend", `SELECT unnest(ARRAY['', 'ä', '"{}\', 'null', ' a ']) v`, 0},
		"varchar":  {"varcharsend", `SELECT 'x'::varchar v`, 0},
		"bpchar":   {"bpcharsend", `SELECT 'x '::character(5) v`, 0},
		"json":     {"json_send", `SELECT '{"a" : [1,"ü"] }'::json v`, 0},
		"jsonb":    {"jsonb_send", `SELECT '{"a" : [1,"ü"] }'::jsonb v`, 0},
		"date": {"date_send", `SELECT unnest(ARRAY['0001-01-01', '9999-12-31', '2000-02-29', '1900-02-28', '1999-12-31', 'infinity', '-infinity', '10000-01-01', '0044-03-15 BC'])::date v
			UNION ALL SELECT '2000-01-01'::date + ((random() - 0.4) * 1e6)::int FROM generate_series(1, 2000)`, 4},
		"timestamp": {"timestamp_send", fmt.Sprintf(`SELECT unnest(ARRAY['0001-01-01 00:00:00', '9999-12-31 23:59:59.999999', '2000-01-01', '1999-12-31 23:59:59.9', '2024-02-29 12:00:00.00001', 'infinity', '-infinity', '12345-01-01', '0001-12-31 BC'])::timestamp v
			UNION ALL SELECT '2000-01-01'::timestamp + ((random() - 0.3) * 1e0 * %f) * '1 microsecond'::interval FROM generate_series(1, 2000)`, microsOfFiveMillennia), 4},
		"timestamptz": {"timestamptz_send", fmt.Sprintf(`SELECT unnest(ARRAY['0001-01-02 00:00:00Z', '9999-12-30 23:59:59.999999Z', '2000-01-01 00:00:00Z', 'infinity', '-infinity', '12345-01-01Z', '0002-12-31 BC'])::timestamptz v
			UNION ALL SELECT '2000-01-01'::timestamptz + ((random() - 0.3) * 1e0 * %f) * '1 microsecond'::interval FROM generate_series(1, 2000)`, microsOfFiveMillennia), 4},
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
		"2000-01-01 00:00:00+01:60", "2000-01-01 00:00:00+01-30", "infinity", "\\x0", "\\xzz", "true", "00000000-0000-0000-0000-00000000000g"} {
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
	pgtest.Exec(t, s.conn, `UPDATE moments SET at = CASE WHEN id = 200 THEN 'infinity' WHEN id % 7 = 0 THEN NULL ELSE at + '1 microsecond' END, day = CASE id WHEN 399 THEN '20000-01-01'::date ELSE day + id END`)
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
