package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// Mismatch is one difference that matters between a source table and the table of the target that takes its rows, or
// between two types of one name.
type Mismatch struct {
	// Table is the source's table, or with Type set a type that its columns use.
	Table Name `json:"table"`
	Type  bool `json:"type,omitempty"`
	// Column is empty when the difference is not one column's.
	Column string `json:"column,omitempty"`
	// Warning: the table can be replicated, but the user should know.
	Warning bool `json:"warning,omitempty"`
	// Source and Target are what either side has, empty for nothing.
	Source string `json:"source,omitempty"`
	Target string `json:"target,omitempty"`
	// Problem says what is wrong and, where it is not plain, what mends it.
	Problem string `json:"problem"`
	// Mend is the statement on the target that mends it, where there is one that loses nothing; empty otherwise.
	Mend string `json:"mend,omitempty"`
}

// String is one line that names the table, the column and both sides.
func (m Mismatch) String() string {
	var b strings.Builder
	kind := "table "
	if m.Type {
		kind = "type "
	}
	b.WriteString(kind + m.Table.String())
	if m.Column != "" {
		b.WriteString(" column " + display(m.Column))
	}
	b.WriteString(": " + m.Problem)
	if m.Source != "" || m.Target != "" {
		none := func(s string) string {
			if s == "" {
				return "nothing"
			}
			return s
		}
		fmt.Fprintf(&b, " (source: %s, target: %s)", none(m.Source), none(m.Target))
	}
	return b.String()
}

// MismatchError lists every mismatch that keeps tables from being replicated.
type MismatchError struct {
	Mismatches []Mismatch
}

func (e *MismatchError) Error() string {
	lines := make([]string, len(e.Mismatches))
	for i, m := range e.Mismatches {
		lines[i] = m.String()
	}
	return "the target's tables do not fit the source's: " + strings.Join(lines, "; ") +
		". Alter the target's tables, or drop them so that they are created, or exclude them"
}

// Refusal returns a *MismatchError with those of the mismatches that are no warnings, or nil.
func Refusal(mismatches []Mismatch) error {
	serious := filter(mismatches, func(m Mismatch) bool { return !m.Warning })
	if serious == nil {
		return nil
	}
	return &MismatchError{Mismatches: serious}
}

type comparison struct {
	source, target Table
	found          []Mismatch
}

func (c *comparison) add(column, source, target, problem string, warning bool) {
	c.found = append(c.found, Mismatch{
		Table: c.source.FullName(), Column: column, Warning: warning, Source: source, Target: target, Problem: problem,
	})
}

// Compare tells what keeps the source's rows and changes from going into the target's table, column by column, and
// what the user should be warned about. Columns are matched by name. What does no harm is passed over: more columns
// that fill themselves, another order, wider limits, fewer NOT NULL, more indexes, another partitioning.
func Compare(source, target Table) []Mismatch {
	c := &comparison{source: source, target: target}
	for _, s := range source.Columns {
		t, found := target.Column(s.Name)
		if !found {
			c.missing(s)
			continue
		}
		c.column(s, t)
	}
	for _, t := range target.Columns {
		if _, found := source.Column(t.Name); !found && t.NotNull && t.Default == "" && t.Identity == "" && t.Generated == "" {
			c.add(t.Name, "", t.Type+" NOT NULL", "the source has no such column, and on the target it is NOT NULL without a default", false)
		}
	}
	c.identity()
	c.constraints()
	if target.RowSecurity || target.ForceRowSecurity {
		c.add("", "", "row level security", "row level security on the target hides rows from an applier that is neither the table's owner nor has BYPASSRLS", true)
	}
	return c.found
}

func (c *comparison) missing(s Column) {
	if s.Generated != "" {
		c.add(s.Name, describeColumn(s), "", "the target lacks the generated column", true)
		return
	}
	c.add(s.Name, describeColumn(s), "", "the column is missing on the target", false)
	c.mend("ADD COLUMN " + postgres.Ident(s.Name) + " " + s.Type)
}

// mend gives the last mismatch the change of the target's table that mends it.
func (c *comparison) mend(change string) {
	c.found[len(c.found)-1].Mend = "ALTER TABLE " + c.target.FullName().SQL() + " " + change
}

func (c *comparison) column(s, t Column) {
	switch fitTypes(s.Type, t.Type) {
	case typeDiffers:
		c.add(s.Name, s.Type, t.Type, "the type differs", false)
		c.mend("ALTER COLUMN " + postgres.Ident(s.Name) + " TYPE " + s.Type)
	case typeWider:
		c.add(s.Name, s.Type, t.Type, "the type is wider on the target", true)
	case typeSame:
	}
	if s.Collation != t.Collation {
		c.add(s.Name, s.Collation, t.Collation, "the collation differs", true)
	}
	switch {
	case s.Generated == "" && t.Generated != "":
		c.add(s.Name, describeColumn(s), describeColumn(t), "the column is generated on the target only, so the source's values cannot be written", false)
	case s.Generated != "" && t.Generated == "":
		c.add(s.Name, describeColumn(s), describeColumn(t), "the column is generated on the source only, and generated values are not shipped", false)
	case s.Generated != "" && unquoted(s.Default) != unquoted(t.Default):
		c.add(s.Name, describeColumn(s), describeColumn(t), "the generation expression differs", true)
	}
	if t.NotNull && !s.NotNull && s.Generated == "" {
		c.add(s.Name, "nullable", "NOT NULL", "the source can hold NULLs that the target refuses", false)
		c.mend("ALTER COLUMN " + postgres.Ident(s.Name) + " DROP NOT NULL")
	}
}

func describeColumn(c Column) string {
	if c.Generated == "" {
		return c.Type
	}
	kind := "STORED"
	if c.Generated == "v" {
		kind = "VIRTUAL"
	}
	return fmt.Sprintf("%s GENERATED ALWAYS AS (%s) %s", c.Type, c.Default, kind)
}

// identity checks that the target finds the row that a source's UPDATE or DELETE names, by an index, and only one.
func (c *comparison) identity() {
	if !c.source.HasRows() || len(c.source.IdentityColumns) == 0 {
		return
	}
	if c.source.ReplicaIdentity == "f" {
		unique := slices.ContainsFunc(c.target.Indexes, func(x Index) bool { return x.identifies() })
		if !unique {
			c.add("", "REPLICA IDENTITY FULL", "no unique index",
				"every update and delete must search the whole table on the target; a primary key on either side mends it", true)
		}
		return
	}
	key := strings.Join(c.source.IdentityColumns, ", ")
	for _, name := range c.source.IdentityColumns {
		if _, found := c.target.Column(name); !found {
			return // said already
		}
	}
	if slices.ContainsFunc(c.target.Indexes, func(x Index) bool { return x.identifies() && sameSet(x.Columns, c.source.IdentityColumns) }) {
		return
	}
	c.add("", "identity ("+key+")", strings.Join(c.target.uniqueKeys(), " "),
		"the target has no unique index over the source's identity columns, by which updates and deletes find their row", false)
}

// identifies tells whether the index proves that no two rows are equal in its columns.
func (x Index) identifies() bool {
	return x.Unique && x.Valid && x.Immediate && !x.Partial && !slices.Contains(x.Columns, "")
}

func (t Table) uniqueKeys() []string {
	var keys []string
	for _, x := range t.Indexes {
		if x.Unique {
			keys = append(keys, display(x.Name)+" ("+strings.Join(x.Columns, ", ")+")")
		}
	}
	return keys
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	return true
}

// constraints warns about rules of the target that the source does not have: its rows may break them.
func (c *comparison) constraints() {
	for _, x := range c.target.Indexes {
		if !x.Unique || x.Method != "btree" {
			continue
		}
		known := slices.ContainsFunc(c.source.Indexes, func(s Index) bool {
			if !s.Unique || x.Immediate && !s.Immediate || x.NullsNotDistinct && !s.NullsNotDistinct {
				return false
			}
			if slices.Contains(s.Columns, "") || s.Partial {
				return indexBody(s.Definition) == indexBody(x.Definition)
			}
			return !slices.ContainsFunc(s.Columns, func(column string) bool { return !slices.Contains(x.Columns, column) })
		})
		if !known {
			c.add("", "", "unique "+display(x.Name)+" ("+strings.Join(x.Columns, ", ")+")",
				"the target has a unique index that the source lacks, so it may refuse the source's rows", true)
		}
	}
	for _, k := range c.target.Constraints {
		if k.Type != ConstraintCheck && k.Type != ConstraintExclusion || !k.Enforced {
			continue
		}
		known := slices.ContainsFunc(c.source.Constraints, func(s Constraint) bool {
			return s.Type == k.Type && sameCheck(s.Definition, k.Definition)
		})
		if !known {
			c.add("", "", display(k.Name)+" "+k.Definition, "the target has a constraint that the source lacks, so it may refuse the source's rows", true)
		}
	}
}

// indexBody is what follows the table's name in an index definition.
func indexBody(definition string) string {
	_, body, _ := strings.Cut(definition, " USING ")
	return unquoted(body)
}

// sameCheck compares constraint definitions, of which either may be not validated yet.
func sameCheck(a, b string) bool {
	return unquoted(strings.TrimSuffix(a, " NOT VALID")) == unquoted(strings.TrimSuffix(b, " NOT VALID"))
}
