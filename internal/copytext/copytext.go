// Package copytext writes and reads rows in the text format of PostgreSQL's COPY. What Append writes Parse reads as it was, and
// PostgreSQL too. A nil value is NULL.
package copytext

import (
	"bytes"
	"errors"
)

// ErrMalformed says that a line is none of COPY's text format.
var ErrMalformed = errors.New("malformed line of COPY")

// Append appends one row as a line, with the newline that ends it.
func Append(dst []byte, values [][]byte) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, '\t')
		}
		if v == nil {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = escape(dst, v)
	}
	return append(dst, '\n')
}

// escape escapes what the format gives a meaning to.
func escape(dst, text []byte) []byte {
	start := 0
	for i, c := range text {
		var escaped byte
		switch c {
		case '\\':
			escaped = '\\'
		case '\n':
			escaped = 'n'
		case '\r':
			escaped = 'r'
		case '\t':
			escaped = 't'
		default:
			continue
		}
		dst = append(dst, text[start:i]...)
		dst = append(dst, '\\', escaped)
		start = i + 1
	}
	return append(dst, text[start:]...)
}

// Parse reads one line, without its newline, as Append writes it. The values are of their own memory.
func Parse(line []byte) ([][]byte, error) {
	fields := bytes.Split(line, []byte{'\t'})
	for i, field := range fields {
		if bytes.Equal(field, []byte(`\N`)) {
			fields[i] = nil
			continue
		}
		value, err := unescape(field)
		if err != nil {
			return nil, err
		}
		fields[i] = value
	}
	return fields, nil
}

func unescape(field []byte) ([]byte, error) {
	value := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		c := field[i]
		if c == '\n' || c == '\r' {
			return nil, ErrMalformed
		}
		if c != '\\' {
			value = append(value, c)
			continue
		}
		i++
		if i == len(field) {
			return nil, ErrMalformed
		}
		switch field[i] {
		case '\\':
			c = '\\'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		default:
			return nil, ErrMalformed
		}
		value = append(value, c)
	}
	return value, nil
}
