package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

// ErrBinaryValue says that a row has a value in binary form: replication has to be started without the option "binary".
var ErrBinaryValue = errors.New("a row has a value that is not in text form (start replication without the option binary)")

// errColumns says that a tuple holds another number of columns than it claims.
var errColumns = errors.New("a row has another number of columns than it claims")

// errRows says that an operation comes without a row that belongs to it, or with one that does not.
var errRows = errors.New("the rows do not fit the operation")

// size returns the number of bytes of a record's content, append appends that content. So do those of the other kinds.
func (m *Begin) size() int {
	return fixed64FieldSize(uint64(m.CommitLSN)) + fixed64FieldSize(uint64(m.CommitTime)) + varintFieldSize(uint64(m.XID))
}

func (m *Begin) append(buf []byte) []byte {
	buf = appendFixed64Field(buf, 1<<3|fixed64Type, uint64(m.CommitLSN))
	buf = appendFixed64Field(buf, 2<<3|fixed64Type, uint64(m.CommitTime))
	return appendVarintField(buf, 3<<3|varintType, uint64(m.XID))
}

func (m *Commit) size() int {
	return fixed64FieldSize(uint64(m.CommitLSN)) + fixed64FieldSize(uint64(m.EndLSN)) +
		fixed64FieldSize(uint64(m.CommitTime)) + varintFieldSize(uint64(m.XID))
}

func (m *Commit) append(buf []byte) []byte {
	buf = appendFixed64Field(buf, 1<<3|fixed64Type, uint64(m.CommitLSN))
	buf = appendFixed64Field(buf, 2<<3|fixed64Type, uint64(m.EndLSN))
	buf = appendFixed64Field(buf, 3<<3|fixed64Type, uint64(m.CommitTime))
	return appendVarintField(buf, 4<<3|varintType, uint64(m.XID))
}

func (m *Truncate) listSize() int {
	n := 0
	for _, relation := range m.Relations {
		n += uvarintSize(uint64(relation))
	}
	return n
}

func (m *Truncate) size() int {
	return textFieldSize(m.listSize()) + boolFieldSize(m.Cascade) + boolFieldSize(m.RestartIdentity)
}

func (m *Truncate) append(buf []byte) []byte {
	if len(m.Relations) > 0 {
		buf = appendSized(buf, 1<<3|bytesType, m.listSize())
		for _, relation := range m.Relations {
			buf = appendUvarint(buf, uint64(relation))
		}
	}
	buf = appendBoolField(buf, 2<<3|varintType, m.Cascade)
	return appendBoolField(buf, 3<<3|varintType, m.RestartIdentity)
}

func (m *Message) size() int {
	return textFieldSize(len(m.Prefix)) + textFieldSize(len(m.Content)) + fixed64FieldSize(uint64(m.LSN))
}

func (m *Message) append(buf []byte) []byte {
	buf = appendTextField(buf, 1<<3|bytesType, m.Prefix)
	if len(m.Content) > 0 {
		buf = append(appendSized(buf, 2<<3|bytesType, len(m.Content)), m.Content...)
	}
	return appendFixed64Field(buf, 3<<3|fixed64Type, uint64(m.LSN))
}

// positionSize returns the size of the position's message, 0 if the position is left out.
func positionSize(p change.Position) int {
	n := varintFieldSize(uint64(p.LSN))
	if !p.LogID.IsZero() {
		n += sizedSize(2 * len(p.LogID))
	}
	return n
}

func (m *Origin) size() int {
	return textFieldSize(len(m.ServerID)) + textFieldSize(positionSize(m.Position)) +
		fixed64FieldSize(uint64(m.CommitTime)) + textFieldSize(len(m.Name))
}

func (m *Origin) append(buf []byte) []byte {
	buf = appendTextField(buf, 1<<3|bytesType, m.ServerID)
	if n := positionSize(m.Position); n > 0 {
		buf = appendSized(buf, 2<<3|bytesType, n)
		if !m.Position.LogID.IsZero() {
			buf = appendTextField(buf, 1<<3|bytesType, m.Position.LogID.String())
		}
		buf = appendVarintField(buf, 2<<3|varintType, uint64(m.Position.LSN))
	}
	buf = appendFixed64Field(buf, 3<<3|fixed64Type, uint64(m.CommitTime))
	return appendTextField(buf, 4<<3|bytesType, m.Name)
}

func (m *Fragment) size() int {
	return textFieldSize(len(m.Data)) + boolFieldSize(m.Last) + varintFieldSize(m.TotalBytes)
}

func (m *Fragment) append(buf []byte) []byte {
	if len(m.Data) > 0 {
		buf = append(appendSized(buf, 1<<3|bytesType, len(m.Data)), m.Data...)
	}
	buf = appendBoolField(buf, 2<<3|varintType, m.Last)
	return appendVarintField(buf, 3<<3|varintType, m.TotalBytes)
}

// Source is a row operation as it comes from the decoder.
type Source struct {
	Operation Operation
	Relation  change.RelationHash
	OldIsKey  bool // Old holds the identity's columns only
	HasOld    bool
	Old       pgoutput.Tuple // the row before, if HasOld
	New       pgoutput.Tuple // the row after, unless Operation is Delete
}

// sourceSize is what the first pass over a row operation finds out for the second.
type sourceSize struct {
	relation      uint32
	old, new, all int // bytes of the rows and of the whole content
}

func (s *Source) size(relation uint32) (z sourceSize, err error) {
	z.relation = relation
	if s.Operation < Insert || s.Operation > Delete || s.HasOld && s.Operation == Insert || !s.HasOld && (s.OldIsKey || s.Operation == Delete) {
		return z, errRows
	}
	z.all = 1 + 1 + varintFieldSize(uint64(relation)) + boolFieldSize(s.OldIsKey)
	if s.HasOld {
		if z.old, err = tupleSize(s.Old); err != nil {
			return z, err
		}
		z.all += sizedSize(z.old)
	}
	if s.Operation != Delete {
		if z.new, err = tupleSize(s.New); err != nil {
			return z, err
		}
		z.all += sizedSize(z.new)
	}
	return z, nil
}

func (s *Source) append(buf []byte, z *sourceSize) []byte {
	buf = append(buf, 1<<3|varintType, byte(s.Operation))
	buf = appendVarintField(buf, 2<<3|varintType, uint64(z.relation))
	buf = appendBoolField(buf, 3<<3|varintType, s.OldIsKey)
	if s.HasOld {
		buf = appendTuple(appendSized(buf, 4<<3|bytesType, z.old), s.Old)
	}
	if s.Operation != Delete {
		buf = appendTuple(appendSized(buf, 5<<3|bytesType, z.new), s.New)
	}
	return buf
}

const tupleHead = 1 + 4 // kind and length before a value in a pgoutput tuple

// tupleSize returns the size of a tuple as a row.
func tupleSize(t pgoutput.Tuple) (int, error) {
	size, n := textFieldSize(t.N), 0
	for raw := t.Raw; len(raw) > 0; n++ {
		switch raw[0] {
		case pgoutput.ValueText:
			length := int(binary.BigEndian.Uint32(raw[1:]))
			size += sizedSize(length)
			raw = raw[tupleHead+length:]
		case pgoutput.ValueNull, pgoutput.ValueUnchanged:
			raw = raw[1:]
		case pgoutput.ValueBinary:
			return 0, ErrBinaryValue
		default:
			return 0, fmt.Errorf("column %d is of unknown kind %q", n+1, raw[0])
		}
	}
	if n != t.N {
		return 0, errColumns
	}
	return size, nil
}

// appendTuple appends a tuple that tupleSize has accepted.
func appendTuple(buf []byte, t pgoutput.Tuple) []byte {
	if t.N == 0 {
		return buf
	}
	buf = appendSized(buf, tagRowKinds, t.N)
	at := len(buf)
	buf = slices.Grow(buf, t.N)[:at+t.N]
	for raw := t.Raw; len(raw) > 0; at++ {
		buf[at] = raw[0]
		if raw[0] != ValueText {
			raw = raw[1:]
			continue
		}
		length := int(binary.BigEndian.Uint32(raw[1:]))
		buf = append(appendSized(buf, tagRowValue, length), raw[tupleHead:tupleHead+length]...)
		raw = raw[tupleHead+length:]
	}
	return buf
}

// validText makes a text fit a protobuf string. PostgreSQL lets names and prefixes that are not UTF-8 through in a
// database with encoding SQL_ASCII.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
