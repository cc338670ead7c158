package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// resolveIdentity sets what names a row of the table in an UPDATE or DELETE, by the server's own rules.
func resolveIdentity(t *Table, serverVersion int) {
	t.IdentityIndex, t.IdentityColumns, t.NoIdentity = "", nil, ""
	switch t.ReplicaIdentity {
	case "f":
		t.IdentityColumns, t.NoIdentity = fullIdentity(*t, serverVersion)
		return
	case "n":
		t.NoIdentity = "its REPLICA IDENTITY is NOTHING"
		return
	}
	for _, x := range t.Indexes {
		chosen := x.Primary
		if t.ReplicaIdentity == "i" {
			chosen = x.ReplicaIdentity
		}
		if !chosen {
			continue
		}
		if !x.Immediate {
			t.NoIdentity = fmt.Sprintf("its key %s is deferrable", display(x.Name))
			return
		}
		if !x.Valid && t.HasRows() {
			t.NoIdentity = fmt.Sprintf("its index %s is not valid", display(x.Name))
			return
		}
		for _, name := range x.Columns {
			if c, found := t.Column(name); found && c.Generated != "" {
				t.NoIdentity = fmt.Sprintf("its key %s has the generated column %s, which is not shipped", display(x.Name), display(name))
				return
			}
		}
		t.IdentityIndex, t.IdentityColumns = x.Name, x.Columns
		return
	}
	if t.ReplicaIdentity == "i" {
		t.NoIdentity = "the index of its REPLICA IDENTITY was dropped"
		return
	}
	t.NoIdentity = "it has no primary key and no other REPLICA IDENTITY"
}

// fullIdentity: from 18 on a server refuses every UPDATE and DELETE of a published table with REPLICA IDENTITY FULL
// when a generated column is not published ("Replica identity must not contain unpublished generated columns"). Before,
// generated columns are simply left out.
func fullIdentity(t Table, serverVersion int) (columns []string, reason string) {
	for _, c := range t.Columns {
		if c.Generated == "" {
			columns = append(columns, c.Name)
			continue
		}
		if serverVersion >= 180000 {
			return nil, fmt.Sprintf("its REPLICA IDENTITY is FULL and column %s is generated, for which PostgreSQL 18 refuses every UPDATE and DELETE of a published table; give it a key and REPLICA IDENTITY DEFAULT", display(c.Name))
		}
	}
	return columns, ""
}

// IdentityStatement returns the ALTER TABLE that gives a table a replica identity with the columns in it: by the primary key, or
// the smallest unique index that PostgreSQL takes for one, or else FULL. An index for more columns has to hold the primary key too. It is empty when the server would refuse statements on the table then.
func IdentityStatement(t Table, columns []string, serverVersion int) string {
	best := -1
	for i, x := range t.Indexes {
		if t.fitsIdentity(x, columns) && (best < 0 || x.Primary || !t.Indexes[best].Primary && len(x.Columns) < len(t.Indexes[best].Columns)) {
			best = i
		}
	}
	switch full, reason := fullIdentity(t, serverVersion); {
	case best >= 0 && t.Indexes[best].Primary:
		return "ALTER TABLE " + t.FullName().SQL() + " REPLICA IDENTITY DEFAULT"
	case best >= 0:
		return "ALTER TABLE " + t.FullName().SQL() + " REPLICA IDENTITY USING INDEX " + postgres.Ident(t.Indexes[best].Name)
	case reason != "" || len(full) == 0 && len(columns) > 0:
		return ""
	}
	return "ALTER TABLE " + t.FullName().SQL() + " REPLICA IDENTITY FULL"
}

// fitsIdentity tells whether an index can be a replica identity that holds the columns.
func (t Table) fitsIdentity(x Index, columns []string) bool {
	if !x.Unique || !x.Valid || !x.Immediate || x.Partial {
		return false
	}
	for _, name := range x.Columns {
		if c, found := t.Column(name); !found || !c.NotNull || c.Generated != "" { // an expression is no column
			return false
		}
	}
	missing := func(name string) bool { return !slices.Contains(x.Columns, name) }
	return !slices.ContainsFunc(columns, missing) && (len(columns) == 0 || !slices.ContainsFunc(t.PrimaryKey, missing))
}

// NoIdentityError lists every table whose updated and deleted rows could not be named: publishing those operations
// would make them fail on the primary.
type NoIdentityError struct {
	Tables []TableWithoutIdentity
}

// TableWithoutIdentity is a table of a NoIdentityError.
type TableWithoutIdentity struct {
	Table  Name
	Reason string
}

func (e *NoIdentityError) Error() string {
	var b strings.Builder
	for i, t := range e.Tables {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "table %s has no usable replica identity: %s", t.Table, t.Reason)
	}
	example := e.Tables[0].Table
	fmt.Fprintf(&b, ". Either run ALTER TABLE %s REPLICA IDENTITY FULL (or add a primary key), or exclude the table, "+
		"or publish it insert-only", example.SQL())
	if len(e.Tables) > 1 {
		b.WriteString("; the same goes for the others")
	}
	return b.String()
}

// UsableIdentity returns a *NoIdentityError that lists all of the tables whose updates and deletes cannot be
// replicated. Partitioned tables are passed over: the identity of each partition counts.
func UsableIdentity(tables ...Table) error {
	var e NoIdentityError
	for _, t := range tables {
		if t.HasRows() && t.NoIdentity != "" {
			e.Tables = append(e.Tables, TableWithoutIdentity{Table: t.FullName(), Reason: t.NoIdentity})
		}
	}
	if e.Tables == nil {
		return nil
	}
	return &e
}
