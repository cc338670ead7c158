package pgoutput

import (
	"encoding/binary"
	"fmt"
)

// Hand-made messages: enc('I', u32(oid), 'N', row(col...)).
type (
	u16 uint16
	u32 uint32
	u64 uint64
	str string // ends with a zero byte
)

type column struct {
	kind  byte
	value string
}

func text(s string) column { return column{ValueText, s} }

var null, unchanged = column{kind: ValueNull}, column{kind: ValueUnchanged}

// enc writes its parts one after the other as PostgreSQL does. A rune is a letter of one byte.
func enc(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case rune:
			b = append(b, byte(p))
		case byte:
			b = append(b, p)
		case u16:
			b = binary.BigEndian.AppendUint16(b, uint16(p))
		case u32:
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		case u64:
			b = binary.BigEndian.AppendUint64(b, uint64(p))
		case str:
			b = append(append(b, p...), 0)
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("enc: %T", p))
		}
	}
	return b
}

func row(cols ...column) []byte {
	b := enc(u16(len(cols)))
	for _, c := range cols {
		b = append(b, c.kind)
		if c.kind == ValueText || c.kind == ValueBinary {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(c.value))), c.value...)
		}
	}
	return b
}

func columns(t Tuple) []column {
	cols := []column{}
	for c := t.Columns(); c.More(); {
		kind, value := c.Next()
		cols = append(cols, column{kind, string(value)})
	}
	return cols
}

// encode writes what the decoder holds back as PostgreSQL would have. An ignored message has no fields to write.
func encode(d *Decoder, kind Kind) []byte {
	flag := func(b bool, f byte) byte {
		if b {
			return f
		}
		return 0
	}
	switch kind {
	case KindBegin:
		m := d.Begin
		return enc('B', u64(m.FinalLSN), u64(m.CommitTime), u32(m.XID))
	case KindCommit:
		m := d.Commit
		return enc('C', m.Flags, u64(m.CommitLSN), u64(m.EndLSN), u64(m.CommitTime))
	case KindOrigin:
		return enc('O', u64(d.Origin.CommitLSN), str(d.Origin.Name))
	case KindRelation:
		m := d.Relation
		b := enc('R', u32(m.OID), schema(m.Schema), str(m.Name), byte(m.Identity), u16(len(m.Columns)))
		for _, c := range m.Columns {
			b = enc(b, flag(c.Key, 1), str(c.Name), u32(c.TypeOID), u32(c.TypeModifier))
		}
		return b
	case KindType:
		return enc('Y', u32(d.Type.OID), schema(d.Type.Schema), str(d.Type.Name))
	case KindInsert:
		return enc('I', u32(d.Insert.RelationOID), 'N', row(columns(d.Insert.New)...))
	case KindUpdate:
		m := d.Update
		b := enc('U', u32(m.RelationOID))
		if m.OldKind != OldNone {
			b = enc(b, m.OldKind, row(columns(m.Old)...))
		}
		return enc(b, 'N', row(columns(m.New)...))
	case KindDelete:
		return enc('D', u32(d.Delete.RelationOID), d.Delete.OldKind, row(columns(d.Delete.Old)...))
	case KindTruncate:
		m := d.Truncate
		b := enc('T', u32(len(m.RelationOIDs)), flag(m.Cascade, 1)|flag(m.RestartIdentity, 2))
		for _, oid := range m.RelationOIDs {
			b = enc(b, u32(oid))
		}
		return b
	case KindMessage:
		m := d.Message
		return enc('M', flag(m.Transactional, 1), u64(m.LSN), str(m.Prefix), u32(len(m.Content)), m.Content)
	default:
		return nil
	}
}

// schema is the inverse of the reader's schema.
func schema(s string) str {
	if s == "pg_catalog" {
		return ""
	}
	return str(s)
}
