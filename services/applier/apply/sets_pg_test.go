package apply

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// TestSetWiseTypes updates and deletes rows by keys of every type, and sets columns of every type, many rows at a time.
func TestSetWiseTypes(t *testing.T) {
	s := newSourceDatabase(t, pgtest.AllKinds+sameStart)
	pgtest.Exec(t, s.conn, pgtest.AllKindsLoad)
	keyed := textRows(t, s.conn, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname = 'kinds' AND c.relname LIKE 'key %'`)
	var keys strings.Builder
	keys.WriteString("BEGIN;")
	for _, table := range keyed {
		fmt.Fprintf(&keys, "UPDATE %s SET note = note || '!';", table)
	}
	keys.WriteString("COMMIT; BEGIN;")
	for _, table := range keyed {
		fmt.Fprintf(&keys, "DELETE FROM %s WHERE note = 'n0!';", table)
	}
	keys.WriteString("COMMIT")
	pgtest.Exec(t, s.conn, keys.String())
	for _, table := range []string{"kinds.types", "kinds.arrays", "kinds.user_types"} {
		columns := textRows(t, s.conn, fmt.Sprintf(`SELECT attname FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0 AND attname <> 'id'`, table))
		list := postgres.Idents(columns)
		// Four copies of the rows; then each row takes the values of its neighbour, which are another sample of each type.
		pgtest.Exec(t, s.conn, fmt.Sprintf(`INSERT INTO %[1]s (id, %[2]s) SELECT id + 1000 * n, %[2]s FROM %[1]s, generate_series(1, 4) n`, table, list))
		pgtest.Exec(t, s.conn, fmt.Sprintf(`UPDATE %[1]s t SET (%[2]s) = (SELECT %[2]s FROM %[1]s s WHERE s.id > t.id OR t.id = (SELECT max(id) FROM %[1]s) ORDER BY s.id LIMIT 1)`, table, list))
		for _, column := range columns {
			pgtest.Exec(t, s.conn, fmt.Sprintf(`UPDATE %[1]s t SET %[2]s = (SELECT %[2]s FROM %[1]s s WHERE s.id < t.id ORDER BY s.id DESC LIMIT 1)`, table, postgres.Ident(column)))
		}
	}
	messages := s.read()
	l := encodeLog(t, s, messages, 1, nil)
	g := newTestTarget(t, l, pgtest.AllKinds+sameStart)
	g.apply(l, allQueued)
	pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
	t.Logf("%d messages, %d slices replayed row by row", len(messages), g.progress.Fallbacks)
	if g.progress.Fallbacks > 0 {
		t.Errorf("%d slices could not be written set-wise", g.progress.Fallbacks)
	}
}

const setTables = `CREATE TABLE plain (id integer PRIMARY KEY, a integer, v text, big_text text);
	CREATE TABLE seats (id integer PRIMARY KEY, seat integer UNIQUE, v text);
	CREATE TABLE pairs (b text, a integer, v text, n numeric, PRIMARY KEY (a, b));
	CREATE TABLE priced (price numeric PRIMARY KEY, v text);
	CREATE TABLE full_keyed (id integer PRIMARY KEY, v text, big_text text); ALTER TABLE full_keyed REPLICA IDENTITY FULL;
	CREATE TABLE always (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
	CREATE TABLE beside (id integer PRIMARY KEY, n integer GENERATED ALWAYS AS IDENTITY, v text);
	CREATE TABLE heap (a integer, v text); ALTER TABLE heap REPLICA IDENTITY FULL;
	ALTER TABLE plain ALTER big_text SET STORAGE EXTERNAL; ALTER TABLE full_keyed ALTER big_text SET STORAGE EXTERNAL`

// setStatement is a random statement that changes many rows, so that slices are written set-wise.
func setStatementOf(r *rand.Rand) string {
	from, modulus := r.IntN(400), 2+r.IntN(9)
	to, rest := from+r.IntN(300), r.IntN(modulus)
	some := fmt.Sprintf("id BETWEEN %d AND %d AND id %% %d = %d", from, to, modulus, rest)
	text := fmt.Sprintf("text %d", r.IntN(1000))
	table := []string{"plain", "seats", "full_keyed", "always", "beside"}[r.IntN(5)]
	overriding := "OVERRIDING SYSTEM VALUE"
	switch r.IntN(24) {
	case 0, 1, 2:
		return fmt.Sprintf("INSERT INTO %s (id, v) %s SELECT n, '%s' FROM generate_series(%d, %d) n ON CONFLICT (id) DO NOTHING", table, overriding, text, from, to)
	case 3, 4:
		return fmt.Sprintf("INSERT INTO %s (id, v) %s SELECT n, '%s' FROM generate_series(%d, %d) n ON CONFLICT (id) DO UPDATE SET v = %s.v || EXCLUDED.v", table, overriding, text, from, to, table)
	case 5, 6, 7:
		return fmt.Sprintf("UPDATE %s SET v = '%s ' || id WHERE %s", table, text, some)
	case 8, 9, 10:
		return fmt.Sprintf("DELETE FROM %s WHERE %s", table, some)
	case 11:
		return fmt.Sprintf("UPDATE plain SET big_text = repeat(md5(id || '%s'), 100) WHERE id %% 10 = %d", text, rest)
	case 12:
		return fmt.Sprintf("UPDATE full_keyed SET big_text = repeat(md5(id || '%s'), 100) WHERE id %% 10 = %d", text, rest)
	case 13:
		return fmt.Sprintf("UPDATE plain SET a = id, v = NULL WHERE %s", some)
	case 14:
		return fmt.Sprintf("UPDATE plain SET id = id + 10000 WHERE id BETWEEN %d AND %d", from, from+r.IntN(30))
	case 15:
		return "UPDATE plain SET id = id - 10000 WHERE id > 10000 AND NOT EXISTS (SELECT FROM plain p WHERE p.id = plain.id - 10000)"
	case 16:
		return fmt.Sprintf("UPDATE seats SET seat = NULL WHERE %s", some)
	case 17:
		// A free seat for some of those who stand.
		return fmt.Sprintf(`UPDATE seats SET seat = n FROM (SELECT id AS who, row_number() OVER (ORDER BY id) AS nth FROM seats WHERE seat IS NULL) w
			JOIN (SELECT n, row_number() OVER (ORDER BY n) AS nth FROM generate_series(%d, %d) n WHERE n NOT IN (SELECT seat FROM seats WHERE seat IS NOT NULL)) f USING (nth)
			WHERE id = who`, from, to)
	case 18:
		return fmt.Sprintf("INSERT INTO pairs SELECT 'b' || n %% 3, n, '%s', n * 1.50 FROM generate_series(%d, %d) n ON CONFLICT DO NOTHING", text, from, to)
	case 19:
		return fmt.Sprintf("UPDATE pairs SET v = '%s', n = n + 0.10 WHERE a %% %d = %d", text, modulus, rest)
	case 20:
		return fmt.Sprintf("DELETE FROM pairs WHERE a BETWEEN %d AND %d AND b = 'b%d'", from, to, r.IntN(3))
	case 21:
		// Keys that are equal and print differently.
		return fmt.Sprintf(`INSERT INTO priced SELECT (n || '.%s')::numeric, '%s' FROM generate_series(%d, %d) n
			ON CONFLICT (price) DO UPDATE SET price = EXCLUDED.price, v = EXCLUDED.v`, strings.Repeat("0", 1+r.IntN(3)), text, from, to)
	case 22:
		return fmt.Sprintf("DELETE FROM priced WHERE price::integer %% %d = %d", modulus, rest)
	default:
		return fmt.Sprintf("WITH gone AS (DELETE FROM heap WHERE a %% 3 = %d RETURNING *) INSERT INTO heap SELECT * FROM gone UNION ALL VALUES (%d, '%s'), (%d, '%s')", r.IntN(3), rest, text, rest, text)
	}
}

// TestDifferentialSetWise applies random transactions whose statements change many rows, in slices of many sizes.
func TestDifferentialSetWise(t *testing.T) {
	r := testSeed(t)
	s := newSourceDatabase(t, setTables)
	for range 150 {
		err := pgx.BeginFunc(t.Context(), s.conn, func(tx pgx.Tx) error {
			for range 1 + r.IntN(5) {
				if _, err := tx.Exec(t.Context(), setStatementOf(r)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && postgres.Code(err) != "23505" {
			t.Fatal(err)
		}
	}
	messages := s.read()
	t.Logf("%d messages", len(messages))
	for _, sliceBytes := range []int{6_000, 30_000, 500_000, 64 << 20} {
		t.Run(fmt.Sprint(sliceBytes), func(t *testing.T) {
			l := encodeLog(t, s, messages, r.IntN(5), nil)
			g := newTestTarget(t, l, setTables)
			sets := 0
			g.apply(l, allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupBytes = sliceBytes, 3*sliceBytes }), func(r *testRun) {
				r.Applied = func(Progress) error {
					return r.Session.Conn().QueryRow(t.Context(), "SELECT greatest($1, count(*)) FROM pg_prepared_statements WHERE statement LIKE '%unnest%'", sets).Scan(&sets)
				}
			})
			t.Logf("%d statements for sets, %d slices replayed row by row", sets, g.progress.Fallbacks)
			g.requireAt(l.lsn)
			pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
			if sets == 0 {
				t.Error("nothing was written set-wise")
			}
		})
	}
}
