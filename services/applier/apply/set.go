package apply

import (
	"fmt"
	"strings"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// set is one statement that deletes or updates many rows: each parameter is an array with one element for each row.
type set struct {
	plan   *Plan
	sql    *statement
	params [][]byte
	rows   int
}

// inserts are the rows of one plan that COPY writes.
type inserts struct {
	plan *Plan
	ops  []op
	rows []netRow
}

// sets is the work of a slice: deletes, then updates, then inserts.
type sets struct {
	deletes, updates []set
	inserts          []inserts
}

// build makes the statements of the nets.
func (n *netting) build() sets {
	var s sets
	for _, t := range n.nets {
		s.deletes = append(s.deletes, n.deletes(t)...)
		s.updates = append(s.updates, n.updates(t)...)
		if in := n.inserts(t); len(in.rows) > 0 {
			s.inserts = append(s.inserts, in)
		}
	}
	return s
}

func (n *netting) inserts(t *net) inserts {
	in := inserts{plan: t.plan, ops: n.ops}
	if t.index == nil && t.last == Insert {
		in.rows = t.rows
		return in
	}
	for _, row := range t.rows {
		if row.write == Insert {
			in.rows = append(in.rows, row)
		}
	}
	return in
}

func (n *netting) deletes(t *net) []set {
	var a *arrays
	for i := range t.rows {
		row := &t.rows[i]
		if !row.deletes {
			continue
		}
		if a == nil {
			a = newArrays(t.plan.locator)
		}
		// The latest operation of the key may be an insert; its key is the same.
		n.new = decode(n.new[:0], n.ops[row.op].keyRow())
		a.add(n.new)
	}
	if a == nil {
		return nil
	}
	return []set{a.set(t.plan, t.plan.setStatement(Delete, "", t.plan.locator))}
}

// updates groups the rows by the columns that they set.
func (n *netting) updates(t *net) []set {
	masks := map[string]*arrays{}
	var order []string
	var mask []byte
	for i := range t.rows {
		row := &t.rows[i]
		if row.write != Update {
			continue
		}
		values := row.merged
		if values == nil {
			n.new = n.ops[row.op].decodeNew(n.new[:0])
			values = n.new
		}
		mask = mask[:0]
		for c := range values {
			mask = append(mask, boolByte(t.plan.settable(c) && values[c].kind != block.ValueUnchanged))
		}
		a := masks[string(mask)]
		if a == nil {
			a = newArrays(t.plan.maskColumns(mask))
			masks[string(mask)] = a
			order = append(order, string(mask))
		}
		a.add(values)
	}
	list := make([]set, len(order))
	for i, m := range order {
		a := masks[m]
		list[i] = a.set(t.plan, t.plan.setStatement(Update, m, a.columns))
	}
	return list
}

// maskColumns are the parameters of an update: the locator's columns, then those that are set.
func (p *Plan) maskColumns(mask []byte) []int {
	columns := append([]int(nil), p.locator...)
	for c, set := range mask {
		if set == '1' {
			columns = append(columns, c)
		}
	}
	return columns
}

// arrays collects rows as one array literal for each column.
type arrays struct {
	columns []int
	params  [][]byte
	rows    int
}

func newArrays(columns []int) *arrays {
	return &arrays{columns: columns, params: make([][]byte, len(columns))}
}

func (a *arrays) add(values []value) {
	separator := byte(',')
	if a.rows == 0 {
		separator = '{'
	}
	for i, c := range a.columns {
		a.params[i] = appendElement(append(a.params[i], separator), values[c])
	}
	a.rows++
}

func (a *arrays) set(p *Plan, s *statement) set {
	for i := range a.params {
		a.params[i] = append(a.params[i], '}')
	}
	return set{plan: p, sql: s, params: a.params, rows: a.rows}
}

// appendElement appends a value as an element of an array literal.
func appendElement(dst []byte, v value) []byte {
	if v.kind == block.ValueNull {
		return append(dst, "NULL"...)
	}
	dst = append(dst, '"')
	start := 0
	for i, c := range v.text {
		if c == '"' || c == '\\' {
			dst = append(dst, v.text[start:i]...)
			dst = append(dst, '\\')
			start = i
		}
	}
	dst = append(dst, v.text[start:]...)
	return append(dst, '"')
}

// setStatement returns the statement of a set from the plan's cache. columns are its parameters' source columns; those of
// the locator come first.
func (p *Plan) setStatement(op Operation, mask string, columns []int) *statement {
	key := string(op) + mask
	if s, ok := p.sets[key]; ok {
		return s
	}
	s := &statement{sql: setSQL(p, op, columns)}
	p.sets[key] = s
	return s
}

func setSQL(p *Plan, op Operation, columns []int) string {
	b := builder{plan: p}
	keys := len(p.locator)
	var arrays, names, assign []string
	element := make([]string, len(columns))
	for n, i := range columns {
		c := p.columns[i]
		typ := c.Type
		element[n] = fmt.Sprintf("s.c%d", n)
		if !c.HasArray {
			// An array of arrays is one array of more dimensions, so such values travel as text.
			element[n] = fmt.Sprintf("s.c%d::%s", n, typ)
			typ = "text"
		}
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", n+1, typ))
		names = append(names, fmt.Sprintf("c%d", n))
		if n >= keys {
			assign = append(assign, postgres.Ident(c.Name)+" = "+element[n])
		}
	}
	rows := " unnest(" + strings.Join(arrays, ", ") + ") AS s(" + strings.Join(names, ", ") + ")"
	if op == Delete {
		b.write("DELETE FROM ", b.table(), " AS t USING", rows)
	} else {
		b.write("UPDATE ", b.table(), " AS t SET ", strings.Join(assign, ", "), " FROM", rows)
	}
	b.write(" WHERE ")
	for n := range keys {
		if n > 0 {
			b.write(" AND ")
		}
		c := p.columns[columns[n]]
		b.write("t.", postgres.Ident(c.Name), " ", c.Operator, " ", element[n])
	}
	return b.sql.String()
}
