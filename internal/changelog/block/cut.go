package block

import (
	"fmt"
	"slices"

	"github.com/seed0419d559/syncline/internal/change"
)

// tooLarge tells whether a record with so much content has to be cut. One whose beginning is in the log always was.
func (b *Builder) tooLarge(content int) bool {
	return sizedSize(content) > MaxRecord || b.large.resume.Bytes > 0
}

// cut encodes a large record and begins to hand it out in pieces.
func (b *Builder) cut(kind Kind, content int, relation *change.RelationHash, encode func([]byte) []byte) error {
	total := sizedSize(content)
	data := encode(appendSized(make([]byte, 0, total), byte(kind)<<3|bytesType, content))
	resume := b.large.resume
	b.large = large{data: data, total: uint64(total)}
	if relation != nil {
		hash := *relation
		b.large.relation = &hash
	}
	if n := resume.Bytes; n > 0 {
		if resume.Total != uint64(total) || n >= uint64(total) || resume.CRC != Checksum(data[:n]) {
			b.large = large{resume: resume}
			return fmt.Errorf("append %v: %w", kind, ErrResume)
		}
		b.large.data, b.large.total = data[n:], 0
	}
	b.fill()
	return nil
}

// fill moves pieces of the large record into the buffer until the block is full. The record's relation has to be the first
// of each block that holds a piece: it waits until that is so.
func (b *Builder) fill() {
	l := &b.large
	if len(l.data) == 0 {
		return
	}
	if l.relation != nil {
		if len(b.relations.list) > 0 && b.relations.list[0] != *l.relation {
			return
		}
		b.relations.use(*l.relation)
	}
	for len(l.data) > 0 && (b.weight() < TargetSize || len(b.buf) == 0) {
		piece := Fragment{Data: l.data, Last: true, TotalBytes: l.total}
		if len(piece.Data) > MaxRecord {
			piece.Data, piece.Last = l.data[:MaxRecord], false
		}
		b.buf = piece.append(b.head(b.buf, KindFragment, piece.size()))
		l.data, l.total = l.data[len(piece.Data):], 0
	}
	if len(l.data) == 0 {
		b.open.events++   // only events are ever large
		b.large = large{} // lets go of the record
	}
}

// Cut takes the next block out: the whole transactions that wait, else a part of the open one. It may be called when Full
// or Ready reports true.
func (b *Builder) Cut() *Block {
	h := Header{Number: b.number + 1, LogID: b.logID, Previous: b.previous, Through: b.previous, Relations: b.relations.list}
	end := len(b.buf)
	part := b.open.ended || b.whole.through == b.previous
	if part {
		if b.open.firstBlock == 0 {
			b.open.firstBlock = h.Number
		}
		h.Part = &Part{
			FirstBlock: b.open.firstBlock, EventsBefore: b.open.before,
			XID: b.open.begin.XID, CommitLSN: b.open.begin.CommitLSN, Last: b.open.ended,
		}
	} else {
		end = b.whole.end
		h.Relations = h.Relations[:b.whole.relations]
	}
	if !part || b.open.ended {
		h.Through, h.Transactions = b.whole.through, b.whole.transactions
		h.LastCommitTime, h.HasCommit = b.whole.lastCommitTime, b.whole.transactions > 0
		b.whole = boundary{through: b.whole.through}
	}
	h.Relations = slices.Clone(h.Relations)
	data := encode(&h, b.buf[:end])
	cut := &Block{Header: h, data: data, records: data[len(data)-crcField-end : len(data)-crcField : len(data)-crcField]}
	b.number, b.previous = h.Number, h.Through
	if part {
		b.open.before = b.open.events
		if b.open.ended {
			b.open = transaction{}
		}
	}
	b.keep(end)
	b.fill()
	return cut
}

// keep drops what was cut from the buffer. The records that stay get a relation list of their own: they are encoded anew
// where they stand, which is possible because no index in them grows.
func (b *Builder) keep(from int) {
	rest := b.buf[from:]
	b.buf = b.buf[:0]
	if len(rest) == 0 {
		b.relations.reset()
		return
	}
	old := b.relations
	b.relations = relations{}
	var m Truncate
	for c := (cursor{buf: rest}); c.next(tagRecord); {
		record := cursor{buf: c.sized()}
		kind := Kind(record.buf[0] >> 3)
		record.off = 1
		content := record.sized()
		switch kind {
		case KindChange:
			b.moveChange(content, old.list)
		case KindTruncate:
			in := cursor{buf: content}
			in.truncate(&m, uint64(len(old.list)))
			for i, relation := range m.Relations {
				m.Relations[i], _ = b.relations.use(old.list[relation])
			}
			b.buf = m.append(b.head(b.buf, kind, m.size()))
		default:
			b.buf = append(b.head(b.buf, kind, len(content)), content...)
		}
	}
}

// moveChange appends a change that stands further on in the same buffer under its new relation index.
func (b *Builder) moveChange(content []byte, old []change.RelationHash) {
	c := cursor{buf: content}
	operation, relation := c.optVarint(1<<3|varintType), c.optVarint(2<<3|varintType)
	rest := content[c.off:]
	index, _ := b.relations.use(old[relation])
	b.buf = b.head(b.buf, KindChange, 1+1+varintFieldSize(uint64(index))+len(rest))
	b.buf = append(b.buf, 1<<3|varintType, byte(operation))
	b.buf = appendVarintField(b.buf, 2<<3|varintType, uint64(index))
	b.buf = append(b.buf, rest...)
}
