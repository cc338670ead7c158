package schema

import (
	"errors"
	"strings"
	"testing"
)

func TestFitTypes(t *testing.T) {
	for _, c := range []struct {
		source, target string
		want           typeFit
	}{
		{"integer", "integer", typeSame},
		{"integer", "bigint", typeWider},
		{"smallint[]", "integer[]", typeWider},
		{"bigint", "numeric", typeWider},
		{"bigint", "numeric(10,0)", typeDiffers},
		{"bigint", "integer", typeDiffers},
		{"integer", "integer[]", typeDiffers},
		{"character varying(10)", "character varying(20)", typeSame},
		{"character varying(10)[]", "character varying(20)[]", typeSame},
		{"character varying(20)", "character varying(10)", typeDiffers},
		{"character varying", "character varying(10)", typeDiffers},
		{"character varying(10)", "character varying", typeSame},
		{"character varying(10)", "text", typeSame},
		{"text", "character varying", typeSame},
		{"text", "character varying(9)", typeDiffers},
		{"character(5)", "character(6)", typeDiffers},
		{"character(5)", "text", typeDiffers},
		{"bit(3)", "bit(4)", typeDiffers},
		{"bit varying(3)", "bit varying(4)", typeSame},
		{"numeric(10,2)", "numeric(12,2)", typeSame},
		{"numeric(10,2)", "numeric(12,3)", typeDiffers},
		{"numeric(10,-2)", "numeric(12,-2)", typeSame},
		{"numeric(10,2)", "numeric", typeSame},
		{"numeric", "numeric(10,2)", typeDiffers},
		{"timestamp(3) with time zone", "timestamp with time zone", typeSame},
		{"timestamp(3) with time zone", "timestamp(6) with time zone", typeSame},
		{"timestamp with time zone", "timestamp(3) with time zone", typeDiffers},
		{"timestamp with time zone", "timestamp without time zone", typeDiffers},
		{"interval day to second(2)", "interval", typeSame},
		{"interval", "interval day", typeDiffers},
		{"real", "double precision", typeDiffers},
		{"json", "jsonb", typeDiffers},
		{"shop.mood", "shop.mood", typeSame},
		{"shop.mood", "text", typeDiffers},
		{`"char"`, "text", typeDiffers},
		{"public.geometry(Point,4326)", "public.geometry(Point,3857)", typeDiffers},
	} {
		if got := fitTypes(c.source, c.target); got != c.want {
			t.Errorf("%s into %s: got %d, want %d", c.source, c.target, got, c.want)
		}
	}
}

// base is the table that the cases of TestCompare change.
func base() Table {
	key := Index{Name: "t_pkey", Method: "btree", Columns: []string{"id"}, Unique: true, Primary: true, Valid: true, Immediate: true, Constraint: "t_pkey", Definition: "CREATE UNIQUE INDEX t_pkey ON shop.t USING btree (id)"}
	return Table{
		Schema: "shop", Name: "t", Kind: KindOrdinary, ReplicaIdentity: "d", IdentityColumns: []string{"id"}, PrimaryKey: []string{"id"},
		Columns: []Column{
			{Name: "id", Number: 1, Type: "bigint", NotNull: true},
			{Name: "Name", Number: 2, Type: "character varying(10)"},
			{Name: "twice", Number: 3, Type: "bigint", Generated: "s", Default: "(id * 2)"},
		},
		Indexes:     []Index{key},
		Constraints: []Constraint{{Name: "t_pkey", Type: "p", Definition: "PRIMARY KEY (id)", Columns: []string{"id"}, Validated: true, Enforced: true}},
	}
}

func TestCompare(t *testing.T) {
	unique := Index{Name: "u", Method: "btree", Columns: []string{"Name"}, Unique: true, Valid: true, Immediate: true, Definition: `CREATE UNIQUE INDEX u ON shop.t USING btree ("Name")`}
	check := Constraint{Name: "c", Type: "c", Definition: "CHECK ((id > 0))", Validated: true, Enforced: true}
	for _, c := range []struct {
		name   string
		change func(source, target *Table)
		want   []string // with "warning: " before a warning
	}{
		{"equal", func(_, _ *Table) {}, nil},
		{"another order", func(_, to *Table) { to.Columns[0], to.Columns[1] = to.Columns[1], to.Columns[0] }, nil},
		{"missing column", func(_, to *Table) { to.Columns = to.Columns[:1] }, []string{
			`table shop.t column "Name": the column is missing on the target (source: character varying(10), target: nothing)`,
			`warning: table shop.t column twice: the target lacks the generated column (source: bigint GENERATED ALWAYS AS ((id * 2)) STORED, target: nothing)`,
		}},
		{"every column differs", func(_, to *Table) { to.Columns[0].Type, to.Columns[1].Type = "uuid", "character varying(9)" }, []string{
			`table shop.t column id: the type differs (source: bigint, target: uuid)`,
			`table shop.t column "Name": the type differs (source: character varying(10), target: character varying(9))`,
		}},
		{"wider", func(_, to *Table) { to.Columns[1].Type = "character varying(11)" }, nil},
		{"wider number", func(_, to *Table) { to.Columns[0].Type = "numeric" }, []string{`warning: table shop.t column id: the type is wider on the target (source: bigint, target: numeric)`}},
		{"collation", func(_, to *Table) { to.Columns[1].Collation = `pg_catalog."C"` }, []string{`warning: table shop.t column "Name": the collation differs (source: nothing, target: pg_catalog."C")`}},
		{"not null on the target", func(_, to *Table) { to.Columns[1].NotNull = true }, []string{`table shop.t column "Name": the source can hold NULLs that the target refuses (source: nullable, target: NOT NULL)`}},
		{"not null on the source", func(from, _ *Table) { from.Columns[1].NotNull = true }, nil},
		{"generated on the target only", func(_, to *Table) { to.Columns[1].Generated, to.Columns[1].Default = "s", "'x'" }, []string{
			`table shop.t column "Name": the column is generated on the target only, so the source's values cannot be written (source: character varying(10), target: character varying(10) GENERATED ALWAYS AS ('x') STORED)`,
		}},
		{"generated on the source only", func(_, to *Table) { to.Columns[2].Generated, to.Columns[2].Default = "", "" }, []string{
			`table shop.t column twice: the column is generated on the source only, and generated values are not shipped (source: bigint GENERATED ALWAYS AS ((id * 2)) STORED, target: bigint)`,
		}},
		{"virtual and stored", func(from, _ *Table) { from.Columns[2].Generated = "v" }, nil},
		{"always identity on the target", func(_, to *Table) { to.Columns[0].Identity = "a" }, nil},
		{"more columns", func(_, to *Table) {
			to.Columns = append(to.Columns, Column{Name: "a", Type: "text"}, Column{Name: "b", Type: "text", NotNull: true, Default: "''"},
				Column{Name: "c", Type: "integer", NotNull: true, Identity: "d"}, Column{Name: "d", Type: "text", NotNull: true})
		}, []string{`table shop.t column d: the source has no such column, and on the target it is NOT NULL without a default (source: nothing, target: text NOT NULL)`}},
		{"no key on the target", func(_, to *Table) { to.Indexes, to.Constraints = nil, nil }, []string{
			`table shop.t: the target has no unique index over the source's identity columns, by which updates and deletes find their row (source: identity (id), target: nothing)`,
		}},
		{"another key on the target", func(_, to *Table) { to.Indexes[0].Columns = []string{"id", "Name"} }, []string{
			`table shop.t: the target has no unique index over the source's identity columns, by which updates and deletes find their row (source: identity (id), target: t_pkey (id, Name))`,
		}},
		{"partial key", func(_, to *Table) { to.Indexes[0].Partial = true }, []string{
			`table shop.t: the target has no unique index over the source's identity columns, by which updates and deletes find their row (source: identity (id), target: t_pkey (id))`,
		}},
		{"full without a key", func(from, to *Table) {
			from.ReplicaIdentity, from.IdentityColumns = "f", []string{"id", "Name"}
			from.Indexes, to.Indexes = nil, nil
		}, []string{`warning: table shop.t: every update and delete must search the whole table on the target; a primary key on either side mends it (source: REPLICA IDENTITY FULL, target: no unique index)`}},
		{"insert only", func(from, to *Table) { from.IdentityColumns, to.Indexes = nil, nil }, nil},
		{"more unique", func(_, to *Table) { to.Indexes = append(to.Indexes, unique) }, []string{
			`warning: table shop.t: the target has a unique index that the source lacks, so it may refuse the source's rows (source: nothing, target: unique u (Name))`,
		}},
		{"weaker unique", func(_, to *Table) {
			weaker := unique
			weaker.Columns = []string{"Name", "id"}
			to.Indexes = append(to.Indexes, weaker)
		}, nil},
		{"unique deferrable on the source", func(from, to *Table) {
			deferrable := unique
			deferrable.Immediate = false
			from.Indexes, to.Indexes = append(from.Indexes, deferrable), append(to.Indexes, unique)
		}, []string{`warning: table shop.t: the target has a unique index that the source lacks, so it may refuse the source's rows (source: nothing, target: unique u (Name))`}},
		{"more checks", func(_, to *Table) { to.Constraints = append(to.Constraints, check) }, []string{
			`warning: table shop.t: the target has a constraint that the source lacks, so it may refuse the source's rows (source: nothing, target: c CHECK ((id > 0)))`,
		}},
		{"same check, not validated", func(from, to *Table) {
			loose := check
			loose.Name, loose.Definition, loose.Validated = "other", loose.Definition+" NOT VALID", false
			from.Constraints, to.Constraints = append(from.Constraints, loose), append(to.Constraints, check)
		}, nil},
		{"not null as a constraint", func(_, to *Table) {
			to.Constraints = append(to.Constraints, Constraint{Name: "t_id_not_null", Type: "n", Definition: "NOT NULL id", Columns: []string{"id"}, Validated: true, Enforced: true})
		}, nil},
		{"partitioned on one side", func(from, _ *Table) { from.Kind, from.PartitionKey = KindPartitioned, "LIST (id)" }, nil},
		{"row security", func(_, to *Table) { to.RowSecurity = true }, []string{
			`warning: table shop.t: row level security on the target hides rows from an applier that is neither the table's owner nor has BYPASSRLS (source: nothing, target: row level security)`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, target := base(), base()
			c.change(&source, &target)
			var got []string
			for _, m := range Compare(source, target) {
				line := m.String()
				if m.Warning {
					line = "warning: " + line
				}
				got = append(got, line)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	if err := Refusal([]Mismatch{{Warning: true, Problem: "x"}}); err != nil {
		t.Errorf("a warning refuses: %v", err)
	}
	var refused *MismatchError
	err := Refusal([]Mismatch{{Table: Name{"a", "b"}, Column: "c", Problem: "wrong"}, {Warning: true}})
	if !errors.As(err, &refused) || len(refused.Mismatches) != 1 || !strings.Contains(err.Error(), "table a.b column c: wrong") {
		t.Errorf("got %v", err)
	}
}

func TestCompareTypes(t *testing.T) {
	source := Database{
		Types: []Type{
			{Schema: "s", Name: "e", Kind: "e", Labels: []string{"a", "b", "c"}},
			{Schema: "s", Name: "unused", Kind: "e", Labels: []string{"x"}},
		},
		Tables: []Table{{Schema: "s", Name: "t", Kind: KindOrdinary, Columns: []Column{{Name: "v", Type: "s.e[]"}}, Needs: []Need{{Column: "v", Used: "type", Kind: "type", Identity: "s.e", Name: Name{"s", "e"}}}}},
	}
	target := Database{
		Types:  []Type{{Schema: "s", Name: "e", Kind: "e", Labels: []string{"b", "a", "d"}}, {Schema: "s", Name: "unused", Kind: "e"}},
		Tables: source.Tables,
	}
	var got []string
	for _, m := range CompareAll(source, target) {
		got = append(got, m.String())
	}
	want := []string{
		`type s.e: the target's enum lacks a label (source: c, target: nothing)`,
		`type s.e: the enum's labels are in another order (source: enum ["a" "b" "c"], target: enum ["b" "a" "d"])`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
