package block

import (
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// Trim returns a block's bytes without the transactions that end at or below after, as a block that begins there. A block
// that holds no such transaction and a part of a large one are returned as they are: a reader takes a first block that
// begins at or before its position. It returns ErrMalformed, and an error when the block ends before the position.
func Trim(b *Block, after change.LSN) ([]byte, error) {
	if b.Previous >= after || b.Part != nil {
		return b.data, nil
	}
	if b.Through < after {
		return nil, fmt.Errorf("trim block %d to what follows %v: it ends at %v", b.Number, after, b.Through)
	}
	h := b.Header
	h.Previous = after
	r := b.Reader()
	rest := r.rest()
	var rec Record
	for {
		ok, err := r.Next(&rec)
		if err != nil {
			return nil, fmt.Errorf("trim block %d: %w", b.Number, err)
		}
		// Commit records do not overlap: one ends at or below a position exactly when it begins below it.
		if !ok || rec.Kind == KindBegin && rec.Begin.CommitLSN >= after {
			break
		}
		rest = r.rest()
		if rec.Kind == KindCommit {
			h.Transactions--
		}
	}
	if len(rest) == 0 {
		h.Transactions, h.Relations = 0, nil
	}
	if h.HasCommit = h.Transactions > 0; !h.HasCommit {
		h.LastCommitTime = 0
	}
	return encode(&h, rest), nil
}
