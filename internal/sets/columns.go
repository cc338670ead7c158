package sets

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Takes tells whether a column is replicated.
func (e *Entry) Takes(column string) bool {
	if len(e.take) > 0 {
		return slices.Contains(e.take, column)
	}
	return !slices.Contains(e.leave, column)
}

// AllColumns tells whether every column is replicated.
func (e *Entry) AllColumns() bool { return len(e.take)+len(e.leave) == 0 }

// checkColumns refuses a list that names what a table does not have, or lacks what tells its rows apart.
func (e *Entry) checkColumns(t schema.Table) error {
	for _, name := range e.take {
		switch c, found := t.Column(name); {
		case !found:
			return fmt.Errorf("table %s has no column %q", t.FullName(), name)
		case c.Generated != "":
			return fmt.Errorf("column %q of table %s is generated, and is not replicated: it is computed wherever its table has it", name, t.FullName())
		}
	}
	needed := slices.Clone(t.PrimaryKey)
	if t.ReplicaIdentity != replicaIdentityFull {
		needed = append(needed, t.IdentityColumns...)
	}
	for _, c := range t.Columns {
		if mentions(t.PartitionKey, []string{c.Name}) {
			needed = append(needed, c.Name)
		}
	}
	slices.Sort(needed)
	needed = slices.DeleteFunc(slices.Compact(needed), e.Takes)
	if len(needed) > 0 {
		return fmt.Errorf("table %s: %s: they tell its rows apart (primary key, replica identity, partition key), so they have to be taken", t.FullName(), strings.Join(needed, ", "))
	}
	return nil
}

// Project returns a table as it is without the columns that are left out, and without what is made of them: indexes, constraints, and
// columns that are computed from them.
func (e *Entry) Project(t schema.Table) (_ schema.Table, out []string) {
	if e.AllColumns() {
		return t, nil
	}
	for _, c := range t.Columns {
		if !e.Takes(c.Name) {
			out = append(out, c.Name)
		}
	}
	for _, c := range t.Columns {
		if c.Generated != "" && !slices.Contains(out, c.Name) && mentions(c.Default, out) {
			out = append(out, c.Name)
		}
	}
	gone := func(name string) bool { return slices.Contains(out, name) }
	var dropped []string // indexes and constraints
	t.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c schema.Column) bool { return gone(c.Name) })
	t.IdentityColumns = slices.DeleteFunc(slices.Clone(t.IdentityColumns), gone)
	t.Indexes = slices.DeleteFunc(slices.Clone(t.Indexes), func(i schema.Index) bool {
		plain := !i.Partial && !slices.Contains(i.Columns, "") && !strings.Contains(i.Definition, ") INCLUDE (")
		if plain && !slices.ContainsFunc(i.Columns, gone) || !plain && !mentions(i.Definition, out) {
			return false
		}
		dropped = append(dropped, i.Name, i.Constraint)
		return true
	})
	t.Constraints = slices.DeleteFunc(slices.Clone(t.Constraints), func(c schema.Constraint) bool {
		if !slices.ContainsFunc(c.Columns, gone) && !slices.Contains(dropped, c.Name) {
			return false
		}
		dropped = append(dropped, c.Name)
		return true
	})
	if slices.Contains(dropped, t.IdentityIndex) {
		t.IdentityIndex = ""
	}
	t.Needs = slices.DeleteFunc(slices.Clone(t.Needs), func(n schema.Need) bool {
		_, of, _ := strings.Cut(n.Used, " ")
		return gone(n.Column) || slices.Contains(dropped, of)
	})
	return t, out
}

// Project takes the columns that the set leaves out from a description of its tables, and all that hangs on them. above are the
// partitioned tables that a table was a partition of.
func (d *Definition) Project(db *schema.Database, above map[uint32][]schema.Name) {
	before := *db
	db.Tables = slices.Clone(db.Tables)
	out := map[schema.Name][]string{}
	for i, t := range before.Tables {
		if entry, in := d.Entry(t.FullName(), append(Above(before, t), above[t.OID]...)); in {
			db.Tables[i], out[t.FullName()] = entry.Project(t)
		}
	}
	for i, t := range db.Tables {
		db.Tables[i].Constraints = slices.DeleteFunc(slices.Clone(t.Constraints), func(c schema.Constraint) bool {
			_, refers, _ := strings.Cut(c.Definition, " REFERENCES ")
			return c.Type == schema.ConstraintForeign && mentions(refers, out[c.References])
		})
	}
	db.Sequences = slices.DeleteFunc(slices.Clone(db.Sequences), func(s schema.Sequence) bool {
		return s.OwnerColumn != "" && slices.Contains(out[s.Owner], s.OwnerColumn)
	})
}

// mentions tells whether SQL that PostgreSQL has printed may name one of some columns. It errs on the side of yes: what is left out
// needlessly is missed by nobody but the planner.
func mentions(sql string, columns []string) bool {
	if len(columns) == 0 {
		return false
	}
	word := func(r rune) bool {
		return r == '_' || r == '$' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 0x80
	}
	for i, r := 0, []rune(sql); i < len(r); {
		start := i
		switch {
		case r[i] == '"':
			var name []rune
			for i++; i < len(r) && (r[i] != '"' || i+1 < len(r) && r[i+1] == '"'); i++ {
				if r[i] == '"' {
					i++
				}
				name = append(name, r[i])
			}
			i++
			if slices.Contains(columns, string(name)) {
				return true
			}
		case word(r[i]):
			for i < len(r) && word(r[i]) {
				i++
			}
			if slices.Contains(columns, string(r[start:i])) {
				return true
			}
		default:
			i++
		}
	}
	return false
}
