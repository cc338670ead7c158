package apply

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// keyHash stands for the values of some columns of a target table.
type keyHash [16]byte

// holding is how the rows of a plan are held: by the columns that tell a row, and by those of unique indexes.
type holding struct {
	signature string // names of the identity's columns, "" when only the whole table can be held
	identity  keyColumns
	unique    []keyColumns
}

// keyColumns are columns of a plan, in the order of their names.
type keyColumns struct {
	names   string
	columns []int
}

// holds is what one change holds. whole says that it is the table: the values do not tell which row it is.
type holds struct {
	signature string
	whole     bool
	keys      []keyHash
}

// holdingOf tells how the plan's rows are held. Rows are told apart by their text, so a key whose type takes different texts for equal
// holds the whole table.
func (p *Plan) holdingOf() *holding {
	if p.holding != nil {
		return p.holding
	}
	h := &holding{}
	p.holding = h
	identity := p.locator
	if identity == nil {
		identity = p.copyFields // such rows are compared whole, by their text
	}
	exact := len(identity) > 0
	for _, i := range p.locator {
		exact = exact && p.exact(i)
	}
	if exact {
		h.identity = p.keyColumns(identity)
		h.signature = h.identity.names
	}
	for _, names := range p.Target.Unique {
		var columns []int
		for i, c := range p.columns {
			if c != nil && slices.Contains(names, c.Name) {
				columns = append(columns, i)
			}
		}
		if len(columns) < len(names) {
			continue
		}
		if k := p.keyColumns(columns); k.names != h.signature {
			h.unique = append(h.unique, k)
		}
	}
	return h
}

// exact tells whether two values of a column are the same to the target exactly when their texts from the source are.
func (p *Plan) exact(i int) bool {
	c, from := p.columns[i], p.Relation.Columns[i].TypeOID
	if c.Equality != EqualityExact {
		return false
	}
	return c.Enum || from == c.TypeOID || isText(c.TypeOID) || isInteger(c.TypeOID) && isInteger(from)
}

func isText(oid uint32) bool    { return oid == 25 || oid == 1043 }
func isInteger(oid uint32) bool { return oid == 20 || oid == 21 || oid == 23 }

func (p *Plan) keyColumns(columns []int) keyColumns {
	k := keyColumns{columns: slices.Clone(columns)}
	slices.SortFunc(k.columns, func(a, b int) int { return strings.Compare(p.columns[a].Name, p.columns[b].Name) })
	for _, i := range k.columns {
		k.names += string(binary.AppendUvarint(nil, uint64(len(p.columns[i].Name)))) + p.columns[i].Name
	}
	return k
}

// holdsOf tells what a change holds: the keys that its row had and has.
func (p *Plan) holdsOf(operation Operation, old, now []value) holds {
	h := p.holdingOf()
	held := holds{signature: h.signature, whole: h.signature == ""}
	if operation != Delete && old != nil {
		now = p.filled(old, now)
	}
	for n, row := range [][]value{old, now} {
		if len(row) == 0 {
			continue
		}
		if !held.whole && !held.add(h.identity, row, true) {
			held.whole = true
		}
		for _, k := range h.unique {
			if n > 0 || p.told(k) {
				held.add(k, row, false)
			}
		}
	}
	return held
}

// filled is the new row with the values that are unchanged, where the old one has them.
func (p *Plan) filled(old, now []value) []value {
	var all []value
	for i, v := range now {
		if v.kind != block.ValueUnchanged || old[i].kind == block.ValueUnchanged || !p.oldHas(i) {
			continue
		}
		if all == nil {
			all = slices.Clone(now)
		}
		all[i] = old[i]
	}
	if all == nil {
		return now
	}
	return all
}

// oldHas tells whether an old row has a column's value: else NULL stands in its place.
func (p *Plan) oldHas(i int) bool {
	return p.Relation.Identity == change.IdentityFull || p.Relation.Columns[i].Key
}

func (p *Plan) told(k keyColumns) bool {
	return !slices.ContainsFunc(k.columns, func(i int) bool { return !p.oldHas(i) })
}

// add adds a row's key and reports false when the row does not have all of its values. nulls says that NULL is a value like others.
func (h *holds) add(k keyColumns, row []value, nulls bool) bool {
	hash := sha256.New()
	hash.Write([]byte(k.names))
	for _, i := range k.columns {
		v := row[i]
		if v.kind == block.ValueUnchanged || v.kind == block.ValueNull && !nulls {
			return false
		}
		hash.Write(binary.AppendUvarint([]byte{v.kind}, uint64(len(v.text))))
		hash.Write(v.text)
	}
	key := keyHash(hash.Sum(nil)[:16])
	if !slices.Contains(h.keys, key) {
		h.keys = append(h.keys, key)
	}
	return true
}
