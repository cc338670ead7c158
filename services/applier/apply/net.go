package apply

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// net is the net effect of a run of operations on the rows of one plan: at most one delete and one insert, or one update,
// for each key. Applying all deletes, then all updates, then all inserts of a slice leaves the tables as its operations would
// one after the other.
type net struct {
	plan *Plan
	rows []netRow
	// index is key → rows; nil as long as no two operations can concern the same row. Of a plan without a key it has the rows that updates
	// leave.
	index map[string]int32
	last  Operation // of the operations so far, while index is nil
}

// netRow is what is left to do for one key.
type netRow struct {
	key     string    // its values, while the net has an index
	deletes bool      // the row is there and goes (and may come back by an insert)
	write   Operation // Insert, Update, or 0 for nothing
	op      int32     // the operation with the latest values
	merged  []value   // the values, where they come from several operations
}

// netting collects operations into nets.
type netting struct {
	ops    []op
	nets   []*net
	byPlan map[*Plan]*net
	key    []byte
	old    []value
	new    []value
}

// take nets the operations from the front and returns how many it took. It stops before one that has to run in its place: a
// change of a key, a table without a key, a table with triggers, or a table whose shape has changed.
func (n *netting) take(ops []op) int {
	n.ops, n.nets = ops, n.nets[:0]
	clear(n.byPlan)
	if n.byPlan == nil {
		n.byPlan = map[*Plan]*net{}
	}
	for i := range ops {
		if !n.add(int32(i)) {
			return i
		}
	}
	return len(ops)
}

func (n *netting) add(i int32) bool {
	o := &n.ops[i]
	t := n.byPlan[o.plan]
	if t == nil {
		if !n.mayBegin(o.plan) {
			return false
		}
		t = &net{plan: o.plan}
		n.byPlan[o.plan] = t
		n.nets = append(n.nets, t)
	}
	if o.operation == Insert && (t.last == Insert || len(t.rows) == 0) && t.index == nil {
		if !complete(o.new) {
			return false
		}
		t.last = Insert
		t.rows = append(t.rows, netRow{write: Insert, op: i})
		return true
	}
	if o.plan.keyless() {
		return n.addKeyless(t, i)
	}
	if !o.plan.keyed || !n.decodable(o) {
		return false
	}
	if t.index == nil && !n.indexRows(t) {
		return false
	}
	n.key = o.plan.appendKey(n.key[:0], o.keyRow())
	at, seen := t.index[string(n.key)]
	if !seen {
		row := netRow{op: i, key: string(n.key)}
		switch o.operation {
		case Delete:
			row.deletes = true
		default:
			row.write = o.operation
		}
		t.index[row.key] = int32(len(t.rows))
		t.rows = append(t.rows, row)
		return true
	}
	return n.continues(&t.rows[at], o) && n.merge(&t.rows[at], o, i)
}

// mayBegin tells whether a plan's operations can be netted beside those of the others: two shapes of one table cannot.
func (n *netting) mayBegin(p *Plan) bool {
	if p.Target.RowTriggers {
		return false
	}
	for _, other := range n.nets {
		if other.plan.Target == p.Target && other.plan.Relation.OID == p.Relation.OID {
			return false
		}
	}
	return true
}

// decodable tells whether the operation names its row by an unchanged key and sets something that SET can set. n.old is its old
// row afterwards, if it has one.
func (n *netting) decodable(o *op) bool {
	for _, i := range o.plan.locator {
		if o.keyRow().Kinds[i] == block.ValueUnchanged {
			return false
		}
	}
	if o.hasOld {
		n.old = decode(n.old[:0], o.old)
	}
	switch o.operation {
	case Insert:
		return complete(o.new)
	case Delete:
		return true
	}
	if (o.hasOld || o.plan.identityAlways) && n.replaces(o) {
		return false
	}
	for i, kind := range o.new.Kinds {
		if o.plan.settable(i) && kind != block.ValueUnchanged {
			return true
		}
	}
	return false
}

// replaces tells whether an update changes the key, or what cannot be set. n.old is its old row.
func (n *netting) replaces(o *op) bool {
	n.new = o.decodeNew(n.new[:0])
	if !o.hasOld {
		return o.plan.mustReplace(nil, n.new)
	}
	for _, i := range o.plan.locator {
		if n.old[i].kind != n.new[i].kind || string(n.old[i].text) != string(n.new[i].text) {
			return true
		}
	}
	return o.plan.mustReplace(n.old, n.new)
}

// settable tells whether an update by the locator writes a column.
func (p *Plan) settable(i int) bool {
	return p.columns[i] != nil && !p.columns[i].IdentityAlways && !p.inLocator[i]
}

func complete(row block.Row) bool {
	for _, kind := range row.Kinds {
		if kind == block.ValueUnchanged {
			return false
		}
	}
	return true
}

// keyRow is the row that names the operation's row.
func (o *op) keyRow() block.Row {
	if o.operation == Delete {
		return o.old
	}
	return o.new
}

// sort orders the rows by their keys, so that rows that stand close together in the key's index, and often in the table, are
// looked up one after the other. A key that is short comes first, which is the order of integers that are not negative. The
// index is of no use any more after that.
func (t *net) sort() {
	byKey := func(a, b netRow) int { return strings.Compare(a.key, b.key) }
	if t.index != nil && !slices.IsSortedFunc(t.rows, byKey) {
		slices.SortFunc(t.rows, byKey)
	}
}

// appendKey appends the locator's values, unambiguously.
func (p *Plan) appendKey(dst []byte, row block.Row) []byte {
	i := 0
	for c := row.Columns(); c.More(); i++ {
		kind, text := c.Next()
		if !p.inLocator[i] {
			continue
		}
		dst = append(dst, kind)
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	return dst
}

// indexRows builds the index of rows that were only inserted so far. It reports false where two have the same key.
func (n *netting) indexRows(t *net) bool {
	index := make(map[string]int32, 2*len(t.rows)+16)
	for at := range t.rows {
		n.key = t.plan.appendKey(n.key[:0], n.ops[t.rows[at].op].keyRow())
		t.rows[at].key = string(n.key)
		index[t.rows[at].key] = int32(at)
	}
	if len(index) < len(t.rows) {
		return false
	}
	t.index = index
	return true
}

// merge adds an operation to those on the same row. It reports false for what cannot follow: then the operations have to
// run one after the other, so that what is wrong shows itself.
func (n *netting) merge(row *netRow, o *op, i int32) bool {
	switch o.operation {
	case Insert:
		if row.write != 0 || !row.deletes {
			return false
		}
		row.write, row.op, row.merged = Insert, i, nil
	case Delete:
		switch row.write {
		case Insert:
			row.write, row.merged = 0, nil // and it goes if it was there before
		case Update:
			row.write, row.deletes, row.op, row.merged = 0, true, i, nil
		default:
			return false
		}
	case Update:
		if row.write == 0 {
			return false
		}
		n.overwrite(row, o, i)
	}
	return true
}

// overwrite puts an update's values over those of an earlier insert or update.
func (n *netting) overwrite(row *netRow, o *op, i int32) {
	if complete(o.new) {
		row.op, row.merged = i, nil
		return
	}
	n.new = o.decodeNew(n.new[:0])
	earlier := row.merged
	if earlier == nil {
		earlier = n.ops[row.op].decodeNew(make([]value, 0, len(n.new)))
	}
	for c := range n.new {
		if n.new[c].kind != block.ValueUnchanged {
			earlier[c] = n.new[c]
		}
	}
	row.op, row.merged = i, earlier
}
