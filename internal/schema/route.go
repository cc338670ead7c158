package schema

import (
	"fmt"
	"slices"
)

// Route returns the target's table that takes the rows of a source table: the one of its name, or else the nearest of
// the source's partitioned tables above it that the target has. So a target may be partitioned otherwise, or not at all.
// It is false when the target has none of them, which means the table is to be created.
func Route(source, target Database, table Name) (Name, bool) {
	for range len(source.Tables) + 1 { // a partition's parents end; a broken description must too
		if _, found := target.Table(table); found {
			return table, true
		}
		t, found := source.Table(table)
		if !found || !t.IsPartition() || len(t.Parents) != 1 {
			return Name{}, false
		}
		table = t.Parents[0]
	}
	return Name{}, false
}

// Missing lists the source's tables that are to be created on the target, in name order. A partition is missing only
// if its partitioned table is too, or has just the source's partitions so far: where a target is partitioned in its
// own way, or not at all, its own layout stands. Keep the list until the load has ended: CreateStatements asks for it.
func Missing(source, target Database) []Name {
	layouts := make(map[Name]bool)
	var missing []Name
	for _, t := range source.Tables {
		if _, found := target.Table(t.FullName()); found {
			continue
		}
		route, routed := Route(source, target, t.FullName())
		if !routed || sharesLayout(source, target, route, layouts) {
			missing = append(missing, t.FullName())
		}
	}
	return missing
}

// sharesLayout tells whether a target's partitioned table has the source's partition key and no partition that the
// source has not.
func sharesLayout(source, target Database, root Name, known map[Name]bool) bool {
	if shares, done := known[root]; done {
		return shares
	}
	s, _ := source.Table(root)
	t, _ := target.Table(root)
	shares := t.Kind == KindPartitioned && s.PartitionKey == t.PartitionKey
	for _, child := range target.Tables {
		if !shares {
			break
		}
		if child.IsPartition() && slices.Contains(child.Parents, root) {
			same, found := source.Table(child.FullName())
			shares = found && same.Bound == child.Bound && slices.Equal(same.Parents, child.Parents)
		}
	}
	known[root] = shares
	return shares
}

// CompareAll compares every source table that the target has, or routes to one it has, and the types that those tables
// use. Its order is that of the source's tables.
func CompareAll(source, target Database) []Mismatch {
	var found []Mismatch
	said := make(map[string]bool) // a partition need not repeat what was said of its route
	types := make(map[Name]bool)
	for _, t := range source.Tables {
		if skipped, is := target.notTable(t.FullName()); is {
			found = append(found, Mismatch{
				Table: t.FullName(), Source: t.Kind, Target: skipped.Kind, Problem: "what has this name on the target cannot take the rows",
			})
			continue
		}
		route, routed := Route(source, target, t.FullName())
		if !routed {
			continue
		}
		to, _ := target.Table(route)
		for _, m := range Compare(t, to) {
			key := fmt.Sprint(route, m.Column, m.Source, m.Target, m.Problem)
			if !said[key] {
				found = append(found, m)
			}
			said[key] = true
		}
		for name := range source.closure([]Table{t}).types {
			types[name] = true
		}
	}
	return append(found, compareTypes(source, target, types)...)
}

func (d Database) notTable(name Name) (Skipped, bool) {
	i := slices.IndexFunc(d.NotReplicated, func(s Skipped) bool { return s.Relation == name })
	if i < 0 {
		return Skipped{}, false
	}
	return d.NotReplicated[i], true
}

// compareTypes compares what is inside of types, as a column's type is compared by its name only.
func compareTypes(source, target Database, names map[Name]bool) []Mismatch {
	var found []Mismatch
	for _, s := range source.Types {
		t, exists := target.typ(s.FullName())
		if !names[s.FullName()] || !exists {
			continue
		}
		add := func(source, target, problem string) {
			found = append(found, Mismatch{Table: s.FullName(), Type: true, Source: source, Target: target, Problem: problem})
		}
		if s.Kind != t.Kind {
			add(describeType(s), describeType(t), "the kind of type differs")
			continue
		}
		for _, label := range s.Labels {
			if !slices.Contains(t.Labels, label) {
				add(label, "", "the target's enum lacks a label")
			}
		}
		if common := filter(s.Labels, func(l string) bool { return slices.Contains(t.Labels, l) }); !inOrder(common, t.Labels) {
			add(describeType(s), describeType(t), "the enum's labels are in another order")
		}
		if !slices.EqualFunc(s.Attributes, t.Attributes, func(a, b Attribute) bool {
			return a.Name == b.Name && fitTypes(a.Type, b.Type) == typeSame
		}) {
			add(describeType(s), describeType(t), "the attributes differ")
		}
		if s.Base != "" && fitTypes(s.Base, t.Base) != typeSame {
			add(s.Base, t.Base, "the base type differs")
		}
		for _, k := range t.Constraints {
			if !slices.ContainsFunc(s.Constraints, func(c DomainConstraint) bool { return sameCheck(c.Definition, k.Definition) }) {
				found = append(found, Mismatch{
					Table: s.FullName(), Type: true, Warning: true, Target: display(k.Name) + " " + k.Definition,
					Problem: "the target's domain has a constraint that the source lacks, so it may refuse the source's rows",
				})
			}
		}
		if t.NotNull && !s.NotNull {
			add("nullable", "NOT NULL", "the target's domain refuses NULL")
		}
	}
	return found
}

// inOrder tells whether the labels come in the same order within all.
func inOrder(labels, all []string) bool {
	last := -1
	for _, l := range labels {
		at := slices.Index(all, l)
		if at < last {
			return false
		}
		last = at
	}
	return true
}

func describeType(t Type) string {
	switch t.Kind {
	case TypeEnum:
		return fmt.Sprintf("enum %q", t.Labels)
	case TypeDomain:
		return "domain over " + t.Base
	case TypeRange:
		return "range over " + t.Base
	}
	text := "composite ("
	for i, a := range t.Attributes {
		if i > 0 {
			text += ", "
		}
		text += display(a.Name) + " " + a.Type
	}
	return text + ")"
}
