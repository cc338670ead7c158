package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

var (
	// ErrMalformed says that bytes are not a block of this format: they were damaged or written by a newer version. Reading
	// the block again helps where they were damaged on their way.
	ErrMalformed = errors.New("malformed block (damaged, or written by a newer version of Syncline)")

	// ErrChecksum says that a block's bytes are not those that were written. Reading the block again helps where they were
	// damaged on their way; where the stored bytes are damaged, the followers that need them have to be synchronised anew.
	ErrChecksum = errors.New("block checksum mismatch")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC-32C of data.
func Checksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// Tags of the format: field number << 3 | wire type.
const (
	tagNumber         = 1<<3 | varintType
	tagLogID          = 2<<3 | bytesType
	tagPrevious       = 3<<3 | fixed64Type
	tagThrough        = 4<<3 | fixed64Type
	tagLastCommitTime = 5<<3 | fixed64Type
	tagTransactions   = 6<<3 | varintType
	tagPart           = 7<<3 | bytesType
	tagRelation       = 8<<3 | bytesType
	tagRecord         = 9<<3 | bytesType
	tagCRC            = 15<<3 | fixed32Type

	varintType  = 0
	fixed64Type = 1
	bytesType   = 2
	fixed32Type = 5
)

// Sizes in bytes of fields with a constant size, tag included.
const (
	fixed64Field  = 1 + 8
	crcField      = 1 + 4
	relationField = 1 + 1 + 16
)

// uvarintSize returns the number of bytes of v as a varint.
func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// sizedSize returns the number of bytes of a field that holds n bytes: tag, length and content.
func sizedSize(n int) int { return 1 + uvarintSize(uint64(n)) + n }

func appendUvarint(buf []byte, v uint64) []byte { return binary.AppendUvarint(buf, v) }

// appendVarintField appends a field that is left out when it is zero, as is appendFixed64Field.
func appendVarintField(buf []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return buf
	}
	return appendUvarint(append(buf, tag), v)
}

func varintFieldSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + uvarintSize(v)
}

func appendFixed64Field(buf []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return buf
	}
	return binary.LittleEndian.AppendUint64(append(buf, tag), v)
}

func fixed64FieldSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return fixed64Field
}

func appendBoolField(buf []byte, tag byte, v bool) []byte {
	if !v {
		return buf
	}
	return append(buf, tag, 1)
}

func boolFieldSize(v bool) int {
	if v {
		return 2
	}
	return 0
}

// appendSized appends tag and length of a field whose n bytes of content follow.
func appendSized(buf []byte, tag byte, n int) []byte {
	return appendUvarint(append(buf, tag), uint64(n))
}

func appendTextField(buf []byte, tag byte, s string) []byte {
	if s == "" {
		return buf
	}
	return append(appendSized(buf, tag, len(s)), s...)
}

func textFieldSize(n int) int {
	if n == 0 {
		return 0
	}
	return sizedSize(n)
}

// cursor reads fields in ascending order. The first failure sticks: every later read returns zero and moves nothing.
type cursor struct {
	buf []byte
	off int // never beyond len(buf)
	err error
}

// fail keeps the first failure. It never quotes content, which may be confidential.
func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
		c.off = len(c.buf)
	}
}

func (c *cursor) more() bool { return c.off < len(c.buf) }

// next reports whether the next field has the tag, and steps over the tag if so.
func (c *cursor) next(tag byte) bool {
	if c.off < len(c.buf) && c.buf[c.off] == tag {
		c.off++
		return true
	}
	return false
}

// uvarint reads a varint in its shortest form.
func (c *cursor) uvarint() uint64 {
	if c.off < len(c.buf) && c.buf[c.off] < 0x80 {
		c.off++
		return uint64(c.buf[c.off-1])
	}
	v, n := binary.Uvarint(c.buf[c.off:])
	if n <= 0 || c.buf[c.off+n-1] == 0 {
		c.fail("a varint is cut off, too large or too long")
		return 0
	}
	c.off += n
	return v
}

// sized reads a length and returns that many bytes as a view, not nil unless it failed.
func (c *cursor) sized() []byte {
	n := c.uvarint()
	if n > uint64(len(c.buf)-c.off) {
		c.fail("%d bytes should follow, %d are left", n, len(c.buf)-c.off)
	}
	if c.err != nil {
		return nil
	}
	start := c.off
	c.off += int(n)
	return c.buf[start:c.off:c.off]
}

func (c *cursor) fixed64() uint64 {
	if len(c.buf)-c.off < 8 {
		c.fail("8 bytes should follow, %d are left", len(c.buf)-c.off)
		return 0
	}
	c.off += 8
	return binary.LittleEndian.Uint64(c.buf[c.off-8:])
}

// optVarint reads the field with the tag if it is the next: zero stands for a field left out.
func (c *cursor) optVarint(tag byte) uint64 {
	if !c.next(tag) {
		return 0
	}
	v := c.uvarint()
	if v == 0 {
		c.fail("field %d is zero but not left out", tag>>3)
	}
	return v
}

func (c *cursor) optVarint32(tag byte) uint32 {
	v := c.optVarint(tag)
	if v > 1<<32-1 {
		c.fail("field %d has more than 32 bits", tag>>3)
		return 0
	}
	return uint32(v)
}

func (c *cursor) optBool(tag byte) bool {
	v := c.optVarint(tag)
	if v > 1 {
		c.fail("field %d is neither true nor false", tag>>3)
	}
	return v == 1
}

func (c *cursor) optFixed64(tag byte) uint64 {
	if !c.next(tag) {
		return 0
	}
	v := c.fixed64()
	if v == 0 {
		c.fail("field %d is zero but not left out", tag>>3)
	}
	return v
}

// optSized reads the field with the tag if it is the next: no bytes stand for a field left out.
func (c *cursor) optSized(tag byte) []byte {
	if !c.next(tag) {
		return nil
	}
	b := c.sized()
	if len(b) == 0 {
		c.fail("field %d is empty but not left out", tag>>3)
	}
	return b
}

// end refuses what is left: a field that is unknown, out of order or doubled.
func (c *cursor) end(what string) {
	if c.more() {
		c.fail("%s: field %d is unknown or out of order", what, c.buf[c.off]>>3)
	}
}
