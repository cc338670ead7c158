package apply

import (
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// op is one row operation waiting to be written. Its rows are views of the blocks they came in.
type op struct {
	plan      *Plan
	operation Operation
	hasOld    bool
	old       block.Row
	new       block.Row
	from      *sourceTxn
	number    int64 // among the changes of its transaction, from 1
}

// sourceTxn is the transaction that a change belongs to.
type sourceTxn struct {
	commitLSN  change.LSN
	commitTime change.Timestamp
	xid        uint32
	origin     origin
}

// decodeOld appends the old row's values to dst, or returns nil when the change carries no old row.
func (o *op) decodeOld(dst []value) []value {
	if !o.hasOld {
		return nil
	}
	return decode(dst, o.old)
}

// decodeNew appends the new row's values to dst; none for a delete.
func (o *op) decodeNew(dst []value) []value { return decode(dst, o.new) }

// decode never returns nil: a row without columns is a row.
func decode(dst []value, row block.Row) []value {
	if dst == nil {
		dst = make([]value, 0, len(row.Kinds))
	}
	for c := row.Columns(); c.More(); {
		kind, text := c.Next()
		dst = append(dst, value{kind, text})
	}
	return dst
}

// size is what the operation counts toward the size of a slice.
func (o *op) size() int { return o.old.Size() + o.new.Size() + opOverheadBytes }

const opOverheadBytes = 64
