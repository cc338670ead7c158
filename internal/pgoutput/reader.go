package pgoutput

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// reader reads one message. The first failure sticks: every later read returns a zero value and moves nothing, so a
// decoder reads all its fields and looks at err once.
type reader struct {
	buf []byte // the whole message with its type byte, so that offsets in errors are those of the message
	off int    // never beyond len(buf)
	err error
}

// fail keeps the first failure. It never quotes the content of the message, which may be confidential.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s, at byte %d of %d", ErrMalformed, fmt.Sprintf(format, args...), r.off, len(r.buf))
	}
}

// left is the number of bytes not yet read.
func (r *reader) left() int { return len(r.buf) - r.off }

// take returns the next n bytes as a view, or nil after a failure.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > r.left() {
		r.fail("%d bytes should follow, %d are left", n, r.left())
		return nil
	}
	start := r.off
	r.off += n
	return r.buf[start:r.off:r.off]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) lsn() LSN     { return LSN(r.uint64()) }
func (r *reader) time() int64  { return int64(r.uint64()) }
func (r *reader) int32() int32 { return int32(r.uint32()) }

// flags reads a byte of flags and refuses bits that protocol 1 does not define: they would change the meaning unseen.
func (r *reader) flags(known byte) byte {
	f := r.byte()
	if unknown := f &^ known; unknown != 0 {
		r.fail("unknown flags %#02x", unknown)
	}
	return f
}

// text reads a string up to its zero byte and returns it, without that byte, as a view.
func (r *reader) text() []byte {
	if r.err != nil {
		return nil
	}
	n := bytes.IndexByte(r.buf[r.off:], 0)
	if n < 0 {
		r.fail("string without an end")
		return nil
	}
	b := r.take(n)
	r.off++
	return b
}

// schema reads a schema name. PostgreSQL writes nothing for pg_catalog.
func (r *reader) schema() string {
	b := r.text()
	if len(b) == 0 && r.err == nil {
		return "pg_catalog"
	}
	return string(b)
}

// end refuses bytes after the last field: they mean another protocol version.
func (r *reader) end() {
	if r.err == nil && r.left() > 0 {
		r.fail("%d bytes too many", r.left())
	}
}
