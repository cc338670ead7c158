package block

import (
	"encoding/binary"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// Block is a parsed block: its header, and its records still encoded. It may be read by several goroutines at once.
type Block struct {
	Header
	data    []byte
	records []byte
}

// Parse reads the header of a block and checks its checksum. The block keeps data, which must not change afterwards. It
// returns ErrMalformed or ErrChecksum.
func Parse(data []byte) (*Block, error) {
	end := len(data) - crcField
	if end < 0 || data[end] != tagCRC {
		return nil, fmt.Errorf("parse block: %w: its end is missing", ErrMalformed)
	}
	if Checksum(data[:end]) != binary.LittleEndian.Uint32(data[end+1:]) {
		return nil, fmt.Errorf("parse block: %w", ErrChecksum)
	}
	c := cursor{buf: data[:end]}
	h := c.header()
	if c.more() && c.buf[c.off] != tagRecord {
		c.end("block")
	}
	if c.err == nil {
		c.err = h.check()
	}
	if c.err != nil {
		return nil, fmt.Errorf("parse block %d: %w", h.Number, c.err)
	}
	return &Block{Header: h, data: data, records: data[c.off:end:end]}, nil
}

// ParseHeader reads the header of a block without a look at its records and its checksum. It returns ErrMalformed.
func ParseHeader(data []byte) (Header, error) {
	c := cursor{buf: data}
	h := c.header()
	if c.err == nil {
		c.err = h.check()
	}
	if c.err != nil {
		return Header{}, fmt.Errorf("parse header of block %d: %w", h.Number, c.err)
	}
	return h, nil
}

// NewMark returns a block without records: nothing that concerns the log ended after previous up to through.
func NewMark(id change.LogID, number uint64, previous, through change.LSN) *Block {
	h := Header{Number: number, LogID: id, Previous: previous, Through: through}
	data := encode(&h, nil)
	return &Block{Header: h, data: data}
}

// IsMark tells whether the block has no records: it says only how far the log goes.
func (b *Block) IsMark() bool { return len(b.records) == 0 }

// Data returns the block's bytes, as they are stored and served. They must not be changed.
func (b *Block) Data() []byte { return b.data }

// Reader returns a reader that stands before the first record.
func (b *Block) Reader() Reader {
	return Reader{cur: cursor{buf: b.records}, relations: uint64(len(b.Relations))}
}
