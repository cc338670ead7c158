package filter

import "slices"

// Pinned are the columns that have one of a few values in every row that the predicate selects, sorted.
func (p *Predicate) Pinned() []string {
	var names []string
	for _, t := range p.root.conjuncts(nil) {
		names = append(names, t.column.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Apart are the columns by which no row is selected by both predicates, sorted: each has them be equal to values, none of which are the
// other's. Without such a column the predicates may have rows in common. Both have to be compiled for the same columns.
func (p *Predicate) Apart(other *Predicate) []string {
	var names []string
	for _, a := range p.root.conjuncts(nil) {
		for _, b := range other.root.conjuncts(nil) {
			if a.column == b.column && a.family == b.family && !a.meets(b) {
				names = append(names, a.column.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// conjuncts appends the comparisons with $eq and $in that hold for every row that is selected.
func (t *term) conjuncts(list []*term) []*term {
	switch t.operator {
	case opAnd:
		for _, of := range t.terms {
			list = of.conjuncts(list)
		}
	case opEq, opIn:
		list = append(list, t)
	}
	return list
}

// meets tells whether two terms of one column have a value in common.
func (t *term) meets(other *term) bool {
	return slices.ContainsFunc(t.operands, func(a scalar) bool {
		return slices.ContainsFunc(other.operands, func(b scalar) bool { return t.family.compare(&a, &b) == 0 })
	})
}
