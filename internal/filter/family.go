package filter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// family is a kind of types that are compared in one way.
type family int

const (
	familyOther family = iota // by the text that PostgreSQL prints, and only for being equal or matching
	familyBool
	familyInteger
	familyNumeric
	familyFloat4
	familyFloat8
	familyText
	familyPadded // character(n), whose trailing blanks mean nothing
	familyUUID
	familyDate
	familyTimestamp
	familyTimestampTZ
)

// families has the types by PostgreSQL's own OIDs (pg_type.dat). All others are familyOther.
var families = map[uint32]family{
	16: familyBool, 20: familyInteger, 21: familyInteger, 23: familyInteger, oidOID: familyInteger, 1700: familyNumeric,
	700: familyFloat4, 701: familyFloat8, 25: familyText, 1043: familyText, 19: familyText, 1042: familyPadded, 2950: familyUUID,
	1082: familyDate, 1114: familyTimestamp, 1184: familyTimestampTZ,
}

const oidOID = 26

// unsettled are types whose text names things of the database, or a role, and changes with those: reg*, aclitem, and arrays of them.
var unsettled = []uint32{
	24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191, 1033,
	1008, 2207, 2208, 2209, 2210, 2211, 4097, 4090, 3735, 3770, 4192, 1034,
}

// takes says what a constant for the family is.
func (f family) takes() string {
	switch f {
	case familyBool:
		return "true or false"
	case familyInteger:
		return "a number such as 18"
	case familyNumeric, familyFloat4, familyFloat8:
		return `a number such as 18.5, or "NaN", "Infinity" or "-Infinity"`
	case familyUUID:
		return `a string such as "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`
	case familyDate:
		return `a string such as "2026-01-31", "0044-03-15 BC" or "infinity"`
	case familyTimestamp:
		return `a string such as "2026-01-31" or "2026-01-31 12:00:00.5", without a zone`
	case familyTimestampTZ:
		return `a string with a zone, such as "2026-01-31T12:00:00Z" or "2026-01-31 12:00:00.5+01:00"`
	case familyOther:
		return "a string that is the text which PostgreSQL prints"
	}
	return "a string"
}

// ordered tells whether $gt and its like can be asked.
func (f family) ordered() bool { return f != familyOther }

// texts tells whether $regex can be asked.
func (f family) texts() bool { return f == familyText || f == familyPadded || f == familyOther }

// scalar is a value or an operand, read. Which of its parts is set follows from the family. It may point into the text that
// it was read from.
type scalar struct {
	text   []byte
	number decimal
	float  float64
	moment moment
}

// compare orders two scalars of one family.
func (f family) compare(a, b *scalar) int {
	switch f {
	case familyInteger, familyNumeric:
		return a.number.compare(b.number)
	case familyFloat4, familyFloat8:
		return compareFloats(a.float, b.float)
	case familyDate, familyTimestamp, familyTimestampTZ:
		return a.moment.compare(b.moment)
	}
	return bytes.Compare(a.text, b.text)
}

// compareFloats orders as PostgreSQL does: NaN is equal to itself and greater than all others.
func compareFloats(a, b float64) int {
	if math.IsNaN(a) || math.IsNaN(b) {
		return -cmp.Compare(a, b) // cmp has NaN before all others
	}
	return cmp.Compare(a, b)
}

// read reads a row's value. It allocates nothing.
func (f family) read(text []byte) (s scalar, ok bool) {
	s.text = text
	switch f {
	case familyBool:
		return s, string(text) == "f" || string(text) == "t"
	case familyInteger:
		s.number, ok = readPlain(text, false)
		return s, ok
	case familyNumeric:
		if s.number, ok = readSpecial(text); !ok {
			s.number, ok = readPlain(text, true)
		}
		return s, ok
	case familyFloat4:
		s.float, ok = readFloat(text, 32)
		return s, ok
	case familyFloat8:
		s.float, ok = readFloat(text, 64)
		return s, ok
	case familyPadded:
		s.text = bytes.TrimRight(text, " ")
	case familyUUID:
		return s, isUUID(text)
	case familyDate, familyTimestamp, familyTimestampTZ:
		s.moment, ok = readMoment(text, f.momentForm(false))
		return s, ok
	}
	return s, true
}

func (f family) momentForm(loose bool) momentForm {
	return momentForm{time: f != familyDate, zone: f == familyTimestampTZ, loose: loose}
}

// readFloat reads what PostgreSQL prints for a float. The width says how many bits the column has.
func readFloat(text []byte, width int) (float64, bool) {
	if d, special := readSpecial(text); special {
		switch d.order {
		case infinity:
			return math.Inf(1), true
		case minusInfinity:
			return math.Inf(-1), true
		}
		return math.NaN(), true
	}
	for _, c := range text {
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' {
			return 0, false // what strconv reads beyond that: hexadecimal digits, underscores, names
		}
	}
	f, err := strconv.ParseFloat(string(text), width)
	return f, err == nil
}

func isUUID(text []byte) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range text {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// constant reads a constant of a selector.
func (f family) constant(o operand) (scalar, error) {
	kind := jsonString
	switch f {
	case familyBool:
		kind = jsonBool
	case familyInteger:
		kind = jsonNumber
	case familyNumeric, familyFloat4, familyFloat8:
		kind = jsonNumber
		if _, special := readSpecial([]byte(o.text)); special {
			kind = jsonString
		}
	}
	if o.kind != kind {
		return scalar{}, fmt.Errorf("takes %s; got %s", f.takes(), jsonValue{kind: o.kind, text: o.text}.shown())
	}
	return f.operand(o.text)
}

// operand reads a constant's or a parameter's text.
func (f family) operand(text string) (s scalar, err error) {
	if strings.Contains(text, "\x00") {
		return s, errors.New(`takes no text with the character U+0000, which no text of PostgreSQL holds`)
	}
	if !utf8.ValidString(text) {
		return s, errors.New("takes text in UTF-8 only")
	}
	s.text = []byte(text)
	wrong := fmt.Errorf("takes %s; got %s", f.takes(), shown(text))
	switch f {
	case familyBool:
		if text != "true" && text != "false" {
			return s, wrong
		}
		s.text = s.text[:1] // as PostgreSQL prints it
	case familyInteger, familyNumeric, familyFloat4, familyFloat8:
		special := false
		if f != familyInteger {
			s.number, special = readSpecial(s.text)
		}
		if !special {
			if s.number, err = readNumber(s.text); errors.Is(err, errNotNumber) {
				return s, wrong
			} else if err != nil {
				return s, err
			}
		}
		if f == familyFloat4 || f == familyFloat8 {
			return f.floatOperand(s)
		}
	case familyPadded:
		s.text = bytes.TrimRight(s.text, " ")
	case familyUUID:
		if s.text = bytes.ToLower(s.text); !isUUID(s.text) {
			return s, wrong
		}
	case familyDate, familyTimestamp, familyTimestampTZ:
		var ok bool
		if s.moment, ok = readMoment(s.text, f.momentForm(true)); !ok {
			return s, wrong
		}
	}
	return s, nil
}

// floatOperand rounds a number to the nearest that the column can hold, as PostgreSQL does with a constant of the column's type.
func (f family) floatOperand(s scalar) (scalar, error) {
	width := 64
	if f == familyFloat4 {
		width = 32
	}
	text := s.number.String()
	value, ok := readFloat([]byte(text), width)
	if !ok || value == 0 && s.number.sign() != 0 {
		return s, fmt.Errorf("takes a number that %d bits can hold; got %s", width, text[:min(len(text), 80)])
	}
	s.float = value
	return s, nil
}

// familyOf chooses the family of a column.
func familyOf(c Column) (family, error) {
	if c.TypeOID == 0 {
		return 0, errors.New("its type is not known")
	}
	if slices.Contains(unsettled, c.TypeOID) {
		return 0, fmt.Errorf("is %s: its text changes when what it names is renamed, so that rows cannot be selected by it", c.typeName())
	}
	return families[c.TypeOID], nil
}

func (c Column) typeName() string {
	if c.Type != "" {
		return c.Type
	}
	return fmt.Sprintf("of the type with OID %d", c.TypeOID)
}
