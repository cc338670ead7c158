package apply

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

var update = flag.Bool("update", false, "write golden files anew")

// golden compares a transcript with testdata/NAME.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and read the difference\ngot:\n%s", path, got)
	}
}

func row(kinds string) []value {
	values := make([]value, len(kinds))
	for i := range kinds {
		values[i] = value{kind: kinds[i]}
		if kinds[i] == 't' {
			values[i].text = fmt.Appendf(nil, "v%d", i)
		}
	}
	return values
}

func relation(identity change.Identity, keys string, names ...string) *change.Relation {
	r := &change.Relation{Schema: "public", Name: "orders", Identity: identity}
	for i, n := range names {
		r.Columns = append(r.Columns, change.Column{Name: n, Key: keys[i] == 'k'})
	}
	return r
}

func TestStatements(t *testing.T) {
	exact := func(name string) TargetColumn {
		return TargetColumn{Name: name, Equality: EqualityExact, Operator: "="}
	}
	ordinary := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{exact("id"), exact("note"), exact(`odd "name`)}}
	always := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{
		{Name: "id", Equality: EqualityExact, Operator: "=", IdentityAlways: true}, exact("note"), exact("local"),
		{Name: "sum", Generated: true, Equality: EqualityExact, Operator: "="},
	}}
	keyless := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{
		exact("id"), {Name: "price", Equality: EqualityCoarse, Operator: "="}, {Name: "doc", Equality: EqualityNone, Operator: "="},
	}}
	root := &Target{Schema: "public", Name: "orders", Partitioned: true, Columns: keyless.Columns}
	citext := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{
		{Name: "id", NotNull: true, Equality: EqualityCoarse, Operator: `OPERATOR("public".=)`}, exact("note"),
	}, UniqueKeys: [][]string{{"id"}}}
	cases := []struct {
		name     string
		relation *change.Relation
		target   *Target
		op       Operation
		old, new []value
	}{
		{"insert", relation('d', "k--", "id", "note", `odd "name`), ordinary, Insert, nil, row("ttn")},
		{"update", relation('d', "k--", "id", "note", `odd "name`), ordinary, Update, nil, row("ttn")},
		{"update with an unchanged large value", relation('d', "k--", "id", "note", `odd "name`), ordinary, Update, nil, row("tut")},
		{"update of nothing but the key column", relation('d', "k--", "id", "note", `odd "name`), ordinary, Update, nil, row("tuu")},
		{"update of the key", relation('d', "k--", "id", "note", `odd "name`), ordinary, Update, row("tnn"), row("ttu")},
		{"delete", relation('d', "k--", "id", "note", `odd "name`), ordinary, Delete, row("tnn"), nil},
		{"update of a composite key", relation('d', "kk-", "id", "note", `odd "name`), ordinary, Update, row("ttn"), row("ttt")},
		{"insert of an identity always", relation('d', "k-", "id", "note"), always, Insert, nil, row("tt")},
		{"update beside an identity always", relation('d', "k-", "id", "note"), always, Update, nil, row("tt")},
		{"update of the key, an identity always", relation('d', "k-", "id", "note"), always, Update, []value{{'t', []byte("old")}, {'n', nil}}, row("tu")},
		{"update beside an identity always that is no key", relation('d', "-k", "id", "note"), always, Update, nil, row("tt")},
		{"full: delete by the whole row", relation('f', "kkk", "id", "price", "doc"), keyless, Delete, row("ttt"), nil},
		{"full: delete with nulls", relation('f', "kkk", "id", "price", "doc"), keyless, Delete, row("nnt"), nil},
		{"full: update by the whole row", relation('f', "kkk", "id", "price", "doc"), keyless, Update, row("ttt"), row("ttu")},
		{"full: update through the root", relation('f', "kkk", "id", "price", "doc"), root, Update, row("ttt"), row("ttt")},
		{"full: by a key of the target", relation('f', "kk", "id", "note"), citext, Update, row("tt"), row("tt")},
		{"full: nothing set", relation('f', "kk", "id", "note"), ordinary, Update, row("tt"), row("uu")},
	}
	var b strings.Builder
	for _, c := range cases {
		p, err := NewPlan(c.relation, c.target)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s, _, err := p.statementFor(c.op, c.old, c.new, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		fmt.Fprintf(&b, "-- %s\n%s\n", c.name, s.sql)
		for i, param := range s.params {
			from := "new"
			if param.old {
				from = "old"
			}
			fmt.Fprintf(&b, "   $%d = %s %s\n", i+1, from, c.relation.Columns[param.column].Name)
		}
		again, _, err := p.statementFor(c.op, c.old, c.new, nil)
		if err != nil || again != s {
			t.Errorf("%s: the statement was built twice (%v)", c.name, err)
		}
	}
	golden(t, "statements", b.String())
}

func TestStatementsOfDifferentShapesAreNotMixedUp(t *testing.T) {
	target := &Target{Schema: "s", Name: "t", Columns: []TargetColumn{
		{Name: "a", Equality: EqualityExact, Operator: "="}, {Name: "b", Equality: EqualityExact, Operator: "="},
	}}
	p, err := NewPlan(relation('f', "kk", "a", "b"), target)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, old := range []string{"tt", "tn", "nt", "nn"} {
		for _, new := range []string{"tt", "tu", "ut", "uu"} {
			s, key, err := p.statementFor(Update, row(old), row(new), nil)
			if err != nil {
				t.Fatal(err)
			}
			if sql, ok := seen[string(key)]; ok && sql != s.sql {
				t.Errorf("key %q stands for two statements", key)
			}
			for k, sql := range seen {
				if sql == s.sql && k != string(key) {
					t.Errorf("%q and %q have the same statement", k, key)
				}
			}
			seen[string(key)] = s.sql
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	target := &Target{Schema: "public", Name: "orders", Columns: []TargetColumn{{Name: "id"}}}
	_, err := NewPlan(relation('d', "k-", "id", "note"), target)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), `"note"`) || !strings.Contains(err.Error(), "public.orders") {
		t.Errorf("missing column: %v", err)
	}
	p, err := NewPlan(relation('n', "-", "id"), target)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.statementFor(Update, nil, row("t"), nil); !errors.Is(err, errNoLocator) {
		t.Errorf("update without an identity: %v", err)
	}
	p, err = NewPlan(relation('d', "k", "id"), target)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.statementFor(Update, nil, row("u"), nil); !errors.Is(err, errNoLocator) {
		t.Errorf("update whose key is not in the change: %v", err)
	}
}
