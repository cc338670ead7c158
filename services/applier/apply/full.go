package apply

import (
	"bytes"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// continues tells whether an operation with a whole old row is about the row that the net has for its key. With REPLICA IDENTITY
// FULL the key is the target's alone, and perhaps no longer: the source may have several rows with the same values in it, and
// only the whole row tells which one is meant. n.old is the operation's old row.
func (n *netting) continues(row *netRow, o *op) bool {
	if !o.hasOld || o.plan.Relation.Identity != change.IdentityFull || row.write == 0 {
		return true
	}
	now := row.merged
	if now == nil {
		now = n.ops[row.op].decodeNew(nil)
	}
	for i, was := range n.old {
		if now[i].kind == block.ValueUnchanged || was.kind == block.ValueUnchanged {
			continue
		}
		if now[i].kind != was.kind || !bytes.Equal(now[i].text, was.text) {
			return false
		}
	}
	return true
}
