package sets

import (
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/filter"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// replicaIdentityFull is pg_class.relreplident of REPLICA IDENTITY FULL.
const replicaIdentityFull = "f"

// Check compiles the definition against the tables that there are. It returns a *FieldError that names the table, the column and
// what mends it. A name without a star that is no table is refused: a misspelt name must not quietly mean nothing. Of tables in
// insertOnly no updates and deletes come, so they need no replica identity.
func (d *Definition) Check(db schema.Database, insertOnly []schema.Name) error {
	return d.check(db, insertOnly, false)
}

// CheckTables is Check for tables whose replica identities are still to be mended.
func (d *Definition) CheckTables(db schema.Database) error { return d.check(db, nil, true) }

func (d *Definition) check(db schema.Database, insertOnly []schema.Name, identityComes bool) error {
	for i, e := range d.entries {
		name, exact := e.pattern.Exact()
		if !exact {
			continue
		}
		if _, ok := db.Table(name); !ok {
			return &FieldError{fmt.Sprintf("tables[%d].pattern", i), fmt.Errorf("there is no table %s that can be replicated", name)}
		}
	}
	known := map[*Entry]map[string]bool{}
	for _, t := range db.Tables {
		entry, in := d.Entry(t.FullName(), Above(db, t))
		if !in {
			continue
		}
		if known[entry] == nil {
			known[entry] = map[string]bool{}
		}
		for _, c := range t.Columns {
			known[entry][c.Name] = true
		}
		if err := entry.check(t, identityComes || slices.Contains(insertOnly, t.FullName())); err != nil {
			for i := range d.entries {
				if entry == &d.entries[i] {
					err.Field = fmt.Sprintf("tables[%d].%s", i, err.Field)
				}
			}
			return err
		}
	}
	for i := range d.entries {
		for _, name := range d.entries[i].leave {
			if columns := known[&d.entries[i]]; columns != nil && !columns[name] {
				return &FieldError{fmt.Sprintf("tables[%d].leave_out_columns", i), fmt.Errorf("no table of the pattern has a column %q", name)}
			}
		}
	}
	return nil
}

// check fits an entry to a table, of which perhaps only inserts come, or whose identity is not looked at.
func (e *Entry) check(t schema.Table, insertOnly bool) *FieldError {
	if err := e.checkColumns(t); err != nil {
		return &FieldError{"columns", err}
	}
	if e.selector != nil {
		if err := e.selector.Check(FilterColumns(t)); err != nil {
			return &FieldError{e.field, fmt.Errorf("table %s: %w", t.FullName(), err)}
		}
	}
	if e.keys != nil {
		if _, err := e.keys.Compile(FilterColumns(t)); err != nil {
			return &FieldError{"keys", fmt.Errorf("table %s: %w", t.FullName(), err)}
		}
	}
	if insertOnly {
		return nil
	}
	if err := e.undecidable(t); err != nil {
		field := e.field
		if field == "" {
			field = "keys"
		}
		return &FieldError{field, err}
	}
	return nil
}

func (e *Entry) undecidable(t schema.Table) error {
	if !t.HasRows() || !e.Publishes(Update) && !e.Publishes(Delete) {
		return nil
	}
	return Decidable(t.FullName(), t.ReplicaIdentity == replicaIdentityFull, t.IdentityColumns, e.Columns())
}

// Undecidable returns why a table's changes do not tell which of its rows are in the set, nil when they do, and the columns that decide.
func (d *Definition) Undecidable(db schema.Database, t schema.Table) (columns []string, err error) {
	entry, in := d.Entry(t.FullName(), Above(db, t))
	if !in {
		return nil, nil
	}
	return entry.Columns(), entry.undecidable(t)
}

// Decidable tells whether an old row says what a selector of these columns needs to know: whoever is not told which rows leave a set
// keeps them. Its error names what mends it.
func Decidable(table schema.Name, full bool, identity, columns []string) error {
	var missing []string
	for _, c := range columns {
		if !full && !slices.Contains(identity, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("table %s: %s no part of its replica identity, so deletes and updates do not tell whether a row was in the set: "+
		"ALTER TABLE %s REPLICA IDENTITY FULL, or make a unique index over the key and %s and ALTER TABLE %s REPLICA IDENTITY USING INDEX it",
		table, quoted(missing), table.SQL(), postgres.Idents(missing), table.SQL())
}

func quoted(columns []string) string {
	if len(columns) == 1 {
		return "column " + postgres.Ident(columns[0]) + " is"
	}
	return "columns " + postgres.Idents(columns) + " are"
}

// Above are the partitioned tables above a table, from its parent up. Inheritance parents are not among them.
func Above(db schema.Database, t schema.Table) []schema.Name {
	var names []schema.Name
	for t.IsPartition() && len(t.Parents) > 0 {
		names = append(names, t.Parents[0])
		parent, ok := db.Table(t.Parents[0])
		if !ok {
			break
		}
		t = parent
	}
	return names
}

// FilterColumns are a table's columns for a selector. Generated ones are not in the stream, so no selector can use them.
func FilterColumns(t schema.Table) []filter.Column {
	columns := make([]filter.Column, 0, len(t.Columns))
	for _, c := range t.Columns {
		if c.Generated == "" {
			columns = append(columns, filter.Column{Name: c.Name, TypeOID: c.TypeOID, Type: c.Type})
		}
	}
	return columns
}
