package block

import (
	"bytes"
	"encoding/hex"
	"unicode"
	"unicode/utf8"

	"github.com/seed0419d559/syncline/internal/change"
)

// Reader reads the records of a block in order. It allocates nothing, except for a text of an origin or message that
// differs from the one that stands in the Record already.
type Reader struct {
	cur       cursor
	relations uint64 // number of relations of the block
}

// logID reads 32 hexadecimal digits in lower case.
func (c *cursor) logID(text []byte) (id change.LogID) {
	n := 0
	if len(text) == hex.EncodedLen(len(id)) && bytes.IndexFunc(text, unicode.IsUpper) < 0 {
		n, _ = hex.Decode(id[:], text)
	}
	if n != len(id) || id.IsZero() {
		c.fail("a log id is none")
	}
	return id
}

// Next reads the next record into rec and reports whether there was one. The error, ErrMalformed, sticks.
func (r *Reader) Next(rec *Record) (bool, error) {
	if !r.cur.more() {
		return false, r.cur.err
	}
	if !r.cur.next(tagRecord) {
		r.cur.end("block")
		return false, r.cur.err
	}
	data := r.cur.sized()
	if r.cur.err == nil {
		r.cur.err = parseRecord(data, r.relations, rec)
	}
	return r.cur.err == nil, r.cur.err
}

// rest returns what has not been read, for callers that take records over as they are encoded.
func (r *Reader) rest() []byte { return r.cur.buf[r.cur.off:] }

// parseRecord reads one record that may name as many relations.
func parseRecord(data []byte, relations uint64, rec *Record) error {
	outer := cursor{buf: data}
	if !outer.more() {
		outer.fail("an empty record")
		return outer.err
	}
	tag := outer.buf[0]
	outer.off = 1
	c := cursor{buf: outer.sized()}
	if outer.end("record"); outer.err != nil {
		return outer.err
	}
	rec.Kind = Kind(tag >> 3)
	switch tag {
	case byte(KindBegin)<<3 | bytesType:
		rec.Begin = Begin{CommitLSN: c.lsn(1), CommitTime: c.time(2), XID: c.optVarint32(3<<3 | varintType)}
	case byte(KindCommit)<<3 | bytesType:
		rec.Commit = Commit{CommitLSN: c.lsn(1), EndLSN: c.lsn(2), CommitTime: c.time(3), XID: c.optVarint32(4<<3 | varintType)}
	case byte(KindChange)<<3 | bytesType:
		c.change(&rec.Change, relations)
	case byte(KindTruncate)<<3 | bytesType:
		c.truncate(&rec.Truncate, relations)
	case byte(KindMessage)<<3 | bytesType:
		c.text(1, &rec.Message.Prefix)
		rec.Message.Content = c.optSized(2<<3 | bytesType)
		rec.Message.LSN = c.lsn(3)
	case byte(KindOrigin)<<3 | bytesType:
		c.origin(&rec.Origin)
	case byte(KindFragment)<<3 | bytesType:
		rec.Fragment = Fragment{
			Data: c.optSized(1<<3 | bytesType), Last: c.optBool(2<<3 | varintType), TotalBytes: c.optVarint(3<<3 | varintType),
		}
	default:
		c.fail("a record of unknown kind %d", tag>>3)
	}
	if c.err == nil {
		c.end(rec.Kind.String())
	}
	return c.err
}

func (c *cursor) lsn(field byte) change.LSN { return change.LSN(c.optFixed64(field<<3 | fixed64Type)) }

func (c *cursor) time(field byte) change.Timestamp {
	return change.Timestamp(c.optFixed64(field<<3 | fixed64Type))
}

// text reads a text and allocates only when it differs from the one that stands in s.
func (c *cursor) text(field byte, s *string) {
	b := c.optSized(field<<3 | bytesType)
	if *s == string(b) {
		return
	}
	if !utf8.Valid(b) {
		c.fail("a text is not UTF-8")
		return
	}
	*s = string(b)
}

func (c *cursor) change(m *Change, relations uint64) {
	op, relation := c.optVarint(1<<3|varintType), c.optVarint(2<<3|varintType)
	if op < uint64(Insert) || op > uint64(Delete) {
		c.fail("a change of unknown operation %d", op)
	}
	if relation >= relations {
		c.fail("a change names relation %d of %d", relation, relations)
	}
	m.Operation, m.Relation = Operation(op), uint32(relation)
	m.OldIsKey = c.optBool(3<<3 | varintType)
	m.HasOld = c.row(4, &m.Old)
	m.HasNew = c.row(5, &m.New)
	if m.HasNew != (m.Operation != Delete) || m.HasOld && m.Operation == Insert || !m.HasOld && (m.OldIsKey || m.Operation == Delete) {
		c.fail("a change whose rows do not fit its operation")
	}
}

// row reads a row if there is one.
func (c *cursor) row(field byte, row *Row) bool {
	if !c.next(field<<3 | bytesType) {
		*row = Row{}
		return false
	}
	data := c.sized()
	if c.err == nil {
		*row, c.err = parseRow(data)
	}
	return true
}

func (c *cursor) truncate(m *Truncate, relations uint64) {
	list := cursor{buf: c.optSized(1<<3 | bytesType)}
	m.Relations = m.Relations[:0]
	for list.more() {
		relation := list.uvarint()
		if relation >= relations {
			list.fail("a truncate names relation %d of %d", relation, relations)
			break
		}
		m.Relations = append(m.Relations, uint32(relation))
	}
	if c.err == nil {
		c.err = list.err
	}
	m.Cascade, m.RestartIdentity = c.optBool(2<<3|varintType), c.optBool(3<<3|varintType)
}

func (c *cursor) origin(m *Origin) {
	c.text(1, &m.ServerID)
	m.Position = change.Position{}
	if c.next(2<<3 | bytesType) {
		p := cursor{buf: c.sized()}
		if id := p.optSized(1<<3 | bytesType); id != nil {
			m.Position.LogID = p.logID(id)
		}
		m.Position.LSN = change.LSN(p.optVarint(2<<3 | varintType))
		if p.end("position"); p.err == nil && p.off == 0 {
			p.fail("an origin's position is empty but not left out")
		}
		if c.err == nil {
			c.err = p.err
		}
	}
	m.CommitTime = c.time(3)
	c.text(4, &m.Name)
}
