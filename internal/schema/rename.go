package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrRename says that a rule is none, or that two things would have one name by it.
var ErrRename = errors.New("invalid renaming")

// maxIdentifierBytes is NAMEDATALEN - 1.
const maxIdentifierBytes = 63

// Renaming says what tables, sequences and types of a source are called on a target: the first rule that matches a name counts, and
// what no rule matches keeps its name. Nil keeps all names.
type Renaming []RenameRule

// RenameRule gives the names that match a pattern another schema, or another name. A star on the target's side stands for the
// source's own schema or name.
type RenameRule struct {
	from, to Pattern
}

// ParseRename reads a rule such as public.* and acme.*, or public.orders and acme.orders_in. It returns ErrRename or ErrPattern.
func ParseRename(source, target string) (RenameRule, error) {
	var r RenameRule
	var err error
	if r.from, err = ParsePattern(source); err != nil {
		return r, err
	}
	if r.to, err = ParsePattern(target); err != nil {
		return r, err
	}
	for _, p := range []part{r.to.schema, r.to.name} {
		if len(p) > 2 {
			return r, fmt.Errorf("%w %s: a name on the replica has one star at most", ErrRename, target)
		}
		for _, run := range p {
			if len(run) > maxIdentifierBytes {
				return r, fmt.Errorf("%w %.80s…: PostgreSQL's names have at most %d bytes", ErrRename, target, maxIdentifierBytes)
			}
		}
	}
	if len(r.to.schema) == 1 && IsSystemSchema(r.to.schema[0]) {
		return r, fmt.Errorf("%w %s: schema %s is never replicated into", ErrRename, target, display(r.to.schema[0]))
	}
	return r, nil
}

// apply puts the source's name in the place of the star.
func (p part) apply(name string) string { return strings.Join(p, name) }

// name is what the rules alone say of a name; false when none matches.
func (r Renaming) name(n Name) (Name, bool) {
	for _, rule := range r {
		if rule.from.Matches(n) {
			return Name{rule.to.schema.apply(n.Schema), rule.to.name.apply(n.Name)}, true
		}
	}
	return n, false
}

// Unused are the rules for a single name that a source has no table, sequence or type of, as their source sides are written.
func (r Renaming) Unused(source Database) (names []string) {
	for _, rule := range r {
		name, exact := rule.from.Exact()
		used := !exact || slices.ContainsFunc(source.Tables, func(t Table) bool { return t.FullName() == name }) ||
			slices.ContainsFunc(source.Sequences, func(s Sequence) bool { return s.FullName() == name }) ||
			slices.ContainsFunc(source.Types, func(t Type) bool { return t.FullName() == name })
		if !used {
			names = append(names, rule.from.String())
		}
	}
	return names
}

// Reaches tells whether a table of the target, with the partitioned tables above it, may be one that a selected table of the source goes
// to. What the source has is not known, so whatever a rule may lead to counts.
func (r Renaming) Reaches(s Selection, target Name, above ...Name) bool {
	kept := s.Matches(target, above...)
	for _, rule := range r {
		if rule.to.Matches(target) && !IsSystemSchema(target.Schema) {
			return true
		}
		kept = kept && !rule.from.Matches(target)
	}
	return kept
}

// Schemas are those of the target in which tables of a selection may come to stand, of those that are there and those that rules name.
func (r Renaming) Schemas(s Selection, there []string) (schemas []string) {
	add := func(name string) {
		if !IsSystemSchema(name) && !slices.Contains(schemas, name) {
			schemas = append(schemas, name)
		}
	}
	for _, name := range there {
		whole := func(rule RenameRule) bool {
			return rule.from.schema.matches(name) && len(rule.from.name) == 2 && rule.from.name[0]+rule.from.name[1] == ""
		}
		meant := len(s.Include) == 0 || slices.ContainsFunc(s.Include, func(p Pattern) bool { return p.schema.matches(name) })
		if meant && !slices.ContainsFunc(r, whole) {
			add(name)
		}
	}
	for _, rule := range r {
		if len(rule.to.schema) == 1 {
			add(rule.to.schema[0])
		}
	}
	return schemas
}

// Renamed is a source's description with the names that its things have on the target. The SQL in it names them so too.
type Renamed struct {
	Database

	sources map[Name]Name // of tables, by their names on the target
	targets map[Name]Name
}

// Source is the source's name of a table of the description.
func (r Renamed) Source(target Name) Name {
	if name, renamed := r.sources[target]; renamed {
		return name
	}
	return target
}

// Of finds a table by the source's name.
func (r Renamed) Of(source Name) (Table, bool) {
	if name, renamed := r.targets[source]; renamed {
		return r.Table(name)
	}
	if r.targets != nil {
		return Table{}, false
	}
	return r.Table(source)
}

// Apply gives everything in a description the names that it has on the target. A partition that no rule matches goes where the table
// above it goes, a sequence with the table that owns it, and indexes stay apart: those of a renamed table are renamed with it. It
// returns ErrRename when two things would have one name.
func (r Renaming) Apply(d Database) (Renamed, error) {
	if len(r) == 0 {
		return Renamed{Database: d}, nil
	}
	m := &renamer{rules: r, from: d, tables: map[Name]Name{}, sequences: map[Name]Name{}, types: map[Name]Name{}, ranges: map[Name]Name{}, indexes: map[Name]string{}, taken: map[Name]Name{}}
	m.nameAll()
	if m.problems != nil {
		slices.Sort(m.problems)
		return Renamed{}, fmt.Errorf("%w: %s", ErrRename, strings.Join(slices.Compact(m.problems), "; "))
	}
	out := Renamed{Database: m.database(), sources: map[Name]Name{}, targets: m.tables}
	for source, target := range m.tables {
		out.sources[target] = source
	}
	return out, nil
}

// renamer knows what everything is called on the target, by its name on the source.
type renamer struct {
	rules                            Renaming
	from                             Database
	tables, sequences, types, ranges map[Name]Name   // ranges are those types that are functions too
	indexes                          map[Name]string // by schema and name
	taken                            map[Name]Name   // names of relations on the target, and whose they are
	problems                         []string
}

func (m *renamer) nameAll() {
	for _, t := range m.from.Tables {
		m.tables[t.FullName()] = m.tableName(t, len(m.from.Tables))
	}
	for _, t := range m.from.Tables {
		m.take("table", t.FullName(), m.tables[t.FullName()])
	}
	for _, s := range m.from.Sequences {
		name := m.sequenceName(s)
		m.sequences[s.FullName()] = name
		m.take("sequence", s.FullName(), name)
	}
	types := map[Name]Name{}
	for _, t := range m.from.Types {
		name, _ := m.rules.name(t.FullName())
		m.check("type", t.FullName(), name)
		if other, is := types[name]; is {
			m.problem("types %s and %s of the source would both be %s", other, t.FullName(), name)
		}
		types[name], m.types[t.FullName()] = t.FullName(), name
		if t.Kind == TypeRange {
			m.ranges[t.FullName()] = name
		}
		if multi, ruled := m.rules.name(t.Multirange); !t.Multirange.IsZero() {
			if !ruled {
				multi.Schema = name.Schema
			}
			m.types[t.Multirange], m.ranges[t.Multirange] = multi, multi
		}
	}
	for _, t := range m.from.Tables {
		for _, x := range t.Indexes {
			m.indexes[Name{t.Schema, x.Name}] = m.indexName(t, x)
		}
	}
}

func (m *renamer) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

func (m *renamer) check(kind string, source, target Name) {
	switch {
	case source == target:
	case len(target.Schema) > maxIdentifierBytes || len(target.Name) > maxIdentifierBytes:
		m.problem("%s %s would be called %s, and names have at most %d bytes", kind, source, target, maxIdentifierBytes)
	case IsSystemSchema(target.Schema):
		m.problem("%s %s would be in schema %s, which is never replicated into", kind, source, display(target.Schema))
	}
}

// take makes sure that no other relation has a name.
func (m *renamer) take(kind string, source, target Name) {
	m.check(kind, source, target)
	if other, is := m.taken[target]; is {
		m.problem("%s and %s of the source would both be %s on the replica: give them different names", other, source, target)
	}
	m.taken[target] = source
}

// tableName is what a table is called: by a rule of its own, or beside the table that it is a partition of.
func (m *renamer) tableName(t Table, depth int) Name {
	name, ruled := m.rules.name(t.FullName())
	if ruled || depth == 0 || !t.IsPartition() || len(t.Parents) != 1 {
		return name
	}
	above, found := m.from.Table(t.Parents[0])
	if !found {
		return name
	}
	return along(name, above.FullName(), m.tableName(above, depth-1))
}

// along moves a name with that of what it belongs to: orders_id_seq becomes orders_in_id_seq when orders becomes orders_in.
func along(name, owner, moved Name) Name {
	if owner == moved {
		return name
	}
	return Name{moved.Schema, alongName(name, owner.Name, moved)}
}

func alongName(name Name, owner string, moved Name) string {
	if owner == moved.Name {
		return name.Name
	}
	if rest, is := strings.CutPrefix(name.Name, owner); is {
		return fitting(moved.Name+rest, name)
	}
	return fitting(name.Name+"_"+short(moved), name)
}

// fitting cuts a name that would be too long, and keeps it apart from others.
func fitting(name string, source Name) string {
	if len(name) <= maxIdentifierBytes {
		return name
	}
	return strings.ToValidUTF8(name[:maxIdentifierBytes-len(short(source))-1], "") + "_" + short(source)
}

func (m *renamer) sequenceName(s Sequence) Name {
	owner, owned := m.tables[s.Owner]
	name, ruled := m.rules.name(s.FullName())
	switch {
	case s.Owner.IsZero() || !owned:
		return name
	case !ruled || name.Schema != owner.Schema: // a sequence is in the schema of the table that owns it
		name = along(s.FullName(), s.Owner, owner)
	}
	if _, is := m.taken[name]; is {
		name.Name = fitting(name.Name+"_"+short(s.FullName()), s.FullName())
	}
	return name
}

func (m *renamer) indexName(t Table, x Index) string {
	source, table := Name{t.Schema, x.Name}, m.tables[t.FullName()]
	name := Name{table.Schema, alongName(source, t.Name, table)}
	if _, is := m.taken[name]; is {
		name.Name = fitting(name.Name+"_"+short(source), source)
	}
	m.take("index", source, name)
	return name.Name
}
