package schema

import (
	"fmt"
	"slices"
	"strings"
)

// Kinds of statements, in the order in which a plan has them.
const (
	StatementSchema          = "schema"
	StatementExtension       = "extension"
	StatementCollation       = "collation"
	StatementSequence        = "sequence"
	StatementType            = "type"
	StatementTable           = "table"
	StatementStorage         = "storage"
	StatementAttach          = "attach"
	StatementIndex           = "index"
	StatementKey             = "key"
	StatementCheck           = "check"
	StatementExclusion       = "exclusion"
	StatementIndexAttach     = "index attach"
	StatementReplicaIdentity = "replica identity"
	StatementSequenceOwner   = "sequence owner"
	StatementForeignKey      = "foreign key"
	StatementSequenceValue   = "sequence value"
)

// Statement is one SQL command. Its text holds only qualified names; run it in a session with postgres.SessionSettings.
type Statement struct {
	Kind string `json:"kind"`
	// Table is zero for what belongs to no table.
	Table Name `json:"table,omitzero"`
	// Name is what the statement makes or changes.
	Name string `json:"name"`
	SQL  string `json:"sql"`
	// Parallel: neighbours that are all Parallel may run at the same time, each on a connection of its own. A statement
	// that is not runs alone, after all before it.
	Parallel bool `json:"parallel,omitempty"`
}

// Plan is how a target gets the tables that it lacks. Each step can be repeated after a crash: a plan that is made with
// a fresh description of the target holds only what is still missing.
type Plan struct {
	// Before comes before the load, and best runs in one transaction: it takes no time on empty tables, and then either
	// all or nothing is there.
	Before []Statement
	// After comes after the load: indexes and keys, then checks, replica identities and sequence owners. Each statement
	// runs in a transaction of its own.
	After []Statement
	// ForeignKeys come when catching up has ended: before, the tables are copies as of different positions.
	ForeignKeys []Statement
	// Skipped is what of the source's definitions the target does not get, and why.
	Skipped []Skipped
}

// CreateStatements plans the creation of the named source tables with everything they rest on, and of the sequences
// that no table owns, as far as the target lacks them. With nil it plans all tables, types and sequences of the source's
// description. It is pure. What exists on the target is never altered, except to finish one of the named tables: name
// only those that Missing listed before the first plan was carried out.
//
// It returns a *MissingObjectsError when tables need extensions, functions or the like that the target lacks, and a
// *ConflictError when a name is taken by something else or the target's version cannot hold a table.
func CreateStatements(source, target Database, tables []Name) (Plan, error) {
	p, err := newPlanner(source, target, tables)
	if err != nil {
		return Plan{}, err
	}
	if err := p.check(); err != nil {
		return Plan{}, err
	}
	p.schemas()
	p.extensions()
	p.collations()
	p.sequences()
	if err := p.typesAndTables(); err != nil {
		return Plan{}, err
	}
	p.attach()
	p.indexes()
	p.keys()
	p.checks()
	p.exclusions()
	p.indexAttach()
	p.lateNotNulls()
	p.lateDomainChecks()
	p.replicaIdentities()
	p.sequenceOwners()
	p.foreignKeys()
	return p.plan, nil
}

type planner struct {
	source, target Database
	all            bool
	tables         []Table // in name order
	wanted         map[Name]bool
	existing       map[Name]Table
	needs          closure
	plan           Plan
}

func newPlanner(source, target Database, names []Name) (*planner, error) {
	p := &planner{source: source, target: target, all: names == nil, wanted: map[Name]bool{}, existing: map[Name]Table{}}
	if p.all {
		p.tables = source.Tables
	}
	sorted := slices.Clone(names)
	slices.SortFunc(sorted, compareNames)
	for _, name := range slices.Compact(sorted) {
		t, found := source.Table(name)
		if !found {
			return nil, fmt.Errorf("plan creation of tables: table %s is not among the source's tables", name)
		}
		p.tables = append(p.tables, t)
	}
	for _, t := range p.tables {
		p.wanted[t.FullName()] = true
	}
	for _, t := range target.Tables {
		p.existing[t.FullName()] = t
	}
	p.needs = source.closure(p.tables)
	return p, nil
}

func (p *planner) before(kind string, table Name, name, sql string) {
	p.plan.Before = append(p.plan.Before, Statement{Kind: kind, Table: table, Name: name, SQL: sql})
}

func (p *planner) after(kind string, table Name, name, sql string, parallel bool) {
	p.plan.After = append(p.plan.After, Statement{Kind: kind, Table: table, Name: name, SQL: sql, Parallel: parallel})
}

func (p *planner) skip(kind, name, reason string) {
	p.plan.Skipped = append(p.plan.Skipped, Skipped{Kind: kind, Name: name, Reason: reason})
}

// here tells whether the target has a table, or will have it after this plan.
func (p *planner) here(name Name) bool {
	_, exists := p.existing[name]
	return exists || p.wanted[name]
}

// partitioned tells whether the target's table is, or will be, partitioned.
func (p *planner) partitioned(t Table) bool {
	if existing, found := p.existing[t.FullName()]; found {
		return existing.Kind == KindPartitioned
	}
	return t.Kind == KindPartitioned
}

// MissingObjectsError lists what tables or types need and the target lacks, and Syncline cannot create.
type MissingObjectsError struct {
	Objects []MissingObject
}

// MissingObject is a need that the target cannot meet.
type MissingObject struct {
	// Owner is the table or type that needs it.
	Owner Name
	Need  Need
	// Mend says what to do.
	Mend string
}

func (e *MissingObjectsError) Error() string {
	lines := make([]string, len(e.Objects))
	for i, o := range e.Objects {
		column := ""
		if o.Need.Column != "" {
			column = " column " + display(o.Need.Column)
		}
		lines[i] = fmt.Sprintf("%s%s (%s) needs %s %s, which the target lacks: %s", o.Owner, column, o.Need.Used, o.Need.Kind, o.Need.Identity, o.Mend)
	}
	return "create tables on the target: " + strings.Join(lines, "; ")
}

// ConflictError lists why tables cannot be created on this target as they are on the source.
type ConflictError struct {
	Problems []string
}

func (e *ConflictError) Error() string {
	return "create tables on the target: " + strings.Join(e.Problems, "; ")
}
