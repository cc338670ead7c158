package filter

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// String returns the selector in its canonical form, which Parse reads as the same selector: two selectors that differ in the
// order of their parts, in blanks, in how a number is written, or in an $and that could be left out, have one text.
func (s *Selector) String() string { return s.root.text }

// newCondition makes a condition. A list of operands is a set: it is sorted, and nothing stands in it twice.
func newCondition(column string, op operator, path string, operands []operand) *node {
	if op == opIn || op == opNin {
		slices.SortStableFunc(operands, func(a, b operand) int { return strings.Compare(a.canonical(), b.canonical()) })
		operands = slices.CompactFunc(operands, func(a, b operand) bool { return a.canonical() == b.canonical() })
	}
	n := &node{operator: op, path: path, column: column, operands: operands, depth: 1}
	n.text = merge([]*node{n})
	return n
}

// newLogic makes an $and or an $or. One within another of its kind becomes a part of it, and one of a single node is that node.
func newLogic(op operator, path string, nodes []*node) *node {
	n := &node{operator: op, path: path}
	for _, of := range nodes {
		if of.operator == op {
			n.nodes = append(n.nodes, of.nodes...)
		} else {
			n.nodes = append(n.nodes, of)
		}
	}
	slices.SortStableFunc(n.nodes, func(a, b *node) int { return strings.Compare(a.text, b.text) })
	n.nodes = slices.CompactFunc(n.nodes, func(a, b *node) bool { return a.text == b.text })
	if len(n.nodes) == 1 {
		return n.nodes[0]
	}
	for _, of := range n.nodes {
		n.depth = max(n.depth, of.depth+1)
	}
	if op == opAnd {
		n.text = merge(n.nodes)
	} else {
		n.text = merge([]*node{n})
	}
	return n
}

func newNot(path string, of *node) *node {
	if of.operator == opNot {
		return of.nodes[0] // not unknown is unknown, so this holds for it too
	}
	n := &node{operator: opNot, path: path, nodes: []*node{of}, depth: of.depth + 1}
	n.text = merge([]*node{n})
	return n
}

// merge prints nodes that all have to hold as one object. What has no place there, since another has the same column and
// operator, goes into an $and.
func merge(nodes []*node) string {
	members := map[string]string{}
	columns := map[string]map[string]string{}
	var rest []string
	for _, n := range nodes {
		key := string(n.operator)
		switch n.operator {
		case opNot:
			if _, taken := members[key]; taken {
				rest = append(rest, n.text)
			} else {
				members[key] = n.nodes[0].text
			}
		case opOr:
			if _, taken := members[key]; taken {
				rest = append(rest, n.text)
			} else {
				members[key] = list(n.nodes, func(of *node) string { return of.text })
			}
		default:
			if columns[n.column] == nil {
				columns[n.column] = map[string]string{}
			}
			if _, taken := columns[n.column][key]; taken {
				rest = append(rest, n.text)
				continue
			}
			columns[n.column][key] = n.operands[0].canonical()
			if n.operator == opIn || n.operator == opNin {
				columns[n.column][key] = list(n.operands, operand.canonical)
			}
		}
	}
	for column, conditions := range columns {
		if eq, found := conditions[string(opEq)]; found && len(conditions) == 1 {
			members[column] = eq
		} else {
			members[column] = object(conditions)
		}
	}
	if rest != nil {
		members[string(opAnd)] = list(rest, func(text string) string { return text })
	}
	return object(members)
}

func object(members map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteJSON(name) + ":" + members[name])
	}
	return "{" + b.String() + "}"
}

func list[T any](items []T, text func(T) string) string {
	var b strings.Builder
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text(item))
	}
	return "[" + b.String() + "]"
}

func (o operand) canonical() string {
	switch {
	case o.param != "":
		return `{"$param":` + quoteJSON(o.param) + `}`
	case o.kind == jsonString:
		return quoteJSON(o.text)
	}
	return o.text
}

func quoteJSON(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string always has a JSON form, and a buffer takes it
	return strings.TrimSuffix(b.String(), "\n")
}
