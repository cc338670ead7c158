package apply

import (
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgtype"
)

// A set whose keys are integers that lie close together is joined by one walk over that part of the key's index and a hash table of the
// set, instead of a look into the index for each row. The planner knows neither how many rows come nor which: the statement says between which
// keys they lie, and the planner gets no choice (see joins). Since the key is unique, the walk meets at most sparsest rows for each one of the set.

const (
	// denseRows is the smallest set for which that is worth two statements more.
	denseRows = 256
	// sparsest is how many keys there may be, from the first one to the last, for each row of the set. A step of the walk takes the server a
	// quarter of the time that a look takes.
	sparsest = 2
)

// mayBeDense tells whether the plan's key is one integer column of a table with an index of its own.
func (p *Plan) mayBeDense() bool {
	if len(p.locator) != 1 || p.Target.Partitioned {
		return false
	}
	switch p.columns[p.locator[0]].TypeOID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return true
	}
	return false
}

// dense returns the smallest and the largest key, in their binary form, if the keys are the first column and lie close together.
func (a *arrays) dense() (smallest, largest []byte, ok bool) {
	if a.rows < denseRows || a.formats[0] != binaryFormat || a.nulls[0] || !a.plan.mayBeDense() {
		return nil, nil, false
	}
	elements := a.params[0][arrayHead:]
	width := int(binary.BigEndian.Uint32(elements))
	var low, high int64
	for at := 4; at < len(elements); at += 4 + width {
		key := elements[at : at+width]
		n := signed(key)
		if smallest == nil || n < low {
			smallest, low = key, n
		}
		if largest == nil || n > high {
			largest, high = key, n
		}
	}
	return smallest, largest, uint64(high)-uint64(low) < sparsest*uint64(a.rows)
}

// signed reads a big-endian integer of any width.
func signed(b []byte) int64 {
	n := int64(int8(b[0]))
	for _, c := range b[1:] {
		n = n<<8 | int64(c)
	}
	return n
}
