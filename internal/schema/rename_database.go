package schema

import "slices"

// database is the description with the names of the target.
func (m *renamer) database() Database {
	d := m.from
	d.Tables = each(d.Tables, m.oneTable)
	d.Sequences = each(d.Sequences, m.oneSequence)
	d.Types = each(d.Types, m.oneType)
	slices.SortFunc(d.Tables, func(a, b Table) int { return compareNames(a.FullName(), b.FullName()) })
	slices.SortFunc(d.Sequences, func(a, b Sequence) int { return compareNames(a.FullName(), b.FullName()) })
	slices.SortFunc(d.Types, func(a, b Type) int { return compareNames(a.FullName(), b.FullName()) })
	d.Schemas = slices.Clone(d.Schemas)
	for _, names := range []map[Name]Name{m.tables, m.sequences, m.types} {
		for _, to := range names {
			d.Schemas = append(d.Schemas, to.Schema)
		}
	}
	slices.Sort(d.Schemas)
	d.Schemas = slices.Compact(d.Schemas)
	return d
}

// each is a new list; nil stays nil.
func each[T any](list []T, change func(T) T) []T {
	if list == nil {
		return nil
	}
	out := make([]T, len(list))
	for i := range list {
		out[i] = change(list[i])
	}
	return out
}

func (m *renamer) oneTable(t Table) Table {
	source, to := t, m.tables[t.FullName()]
	t.Schema, t.Name = to.Schema, to.Name
	t.Parents = each(t.Parents, m.table)
	t.PartitionKey, t.Bound = m.text(t.PartitionKey), m.text(t.Bound)
	t.Columns = each(t.Columns, func(c Column) Column {
		c.Type, c.Default = m.text(c.Type), m.text(c.Default)
		return c
	})
	keyOf := map[string]string{} // constraints have the names of their indexes
	t.Indexes = each(t.Indexes, func(x Index) Index {
		name := m.indexes[Name{source.Schema, x.Name}]
		x.Definition = m.index(x.Definition, name)
		if x.Constraint != "" {
			keyOf[x.Constraint] = name
			x.Constraint = name
		}
		if !x.Parent.IsZero() {
			x.Parent = m.parentIndex(source, x.Parent)
		}
		if t.IdentityIndex == x.Name {
			t.IdentityIndex = name
		}
		x.Name = name
		return x
	})
	t.Constraints = each(t.Constraints, func(k Constraint) Constraint {
		if name, is := keyOf[k.Name]; is {
			k.Name = name
		}
		k.Definition = m.text(k.Definition)
		if !k.References.IsZero() {
			k.References = m.table(k.References)
		}
		return k
	})
	t.Needs = each(t.Needs, m.need)
	return t
}

// parentIndex is the index of the partitioned table above.
func (m *renamer) parentIndex(t Table, index Name) Name {
	name, known := m.indexes[index]
	if !known || len(t.Parents) == 0 {
		return index
	}
	return Name{m.table(t.Parents[0]).Schema, name}
}

func (m *renamer) need(n Need) Need {
	to, known := n.Name, false
	switch n.Kind {
	case "table":
		to, known = m.tables[n.Name]
	case "sequence":
		to, known = m.sequences[n.Name]
	case "type", "composite type":
		to, known = m.types[n.Name]
	}
	if known && to != n.Name {
		n.Name, n.Identity = to, to.String()
	}
	return n
}

func (m *renamer) oneSequence(s Sequence) Sequence {
	to := m.sequences[s.FullName()]
	s.Schema, s.Name = to.Schema, to.Name
	if owner, known := m.tables[s.Owner]; known {
		s.Owner = owner
	}
	return s
}

func (m *renamer) oneType(t Type) Type {
	to := m.types[t.FullName()]
	t.Schema, t.Name = to.Schema, to.Name
	t.Base, t.Default = m.text(t.Base), m.text(t.Default)
	t.Constraints = each(t.Constraints, func(k DomainConstraint) DomainConstraint {
		k.Definition = m.text(k.Definition)
		return k
	})
	t.Attributes = each(t.Attributes, func(a Attribute) Attribute {
		a.Type = m.text(a.Type)
		return a
	})
	if multi, known := m.types[t.Multirange]; known {
		t.Multirange = multi
	}
	t.Needs = each(t.Needs, m.need)
	return t
}
