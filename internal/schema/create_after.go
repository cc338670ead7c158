package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// indexes builds every index on its own, also those of keys, so that they can be built side by side: ADD PRIMARY KEY
// would lock the table against the others. A partitioned table's index is made empty (ONLY), and gets its parts by
// indexAttach: so partitions keep the names of their indexes, and are built in parallel too.
func (p *planner) indexes() {
	for _, partitioned := range []bool{false, true} {
		for _, t := range p.tables {
			if p.partitioned(t) != partitioned {
				continue
			}
			for _, x := range t.Indexes {
				if p.hasIndex(t, x) || t.special(x) || partitioned && x.Constraint != "" {
					continue
				}
				if !x.Valid && t.HasRows() {
					p.skip("index", Name{t.Schema, x.Name}.String(), "it is not valid on the source")
					continue
				}
				p.after(StatementIndex, t.FullName(), x.Name, x.Definition, !partitioned)
			}
		}
	}
}

// special indexes can only be made by ADD CONSTRAINT: those of exclusion constraints and of WITHOUT OVERLAPS.
func (t Table) special(x Index) bool {
	k, found := t.constraint(x.Constraint)
	return x.Constraint != "" && found && (k.Type == ConstraintExclusion || k.Period)
}

// hasIndex tells whether the target's table has the index, or gets it without this plan: a partition that is attached
// to a table which has that index already gets its part by that.
func (p *planner) hasIndex(t Table, x Index) bool {
	existing, exists := p.existing[t.FullName()]
	if _, found := existing.index(x.Name); found {
		return true
	}
	if x.Primary && existing.PrimaryKey != nil {
		return true
	}
	if x.Parent.IsZero() || len(t.Parents) != 1 {
		return false
	}
	if exists && slices.Contains(existing.Parents, t.Parents[0]) {
		return slices.ContainsFunc(existing.Indexes, func(e Index) bool { return e.Parent == x.Parent })
	}
	parent := p.existing[t.Parents[0]]
	_, found := parent.index(x.Parent.Name)
	return found
}

func (p *planner) hasConstraint(t Table, k Constraint) bool {
	existing := p.existing[t.FullName()]
	if _, found := existing.constraint(k.Name); found {
		return true
	}
	if k.Type == ConstraintPrimary && existing.PrimaryKey != nil {
		return true
	}
	i := slices.IndexFunc(t.Indexes, func(x Index) bool { return x.Constraint == k.Name })
	if i < 0 {
		return false
	}
	_, built := existing.index(t.Indexes[i].Name) // by a plan that was broken off
	return !built && p.hasIndex(t, t.Indexes[i])
}

// keys turns the built indexes into primary keys and unique constraints.
func (p *planner) keys() {
	for _, t := range p.tables {
		for _, k := range t.Constraints {
			if k.Type != ConstraintPrimary && k.Type != ConstraintUnique || k.Period || p.hasConstraint(t, k) {
				continue
			}
			i := slices.IndexFunc(t.Indexes, func(x Index) bool { return x.Constraint == k.Name })
			if i < 0 || !t.Indexes[i].Valid && t.HasRows() {
				continue // said by indexes
			}
			if p.partitioned(t) {
				only := "ONLY "
				if t.Kind != KindPartitioned {
					only = "" // the target's own partitions get it too
				}
				p.after(StatementKey, t.FullName(), k.Name, fmt.Sprintf("ALTER TABLE %s%s ADD CONSTRAINT %s %s",
					only, t.FullName().SQL(), postgres.Ident(k.Name), k.Definition), false)
				continue
			}
			kind := "UNIQUE"
			if k.Type == ConstraintPrimary {
				kind = "PRIMARY KEY"
			}
			p.after(StatementKey, t.FullName(), k.Name, fmt.Sprintf("ALTER TABLE ONLY %s ADD CONSTRAINT %s %s USING INDEX %s%s",
				t.FullName().SQL(), postgres.Ident(k.Name), kind, postgres.Ident(t.Indexes[i].Name), deferral(k)), false)
		}
	}
}

func deferral(k Constraint) string {
	switch {
	case k.Deferred:
		return " DEFERRABLE INITIALLY DEFERRED"
	case k.Deferrable:
		return " DEFERRABLE"
	}
	return ""
}

// checks adds those of one table in one statement, which reads the table once. What a child inherits it gets from its
// parent, which comes after it, because a child's own check of the same name is merged with the parent's.
func (p *planner) checks() {
	family := make(map[Name]bool)
	for _, t := range p.tables {
		for _, parent := range t.Parents {
			family[t.FullName()], family[parent] = true, true
		}
	}
	for _, t := range p.deepestFirst() {
		var adds, names []string
		for _, k := range t.Constraints {
			if k.Type != ConstraintCheck || p.hasConstraint(t, k) || p.inheritsFromHere(t, k) {
				continue
			}
			if !k.Enforced && p.target.major() < 18 {
				p.skip("constraint", display(k.Name)+" of "+t.FullName().String(), fmt.Sprintf("PostgreSQL %d on the target does not know NOT ENFORCED", p.target.major()))
				continue
			}
			adds = append(adds, fmt.Sprintf("ADD CONSTRAINT %s %s", postgres.Ident(k.Name), k.Definition))
			names = append(names, k.Name)
		}
		if adds != nil {
			p.after(StatementCheck, t.FullName(), strings.Join(names, ", "),
				fmt.Sprintf("ALTER TABLE %s %s", t.FullName().SQL(), strings.Join(adds, ", ")), !family[t.FullName()])
		}
	}
}

// inheritsFromHere tells whether a parent on the target brings the constraint.
func (p *planner) inheritsFromHere(t Table, k Constraint) bool {
	return k.Inherited && !k.Local && slices.ContainsFunc(t.Parents, p.here)
}

// exclusions adds what no index of its own can become: exclusion constraints and WITHOUT OVERLAPS. A partition gets its
// part from its parent, because no server can attach such an index (CompareIndexInfo takes any two for different).
func (p *planner) exclusions() {
	for _, partitioned := range []bool{false, true} {
		for _, t := range p.tables {
			for _, k := range t.Constraints {
				special := k.Type == ConstraintExclusion || k.Period && k.Type != ConstraintForeign
				if special && p.partitioned(t) == partitioned && !p.hasConstraint(t, k) && !p.inheritsFromHere(t, k) {
					p.after(StatementExclusion, t.FullName(), k.Name, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s",
						t.FullName().SQL(), postgres.Ident(k.Name), k.Definition), !partitioned)
				}
			}
		}
	}
}

func (p *planner) indexAttach() {
	for _, t := range p.deepestFirst() {
		for _, x := range t.Indexes {
			if x.Parent.IsZero() || len(t.Parents) != 1 || !x.Valid && t.HasRows() || t.special(x) {
				continue
			}
			existing := p.existing[t.FullName()]
			have, built := existing.index(x.Name)
			if !have.Parent.IsZero() || !built && p.hasIndex(t, x) {
				continue
			}
			parent, found := p.source.Table(t.Parents[0])
			if !found || !p.here(parent.FullName()) || !p.partitioned(parent) {
				continue
			}
			above := p.existing[parent.FullName()]
			if _, has := above.index(x.Parent.Name); !has && !p.wanted[parent.FullName()] {
				continue
			}
			p.after(StatementIndexAttach, t.FullName(), x.Name, fmt.Sprintf("ALTER INDEX %s ATTACH PARTITION %s",
				x.Parent.SQL(), postgres.Ident(t.Schema, x.Name)), false)
		}
	}
}

// lateNotNulls are 18's NOT NULL … NOT VALID: rows that break them may have been loaded.
func (p *planner) lateNotNulls() {
	for _, t := range p.deepestFirst() {
		for _, k := range t.Constraints {
			if k.Type != ConstraintNotNull || k.Validated || p.hasConstraint(t, k) || p.inheritsFromHere(t, k) {
				continue
			}
			if p.target.major() < 18 {
				p.skip("constraint", display(k.Name)+" of "+t.FullName().String(),
					fmt.Sprintf("PostgreSQL %d on the target does not know a NOT NULL that is not validated", p.target.major()))
				continue
			}
			p.after(StatementCheck, t.FullName(), k.Name,
				fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", t.FullName().SQL(), postgres.Ident(k.Name), k.Definition), false)
		}
	}
}

func (p *planner) replicaIdentities() {
	for _, t := range p.tables {
		have := p.existing[t.FullName()]
		if have.ReplicaIdentity == "" {
			have.ReplicaIdentity = "d"
		}
		i := slices.IndexFunc(t.Indexes, func(x Index) bool { return x.ReplicaIdentity })
		var to, index string
		switch t.ReplicaIdentity {
		case "f":
			to = "FULL"
		case "n":
			to = "NOTHING"
		case "i":
			if i < 0 {
				continue // its index was dropped
			}
			index = t.Indexes[i].Name
			to = "USING INDEX " + postgres.Ident(index)
		default:
			to = "DEFAULT"
		}
		j := slices.IndexFunc(have.Indexes, func(x Index) bool { return x.ReplicaIdentity })
		if have.ReplicaIdentity == t.ReplicaIdentity && (index == "" || j >= 0 && have.Indexes[j].Name == index) {
			continue
		}
		p.after(StatementReplicaIdentity, t.FullName(), t.FullName().String(),
			fmt.Sprintf("ALTER TABLE ONLY %s REPLICA IDENTITY %s", t.FullName().SQL(), to), false)
	}
}

func (p *planner) foreignKeys() {
	for _, t := range p.tables {
		for _, k := range t.Constraints {
			if k.Type != ConstraintForeign || p.hasConstraint(t, k) {
				continue
			}
			if reason := p.refusesForeignKey(t, k); reason != "" {
				p.skip("foreign key", display(k.Name)+" of "+t.FullName().String(), reason)
				continue
			}
			p.plan.ForeignKeys = append(p.plan.ForeignKeys, Statement{
				Kind: StatementForeignKey, Table: t.FullName(), Name: k.Name,
				SQL: fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", t.FullName().SQL(), postgres.Ident(k.Name), k.Definition),
			})
		}
	}
}

func (p *planner) refusesForeignKey(t Table, k Constraint) string {
	old := p.target.major() < 18
	switch {
	case !p.here(k.References):
		return fmt.Sprintf("table %s, to which it points, is not replicated", k.References)
	case !k.Enforced && old:
		return fmt.Sprintf("PostgreSQL %d on the target does not know NOT ENFORCED", p.target.major())
	case k.Period && old:
		return fmt.Sprintf("PostgreSQL %d on the target does not know PERIOD", p.target.major())
	case !k.Validated && old && p.partitioned(t):
		return fmt.Sprintf("PostgreSQL %d on the target does not know NOT VALID foreign keys of partitioned tables", p.target.major())
	}
	return ""
}
