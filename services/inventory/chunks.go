package inventory

import (
	"bytes"
	"fmt"
)

// chunks sends the lines of a COPY, or the rows of a binary one, in pieces of at most size bytes. It keeps less than one piece;
// the line itself, however large, is sent from where it was received.
type chunks struct {
	size     int
	unescape bool // undo the escapes of COPY text
	binary   bool // the server's last message is no row
	send     func([]byte) error

	buf         []byte
	rows, bytes int64 // taken so far
}

// sendError is a failure of sending, as against one of PostgreSQL.
type sendError struct{ err error }

func (e *sendError) Error() string { return fmt.Sprintf("send rows: %v", e.err) }
func (e *sendError) Unwrap() error { return e.err }

// Write takes one line, which is one CopyData message of the server. It may change the line.
func (c *chunks) Write(line []byte) (int, error) {
	taken := len(line)
	if c.unescape {
		line = unescapeJSON(line)
	}
	if !c.binary || !isTrailer(line) {
		c.rows++
	}
	c.bytes += int64(len(line))
	for len(c.buf)+len(line) >= c.size {
		piece := line[:c.size-len(c.buf)]
		line = line[len(piece):]
		if len(c.buf) > 0 {
			c.buf = append(c.buf, piece...)
			piece = c.buf
		}
		if err := c.send(piece); err != nil {
			return 0, &sendError{err}
		}
		c.buf = c.buf[:0]
	}
	if c.buf == nil {
		c.buf = make([]byte, 0, c.size)
	}
	c.buf = append(c.buf, line...)
	return taken, nil
}

// isTrailer tells whether a message of a binary COPY is its end: a field count of -1, where a row has its own, after the header of
// 19 bytes if there were no rows. (The header comes with the first row, of which at least the field count follows.)
func isTrailer(message []byte) bool {
	const header = 19
	n := len(message)
	return (n == 2 || n == header+2 && bytes.HasPrefix(message, []byte("PGCOPY\n\xff\r\n\x00"))) && message[n-2] == 0xff && message[n-1] == 0xff
}

// flush sends what is left.
func (c *chunks) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	if err := c.send(c.buf); err != nil {
		return &sendError{err}
	}
	c.buf = c.buf[:0]
	return nil
}

// unescapeJSON undoes in place what COPY's text format did to a line that is one JSON value. A backslash was doubled. Line
// breaks and tabs, which the json type keeps as they were written, became two letters; they can only stand between the
// value's parts, never within a string, so a space means the same and leaves the value on its one line.
func unescapeJSON(line []byte) []byte {
	in := bytes.IndexByte(line, '\\')
	if in < 0 {
		return line
	}
	out := in
	for in < len(line) {
		if line[in] == '\\' && in+1 < len(line) {
			in++
			if line[in] == '\\' {
				line[out] = '\\'
			} else {
				line[out] = ' '
			}
			in++
			out++
			continue
		}
		next := bytes.IndexByte(line[in+1:], '\\') + in + 1
		if next <= in {
			next = len(line)
		}
		out += copy(line[out:], line[in:next])
		in = next
	}
	return line[:out]
}
