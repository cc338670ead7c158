package block

import (
	"bytes"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// Copy appends a row operation that was read from another block, under the hash of its relation. The rows are copied.
func (b *Builder) Copy(m *Change, relation change.RelationHash) error {
	if err := b.check(KindChange); err != nil {
		return err
	}
	if m.Operation < Insert || m.Operation > Delete || m.HasNew == (m.Operation == Delete) || m.HasOld && m.Operation == Insert ||
		!m.HasOld && (m.OldIsKey || m.Operation == Delete) {
		return fmt.Errorf("copy %v: %w", m.Operation, errRows)
	}
	index, added := b.relations.use(relation)
	size := m.size(index)
	if b.tooLarge(size) {
		b.relations.undo(added)
		return b.cut(KindChange, m.size(0), &relation, func(buf []byte) []byte { return m.append(buf, 0) })
	}
	b.buf = m.append(b.head(b.buf, KindChange, size), index)
	b.open.events++
	return nil
}

// Restart makes the builder what NewBuilder returns for the state, and keeps its memory.
func (b *Builder) Restart(s State) {
	buf, list := b.buf[:0], b.relations
	list.reset()
	*b = *NewBuilder(s)
	b.buf, b.relations = buf, list
}

// Rechain returns the block as one of another chain: with a number, after a block through previous, and with firstBlock as the number of
// the block in which its large transaction begins, if it is a part of one. The block itself is returned where it is that already.
func (b *Block) Rechain(number uint64, previous change.LSN, firstBlock uint64) *Block {
	if b.Number == number && b.Previous == previous && (b.Part == nil || b.Part.FirstBlock == firstBlock) {
		return b
	}
	h := b.Header
	h.Number, h.Previous = number, previous
	if h.Part != nil {
		part := *h.Part
		part.FirstBlock = firstBlock
		h.Part = &part
	}
	data := encode(&h, b.records)
	end := len(data) - crcField
	return &Block{Header: h, data: data, records: data[end-len(b.records) : end : end]}
}

func (m *Change) size(relation uint32) int {
	n := 1 + 1 + varintFieldSize(uint64(relation)) + boolFieldSize(m.OldIsKey)
	if m.HasOld {
		n += sizedSize(m.Old.size())
	}
	if m.HasNew {
		n += sizedSize(m.New.size())
	}
	return n
}

func (m *Change) append(buf []byte, relation uint32) []byte {
	buf = append(buf, 1<<3|varintType, byte(m.Operation))
	buf = appendVarintField(buf, 2<<3|varintType, uint64(relation))
	buf = appendBoolField(buf, 3<<3|varintType, m.OldIsKey)
	if m.HasOld {
		buf = m.Old.append(appendSized(buf, 4<<3|bytesType, m.Old.size()))
	}
	if m.HasNew {
		buf = m.New.append(appendSized(buf, 5<<3|bytesType, m.New.size()))
	}
	return buf
}

// size is that of the row as it is encoded.
func (r Row) size() int { return textFieldSize(len(r.Kinds)) + len(r.values) }

func (r Row) append(buf []byte) []byte {
	if len(r.Kinds) > 0 {
		buf = append(appendSized(buf, tagRowKinds, len(r.Kinds)), r.Kinds...)
	}
	return append(buf, r.values...)
}

// Fill returns the row with the values of another one, of the same columns, where it has none because they were not changed. It
// tells whether all of them were there.
func (r Row) Fill(from Row) (Row, bool) {
	filled := Row{Kinds: make([]byte, 0, len(r.Kinds)), values: make([]byte, 0, len(r.values)+len(from.values))}
	all, same := true, len(r.Kinds) == len(from.Kinds)
	for mine, theirs := r.Columns(), from.Columns(); mine.More(); {
		kind, value := mine.Next()
		otherKind, otherValue := theirs.Next()
		if kind == ValueUnchanged && same {
			kind, value = otherKind, otherValue
		}
		all = all && kind != ValueUnchanged
		filled.Kinds = append(filled.Kinds, kind)
		if kind == ValueText {
			filled.values = append(appendSized(filled.values, tagRowValue, len(value)), value...)
		}
	}
	return filled, all
}

// Project returns the row with those of its columns that are to be taken. It uses the memory of a row that Project returned before.
func (r Row) Project(take []bool, room Row) Row {
	out := Row{Kinds: room.Kinds[:0], values: room.values[:0]}
	i := 0
	for c := r.Columns(); c.More(); i++ {
		kind, value := c.Next()
		if i >= len(take) || !take[i] {
			continue
		}
		out.Kinds = append(out.Kinds, kind)
		if kind == ValueText {
			out.values = append(appendSized(out.values, tagRowValue, len(value)), value...)
		}
	}
	return out
}

// Same tells whether a new row has the values of the old one before it; what was not changed is the same.
func (r Row) Same(old Row) bool {
	if len(r.Kinds) != len(old.Kinds) {
		return false
	}
	for mine, theirs := r.Columns(), old.Columns(); mine.More(); {
		kind, value := mine.Next()
		oldKind, oldValue := theirs.Next()
		if kind != ValueUnchanged && (kind != oldKind || !bytes.Equal(value, oldValue)) {
			return false
		}
	}
	return true
}
