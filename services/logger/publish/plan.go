package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// target says which of the two publications lists a table.
type target byte

const (
	nowhere    target = iota
	everything        // inserts, updates, deletes and truncates
	insertOnly        // inserts and truncates
)

// plan is which tables have to be listed where. Tables of one family (a partitioned table with everything below it) are
// listed together or leaf by leaf.
type plan struct {
	listed map[uint32]target
	tables map[uint32]*Table
	// captured are the tables with rows that are reached, inserts those of them of which only inserts and truncates are.
	captured, inserts []*Table
	refused           []Refusal
}

// catalog is all tables of a database at one moment.
type catalog struct {
	version  int // server_version_num
	tables   map[uint32]*Table
	children map[uint32][]*Table // by the parent's OID, sorted by name
}

func newCatalog(version int, tables []Table) catalog {
	c := catalog{version: version, tables: make(map[uint32]*Table, len(tables)), children: make(map[uint32][]*Table)}
	slices.SortFunc(tables, func(a, b Table) int { return compareNames(a.Name, b.Name) })
	for i := range tables {
		t := &tables[i]
		c.tables[t.OID] = t
		c.children[t.Parent] = append(c.children[t.Parent], t)
	}
	return c
}

func compareNames(a, b schema.Name) int {
	return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
}

// root is the topmost partitioned table above t, or t itself.
func (c catalog) root(t *Table) *Table {
	for {
		parent, ok := c.tables[t.Parent]
		if !ok {
			return t
		}
		t = parent
	}
}

// above are the names of the partitioned tables above t, from its parent up.
func (c catalog) above(t *Table) (names []schema.Name) {
	for parent, ok := c.tables[t.Parent]; ok; parent, ok = c.tables[parent.Parent] {
		names = append(names, parent.Name)
	}
	return names
}

// leaves are the partitions with rows below t, none if t has rows itself.
func (c catalog) leaves(t *Table) (list []*Table) {
	for _, child := range c.children[t.OID] {
		if child.Partitioned {
			list = append(list, c.leaves(child)...)
		} else {
			list = append(list, child)
		}
	}
	return list
}

// plan decides where each table is listed, by the configuration alone.
func (c catalog) plan(cfg Config) plan {
	p := plan{listed: make(map[uint32]target), tables: c.tables}
	for _, t := range c.children[0] {
		c.place(cfg, &p, t, nil)
	}
	return p
}

// place lists t, or what is below it. It returns where all of t's leaves go, and whether they all go to the same place,
// which is what allows to list a partitioned table above them.
func (c catalog) place(cfg Config, p *plan, t *Table, above []schema.Name) (target, bool) {
	where := cfg.target(t.Name, above)
	if !t.Partitioned {
		return c.placeLeaf(p, t, where)
	}
	inner := plan{listed: make(map[uint32]target), tables: p.tables}
	uniform := true
	names := append(slices.Clone(above), t.Name)
	for _, child := range c.children[t.OID] {
		at, same := c.place(cfg, &inner, child, names)
		uniform = uniform && same && at == where
	}
	// Listing the partitioned table itself is what takes in future partitions. Those get a key, and so an identity, only
	// when it has a primary key; an insert needs none.
	future := where == insertOnly || where == everything && t.PrimaryKey && !t.GeneratedKey
	if uniform && future && t.Owned {
		p.listed[t.OID] = where
	} else {
		uniform = false
		for oid, at := range inner.listed {
			p.listed[oid] = at
		}
	}
	p.captured = append(p.captured, inner.captured...)
	p.inserts = append(p.inserts, inner.inserts...)
	p.refused = append(p.refused, inner.refused...)
	return where, uniform
}

func (c catalog) placeLeaf(p *plan, t *Table, where target) (target, bool) {
	switch where {
	case nowhere:
		return nowhere, true
	case everything:
		if r := t.identityProblem(c.version); r != nil {
			p.refused = append(p.refused, *r)
			return nowhere, false
		}
	case insertOnly:
		p.inserts = append(p.inserts, t)
	}
	p.listed[t.OID] = where
	p.captured = append(p.captured, t)
	return where, true
}

// versionRefusesGenerated is the first PostgreSQL whose UPDATE and DELETE fail when a published table's identity holds a
// generated column that is not published.
const versionRefusesGenerated = 180000

// identityProblem returns why updates and deletes of the table cannot be captured, and the ways out; nil when they can.
func (t *Table) identityProblem(version int) *Refusal {
	full := "ALTER TABLE " + t.Name.SQL() + " REPLICA IDENTITY FULL"
	statement := full // unless it needs a decision
	var reason string
	switch {
	case t.Identity == change.IdentityFull && t.Generated && version >= versionRefusesGenerated:
		reason = "it has REPLICA IDENTITY FULL and a generated column, for which this PostgreSQL would refuse UPDATE and DELETE"
		full, statement = "give it a primary key and ALTER TABLE "+t.Name.SQL()+" REPLICA IDENTITY DEFAULT", ""
	case t.Identity == change.IdentityFull:
		return nil
	case t.Identity == change.IdentityNothing:
		reason = "it has REPLICA IDENTITY NOTHING"
	case t.Identity == change.IdentityIndex && !t.IdentityIndex:
		reason = "the index of its REPLICA IDENTITY is gone"
	case t.Identity == change.IdentityDefault && !t.PrimaryKey && t.Deferrable:
		reason = "its primary key is deferrable, which PostgreSQL does not take for an identity"
	case t.Identity == change.IdentityDefault && !t.PrimaryKey:
		reason = "it has no primary key"
	case t.GeneratedKey:
		reason = "its replica identity holds a generated column, which is not in the stream"
		if version >= versionRefusesGenerated {
			full, statement = "ALTER TABLE "+t.Name.SQL()+" REPLICA IDENTITY USING INDEX with a unique index that holds no generated column", ""
		}
	default:
		return nil
	}
	mend := fmt.Sprintf("%s, or leave it out with --exclude-table %s, or capture its inserts only with --insert-only-table %s",
		full, shellWord(t.Name), shellWord(t.Name))
	return &Refusal{Table: t.Name, Reason: reason, Mend: mend, SQL: statement}
}

// shellWord is the name as the value of a flag in a shell.
func shellWord(n schema.Name) string {
	text := n.String()
	if strings.ContainsAny(text, "\"' $`\\!*?&|;<>()[]{}~#\n\t") {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}

// refuseForeign takes out of the plan the tables that would have to be added and belong to somebody else.
func (p *plan) refuseForeign(have [2]publication, role string) {
	foreign := make(map[uint32]bool)
	for oid, where := range p.listed {
		t := p.tables[oid]
		if _, listed := have[where-everything].members[oid]; listed || t.Owned {
			continue
		}
		foreign[oid] = true
		delete(p.listed, oid)
		p.refused = append(p.refused, Refusal{
			Table:  t.Name,
			Reason: fmt.Sprintf("it belongs to %s, and only its owner may publish it", t.Owner),
			Mend: fmt.Sprintf("GRANT %s TO %s, or ALTER TABLE %s OWNER TO %s, or leave it out with --exclude-table %s",
				postgres.Ident(t.Owner), postgres.Ident(role), t.Name.SQL(), postgres.Ident(role), shellWord(t.Name)),
			SQL:   "GRANT " + postgres.Ident(t.Owner) + " TO " + postgres.Ident(role),
			Owner: t.Owner, OwnerSuper: t.OwnerSuper,
		})
	}
	isForeign := func(t *Table) bool { return foreign[t.OID] }
	p.captured, p.inserts = slices.DeleteFunc(p.captured, isForeign), slices.DeleteFunc(p.inserts, isForeign)
}
