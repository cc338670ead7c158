package pgoutput

import "encoding/binary"

// What a column of a tuple holds.
const (
	ValueNull      byte = 'n'
	ValueUnchanged byte = 'u' // out of line (TOAST) and not changed by the update: the value is not in the message
	ValueText      byte = 't' // output of the type's output function
	ValueBinary    byte = 'b' // output of the type's send function; only when the client asked for binary
)

// Tuple is a row as a view of the decoded data: it is valid as long as that data is. Decode has checked all of Raw, so
// reading the columns cannot fail. The zero Tuple has no columns.
type Tuple struct {
	Raw []byte // the columns as they came, without their count
	N   int    // number of columns
}

// Columns returns a reader that stands before the first column:
//
//	for c := row.Columns(); c.More(); {
//		kind, value := c.Next()
//		…
//	}
func (t Tuple) Columns() TupleReader { return TupleReader{rest: t.Raw} }

// TupleReader reads the columns of a tuple in the order of the relation's columns. It allocates nothing. Next returns the
// column instead of keeping it in the reader because that is four times as fast.
type TupleReader struct {
	rest []byte
}

// More reports whether there is another column.
func (r *TupleReader) More() bool { return len(r.rest) > 0 }

// Next returns the next column: its kind, and for ValueText and ValueBinary a view of its bytes, which is not nil when it
// is empty. After the last column the kind is 0.
func (r *TupleReader) Next() (kind byte, value []byte) {
	b := r.rest
	if len(b) == 0 {
		return 0, nil
	}
	if kind = b[0]; kind == ValueNull || kind == ValueUnchanged {
		r.rest = b[1:]
		return kind, nil
	}
	end := valueHead + int(binary.BigEndian.Uint32(b[1:]))
	r.rest = b[end:]
	return kind, b[valueHead:end:end]
}

// valueHead is the size of kind and length before a value's bytes.
const valueHead = 1 + 4

// tuple reads a tuple and checks the bounds of every column.
func (r *reader) tuple() Tuple {
	n := int(r.uint16())
	if r.err != nil {
		return Tuple{}
	}
	start, off, buf := r.off, r.off, r.buf
	for i := range n {
		if off >= len(buf) {
			r.off = off
			r.fail("%d of %d columns are missing", n-i, n)
			return Tuple{}
		}
		switch kind := buf[off]; kind {
		case ValueNull, ValueUnchanged:
			off++
		case ValueText, ValueBinary:
			if len(buf)-off < valueHead {
				r.off = off
				r.fail("column %d of %d has no length", i+1, n)
				return Tuple{}
			}
			size := binary.BigEndian.Uint32(buf[off+1:])
			off += valueHead
			if uint64(size) > uint64(len(buf)-off) {
				r.off = off
				r.fail("column %d of %d should have %d bytes, %d are left", i+1, n, size, len(buf)-off)
				return Tuple{}
			}
			off += int(size)
		default:
			r.off = off
			r.fail("column %d of %d is of unknown kind %q", i+1, n, kind)
			return Tuple{}
		}
	}
	r.off = off
	return Tuple{Raw: buf[start:off:off], N: n}
}
