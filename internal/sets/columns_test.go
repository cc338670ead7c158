package sets

import (
	"slices"
	"testing"

	"github.com/seed0419d559/syncline/internal/schema"
)

// TestProject leaves columns out of a table, and what is made of them; what merely looks like it stays.
func TestProject(t *testing.T) {
	people := schema.Table{
		Schema: "public", Name: "people", Kind: schema.KindOrdinary, ReplicaIdentity: "d", PrimaryKey: []string{"id"}, IdentityColumns: []string{"id"}, IdentityIndex: "people_pkey",
		Columns: []schema.Column{
			{Name: "id"}, {Name: "name"}, {Name: "Se\"cret"}, {Name: "first", Generated: "s", Default: `"left"(name, 1)`}, {Name: "masked", Generated: "s", Default: `"left"("Se""cret", 1)`},
		},
		Indexes: []schema.Index{
			{Name: "people_pkey", Primary: true, Columns: []string{"id"}, Constraint: "people_pkey", Definition: `CREATE UNIQUE INDEX people_pkey ON public.people USING btree (id)`},
			{Name: "by_name", Columns: []string{"name"}, Definition: `CREATE INDEX by_name ON public.people USING btree (name)`},
			{Name: "by_secret", Columns: []string{"Se\"cret"}, Definition: `CREATE INDEX by_secret ON public.people USING btree ("Se""cret")`},
			{Name: "by_lower", Columns: []string{""}, Definition: `CREATE INDEX by_lower ON public.people USING btree (lower("Se""cret"))`},
			{Name: "by_upper", Columns: []string{""}, Definition: `CREATE INDEX by_upper ON public.people USING btree (upper(name))`},
			{Name: "partial", Columns: []string{"name"}, Partial: true, Definition: `CREATE INDEX partial ON public.people USING btree (name) WHERE ("Se""cret" IS NULL)`},
			{Name: "covering", Columns: []string{"name"}, Definition: `CREATE INDEX covering ON public.people USING btree (name) INCLUDE ("Se""cret")`},
		},
		Constraints: []schema.Constraint{
			{Name: "people_pkey", Type: schema.ConstraintPrimary, Columns: []string{"id"}}, {Name: "check_secret", Type: schema.ConstraintCheck, Columns: []string{"Se\"cret"}},
			{Name: "check_name", Type: schema.ConstraintCheck, Columns: []string{"name"}},
		},
		Needs: []schema.Need{{Column: "Se\"cret", Used: "type"}, {Used: "index by_lower"}, {Used: "index by_upper"}, {Used: "constraint check_secret"}},
	}
	calls := schema.Table{
		Schema: "public", Name: "calls", Kind: schema.KindOrdinary, Columns: []schema.Column{{Name: "a"}},
		Constraints: []schema.Constraint{
			{Name: "to_secret", Type: schema.ConstraintForeign, Columns: []string{"a"}, References: people.FullName(), Definition: `FOREIGN KEY (a) REFERENCES public.people("Se""cret")`},
			{Name: "to_key", Type: schema.ConstraintForeign, Columns: []string{"a"}, References: people.FullName(), Definition: `FOREIGN KEY (a) REFERENCES public.people(id)`},
		},
	}
	db := schema.Database{Tables: []schema.Table{people, calls}, Sequences: []schema.Sequence{
		{Name: "of_secret", Owner: people.FullName(), OwnerColumn: "Se\"cret"}, {Name: "of_id", Owner: people.FullName(), OwnerColumn: "id"}, {Name: "of_nobody"},
	}}
	d, err := Parse(Spec{Tables: []Table{{Pattern: "public.people", LeaveOut: []string{"Se\"cret"}}, {Pattern: "public.*"}}})
	if err != nil {
		t.Fatal(err)
	}
	d.Project(&db, nil)
	var columns, indexes, constraints, needs, sequences []string
	for _, table := range db.Tables {
		for _, c := range table.Columns {
			columns = append(columns, c.Name)
		}
		for _, i := range table.Indexes {
			indexes = append(indexes, i.Name)
		}
		for _, c := range table.Constraints {
			constraints = append(constraints, c.Name)
		}
		for _, n := range table.Needs {
			needs = append(needs, n.Used)
		}
	}
	for _, s := range db.Sequences {
		sequences = append(sequences, s.Name)
	}
	for what, c := range map[string][2][]string{
		"columns": {columns, {"id", "name", "first", "a"}}, "indexes": {indexes, {"people_pkey", "by_name", "by_upper"}},
		"constraints": {constraints, {"people_pkey", "check_name", "to_key"}}, "needs": {needs, {"index by_upper"}}, "sequences": {sequences, {"of_id", "of_nobody"}},
	} {
		if !slices.Equal(c[0], c[1]) {
			t.Errorf("%s: %q, want %q", what, c[0], c[1])
		}
	}
	if len(people.Indexes) != 7 || people.Indexes[2].Name != "by_secret" || len(people.Columns) != 5 || people.Columns[4].Name != "masked" {
		t.Error("the description that was projected has changed")
	}
}
