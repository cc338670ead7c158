package apply

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Rows without a key are found by all their values. One by one that is a scan of the table for each; set-wise it is one for all. Rows with
// the same values cannot be told apart, so each operation takes any of them that no other one took. What is looked for must have been there
// before the first of the operations: one that concerns a row as an earlier one has left it begins a set of its own.

// keylessRows is the smallest number of operations on rows without a key that is written set-wise where every row of the table has to be
// printed for that: it takes some twenty times as long as a look at a column.
const keylessRows = 64

// keyless tells whether a plan's operations can be written set-wise although it has no key.
func (p *Plan) keyless() bool {
	return p.locator == nil && p.Relation.Identity == change.IdentityFull && !p.Target.Partitioned && !p.identityAlways && len(p.copyFields) > 0
}

// fewest is the smallest number of operations on a plan's table that is written set-wise.
func (p *Plan) fewest() int {
	if p.locator == nil && p.lookedUp() < 0 {
		return keylessRows
	}
	return setRows
}

// lookedUp is a column that sorts out nearly all rows that are not meant, cheaply; -1 when there is none.
func (p *Plan) lookedUp() int {
	for n, i := range p.copyFields {
		if c := p.columns[i]; c.NotNull && c.Equality == EqualityExact {
			return n
		}
	}
	return -1
}

// addKeyless takes an update or delete of a row without a key.
func (n *netting) addKeyless(t *net, i int32) bool {
	o := &n.ops[i]
	if o.operation == Insert || !o.hasOld || !complete(o.old) {
		return false
	}
	if t.index == nil {
		if len(t.rows) > 0 {
			return false // after inserts
		}
		t.index = map[string]int32{}
	}
	n.old = decode(n.old[:0], o.old)
	if n.key = o.plan.appendContent(n.key[:0], n.old, n.old); n.left(t) {
		return false
	}
	if o.operation == Delete {
		t.rows = append(t.rows, netRow{op: i, deletes: true})
		return true
	}
	n.new = o.decodeNew(n.new[:0])
	settable := false
	for c, v := range n.new {
		settable = settable || o.plan.settable(c) && v.kind != block.ValueUnchanged
	}
	if !settable {
		return false
	}
	n.key = o.plan.appendContent(n.key[:0], n.new, n.old)
	t.index[string(n.key)] = int32(len(t.rows))
	t.rows = append(t.rows, netRow{op: i, write: Update})
	return true
}

// left tells whether an operation has left a row with the values in key.
func (n *netting) left(t *net) bool {
	_, ok := t.index[string(n.key)]
	return ok
}

// appendContent appends all values that the target stores, unambiguously. Those that are unchanged are taken from the old row.
func (p *Plan) appendContent(dst []byte, row, old []value) []byte {
	for _, i := range p.copyFields {
		v := row[i]
		if v.kind == block.ValueUnchanged {
			v = old[i]
		}
		dst = append(dst, v.kind)
		dst = binary.AppendUvarint(dst, uint64(len(v.text)))
		dst = append(dst, v.text...)
	}
	return dst
}

// keylessChanges makes the statements: the parameters are the old values of all columns, then those that are set.
func (n *netting) keylessChanges(t *net) (deletes, updates []set, ok bool) {
	if t.index == nil {
		return nil, nil, true // inserts only
	}
	var gone *arrays
	masks := map[string]*arrays{}
	var order []string
	var mask []byte
	olds := len(t.plan.copyFields)
	for i := range t.rows {
		o := &n.ops[t.rows[i].op]
		n.old = decode(n.old[:0], o.old)
		a := gone
		if t.rows[i].deletes {
			if a == nil {
				a = newArrays(t.plan, t.plan.copyFields)
				gone = a
			}
		} else {
			n.new = o.decodeNew(n.new[:0])
			mask = mask[:0]
			for c := range n.new {
				mask = append(mask, boolByte(t.plan.settable(c) && n.new[c].kind != block.ValueUnchanged))
			}
			if a = masks[string(mask)]; a == nil {
				a = newArrays(t.plan, t.plan.maskColumns(mask))
				masks[string(mask)] = a
				order = append(order, string(mask))
			}
		}
		for at, c := range a.columns {
			row := n.new
			if at < olds {
				row = n.old
			}
			if !a.append(at, row[c]) {
				return nil, nil, false
			}
		}
		a.rows++
	}
	if gone != nil {
		deletes = []set{gone.set(Delete, "")}
	}
	for _, m := range order {
		updates = append(updates, masks[m].set(Update, m))
	}
	return deletes, updates, true
}

// keylessSQL finds for each of the rows that are staged a row of its own. The text of a row tells all that the text of its values does, and
// what is NULL.
func keylessSQL(p *Plan, op Operation, columns []int) string {
	b := builder{plan: p}
	olds := len(p.copyFields)
	arrays, elements := p.unnested(columns)
	named := make([]string, len(elements))
	for n := range elements {
		named[n] = fmt.Sprintf("%s AS v%d", elements[n], n)
	}
	var old, own, assign []string
	for n, i := range columns {
		name := postgres.Ident(p.columns[i].Name)
		if n < olds {
			old, own = append(old, fmt.Sprintf("v%d", n)), append(own, "t."+name)
		} else {
			assign = append(assign, fmt.Sprintf("%s = meant.v%d", name, n))
		}
	}
	b.write("WITH staged AS MATERIALIZED (SELECT *, ROW(", strings.Join(old, ", "), ")::text AS content FROM (SELECT ", strings.Join(named, ", "),
		" FROM (SELECT ", strings.Join(arrays, ", "), ") AS s) AS s), ",
		"meant AS (SELECT *, pg_catalog.row_number() OVER (PARTITION BY content) AS nth FROM staged), ",
		"found AS (SELECT id, content, pg_catalog.row_number() OVER (PARTITION BY content) AS nth FROM (SELECT t.ctid AS id, ROW(", strings.Join(own, ", "), ")::text AS content FROM ",
		b.table(), " AS t")
	if n := p.lookedUp(); n >= 0 {
		b.write(" WHERE ", own[n], " IN (SELECT ", old[n], " FROM staged)")
	}
	b.write(" OFFSET 0) AS t WHERE content IN (SELECT content FROM staged)) ")
	if op == Delete {
		b.write("DELETE FROM ", b.table(), " AS t USING ")
	} else {
		b.write("UPDATE ", b.table(), " AS t SET ", strings.Join(assign, ", "), " FROM ")
	}
	b.write("meant JOIN found USING (content, nth) WHERE t.ctid = found.id")
	return b.sql.String()
}
