package apply

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

const (
	notANumber    = "NaN"
	infinity      = "infinity" // of dates and times; numbers begin with a capital
	minusInfinity = "-infinity"
)

// nan is the NaN that PostgreSQL makes; Go's has another payload.
var nan = math.Float64frombits(0x7ff8000000000000)

// appendFloat reads what float4out and float8out write: the shortest digits that give the same bits again.
func appendFloat(bits int) binaryForm {
	return func(dst, text []byte) ([]byte, bool) {
		f, ok := parseFloat(text, bits)
		switch {
		case !ok:
			return dst, false
		case bits == 32:
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(f))), true
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), true
	}
}

func parseFloat(text []byte, bits int) (float64, bool) {
	switch string(text) {
	case notANumber:
		return nan, true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	for _, c := range text {
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(string(text), bits)
	if digits, _, _ := bytes.Cut(text, []byte("e")); f == 0 && bytes.ContainsAny(digits, "123456789") {
		return 0, false // too small for the type: the server refuses it, as it should
	}
	return f, err == nil
}

// Numbers of any size have four decimal digits in each digit of their binary form.
const (
	numericBase  = 4
	numericHead  = 8
	mostIntegral = 131072 // digits before the point
	mostScale    = 16383  // digits after it

	numericNegative = 0x4000
	numericNaN      = 0xc000
)

// appendNumeric reads what numeric_out writes: digits with a point or without one, never an exponent. Infinity stays text.
func appendNumeric(dst, text []byte) ([]byte, bool) {
	if string(text) == notANumber {
		return appendNumericHead(dst, 0, 0, numericNaN, 0), true
	}
	var sign uint16
	if len(text) > 0 && text[0] == '-' {
		sign, text = numericNegative, text[1:]
	}
	integral := 0
	for integral < len(text) && text[integral] != '.' {
		integral++
	}
	var fraction []byte
	if integral < len(text) {
		if fraction = text[integral+1:]; len(fraction) == 0 {
			return dst, false
		}
	}
	if integral == 0 || integral > mostIntegral || len(fraction) > mostScale {
		return dst, false
	}
	at := len(dst)
	dst = appendNumericHead(dst, 0, 0, 0, 0)
	digits := at + numericHead
	var ok bool
	if dst, ok = appendNumericDigits(dst, digits, text[:integral], integral%numericBase); !ok {
		return dst[:at], false
	}
	whole := len(dst)
	weight := (whole-digits)/2 - 1 // of the first digit, if the integral part is not 0
	if dst, ok = appendNumericDigits(dst, digits, fraction, 0); !ok {
		return dst[:at], false
	}
	if whole == digits && len(dst) > digits {
		// Digits of 0 in front of the fraction's first were left out.
		weight -= (len(fraction)+numericBase-1)/numericBase - (len(dst)-digits)/2
	}
	for len(dst) > digits && dst[len(dst)-1] == 0 && dst[len(dst)-2] == 0 {
		dst = dst[:len(dst)-2]
	}
	if len(dst) == digits {
		weight, sign = 0, 0
	}
	appendNumericHead(dst[:at], (len(dst)-digits)/2, weight, sign, len(fraction))
	return dst, true
}

func appendNumericHead(dst []byte, digits, weight int, sign uint16, scale int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(digits))
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(weight)))
	dst = binary.BigEndian.AppendUint16(dst, sign)
	return binary.BigEndian.AppendUint16(dst, uint16(scale))
}

// appendNumericDigits appends decimal digits, four at a time, the first ones of them, if any, by themselves. Those of 0 that nothing
// but the head stands before are left out.
func appendNumericDigits(dst []byte, head int, text []byte, first int) ([]byte, bool) {
	for len(text) > 0 {
		size := numericBase
		if first > 0 {
			size, first = first, 0
		}
		n := 0
		for i := range size {
			c := byte('0') // a fraction goes on with zeros
			if i < len(text) {
				c = text[i]
			}
			if c < '0' || c > '9' {
				return dst, false
			}
			n = n*10 + int(c-'0')
		}
		if n != 0 || len(dst) > head {
			dst = binary.BigEndian.AppendUint16(dst, uint16(n))
		}
		text = text[min(size, len(text)):]
	}
	return dst, true
}
