package compare

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const readBuffer = 256 << 10

// stream reads the sorted rows of one side, as groups of rows with the same key. PostgreSQL lets no group of a keyed
// table have a second row, but a damaged copy without the key may: of such a group only the first row is kept.
type stream struct {
	fields int // in the key
	pipe   *io.PipeReader
	lines  *bufio.Reader

	// The group that the stream stands at.
	end   bool
	key   [][]byte // unescaped
	line  []byte   // the first row, as COPY wrote it
	count int64

	ahead    []byte // the line after the group
	hasAhead bool
	rows     int64 // seen so far
}

func newStream(ctx context.Context, group *errgroup.Group, conn *pgx.Conn, p plan, t table) *stream {
	r, w := io.Pipe()
	s := &stream{fields: max(1, len(p.order)), pipe: r, lines: bufio.NewReaderSize(r, readBuffer)}
	sql := p.query(t)
	group.Go(func() error {
		buffered := bufio.NewWriterSize(w, readBuffer)
		_, err := conn.PgConn().CopyTo(ctx, buffered, sql)
		if err == nil {
			err = buffered.Flush()
		}
		w.CloseWithError(err)
		if errors.Is(err, errStopped) {
			return nil // the merge ended first, and says why
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		return nil
	})
	return s
}

var errStopped = errors.New("reader stopped")

// stop lets the goroutine that fills the stream end, also when not everything was read.
func (s *stream) stop() { s.pipe.CloseWithError(errStopped) }

// next steps to the next group, or sets end.
func (s *stream) next() error {
	if s.rows == 0 {
		if err := s.readLine(); err != nil {
			return err
		}
	}
	if !s.hasAhead {
		s.end = true
		return nil
	}
	s.line, s.ahead = s.ahead, s.line
	var err error
	if s.key, err = splitFields(s.key[:0], s.line, s.fields); err != nil {
		return err
	}
	s.count = 1
	rowKey := len(rawKey(s.line, s.fields))
	for {
		if err := s.readLine(); err != nil {
			return err
		}
		if !s.hasAhead || !bytes.Equal(rawKey(s.ahead, s.fields), s.line[:rowKey]) {
			return nil
		}
		s.count++
	}
}

// readLine reads into ahead, whose memory is used again.
func (s *stream) readLine() error {
	s.ahead, s.hasAhead = s.ahead[:0], false
	for {
		part, err := s.lines.ReadSlice('\n')
		s.ahead = append(s.ahead, part...)
		switch {
		case err == nil:
			s.ahead = s.ahead[:len(s.ahead)-1]
			s.hasAhead = true
			s.rows++
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(s.ahead) == 0:
			return nil
		default:
			return fmt.Errorf("read rows: %w", err)
		}
	}
}

// rawKey is the part of a COPY line that holds the first n fields.
func rawKey(line []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(line[end:], '\t')
		if i < 0 {
			return line
		}
		end += i + 1
	}
	return line[:end]
}

// splitFields appends the first n fields of a COPY line, unescaped.
func splitFields(fields [][]byte, line []byte, n int) ([][]byte, error) {
	for range n {
		field, rest, more := bytes.Cut(line, []byte{'\t'})
		fields = append(fields, unescape(field))
		if !more && len(fields) < n {
			return nil, fmt.Errorf("read rows: line with %d fields, expected at least %d", len(fields), n)
		}
		line = rest
	}
	return fields, nil
}

// unescape undoes what COPY TO does in text format. A null stays \N.
func unescape(field []byte) []byte {
	if bytes.IndexByte(field, '\\') < 0 || string(field) == `\N` {
		return field
	}
	out := make([]byte, 0, len(field))
	for i := 0; i < len(field); i++ {
		if field[i] != '\\' || i+1 == len(field) {
			out = append(out, field[i])
			continue
		}
		i++
		switch field[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		default:
			out = append(out, field[i])
		}
	}
	return out
}
