package schema

import (
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// check finds all reasons why the plan could not be carried out, before anything is touched.
func (p *planner) check() error {
	if missing := p.missingObjects(); missing != nil {
		return &MissingObjectsError{Objects: missing}
	}
	if conflicts := p.conflicts(); conflicts != nil {
		return &ConflictError{Problems: conflicts}
	}
	return nil
}

func (p *planner) missingObjects() []MissingObject {
	var missing []MissingObject
	objects := make(map[Object]bool, len(p.target.Objects))
	for _, o := range p.target.Objects {
		objects[o] = true
	}
	said := make(map[string]int) // index in missing: an extension once, anything else once for each that needs it
	ask := func(owner Name, needs []Need) {
		for _, n := range needs {
			mend := p.lacks(n, objects)
			if mend == "" {
				continue
			}
			key := owner.String() + " " + n.Kind + " " + n.Identity
			if n.Extension != "" {
				key = "extension " + n.Extension
			}
			i, before := said[key]
			switch {
			case !before:
				said[key] = len(missing)
				missing = append(missing, MissingObject{Owner: owner, Need: n, Mend: mend})
			case missing[i].Owner == owner && missing[i].Need.Column == "":
				missing[i].Need = n // the use that names a column tells more
			}
		}
	}
	for _, t := range p.tables {
		ask(t.FullName(), t.Needs)
	}
	for _, t := range p.source.Types {
		if _, exists := p.target.typ(t.FullName()); !exists && p.wantsType(t.FullName()) {
			ask(t.FullName(), t.Needs)
		}
	}
	return missing
}

// lacks says how to mend a need that neither the target nor this plan meets, or nothing when it is met.
func (p *planner) lacks(n Need, objects map[Object]bool) string {
	if n.Extension != "" {
		return p.lacksExtension(n.Extension)
	}
	switch n.Kind {
	case "sequence":
		if _, found := p.target.sequence(n.Name); found {
			return ""
		}
		if _, found := p.source.sequence(n.Name); found {
			return ""
		}
		return "select the sequence too, or create it on the target"
	case "table":
		if p.here(n.Name) {
			return ""
		}
		return "its row type is a column's type; include that table too"
	case "collation":
		if slices.ContainsFunc(p.source.Collations, func(c Collation) bool { return c.FullName() == n.Name }) {
			return ""
		}
		return "create it on the target"
	case "type", "composite type":
		_, onSource := p.source.typ(n.Name)
		_, onTarget := p.target.typ(n.Name)
		if onSource || onTarget || objects[Object{Kind: "type", Identity: n.Identity}] {
			return ""
		}
		return "create it on the target; Syncline creates enums, domains, composites and ranges"
	case "operator family":
		return "" // an operator class is listed as well, and brings its family
	}
	if objects[Object{Kind: n.Kind, Identity: n.Identity}] {
		return ""
	}
	return "create it on the target first, for example from pg_dump --schema-only of the source, or exclude the table"
}

func (p *planner) lacksExtension(name string) string {
	i := slices.IndexFunc(p.source.Extensions, func(e Extension) bool { return e.Name == name })
	if i < 0 {
		return "the source's description does not list the extension " + name
	}
	e := p.source.Extensions[i]
	if j := slices.IndexFunc(p.target.Extensions, func(x Extension) bool { return x.Name == name }); j >= 0 {
		if at := p.target.Extensions[j].Schema; at != e.Schema {
			return fmt.Sprintf("the extension is in schema %s there, not in %s as on the source; run on the target: ALTER EXTENSION %s SET SCHEMA %s",
				display(at), display(e.Schema), postgres.Ident(name), postgres.Ident(e.Schema))
		}
		return ""
	}
	create := createExtension(e)
	j := slices.IndexFunc(p.target.Available, func(a AvailableExtension) bool { return a.Name == name })
	switch {
	case j < 0:
		return fmt.Sprintf("the extension %s is not installed on the target's machine; install its package there, then run as superuser: %s", name, create)
	case p.target.Role.Superuser, p.target.Available[j].Trusted && p.target.Role.Create:
		return ""
	case p.target.Available[j].Trusted:
		return fmt.Sprintf("role %s lacks the CREATE privilege on the database; grant it, or run on the target: %s", display(p.target.Role.Name), create)
	}
	return "run on the target as superuser: " + create
}

func createExtension(e Extension) string {
	return fmt.Sprintf("CREATE EXTENSION IF NOT EXISTS %s WITH SCHEMA %s CASCADE", postgres.Ident(e.Name), postgres.Ident(e.Schema))
}

// conflicts are names that something else has on the target, and definitions that its version does not know.
func (p *planner) conflicts() []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	taken := p.target.relationNames()
	old := p.target.major() < 18
	for _, t := range p.tables {
		name := t.FullName()
		have, exists := p.existing[name]
		if what, is := taken[name]; is && !exists {
			add("table %s: the target has %s of that name", name, what)
		} else if _, is := p.target.typ(name); is {
			add("table %s: the target has a type of that name", name) // a table brings a type of its own name
		}
		for _, x := range t.Indexes {
			indexName := Name{t.Schema, x.Name}
			if what, is := taken[indexName]; is {
				if _, own := have.index(x.Name); !own {
					add("index %s of table %s: the target has %s of that name", indexName, name, what)
				}
			}
		}
		for _, k := range t.Constraints {
			if old && k.Period && k.Type != ConstraintForeign {
				add("table %s: its constraint %s uses WITHOUT OVERLAPS, which PostgreSQL %d on the target does not know; upgrade the target, or create the table there yourself",
					name, display(k.Name), p.target.major())
			}
			if p.target.major() < 17 && k.Type == ConstraintExclusion && t.Kind == KindPartitioned {
				add("table %s: PostgreSQL %d on the target knows no exclusion constraint %s on a partitioned table; upgrade the target, or create the table there yourself",
					name, p.target.major(), display(k.Name))
			}
		}
	}
	for _, s := range p.source.Sequences {
		if _, exists := p.target.sequence(s.FullName()); exists || !p.wantsSequence(s) {
			continue
		}
		if what, is := taken[s.FullName()]; is {
			add("sequence %s: the target has %s of that name", s.FullName(), what)
		}
	}
	for _, c := range p.source.Collations {
		if c.Provider == "b" && p.wantsCollation(c) && p.target.major() < 17 {
			add("collation %s: PostgreSQL %d on the target does not know the builtin provider", c.FullName(), p.target.major())
		}
		if c.Rules != "" && p.wantsCollation(c) && p.target.major() < 16 {
			add("collation %s: PostgreSQL %d on the target does not know collation rules", c.FullName(), p.target.major())
		}
	}
	for _, t := range p.source.Types {
		if _, exists := p.target.typ(t.FullName()); !exists && p.wantsType(t.FullName()) && t.Canonical != "" {
			add("type %s: a range with a canonical function (%s) can only be created by hand; create it on the target", t.FullName(), t.Canonical)
		}
	}
	return problems
}

// relationNames lists what has a name in pg_class, and so keeps a table, index or sequence from having it.
func (d Database) relationNames() map[Name]string {
	taken := make(map[Name]string)
	for _, t := range d.Tables {
		taken[t.FullName()] = "a table"
		for _, x := range t.Indexes {
			taken[Name{t.Schema, x.Name}] = "an index of table " + t.FullName().String()
		}
	}
	for _, s := range d.Sequences {
		taken[s.FullName()] = "a sequence"
	}
	for _, t := range d.Types {
		if t.Kind == TypeComposite {
			taken[t.FullName()] = "a type"
		}
	}
	for _, s := range d.NotReplicated {
		if !s.Relation.IsZero() {
			taken[s.Relation] = "a " + s.Kind
		}
	}
	return taken
}

// wantsSequence: an identity column brings its sequence itself, and a sequence that no table owns stands for itself.
func (p *planner) wantsSequence(s Sequence) bool {
	return !s.Identity && (p.all || s.Owner.IsZero() || p.needs.sequences[s.FullName()])
}

func (p *planner) wantsType(name Name) bool        { return p.all || p.needs.types[name] }
func (p *planner) wantsCollation(c Collation) bool { return p.all || p.needs.collations[c.FullName()] }
