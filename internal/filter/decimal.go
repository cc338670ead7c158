package filter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The places that PostgreSQL's numeric has before and after the point.
const (
	maxPlacesBefore = 131072
	maxPlacesAfter  = 16383
)

// order places the special values of numeric around the finite ones, as PostgreSQL sorts them.
type order int8

const (
	minusInfinity order = iota - 1
	finite
	infinity
	notANumber
)

// decimal is a number by its digits, exact however many there are. It points into the text that it was read from.
type decimal struct {
	order    order
	negative bool
	// digits are those of a finite number, from the first that is not 0 to the last that is not 0; a point may stand between
	// them. Zero has none.
	digits []byte
	// point is the place of the decimal point, counted in digits from the first one: 0.00123 has -2, 123 has 3.
	point int
}

// readSpecial reads the names that PostgreSQL prints for what is not finite.
func readSpecial(text []byte) (decimal, bool) {
	switch string(text) {
	case "NaN":
		return decimal{order: notANumber}, true
	case "Infinity":
		return decimal{order: infinity}, true
	case "-Infinity":
		return decimal{order: minusInfinity}, true
	}
	return decimal{}, false
}

// readPlain reads digits that may have a sign before, and a point between them, as PostgreSQL prints integers and numeric. It
// allocates nothing.
func readPlain(text []byte, fraction bool) (d decimal, ok bool) {
	if len(text) > 0 && text[0] == '-' {
		d.negative, text = true, text[1:]
	}
	point := len(text)
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9':
		case c == '.' && fraction && point == len(text) && i > 0 && i < len(text)-1:
			point = i
		default:
			return d, false
		}
	}
	if len(text) == 0 {
		return d, false
	}
	first := 0
	for first < len(text) && (text[first] == '0' || text[first] == '.') {
		first++
	}
	last := len(text)
	for last > first && (last > point && text[last-1] == '0' || text[last-1] == '.' || last <= point && text[last-1] == '0') {
		last--
	}
	d.digits = text[first:last]
	switch {
	case len(d.digits) == 0:
		d.negative = false // PostgreSQL has one zero
	case first < point:
		d.point = point - first
	default:
		d.point = point + 1 - first
	}
	return d, true
}

// compare orders two numbers as PostgreSQL does: NaN is equal to itself and greater than all others.
func (d decimal) compare(other decimal) int {
	if d.order != other.order || d.order != finite {
		return cmp.Compare(d.order, other.order)
	}
	if sign, of := d.sign(), other.sign(); sign != of || sign == 0 {
		return cmp.Compare(sign, of)
	}
	c := d.compareSize(other)
	if d.negative {
		return -c
	}
	return c
}

func (d decimal) sign() int {
	switch {
	case len(d.digits) == 0:
		return 0
	case d.negative:
		return -1
	}
	return 1
}

// compareSize compares two numbers that are not zero, without their signs.
func (d decimal) compareSize(other decimal) int {
	if d.point != other.point {
		return cmp.Compare(d.point, other.point)
	}
	a, b := d.digits, other.digits
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == '.':
			a = a[1:]
		case b[0] == '.':
			b = b[1:]
		case a[0] != b[0]:
			return cmp.Compare(a[0], b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return cmp.Compare(len(a), len(b)) // the last digit is not 0, so what is longer is greater
}

var errNotNumber = errors.New("a number is written as in JSON, such as -12.5 or 1e6")

// readNumber reads a number as JSON writes it, and refuses one that numeric cannot hold.
func readNumber(text []byte) (decimal, error) {
	mantissa, exponent, scientific := text, 0, false
	if at := bytes.IndexAny(text, "eE"); at >= 0 {
		mantissa, scientific = text[:at], true
		power := strings.TrimPrefix(string(text[at+1:]), "+")
		if strings.Trim(strings.TrimPrefix(power, "-"), "0123456789") != "" || strings.TrimPrefix(power, "-") == "" || len(text)-at > len(power)+2 {
			return decimal{}, errNotNumber
		}
		var err error
		if exponent, err = strconv.Atoi(power); err != nil || exponent > 1<<30 || exponent < -1<<30 {
			exponent = 1 << 30 // which is out of bounds in both directions
		}
	}
	d, ok := readPlain(mantissa, true)
	if !ok {
		return decimal{}, errNotNumber
	}
	if len(d.digits) == 0 {
		return d, nil
	}
	d.digits = bytes.ReplaceAll(d.digits, []byte("."), nil)
	d.digits = bytes.TrimRight(d.digits, "0")
	if scientific {
		d.point += exponent
	}
	if d.point > maxPlacesBefore || len(d.digits)-d.point > maxPlacesAfter {
		return decimal{}, fmt.Errorf("the number has more places than numeric, which has %d before and %d after the point",
			maxPlacesBefore, maxPlacesAfter)
	}
	return d, nil
}

// String prints a finite number in one form, which JSON and PostgreSQL read: plain where that is short, else as digits with an
// exponent.
func (d decimal) String() string {
	const plain = 20
	digits := string(bytes.ReplaceAll(d.digits, []byte("."), nil))
	zeros := d.point - len(digits)
	sign := ""
	if d.negative {
		sign = "-"
	}
	switch {
	case d.order == notANumber:
		return "NaN"
	case d.order == infinity:
		return "Infinity"
	case d.order == minusInfinity:
		return "-Infinity"
	case digits == "":
		return "0"
	case zeros >= 0 && zeros <= plain:
		return sign + digits + strings.Repeat("0", zeros)
	case zeros < 0 && d.point > 0:
		return sign + digits[:d.point] + "." + digits[d.point:]
	case zeros < 0 && d.point > -plain:
		return sign + "0." + strings.Repeat("0", -d.point) + digits
	}
	return sign + digits + "e" + strconv.Itoa(zeros)
}

// whole tells whether the number is an integer that int8 holds.
func (d decimal) whole() bool {
	if d.order != finite || d.point < len(d.digits) || d.point > 19 {
		return len(d.digits) == 0 && d.order == finite
	}
	_, err := strconv.ParseInt(d.String(), 10, 64)
	return err == nil
}
