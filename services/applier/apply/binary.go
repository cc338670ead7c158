package apply

import (
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/jackc/pgx/v5/pgtype"
)

// Values in PostgreSQL's binary form, as elements of an array (array_send) or in COPY, are taken in with less work than as text.
// They are converted for the types below and enums only, and only from exactly the text that the type's output function gives: whatever
// else a value is, its column travels as text, in COPY with the whole table.

// binaryForm appends a value of a type in the form that the type's receive function takes. It reports false for a text that it
// does not know.
type binaryForm func(dst, text []byte) ([]byte, bool)

// binaryForms are by the OID of the type.
var binaryForms = map[uint32]binaryForm{
	pgtype.Int2OID: appendInteger(2), pgtype.Int4OID: appendInteger(4), pgtype.Int8OID: appendInteger(8),
	pgtype.TextOID: appendAsItIs, pgtype.VarcharOID: appendAsItIs, pgtype.BPCharOID: appendAsItIs, pgtype.JSONOID: appendAsItIs, pgtype.JSONBOID: appendJSONB,
	pgtype.BoolOID: appendBool, pgtype.UUIDOID: appendUUID, pgtype.ByteaOID: appendBytea,
	pgtype.NumericOID: appendNumeric, pgtype.Float4OID: appendFloat(32), pgtype.Float8OID: appendFloat(64),
	pgtype.DateOID: appendDate, pgtype.TimestampOID: appendTimestamp, pgtype.TimestamptzOID: appendTimestamptz,
}

// arrayHead is the size of what appendArrayHead appends.
const arrayHead = 20

// appendArrayHead appends what stands before the elements: dimensions, whether there are NULLs, type of the elements, their
// number, the first index. NULLs and number are left to finishArray.
func appendArrayHead(dst []byte, element uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, 1)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, element)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	return binary.BigEndian.AppendUint32(dst, 1)
}

func finishArray(array []byte, elements int, nulls bool) {
	if nulls {
		binary.BigEndian.PutUint32(array[4:], 1)
	}
	binary.BigEndian.PutUint32(array[12:], uint32(elements))
}

// appendBinaryElement appends an element with its length.
func appendBinaryElement(dst, text []byte, form binaryForm) ([]byte, bool) {
	at := len(dst)
	dst, ok := form(append(dst, 0, 0, 0, 0), text)
	size := len(dst) - at - 4
	if !ok || size > math.MaxInt32 {
		return dst[:at], false
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(size))
	return dst, true
}

func appendBinaryNull(dst []byte) []byte { return append(dst, 0xff, 0xff, 0xff, 0xff) }

func appendAsItIs(dst, text []byte) ([]byte, bool) { return append(dst, text...), true }

// appendJSONB appends version and text.
func appendJSONB(dst, text []byte) ([]byte, bool) {
	const version = 1
	return append(append(dst, version), text...), true
}

func appendBool(dst, text []byte) ([]byte, bool) {
	if len(text) != 1 || text[0] != 't' && text[0] != 'f' {
		return dst, false
	}
	return append(dst, boolByte(text[0] == 't')-'0'), true
}

func appendInteger(width int) binaryForm {
	smallest := int64(math.MinInt64) >> (64 - 8*width)
	return func(dst, text []byte) ([]byte, bool) {
		n, ok := parseInteger(text)
		if !ok || n < smallest || n > -(smallest+1) {
			return dst, false
		}
		var wide [8]byte
		binary.BigEndian.PutUint64(wide[:], uint64(n))
		return append(dst, wide[8-width:]...), true
	}
}

// parseInteger reads what int8out writes: no sign but a minus, no zero in front.
func parseInteger(text []byte) (int64, bool) {
	digits := text
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits = text[1:]
	}
	const longest = 19
	if len(digits) == 0 || len(digits) > longest {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return int64(-n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}

// appendUUID reads 8-4-4-4-12 hexadecimal digits.
func appendUUID(dst, text []byte) ([]byte, bool) {
	const size = 36
	if len(text) != size || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return dst, false
	}
	var digits [32]byte
	n := copy(digits[:], text[:8])
	n += copy(digits[n:], text[9:13])
	n += copy(digits[n:], text[14:18])
	n += copy(digits[n:], text[19:23])
	copy(digits[n:], text[24:])
	var id [16]byte
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return dst, false
	}
	return append(dst, id[:]...), true
}

// appendBytea reads \x and hexadecimal digits; the form is bytea_output's default.
func appendBytea(dst, text []byte) ([]byte, bool) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return dst, false
	}
	at := len(dst)
	dst, err := hex.AppendDecode(dst, text[2:])
	if err != nil {
		return dst[:at], false
	}
	return dst, true
}
