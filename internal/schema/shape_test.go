package schema

import (
	"slices"
	"strings"
	"testing"
)

// TestShape: what decides is in the fingerprint, and what does no harm is not.
func TestShape(t *testing.T) {
	first := base().Shape()
	if got := strings.Join(first, "; "); got != `column "Name" character varying(10); column id bigint NOT NULL; column twice bigint GENERATED; primary key (id)` {
		t.Errorf("shape %s", got)
	}
	unique := Index{Name: "u", Method: "btree", Columns: []string{"Name"}, Unique: true, Valid: true, Immediate: true}
	for _, c := range []struct {
		name   string
		change func(t *Table)
		want   string
	}{
		{"order", func(t *Table) { slices.Reverse(t.Columns) }, ""},
		{"default", func(t *Table) { t.Columns[0].Default = "7" }, ""},
		{"oid", func(t *Table) { t.OID, t.Columns[0].Number = 7, 9 }, ""},
		{"index that identifies nothing", func(t *Table) { unique := unique; unique.Partial = true; t.Indexes = append(t.Indexes, unique) }, ""},
		{"type", func(t *Table) { t.Columns[1].Type = "text" }, `column "Name" was character varying(10) and is text`},
		{"null", func(t *Table) { t.Columns[0].NotNull = false }, "column id was bigint NOT NULL and is bigint"},
		{"collation", func(t *Table) { t.Columns[1].Collation = `pg_catalog."C"` }, `column "Name" was character varying(10) and is character varying(10) COLLATE pg_catalog."C"`},
		{"gone", func(t *Table) { t.Columns = t.Columns[:2] }, "column twice is gone"},
		{"new", func(t *Table) { t.Columns = append(t.Columns, Column{Name: `a "b" c`, Type: "date"}) }, `column "a ""b"" c" date is new`},
		{"renamed", func(t *Table) { t.Columns[1].Name = "name" }, `column "Name" is gone; column name character varying(10) is new`},
		{"key", func(t *Table) { t.PrimaryKey = []string{"id", "Name"} }, `primary key (id) is gone; primary key (id, "Name") is new`},
		{"unique", func(t *Table) { t.Indexes = append(t.Indexes, unique) }, `unique ("Name") is new`},
	} {
		other := base()
		c.change(&other)
		shape := other.Shape()
		if got := strings.Join(ShapeChanges(first, shape), "; "); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
		if same := Fingerprint(first) == Fingerprint(shape); same != (c.want == "") {
			t.Errorf("%s: the fingerprints are the same: %v", c.name, same)
		}
	}
}
