package pgtest

import (
	_ "embed" // for the SQL files
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

//go:embed allkinds.sql
var allKindsTables string

//go:embed allkinds_load.sql
var allKindsRows string

// AllKinds makes every kind of type, table, key and name, in the schemas kinds, public and `Odd "Schema" ü`. It runs on
// PostgreSQL 15 and later with libxml, which all usual builds have, and only on a database where it has not run.
var AllKinds = allKindsTables + sampleTables()

// AllKindsLoad is the first rows of AllKinds, with every sample of every type.
var AllKindsLoad = allKindsRows + sampleRows()

// AllKinds18 makes what only PostgreSQL 18 and later have. It comes after AllKinds.
const AllKinds18 = `
CREATE TABLE kinds.virtual (id integer PRIMARY KEY, a integer, twice bigint GENERATED ALWAYS AS (a::bigint * 2) VIRTUAL, note text);
INSERT INTO kinds.virtual (id, a, note) SELECT n, n, 'n' || n FROM generate_series(1, 10) n;
CREATE TABLE kinds.unenforced (id integer PRIMARY KEY, a integer CONSTRAINT promised CHECK (a > 0) NOT ENFORCED,
	parent integer REFERENCES kinds.virtual NOT ENFORCED);
INSERT INTO kinds.unenforced VALUES (1, -1, -1);
`

// LoadAllKinds runs AllKinds and AllKindsLoad.
func LoadAllKinds(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	Exec(t, conn, AllKinds)
	Exec(t, conn, AllKindsLoad)
}

var sampledTables = []struct {
	name  string
	types []sampled
}{{"types", baseTypes}, {"arrays", arrayTypes}}

// sampleTables makes kinds.types and kinds.arrays with a column of each type, and a table for each type that can be a
// primary key.
func sampleTables() string {
	var sql strings.Builder
	for _, t := range sampledTables {
		fmt.Fprintf(&sql, "\nCREATE TABLE kinds.%s (id integer PRIMARY KEY", t.name)
		for _, s := range t.types {
			fmt.Fprintf(&sql, ",\n\t%s %s", postgres.Ident(s.typ), s.typ)
		}
		sql.WriteString("\n);\n")
	}
	for _, s := range keyTypes() {
		fmt.Fprintf(&sql, "CREATE TABLE kinds.%s (key %s PRIMARY KEY, note text);\n", postgres.Ident(keyTable+s.typ), s.typ)
	}
	return sql.String()
}

// keyTable begins the names of the tables of key types.
const keyTable = "key "

func keyTypes() []sampled {
	return slices.DeleteFunc(slices.Concat(baseTypes, arrayTypes, userTypes), func(s sampled) bool { return !s.key })
}

// sampleRows puts every sample into the column, and the key, of its type.
func sampleRows() string {
	var sql strings.Builder
	row := func(table string, id int, types []sampled) {
		columns, values := []string{"id"}, []string{fmt.Sprint(id)}
		for _, s := range types {
			columns = append(columns, s.typ)
			values = append(values, postgres.Literal(s.values[id%len(s.values)]))
		}
		fmt.Fprintf(&sql, "INSERT INTO kinds.%s (%s) VALUES (%s);\n", table, postgres.Idents(columns), strings.Join(values, ", "))
	}
	for _, t := range sampledTables {
		longest := slices.MaxFunc(t.types, func(a, b sampled) int { return len(a.values) - len(b.values) })
		for id := range longest.values {
			row(t.name, id, t.types)
		}
		fmt.Fprintf(&sql, "INSERT INTO kinds.%s (id) VALUES (-1);\n", t.name)
	}
	userColumns := []string{"mood", "moods", "positive", "small", "positives", "mail", "few", "address", "person", "addresses",
		"known", "span", "spans", "span_list"}
	userOrder := []string{"kinds.mood", "kinds.mood[]", "kinds.positive", "kinds.small_positive", "kinds.positive[]", "kinds.mail",
		"kinds.few", "kinds.address", "kinds.person", "kinds.address[]", "kinds.known_address", "kinds.span", "kinds.spans", "kinds.span[]"}
	for id := range 5 {
		values := []string{fmt.Sprint(id)}
		for _, typ := range userOrder {
			values = append(values, postgres.Literal(samplesOf[typ][id%len(samplesOf[typ])]))
		}
		fmt.Fprintf(&sql, "INSERT INTO kinds.user_types (id, %s) VALUES (%s);\n", postgres.Idents(userColumns), strings.Join(values, ", "))
	}
	sql.WriteString("INSERT INTO kinds.user_types (id) VALUES (-1);\n")
	for _, s := range keyTypes() {
		for i, value := range s.values {
			// Different texts can be equal as keys: 1.1 and 1.10, 1 mon and 30 days.
			fmt.Fprintf(&sql, "INSERT INTO kinds.%s VALUES (%s, 'n%d') ON CONFLICT DO NOTHING;\n",
				postgres.Ident(keyTable+s.typ), postgres.Literal(value), i)
		}
	}
	return sql.String()
}
