package block

import (
	"encoding/binary"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// Header is what a block says of itself before its records.
type Header struct {
	Number   uint64       // ascends by one from block to block of a log
	LogID    change.LogID // incarnation of the log
	Previous change.LSN   // Through of the block before; 0 only in the first block of a log
	// Through: every transaction with a commit end LSN at or below it is in the log once this block is. In a part block that
	// does not hold the commit it equals Previous.
	Through        change.LSN
	LastCommitTime change.Timestamp // of the last transaction that ends in this block, if HasCommit
	HasCommit      bool
	Transactions   uint32                // number of transactions that end in this block
	Part           *Part                 // set in a block of a transaction larger than a block
	Relations      []change.RelationHash // relation versions used in this block
}

// Part tells which piece of a large transaction a block holds.
type Part struct {
	FirstBlock   uint64 // number of the block with the transaction's Begin
	EventsBefore uint64 // row events (changes, truncates, messages) of the transaction that end in earlier blocks
	XID          uint32
	CommitLSN    change.LSN // start of the commit record, as in Begin
	Last         bool       // this block holds the transaction's Commit
}

// Open tells whether the block ends inside a large transaction.
func (h *Header) Open() bool { return h.Part != nil && !h.Part.Last }

// Start returns the oldest position after which a log that begins with this block can be followed.
func (h *Header) Start() change.LSN {
	if h.Previous == 0 {
		return h.Through
	}
	return h.Previous
}

func (p *Part) size() int {
	return varintFieldSize(p.FirstBlock) + varintFieldSize(p.EventsBefore) + varintFieldSize(uint64(p.XID)) +
		fixed64FieldSize(uint64(p.CommitLSN)) + boolFieldSize(p.Last)
}

// Field numbers of Part.
const (
	tagPartFirstBlock   = 1<<3 | varintType
	tagPartEventsBefore = 2<<3 | varintType
	tagPartXID          = 3<<3 | varintType
	tagPartCommitLSN    = 4<<3 | fixed64Type
	tagPartLast         = 5<<3 | varintType
)

func (p *Part) append(buf []byte) []byte {
	buf = appendVarintField(buf, tagPartFirstBlock, p.FirstBlock)
	buf = appendVarintField(buf, tagPartEventsBefore, p.EventsBefore)
	buf = appendVarintField(buf, tagPartXID, uint64(p.XID))
	buf = appendFixed64Field(buf, tagPartCommitLSN, uint64(p.CommitLSN))
	return appendBoolField(buf, tagPartLast, p.Last)
}

func parsePart(data []byte) (*Part, error) {
	c := cursor{buf: data}
	p := &Part{
		FirstBlock:   c.optVarint(tagPartFirstBlock),
		EventsBefore: c.optVarint(tagPartEventsBefore),
		XID:          c.optVarint32(tagPartXID),
		CommitLSN:    change.LSN(c.optFixed64(tagPartCommitLSN)),
		Last:         c.optBool(tagPartLast),
	}
	c.end("part")
	return p, c.err
}

func (h *Header) size() int {
	n := varintFieldSize(h.Number) + sizedSize(len(h.LogID)) + fixed64FieldSize(uint64(h.Previous)) + fixed64FieldSize(uint64(h.Through)) +
		varintFieldSize(uint64(h.Transactions)) + relationField*len(h.Relations)
	if h.HasCommit {
		n += fixed64Field
	}
	if h.Part != nil {
		n += sizedSize(h.Part.size())
	}
	return n
}

func (h *Header) append(buf []byte) []byte {
	buf = appendVarintField(buf, tagNumber, h.Number)
	buf = append(appendSized(buf, tagLogID, len(h.LogID)), h.LogID[:]...)
	buf = appendFixed64Field(buf, tagPrevious, uint64(h.Previous))
	buf = appendFixed64Field(buf, tagThrough, uint64(h.Through))
	if h.HasCommit {
		buf = binary.LittleEndian.AppendUint64(append(buf, tagLastCommitTime), uint64(h.LastCommitTime))
	}
	buf = appendVarintField(buf, tagTransactions, uint64(h.Transactions))
	if h.Part != nil {
		buf = h.Part.append(appendSized(buf, tagPart, h.Part.size()))
	}
	for i := range h.Relations {
		buf = append(appendSized(buf, tagRelation, len(h.Relations[i])), h.Relations[i][:]...)
	}
	return buf
}

// encode builds the bytes of a block from its header and its encoded records.
func encode(h *Header, records []byte) []byte {
	buf := make([]byte, 0, h.size()+len(records)+crcField)
	buf = append(h.append(buf), records...)
	crc := Checksum(buf)
	return binary.LittleEndian.AppendUint32(append(buf, tagCRC), crc)
}

// parseHeader reads the fields before the records and leaves the cursor at the first record, or at the CRC.
func (c *cursor) header() Header {
	h := Header{Number: c.optVarint(tagNumber)}
	if id := c.optSized(tagLogID); len(id) == len(h.LogID) {
		h.LogID = change.LogID(id)
	} else {
		c.fail("the log id has %d bytes", len(id))
	}
	h.Previous = change.LSN(c.optFixed64(tagPrevious))
	h.Through = change.LSN(c.optFixed64(tagThrough))
	if h.HasCommit = c.next(tagLastCommitTime); h.HasCommit {
		h.LastCommitTime = change.Timestamp(c.fixed64())
	}
	h.Transactions = c.optVarint32(tagTransactions)
	if c.next(tagPart) {
		data := c.sized()
		if c.err == nil {
			h.Part, c.err = parsePart(data)
		}
	}
	if rest := c.buf[c.off:]; len(rest) > 0 && rest[0] == tagRelation {
		h.Relations = make([]change.RelationHash, 0, relationCount(rest))
		for c.next(tagRelation) {
			hash := c.sized()
			if len(hash) != len(change.RelationHash{}) {
				c.fail("a relation hash has %d bytes", len(hash))
				break
			}
			h.Relations = append(h.Relations, change.RelationHash(hash))
		}
	}
	return h
}

// relationCount counts the relation fields at the start of b, so that their list is allocated once.
func relationCount(b []byte) int {
	n := 0
	for len(b) >= relationField && b[0] == tagRelation {
		b = b[relationField:]
		n++
	}
	return n
}

// check refuses a header that contradicts itself.
func (h *Header) check() error {
	switch {
	case h.Number == 0:
		return fmt.Errorf("%w: it has no number", ErrMalformed)
	case h.Through == 0:
		return fmt.Errorf("%w: it reaches no position", ErrMalformed)
	case h.Through < h.Previous:
		return fmt.Errorf("%w: it goes back from %v to %v", ErrMalformed, h.Previous, h.Through)
	case h.HasCommit != (h.Transactions > 0):
		return fmt.Errorf("%w: commit time and %d transactions do not fit", ErrMalformed, h.Transactions)
	case h.Part == nil:
		return nil
	case h.Part.FirstBlock == 0 || h.Part.FirstBlock > h.Number || h.Part.CommitLSN < h.Previous:
		return fmt.Errorf("%w: its part does not fit it", ErrMalformed)
	case h.Part.Last != (h.Transactions == 1), !h.Part.Last && (h.Through != h.Previous || h.Transactions != 0):
		return fmt.Errorf("%w: a part and %d transactions do not fit", ErrMalformed, h.Transactions)
	}
	return nil
}
