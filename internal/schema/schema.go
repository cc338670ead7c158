// Package schema describes the replicable things of a PostgreSQL database: it reads them, compares two descriptions,
// and writes the SQL that creates what one of them lacks. Comparing and writing are pure; reading takes a fixed number
// of queries whatever the number of tables. Whatever is not described is listed in Database.NotReplicated with its reason.
package schema

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// Name is a schema-qualified name: of a table, sequence, type or index.
type Name struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

var plainIdentifier = regexp.MustCompile(`^[a-z_][a-z0-9_$]*$`)

// String is the name as people write it: quoted only where a part needs it. ParsePattern reads it back.
func (n Name) String() string {
	if n.IsZero() {
		return ""
	}
	return display(n.Schema) + "." + display(n.Name)
}

// SQL is the name quoted for a statement.
func (n Name) SQL() string { return postgres.Ident(n.Schema, n.Name) }

// IsZero tells whether nothing is named.
func (n Name) IsZero() bool { return n == Name{} }

func display(identifier string) string {
	if plainIdentifier.MatchString(identifier) {
		return identifier
	}
	return postgres.Ident(identifier)
}

func compareNames(a, b Name) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

// Database describes one database. Every list is sorted by name, and nil when empty, so that equal databases have
// equal descriptions and a description survives JSON unchanged.
type Database struct {
	// ServerVersion is server_version_num: 150004 is 15.4.
	ServerVersion int `json:"server_version"`
	// Role is the role that read the description, for the checks of what it may create.
	Role       Role        `json:"role"`
	Schemas    []string    `json:"schemas,omitempty"`
	Extensions []Extension `json:"extensions,omitempty"`
	// Available are the extensions that the server could install and has not, if they were asked for.
	Available  []AvailableExtension `json:"available_extensions,omitempty"`
	Collations []Collation          `json:"collations,omitempty"`
	Types      []Type               `json:"types,omitempty"`
	Sequences  []Sequence           `json:"sequences,omitempty"`
	Tables     []Table              `json:"tables,omitempty"`
	// Objects are the users' functions, operators, operator classes, base types and text search configurations. They
	// are not replicated, but tables may need them.
	Objects       []Object  `json:"objects,omitempty"`
	NotReplicated []Skipped `json:"not_replicated,omitempty"`
}

// Role is what a description's reader was allowed to do in the database.
type Role struct {
	Name      string `json:"name"`
	Superuser bool   `json:"superuser,omitempty"`
	// Create is the CREATE privilege on the database: schemas and trusted extensions.
	Create bool `json:"create,omitempty"`
}

// Extension is an installed extension.
type Extension struct {
	Name    string `json:"name"`
	Schema  string `json:"schema"`
	Version string `json:"version"`
}

// AvailableExtension can be installed. A trusted one needs only the CREATE privilege on the database.
type AvailableExtension struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Trusted bool   `json:"trusted,omitempty"`
}

// Collation is a user's collation. Provider is pg_collation.collprovider: 'b', 'c' or 'i'.
type Collation struct {
	Schema        string `json:"schema"`
	Name          string `json:"name"`
	Provider      string `json:"provider"`
	Deterministic bool   `json:"deterministic"`
	// Locale is for the providers builtin and ICU, Collate and CType for libc.
	Locale  string `json:"locale,omitempty"`
	Collate string `json:"collate,omitempty"`
	CType   string `json:"ctype,omitempty"`
	// Rules are ICU tailoring rules, known from 16.
	Rules string `json:"rules,omitempty"`
}

// FullName is the collation's qualified name.
func (c Collation) FullName() Name { return Name{c.Schema, c.Name} }

// Object is something that belongs to a user and is not replicated. Kind and Identity are those of
// pg_identify_object: "function", "public.f(integer)".
type Object struct {
	Kind     string `json:"kind"`
	Identity string `json:"identity"`
}

// Skipped names something that is not replicated, and why.
type Skipped struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
	// Relation is set when it is something that has rows or could be taken for a table.
	Relation Name `json:"relation,omitzero"`
}

// Need is something outside of itself that a table or a type rests on (pg_depend). What PostgreSQL itself brings is
// never listed.
type Need struct {
	// Column is empty when the need is not one column's.
	Column string `json:"column,omitempty"`
	// Used says for what: "type", "default", "generation expression", "partition key", "index i", "constraint c".
	Used string `json:"used"`
	// Kind is that of pg_identify_object, or "sequence", or "table" for the row type of a table.
	Kind     string `json:"kind"`
	Identity string `json:"identity"`
	// Name is set for types, sequences, tables and collations.
	Name Name `json:"name,omitzero"`
	// Extension brings the needed thing; empty when a user made it.
	Extension string `json:"extension,omitempty"`
}

// Table finds a table by name.
func (d Database) Table(name Name) (Table, bool) {
	i, found := slices.BinarySearchFunc(d.Tables, name, func(t Table, n Name) int { return compareNames(t.FullName(), n) })
	if !found {
		return Table{}, false
	}
	return d.Tables[i], true
}

func (d Database) sequence(name Name) (Sequence, bool) {
	i := slices.IndexFunc(d.Sequences, func(s Sequence) bool { return s.FullName() == name })
	if i < 0 {
		return Sequence{}, false
	}
	return d.Sequences[i], true
}

func (d Database) typ(name Name) (Type, bool) {
	i := slices.IndexFunc(d.Types, func(t Type) bool { return t.FullName() == name })
	if i < 0 {
		return Type{}, false
	}
	return d.Types[i], true
}

// major is the server's major version.
func (d Database) major() int { return d.ServerVersion / 10000 }
