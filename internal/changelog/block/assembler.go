package block

import (
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// ErrChain says that a block does not follow the one before: something between them is missing, or comes twice. Following
// again from the position of what was taken mends it.
var ErrChain = errors.New("block does not follow the one before")

// maxTotal bounds the size in bytes of a record: PostgreSQL cannot send a message of 1 GiB.
const maxTotal = 1<<30 + 1<<20

// Assembler reads the records of consecutive blocks. It checks that each block follows the one before and that records
// make whole transactions, and it joins the pieces of large records. The zero Assembler takes any block as its first. An
// error sticks: nothing after it can be taken.
type Assembler struct {
	block    *Block
	reader   Reader
	after    change.Position
	last     Header // of the block before
	begun    bool   // a block was pushed
	open     bool   // inside a transaction
	skipping bool   // inside one that lies at or before after
	begin    Begin
	events   uint64 // of the open transaction
	commits  uint32 // in this block
	end      change.LSN
	joined   []byte
	total    uint64 // of the record being joined; 0 if there is none
	within   bool   // the first block may lie within a transaction, see NewAssemblerWithin
	tail     bool   // the rest of a record whose beginning was not read is passed over
	err      error
}

// NewAssembler returns an Assembler that yields the transactions after the position: its first block must not begin after
// it, and transactions in that block that end at or before it are passed over.
func NewAssembler(after change.Position) *Assembler { return &Assembler{after: after} }

// NewAssemblerWithin returns an Assembler whose first block may lie within a large transaction: its records begin with the first one
// that begins in that block, without a Begin. Events tells how many of the transaction come before.
func NewAssemblerWithin() *Assembler { return &Assembler{within: true} }

// Events returns how many events of the open transaction have been read, or come before the first block.
func (a *Assembler) Events() uint64 { return a.events }

// Push hands over the next block. All records of the one before have to be read. It returns ErrChain.
func (a *Assembler) Push(b *Block) error {
	if a.err != nil {
		return a.err
	}
	if a.err = a.follows(b); a.err != nil {
		return a.err
	}
	if part := b.Part; !a.begun && part != nil && part.FirstBlock != b.Number {
		a.open, a.begin, a.events, a.tail = true, Begin{CommitLSN: part.CommitLSN, XID: part.XID}, part.EventsBefore, true
	}
	a.block, a.reader, a.begun, a.commits = b, b.Reader(), true, 0
	a.end = b.Previous
	return nil
}

func (a *Assembler) follows(b *Block) error {
	part := b.Part
	switch last := &a.last; {
	case a.block != nil:
		return fmt.Errorf("block %d: %w: the block before is not read to its end", b.Number, ErrChain)
	case !a.begun && !a.after.LogID.IsZero() && b.LogID != a.after.LogID:
		return fmt.Errorf("block %d: %w: it is of log %v, not %v", b.Number, ErrChain, b.LogID, a.after.LogID)
	case !a.begun && !a.after.LogID.IsZero() && b.Start() > a.after.LSN:
		return fmt.Errorf("block %d: %w: it begins at %v, after %v", b.Number, ErrChain, b.Start(), a.after.LSN)
	case !a.begun && part != nil && part.FirstBlock != b.Number && !a.within:
		return fmt.Errorf("block %d: %w: the beginning of its transaction is in block %d", b.Number, ErrChain, part.FirstBlock)
	case !a.begun:
	case b.LogID != last.LogID:
		return fmt.Errorf("block %d: %w: it is of log %v, not %v", b.Number, ErrChain, b.LogID, last.LogID)
	case b.Number != last.Number+1:
		return fmt.Errorf("block %d: %w: the last one was %d", b.Number, ErrChain, last.Number)
	case b.Previous != last.Through:
		return fmt.Errorf("block %d: %w: it begins at %v instead of %v", b.Number, ErrChain, b.Previous, last.Through)
	case last.Open() && (part == nil || part.FirstBlock != last.Part.FirstBlock || part.CommitLSN != last.Part.CommitLSN ||
		part.XID != last.Part.XID || part.EventsBefore != a.events):
		return fmt.Errorf("block %d: %w: it does not continue the transaction", b.Number, ErrChain)
	case !last.Open() && part != nil && (part.FirstBlock != b.Number || part.EventsBefore != 0):
		return fmt.Errorf("block %d: %w: the beginning of its transaction is missing", b.Number, ErrChain)
	}
	return nil
}

// Next reads the next record of the block into rec and reports whether there was one; if not, the block is read and the
// next one may be pushed. Relation indexes in rec are those of the block pushed last. It returns ErrMalformed.
func (a *Assembler) Next(rec *Record) (bool, error) {
	for a.err == nil && a.block != nil {
		ok, err := a.reader.Next(rec)
		if err == nil && !ok {
			err = a.finish()
			if err == nil {
				return false, nil
			}
		}
		if err == nil && a.tail {
			if a.passTail(rec) {
				continue
			}
		}
		if err == nil && rec.Kind == KindFragment {
			ok, err = a.join(rec)
		} else if err == nil && a.total != 0 {
			err = fmt.Errorf("%w: a %v inside a fragmented record", ErrMalformed, rec.Kind)
		}
		skip := a.skipping
		if err == nil && ok {
			err = a.nest(rec)
		}
		if err != nil {
			a.err = fmt.Errorf("read block %d: %w", a.block.Number, err)
			break
		}
		if ok && !skip && !a.skipping {
			return true, nil
		}
	}
	return false, a.err
}

// passTail tells whether a record is a piece of one whose beginning was not read.
func (a *Assembler) passTail(rec *Record) bool {
	if rec.Kind != KindFragment || rec.Fragment.TotalBytes != 0 {
		a.tail = false
		return false
	}
	if rec.Fragment.Last {
		a.tail = false
		a.events++
	}
	return true
}

// nest checks that records make transactions.
func (a *Assembler) nest(rec *Record) error {
	if a.open == (rec.Kind == KindBegin) {
		return fmt.Errorf("%w: a %v that does not fit the records before", ErrMalformed, rec.Kind)
	}
	if rec.Kind.Event() {
		a.events++
	}
	part := a.block.Part
	switch rec.Kind {
	case KindBegin:
		if rec.Begin.CommitLSN < a.end || a.commits > 0 && part != nil ||
			part != nil && (part.XID != rec.Begin.XID || part.CommitLSN != rec.Begin.CommitLSN) {
			return fmt.Errorf("%w: a transaction that does not fit its block", ErrMalformed)
		}
		a.open, a.begin, a.events = true, rec.Begin, 0
		a.skipping = rec.Begin.CommitLSN < a.after.LSN
	case KindCommit:
		c := &rec.Commit
		if c.CommitLSN != a.begin.CommitLSN || c.XID != a.begin.XID || c.EndLSN <= c.CommitLSN || c.EndLSN > a.block.Through {
			return fmt.Errorf("%w: a commit that does not fit its transaction", ErrMalformed)
		}
		a.end = c.EndLSN
		a.open, a.skipping = false, false
		a.commits++
	}
	return nil
}

// finish checks that the block held what its header says.
func (a *Assembler) finish() error {
	h := &a.block.Header
	if a.open != h.Open() || a.commits != h.Transactions || a.total != 0 && !h.Open() {
		return fmt.Errorf("%w: it holds other records than it says", ErrMalformed)
	}
	a.last, a.block = *h, nil
	return nil
}

// join takes a piece. It reports true, and the record in rec, when that was the last one.
func (a *Assembler) join(rec *Record) (bool, error) {
	piece := rec.Fragment
	if first := piece.TotalBytes != 0; first == (a.total != 0) || piece.TotalBytes > maxTotal || a.block.Part == nil {
		return false, fmt.Errorf("%w: a fragment out of place", ErrMalformed)
	} else if first {
		a.total, a.joined = piece.TotalBytes, nil
	}
	size := uint64(len(a.joined) + len(piece.Data))
	if len(piece.Data) == 0 || size > a.total || piece.Last != (size == a.total) {
		return false, fmt.Errorf("%w: fragments of %d bytes for a record of %d", ErrMalformed, size, a.total)
	}
	if size > uint64(cap(a.joined)) {
		// The stated size is taken at its word only in proportion to what has come: a false one costs no memory.
		grown := make([]byte, len(a.joined), min(a.total, size*256))
		copy(grown, a.joined)
		a.joined = grown
	}
	a.joined = append(a.joined, piece.Data...)
	if !piece.Last {
		return false, nil
	}
	data := a.joined
	a.joined, a.total = nil, 0
	if err := parseRecord(data, uint64(len(a.block.Relations)), rec); err != nil {
		return false, err
	}
	if !rec.Kind.Event() {
		return false, fmt.Errorf("%w: a fragmented %v", ErrMalformed, rec.Kind)
	}
	return true, nil
}

// Progress returns what has been read: the position after which the log is to be followed again to miss nothing, which is
// before the open transaction if there is one.
func (a *Assembler) Progress() change.Position {
	return change.Position{LogID: a.last.LogID, LSN: a.last.Through}
}
