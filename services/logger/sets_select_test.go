package logger

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// shownValue is a value as the reader shows it.
var shownValue = regexp.MustCompile(`t"([^"]*)"`)

const (
	opInsert = loggerv1.SetOperation_SET_OPERATION_INSERT
	opUpdate = loggerv1.SetOperation_SET_OPERATION_UPDATE

	opTruncate = loggerv1.SetOperation_SET_OPERATION_TRUNCATE
)

// TestSetSelections has columns, operations, keys and expressions in the stream: what comes, and what it looks like.
func TestSetSelections(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
		CREATE TABLE people (org text, id int, name text, secret text, n numeric, PRIMARY KEY (org, id)); ALTER TABLE people REPLICA IDENTITY FULL;
		CREATE TABLE plain (id int PRIMARY KEY, name text, secret text);
		CREATE TABLE bag (a int, secret text); ALTER TABLE bag REPLICA IDENTITY FULL`)
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	key := func(values ...string) *loggerv1.SetKey { return &loggerv1.SetKey{Values: values} }
	for n, c := range []struct {
		name  string
		table *loggerv1.SetTable
		do    string
		want  []string
	}{
		{"columns", &loggerv1.SetTable{Pattern: "public.people", Columns: []string{"org", "id", "name"}},
			"INSERT INTO people VALUES ('a', 1, 'n', 'hidden', 1); UPDATE people SET secret = 'hidden too'; UPDATE people SET name = 'm', secret = 'hidden'; DELETE FROM people",
			[]string{"insert public.people a 1 n", "update public.people O a 1 n a 1 m", "delete public.people O a 1 m"}},
		{"columns left out, by key only", &loggerv1.SetTable{Pattern: "public.plain", LeaveOutColumns: []string{"secret"}},
			"INSERT INTO plain VALUES (1, 'n', 'hidden'); UPDATE plain SET name = 'm'; UPDATE plain SET id = 2; DELETE FROM plain",
			[]string{"insert public.plain 1 n", "update public.plain 1 m", "update public.plain K 1 n 2 m", "delete public.plain K 2 n"}},
		{"columns that only decide", &loggerv1.SetTable{Pattern: "public.people", Columns: []string{"org", "id"}, Expression: `n > 1.50 && secret != "x"`},
			"INSERT INTO people VALUES ('a', 1, 'n', 'hidden', 1.5), ('a', 2, 'n', 'hidden', 1.51); UPDATE people SET n = 2 WHERE id = 1; UPDATE people SET secret = 'x'; UPDATE people SET secret = NULL",
			[]string{"insert public.people a 2", "insert public.people a 1", "delete public.people O a 2", "delete public.people O a 1"}},
		{"rows without a key", &loggerv1.SetTable{Pattern: "public.bag", LeaveOutColumns: []string{"secret"}},
			"INSERT INTO bag VALUES (1, 'hidden'), (1, 'other'); DELETE FROM bag WHERE secret = 'other'", []string{"insert public.bag 1", "insert public.bag 1", "delete public.bag O 1"}},
		{"keys of two columns", &loggerv1.SetTable{Pattern: "public.people", Columns: []string{"org", "id"}, Keys: []*loggerv1.SetKey{key("a", "2"), key("b", "1")}},
			"INSERT INTO people VALUES ('a', 1), ('a', 2), ('b', 2); UPDATE people SET id = 1 WHERE org = 'b'; UPDATE people SET org = 'c' WHERE org = 'a'",
			[]string{"insert public.people a 2", "insert public.people b 1", "delete public.people O a 2"}},
		{"keys of a column, and rows", &loggerv1.SetTable{Pattern: "public.people", Columns: []string{"org", "id"}, Keys: []*loggerv1.SetKey{key("1.0"), key("2")}, KeyColumns: []string{"n"}, Rows: `{"org": "a"}`},
			"INSERT INTO people (org, id, n) VALUES ('a', 1, 1), ('a', 2, 1.5), ('a', 3, 2.00), ('b', 4, 1)", []string{"insert public.people a 1", "insert public.people a 3"}},
		{"inserts only", &loggerv1.SetTable{Pattern: "public.plain", Expression: `name == "n"`, Operations: []loggerv1.SetOperation{opInsert}},
			"INSERT INTO plain VALUES (1, 'n'), (2, 'm'); UPDATE plain SET name = 'n'; DELETE FROM plain; TRUNCATE plain", []string{"insert public.plain 1 n n"}},
		{"updates only: what enters and leaves by them counts as one", &loggerv1.SetTable{Pattern: "public.people", Columns: []string{"org", "id"}, Rows: `{"n": 1}`, Operations: []loggerv1.SetOperation{opUpdate}},
			"INSERT INTO people (org, id, n) VALUES ('a', 1, 1), ('a', 2, 2); UPDATE people SET n = 3 - n; DELETE FROM people", []string{"delete public.people O a 1", "insert public.people a 2"}},
		{"no deletes", &loggerv1.SetTable{Pattern: "public.plain", Operations: []loggerv1.SetOperation{opInsert, opUpdate, opTruncate}},
			"INSERT INTO plain VALUES (1); DELETE FROM plain; TRUNCATE plain", []string{"insert public.plain 1 nn", "truncate [public.plain] false false"}},
	} {
		pgtest.Exec(t, conn, "TRUNCATE people, plain, bag")
		name := "set" + string(rune('a'+n))
		made := mustMakeSet(t, i, name, c.table)
		if len(c.table.GetKeys()) > 0 && len(made.GetSpec().GetTables()[0].GetKeyColumns()) != len(c.table.GetKeys()[0].GetValues()) {
			t.Errorf("%s: the key columns are %q", c.name, made.GetSpec().GetTables()[0].GetKeyColumns())
		}
		from := i.barrier(t)
		pgtest.Exec(t, conn, c.do)
		to := i.barrier(t)
		r, err := readSet(t, i, from, to, name, nil)
		if err != nil {
			t.Fatalf("%s: %s", c.name, rpc.Message(err))
		}
		var got []string
		for _, done := range r.history.done {
			got = append(got, done.events...)
		}
		if text := strings.Join(got, "; "); strings.Contains(text, "hidden") || strings.Contains(text, "other") && !strings.Contains(c.name, "leaves") {
			t.Errorf("%s: what is left out has come: %s", c.name, text)
		}
		for at := range got {
			got[at] = strings.Join(strings.Fields(shownValue.ReplaceAllString(got[at], " $1 ")), " ")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
		updates, err := i.client.ListUpdatedSince(t.Context(), &loggerv1.ListUpdatedSinceRequest{Position: from, Set: name})
		if err != nil || (len(updates.GetUpdates()) == 0) || strings.Contains(updates.String(), "hidden") {
			t.Errorf("%s: updated: %v, %v", c.name, updates, err)
		}
	}
}

// TestSetSelectionsRefused has what no table can give, with the way out.
func TestSetSelectionsRefused(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
		CREATE TABLE people (org text, id int, name text, n numeric, twice numeric GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (org, id));
		CREATE TABLE keyless (a int, at date) PARTITION BY RANGE (at); CREATE TABLE keyless_1 PARTITION OF keyless DEFAULT; ALTER TABLE keyless_1 REPLICA IDENTITY FULL`)
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	key := func(values ...string) *loggerv1.SetKey { return &loggerv1.SetKey{Values: values} }
	for want, table := range map[string]*loggerv1.SetTable{
		"tables[0].columns: table public.people: id:":    {Pattern: "public.people", Columns: []string{"org", "name"}},
		"tables[0].columns: table public.people: org:":   {Pattern: "public.people", LeaveOutColumns: []string{"org"}},
		`public.people has no column "nowhere"`:          {Pattern: "public.people", Columns: []string{"org", "id", "nowhere"}},
		`no table of the pattern has a column "nowhere"`: {Pattern: "public.people", LeaveOutColumns: []string{"nowhere"}},
		"is generated":                                  {Pattern: "public.people", Columns: []string{"org", "id", "twice"}},
		"one of them is needed":                         {Pattern: "public.people", Columns: []string{"org", "id"}, LeaveOutColumns: []string{"n"}},
		"table public.keyless: at:":                     {Pattern: "public.keyless", LeaveOutColumns: []string{"at"}},
		"there are insert, update, delete and truncate": {Pattern: "public.people", Operations: []loggerv1.SetOperation{0}},
		"tables[0].keys: selector: keys[0]":             {Pattern: "public.people", Keys: []*loggerv1.SetKey{key("a")}},
		"has no primary key":                            {Pattern: "public.keyless", Keys: []*loggerv1.SetKey{key("1")}},
		"they belong to keys":                           {Pattern: "public.people", KeyColumns: []string{"id"}},
		`"x"`:                                           {Pattern: "public.people", Keys: []*loggerv1.SetKey{key("a", "x")}},
		"both are given":                                {Pattern: "public.people", Rows: `{"id": 1}`, Expression: "id == 1"},
		"tables[0].expression: selector: line 1":        {Pattern: "public.people", Expression: "id =="},
		"tables[0].expression: table public.people: selector: name": {Pattern: "public.people", Expression: "name > 1"},
		`ALTER TABLE "public"."people" REPLICA IDENTITY`:            {Pattern: "public.people", Expression: `name == "a"`},
	} {
		_, err := i.client.CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "refused", Spec: &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{table}}})
		if rpc.Reason(err) == "" || !strings.Contains(rpc.Message(err), want) {
			t.Errorf("%v: %v, want %q", table, rpc.Message(err), want)
		}
	}
	// What only inserts come of needs no identity.
	mustMakeSet(t, i, "inserts", &loggerv1.SetTable{Pattern: "public.people", Expression: `name == "a"`, Operations: []loggerv1.SetOperation{opInsert}})
	state, err := i.client.GetState(t.Context(), &loggerv1.GetStateRequest{Set: "inserts"})
	if err != nil || !slices.Equal(state.GetInsertOnlyTables(), []string{`"public"."people"`}) {
		t.Errorf("insert-only tables: %v, %v", state.GetInsertOnlyTables(), err)
	}
}
