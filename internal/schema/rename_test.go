package schema

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func renaming(t *testing.T, rules ...string) Renaming {
	t.Helper()
	var r Renaming
	for i := 0; i < len(rules); i += 2 {
		rule, err := ParseRename(rules[i], rules[i+1])
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, rule)
	}
	return r
}

func TestRenameText(t *testing.T) {
	d := Database{
		Tables:    []Table{{Schema: "public", Name: "orders"}, {Schema: "public", Name: "we ird"}, {Schema: "sales", Name: "orders"}},
		Sequences: []Sequence{{Schema: "public", Name: "orders_id_seq", Owner: Name{"public", "orders"}}},
		Types:     []Type{{Schema: "public", Name: "mood", Kind: TypeEnum}, {Schema: "public", Name: "span", Kind: TypeRange}},
	}
	r := renaming(t, "public.orders", "acme.orders_in", "public.*", "acme.*")
	m := &renamer{rules: r, from: d, tables: map[Name]Name{}, sequences: map[Name]Name{}, types: map[Name]Name{}, ranges: map[Name]Name{}, indexes: map[Name]string{}, taken: map[Name]Name{}}
	m.nameAll()
	if m.problems != nil {
		t.Fatal(m.problems)
	}
	for in, want := range map[string]string{
		"nextval('public.orders_id_seq'::regclass)":                  "nextval('acme.orders_id_seq'::regclass)",
		"'public.orders_id_seq'::text":                               "'public.orders_id_seq'::text",
		"'happy'::public.mood":                                       `'happy'::"acme"."mood"`,
		"public.mood[]":                                              `"acme"."mood"[]`,
		"public.span(1, 2)":                                          `"acme"."span"(1, 2)`,
		"public.orders(1)":                                           "public.orders(1)",
		"FOREIGN KEY (a) REFERENCES public.orders(id)":               `FOREIGN KEY (a) REFERENCES "acme"."orders_in"(id)`,
		`FOREIGN KEY (a) REFERENCES public."we ird"(id)`:             `FOREIGN KEY (a) REFERENCES "acme"."we ird"(id)`,
		"FOREIGN KEY (a) REFERENCES public.elsewhere(id)":            `FOREIGN KEY (a) REFERENCES "acme"."elsewhere"(id)`,
		"FOREIGN KEY (a) REFERENCES sales.orders(id)":                "FOREIGN KEY (a) REFERENCES sales.orders(id)",
		`CHECK (((note)::text <> 'public.orders it''s'::text))`:      `CHECK (((note)::text <> 'public.orders it''s'::text))`,
		`((a COLLATE public.mood) OPERATOR(public.=) 1.5)`:           `((a COLLATE public.mood) OPERATOR(public.=) 1.5)`,
		`'a'::text || "public"."orders"`:                             `'a'::text || "acme"."orders_in"`,
		`E'it\'s'`:                                                   `E'it\'s'`,
		"CHECK ((a = ANY (ARRAY['x'::public.mood, 'y'::sales.mood])": `CHECK ((a = ANY (ARRAY['x'::"acme"."mood", 'y'::sales.mood])`,
	} {
		if got := m.text(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	if got := m.index(`CREATE UNIQUE INDEX "a b" ON public.orders USING btree (((id)::public.mood))`, "c d"); got != `CREATE UNIQUE INDEX "c d" ON "acme"."orders_in" USING btree (((id)::"acme"."mood"))` {
		t.Error(got)
	}
}

func TestRenameRefuses(t *testing.T) {
	for _, bad := range [][2]string{{"orders", "a.b"}, {"public.*", "acme"}, {"public.*", "pg_catalog.*"}, {"public.*", "syncline.*"}, {"public.*", "a.*x*"}, {"public.*", "a." + strings.Repeat("x", 64)}} {
		if _, err := ParseRename(bad[0], bad[1]); !errors.Is(err, ErrRename) && !errors.Is(err, ErrPattern) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	d := Database{
		Tables: []Table{{Schema: "a", Name: "orders"}, {Schema: "b", Name: "orders"}, {Schema: "c", Name: strings.Repeat("y", 60)}},
		Types:  []Type{{Schema: "a", Name: "mood"}, {Schema: "b", Name: "mood"}},
	}
	_, err := renaming(t, "*.*", "acme.*").Apply(d)
	for _, want := range []string{"a.orders and b.orders", "types a.mood and b.mood"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
	if _, err := renaming(t, "c.*", "c.long_*").Apply(d); !errors.Is(err, ErrRename) {
		t.Errorf("took a name that is too long: %v", err)
	}
	if _, err := renaming(t, "a.*", "*.*_a", "a.orders", "nowhere.x").Apply(d); err != nil {
		t.Errorf("refused: %v", err)
	}
}

// TestRenameKeepsApart puts two schemas into one, and one table beside its twin.
func TestRenameKeepsApart(t *testing.T) {
	index := func(schema, table, name string) Index {
		return Index{Name: name, Definition: "CREATE UNIQUE INDEX " + name + " ON " + schema + "." + table + " USING btree (id)", Constraint: name}
	}
	table := func(schema, name, key string) Table {
		return Table{Schema: schema, Name: name, Indexes: []Index{index(schema, name, key)}, Constraints: []Constraint{{Name: key, Type: ConstraintPrimary}}, IdentityIndex: key}
	}
	d := Database{
		Tables:    []Table{table("a", "orders", "by_id"), table("b", "items", "by_id"), table("c", "t", "t_pkey")},
		Sequences: []Sequence{{Schema: "a", Name: "s", Owner: Name{"a", "orders"}}, {Schema: "b", Name: "s", Owner: Name{"b", "items"}}, {Schema: "c", Name: "t_id_seq", Owner: Name{"c", "t"}}},
	}
	r, err := renaming(t, "a.*", "x.*", "b.*", "x.*", "c.t", "c.t_acme").Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	names := map[Name]bool{}
	for _, one := range r.Tables {
		x := one.Indexes[0]
		if x.Constraint != x.Name || one.Constraints[0].Name != x.Name || one.IdentityIndex != x.Name {
			t.Errorf("the key of %s has several names: %+v", one.FullName(), one)
		}
		names[Name{one.Schema, x.Name}] = true
	}
	for _, s := range r.Sequences {
		names[s.FullName()] = true
	}
	if len(names) != 6 || !names[Name{"c", "t_acme_pkey"}] || !names[Name{"c", "t_acme_id_seq"}] || !names[Name{"x", "by_id"}] {
		t.Errorf("names: %v", names)
	}
	if one, found := r.Of(Name{"c", "t"}); !found || one.Name != "t_acme" || r.Source(one.FullName()) != (Name{"c", "t"}) {
		t.Errorf("%+v", one)
	}
	if _, found := r.Of(Name{"c", "t_acme"}); found {
		t.Error("found a table by a name that is the target's only")
	}
}

// TestEveryKindIsRenamed creates everything under other names in the database that has it already, and finds it there as it was meant.
func TestEveryKindIsRenamed(t *testing.T) {
	source, _ := servers(t)
	conn := allKinds(t, source)
	from := read(t, conn)
	schemas := map[string]bool{}
	var rules []string
	for _, one := range from.Tables {
		if !schemas[one.Schema] {
			rules = append(rules, display(one.Schema)+".*", display("new "+one.Schema)+".*")
		}
		schemas[one.Schema] = true
	}
	r, err := renaming(t, rules...).Apply(from)
	if err != nil {
		t.Fatal(err)
	}
	p := plan(t, r.Database, from, nil)
	for _, s := range p.all() {
		exec(t, conn, s.SQL)
	}
	again := read(t, conn)
	if rest := plan(t, r.Database, again, nil); len(rest.all()) > 0 {
		t.Errorf("left to do: %v", rest.all())
	}
	if m := CompareAll(r.Database, again); Refusal(m) != nil {
		t.Error(Refusal(m))
	}
	quoted := regexp.MustCompile(`\\"`)
	for _, want := range r.Tables {
		got, found := again.Table(want.FullName())
		if !found {
			t.Errorf("table %s is missing", want.FullName())
			continue
		}
		one, other := definitions(Database{Tables: []Table{want}}), definitions(Database{Tables: []Table{got}})
		a, _ := json.MarshalIndent(one, "", " ")
		b, _ := json.MarshalIndent(other, "", " ")
		if x, y := quoted.ReplaceAllString(string(a), ""), quoted.ReplaceAllString(string(b), ""); x != y {
			lines, others := strings.Split(x, "\n"), strings.Split(y, "\n")
			for i := range min(len(lines), len(others)) {
				if lines[i] != others[i] {
					t.Errorf("table %s: want\n%s\ngot\n%s", want.FullName(), around(lines, i), around(others, i))
					break
				}
			}
		}
	}
}

// TestRenameUnused finds rules for names that there are not. One with a star may be for what is still to come.
func TestRenameUnused(t *testing.T) {
	d := Database{Tables: []Table{{Schema: "a", Name: "orders"}}, Sequences: []Sequence{{Schema: "a", Name: "s"}}, Types: []Type{{Schema: "a", Name: "mood"}}}
	unused := renaming(t, "a.orders", "x.orders", "a.s", "x.s", "a.mood", "x.mood", "b.*", "x.*", "a.ordres", "x.orders2", "b.orders", "x.orders3").Unused(d)
	if !slices.Equal(unused, []string{"a.ordres", "b.orders"}) {
		t.Errorf("unused: %v", unused)
	}
}
