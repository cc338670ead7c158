package filter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// seedVariable names the environment variable that repeats a random test.
const seedVariable = "SYNCLINE_SEED"

func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if set := os.Getenv(seedVariable); set != "" {
		var err error
		if seed, err = strconv.ParseUint(set, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d repeats this", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// hostile makes a session in which unqualified operators, functions and types are a user's, and wrong.
const hostile = `
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
	CREATE FUNCTION hostile.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
	CREATE FUNCTION hostile.format(text, anyelement) RETURNS text LANGUAGE sql AS 'SELECT ''wrong''';
	CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = text, RIGHTARG = text);
	CREATE OPERATOR hostile.~ (FUNCTION = hostile.never, LEFTARG = text, RIGHTARG = text);
	CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = bigint, RIGHTARG = bigint);
	CREATE DOMAIN hostile.text AS pg_catalog.varchar(1);
	SET search_path = hostile, pg_catalog;`

// table is a table that was read as the change log has it.
type table struct {
	conn    *pgx.Conn
	columns []Column
	rows    [][]Value
}

// readTable reads t, whose first column is id, counted from 1.
func readTable(t testing.TB, conn *pgx.Conn) table {
	t.Helper()
	result := table{conn: conn}
	rows, err := conn.Query(t.Context(), `SELECT attname::pg_catalog.text, atttypid, pg_catalog.format_type(atttypid, atttypmod)
		FROM pg_catalog.pg_attribute WHERE attrelid = 'public.t'::pg_catalog.regclass AND attnum > 0 ORDER BY attnum`)
	if err != nil {
		t.Fatal(err)
	}
	if result.columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Column]); err != nil {
		t.Fatal(err)
	}
	// The simple protocol answers in text.
	answers, err := conn.PgConn().Exec(t.Context(), "SELECT * FROM public.t ORDER BY id").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, texts := range answers[0].Rows {
		values := make([]Value, len(texts))
		for i, text := range texts {
			values[i] = Value{Null: text == nil, Text: text}
		}
		result.rows = append(result.rows, values)
	}
	return result
}

// compare asks PostgreSQL and Matches about every row: true, false or unknown have to be the same, and so have the rows of a
// WHERE, which PostgreSQL plans in ways of its own. It returns how often each came out.
func (tb table) compare(t testing.TB, predicates []*Predicate) (counts [3]int) {
	t.Helper()
	var query strings.Builder
	for _, p := range predicates {
		query.WriteString("SELECT pg_catalog.string_agg(CASE " + p.SQL() + " WHEN true THEN '2' WHEN false THEN '0' ELSE '1' END, '' ORDER BY id) FROM public.t;\n" +
			"SELECT pg_catalog.string_agg(id::pg_catalog.text, ',' ORDER BY id) FROM public.t WHERE " + p.SQL() + ";\n")
	}
	answers, err := tb.conn.PgConn().Exec(t.Context(), query.String()).ReadAll()
	if err != nil {
		t.Fatalf("%v\n%s", err, query.String())
	}
	for n, p := range predicates {
		want, got := string(answers[2*n].Rows[0][0]), make([]byte, len(tb.rows))
		var ids []string
		for i, values := range tb.rows {
			truth, err := p.root.evaluate(values)
			if err != nil {
				t.Fatalf("%s: row %d: %v", p.SQL(), i+1, err)
			}
			got[i] = '0' + byte(truth)
			counts[truth]++
			if truth == isTrue {
				ids = append(ids, strconv.Itoa(i+1))
			}
		}
		if selected := string(answers[2*n+1].Rows[0][0]); selected != strings.Join(ids, ",") {
			t.Errorf("WHERE %.2000s: PostgreSQL selects rows %s, Matches %s", p.SQL(), selected, strings.Join(ids, ","))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%.2000s\nrow %d: PostgreSQL says %c, Matches %c (0 false, 1 unknown, 2 true)", p.SQL(), i+1, want[i], got[i])
				for _, c := range p.Columns() {
					t.Errorf("  %s: %.200q %v", tb.columns[c].Name, tb.rows[i][c].Text, tb.rows[i][c].Null)
				}
				break
			}
		}
	}
	return counts
}

func TestAgainstPostgreSQL(t *testing.T) {
	r := random(t)
	conn, err := postgres.Connect(t.Context(), pgtest.Shared(t).Database(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	pgtest.Exec(t, conn, "SET search_path = public; SET jit = off") // scans made dear on purpose would be compiled
	pgtest.Exec(t, conn, nastyTypes)
	load(t, r, conn)
	for _, c := range nasty {
		if !c.unordered && c.typ != "numeric" { // some of those are too long for an index
			pgtest.Exec(t, conn, fmt.Sprintf(`CREATE INDEX ON public.t (%s)`, postgres.Ident(c.name)))
		}
	}
	pgtest.Exec(t, conn, hostile)
	table := readTable(t, conn)
	if len(table.columns) != len(nasty)+1 || len(table.rows) < 100 {
		t.Fatalf("%d columns, %d rows", len(table.columns), len(table.rows))
	}
	const rounds, batch = 80, 25
	var counts [3]int
	for round := range rounds {
		if round%10 == 0 {
			setting := []string{"on", "off"}[round/10%2]
			pgtest.Exec(t, conn, "SET standard_conforming_strings = "+setting+"; SET enable_seqscan = "+setting) // off: by an index where there is one
		}
		predicates := make([]*Predicate, batch)
		for i := range predicates {
			parameters := map[string]string{}
			text := randomSelector(r, parameters, 3)
			s := parse(t, text)
			if err := s.Check(table.columns); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			p, err := parse(t, s.String()).Compile(table.columns, parameters)
			if err != nil {
				t.Fatalf("%s with %v: %v", text, parameters, err)
			}
			predicates[i] = p
		}
		for i, n := range table.compare(t, predicates) {
			counts[i] += n
		}
		if t.Failed() {
			break
		}
	}
	compareKeyLists(t, r, table)
	t.Logf("%d selectors on %d rows: %d false, %d unknown, %d true", rounds*batch, len(table.rows), counts[isFalse], counts[isUnknown], counts[isTrue])
}

// compareKeyLists compares lists of keys of one to three columns, some of which are of rows.
func compareKeyLists(t *testing.T, r *rand.Rand, tb table) {
	t.Helper()
	var predicates []*Predicate
	for range 150 {
		var columns []string
		var indexes []int
		for _, i := range r.Perm(len(tb.columns))[:1+r.IntN(3)] {
			columns, indexes = append(columns, tb.columns[i].Name), append(indexes, i)
		}
		var keys [][]string
		for range 1 + r.IntN(20) {
			rows := [2][]Value{pick(r, tb.rows), pick(r, tb.rows)}
			var key []string
			for _, i := range indexes {
				v := rows[r.IntN(6)/5][i] // seldom of the other row
				if families[tb.columns[i].TypeOID] == familyBool {
					v.Text = []byte(pick(r, []string{"true", "false"}))
				}
				key = append(key, string(v.Text)) // '' for NULL, which not every type takes
			}
			if !slices.ContainsFunc(indexes, func(i int) bool { return rows[0][i].Null || rows[1][i].Null }) {
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			continue
		}
		list, err := NewKeys(columns, keys)
		if err != nil {
			t.Fatal(err)
		}
		p, err := list.Compile(tb.columns)
		if err != nil {
			t.Fatalf("%q of %q: %v", keys, columns, err)
		}
		predicates = append(predicates, p)
		if n := len(predicates); n > 1 {
			predicates = append(predicates, Both(p, predicates[n-2]))
		}
	}
	counts := tb.compare(t, predicates)
	t.Logf("%d lists of keys: %d false, %d unknown, %d true", len(predicates), counts[isFalse], counts[isUnknown], counts[isTrue])
	if len(predicates) < 100 || slices.Contains(counts[:], 0) {
		t.Error("nothing was compared")
	}
}

// load makes t with each of the nasty values at least once, and rows at random.
func load(t testing.TB, r *rand.Rand, conn *pgx.Conn) {
	t.Helper()
	create, insert := "CREATE TABLE public.t (id int", "INSERT INTO public.t VALUES ($1"
	rows := 150
	for i, c := range nasty {
		create += fmt.Sprintf(", %s %s", postgres.Ident(c.name), c.typ)
		insert += fmt.Sprintf(", $%d::text::%s", i+2, c.typ)
		rows = max(rows, len(c.values)+1)
	}
	pgtest.Exec(t, conn, create+")")
	batch := &pgx.Batch{}
	for id := 1; id <= rows; id++ {
		args := []any{id}
		for _, c := range nasty {
			switch {
			case id <= len(c.values):
				args = append(args, c.values[id-1])
			case r.IntN(5) == 0:
				args = append(args, nil)
			default:
				args = append(args, pick(r, c.values))
			}
		}
		batch.Queue(insert+")", args...)
	}
	if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
}

// A constant is read by PostgreSQL as it is read here: what SQL prints in its stead is equal to it.
func TestConstantsAgainstPostgreSQL(t *testing.T) {
	conn, err := postgres.Connect(t.Context(), pgtest.Shared(t).Database(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	for _, c := range nasty {
		if c.unordered || c.texts {
			continue
		}
		i := slices.IndexFunc(kinds, func(of Column) bool {
			return strings.HasPrefix(c.typ, of.Type) || c.typ == "numeric(10,2)" && of.Name == "n"
		})
		for _, text := range c.operands {
			p := compile(t, fmt.Sprintf(`{%q: %s}`, kinds[i].Name, text), nil)
			literal := strings.Trim(text, `"`)
			typ := kinds[i].Type
			if p.root.family == familyInteger {
				typ = "numeric"
			}
			if !pgtest.QueryRow[bool](t, conn, fmt.Sprintf("SELECT '%s'::%s = %s", literal, typ, p.root.constant(&p.root.operands[0], true))) {
				t.Errorf("%s is another %s than %s", p.SQL(), typ, text)
			}
			if f := p.root.family; f != familyFloat4 && f != familyFloat8 && f != familyInteger { // where no constant is rounded, or is no value
				printed := pgtest.QueryRow[string](t, conn, fmt.Sprintf("SELECT pg_catalog.format('%%s', '%s'::%s)", literal, typ))
				if matches, err := p.Matches(row(kinds[i].Name, printed)); !matches || err != nil {
					t.Errorf("%s does not select %s: %v", p.SQL(), printed, err)
				}
			}
		}
	}
}

// randomSelector makes a selector that is right, with values for its parameters.
func randomSelector(r *rand.Rand, parameters map[string]string, depth int) string {
	members := map[string]json.RawMessage{}
	for range 1 + r.IntN(2) {
		switch op := r.IntN(8); {
		case op < 5 || depth == 0:
			c := pick(r, nasty)
			members[c.name] = json.RawMessage(randomConditions(r, parameters, c, depth))
		case op == 5:
			members["$not"] = json.RawMessage(randomSelector(r, parameters, depth-1))
		default:
			var parts []string
			for range 1 + r.IntN(3) {
				parts = append(parts, randomSelector(r, parameters, depth-1))
			}
			members[pick(r, []string{"$and", "$or", "$nor"})] = json.RawMessage("[" + strings.Join(parts, ", ") + "]")
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func randomConditions(r *rand.Rand, parameters map[string]string, c nastyColumn, depth int) string {
	operand := func() string {
		text := pick(r, c.operands)
		if r.IntN(6) > 0 {
			return text
		}
		var value any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&value); err != nil {
			panic(err)
		}
		name := fmt.Sprintf("p%d", len(parameters))
		parameters[name] = fmt.Sprint(value)
		return fmt.Sprintf(`{"$param": %q}`, name)
	}
	if r.IntN(5) == 0 {
		return operand()
	}
	operators := []string{"$eq", "$ne", "$in", "$nin", "$exists", "$gt", "$gte", "$lt", "$lte"}
	if c.unordered {
		operators = operators[:5]
	}
	if c.texts {
		operators = append(operators, "$regex")
	}
	members := map[string]json.RawMessage{}
	for range 1 + r.IntN(2) {
		op := pick(r, operators)
		var value string
		switch {
		case depth > 0 && r.IntN(10) == 0:
			op, value = "$not", randomConditions(r, parameters, c, depth-1)
			if !strings.HasPrefix(value, `{"$`) || strings.HasPrefix(value, `{"$param`) {
				value = `{"$eq": ` + value + `}`
			}
		case op == "$exists":
			value = pick(r, []string{"true", "false"})
		case op == "$regex":
			value = pick(r, []string{`"a"`, `"^$"`, `" $"`, `"^[^a-z]+$"`, `"\\\\"`, `"[\\x{80}-\\x{10ffff}]"`, `"(?i)^A|1"`, `"."`, `"(?s)."`, `"\\n"`})
		case op == "$in" || op == "$nin":
			var parts []string
			for range 1 + r.IntN(12) {
				parts = append(parts, operand())
			}
			value = "[" + strings.Join(parts, ", ") + "]"
		default:
			value = operand()
		}
		members[op] = json.RawMessage(value)
	}
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return string(text)
}
