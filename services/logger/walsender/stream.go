package walsender

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/seed0419d559/syncline/internal/change"
)

// framed passes bytes on, never more at a time than up to the end of the current message. So whoever reads ahead from it
// holds nothing of the message after the one that was asked for.
type framed struct {
	source io.Reader
	header [headerBytes]byte
	have   int // bytes of the header that were passed on
	left   int // bytes of the body that were not
}

const headerBytes = 1 + 4 // type, length of what follows the type

func (f *framed) Read(p []byte) (int, error) {
	if f.left > 0 {
		n, err := f.source.Read(p[:min(len(p), f.left)])
		f.left -= n
		return n, err //nolint:wrapcheck // a reader passes errors on
	}
	n, err := f.source.Read(p[:min(len(p), headerBytes-f.have)])
	f.have += copy(f.header[f.have:], p[:n])
	if f.have == headerBytes {
		f.have = 0
		f.left = max(0, int(binary.BigEndian.Uint32(f.header[1:]))-4)
	}
	return n, err //nolint:wrapcheck // a reader passes errors on
}

// Message is one message of the stream.
type Message struct {
	// WALStart is, of a message of the output plugin, where what it is about stands in the WAL.
	WALStart change.LSN
	// WALEnd is, of a keepalive, how far the server has read and sent: every transaction that committed up to here and
	// that the stream is for stands before the keepalive.
	WALEnd change.LSN
	// ReplyRequested says that the server wants a status update now.
	ReplyRequested bool
	// Data is the output plugin's message, nil for a keepalive. It is valid until the next call of Receive.
	Data []byte
}

// TooLargeError says that a message is larger than this session takes. The session can only be closed after it.
type TooLargeError struct {
	// Bytes is the size of the message.
	Bytes int64
	// WALStart is that of the Message.
	WALStart change.LSN
	// Body reads the output plugin's message, as long as the session is open.
	Body io.Reader
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("receive: the message has %d bytes, more than allowed", e.Bytes)
}

// ErrStreamEnded says that the server ended the stream in good order: it is being shut down.
var ErrStreamEnded = errors.New("the server ended the stream")

const (
	bufferBytes = 256 << 10
	// largeKept is how many smaller messages pass until the buffer of a large one is given back.
	largeKept = 64
	dataHead  = 1 + 8 + 8 + 8 // 'w', start and end of WAL, time
	aliveHead = 1 + 8 + 8 + 1 // 'k', end of WAL, time, reply requested
)

// stream reads messages into one buffer, and those that do not fit into one of their own.
type stream struct {
	source   lowWater
	local    gatherer // nil: a connection of another kind
	max      int
	buf      []byte
	from, to int
	large    []byte
	since    int // messages since large was last needed
	last     int // size of the last message
	pace     pacer
}

// Receive returns the next message. It blocks until there is one, the session ends or Close is called.
func (c *Conn) Receive() (Message, error) {
	for {
		kind, body, err := c.stream.next()
		if err != nil {
			return Message{}, err
		}
		switch kind {
		case 'd':
			if message, known, err := parse(body); known || err != nil {
				return message, err
			}
		case 'E':
			var response pgproto3.ErrorResponse
			if err := response.Decode(body); err != nil {
				return Message{}, fmt.Errorf("receive: %w", err)
			}
			return Message{}, fmt.Errorf("receive: %w", pgconn.ErrorResponseToPgError(&response))
		case 'N', 'S', 'A':
		case 'c', 'C', 'Z':
			return Message{}, fmt.Errorf("receive: %w", ErrStreamEnded)
		default:
			return Message{}, fmt.Errorf("receive: unexpected message type %q", kind)
		}
	}
}

func parse(body []byte) (m Message, known bool, err error) {
	switch {
	case len(body) >= dataHead && body[0] == 'w':
		return Message{
			WALStart: change.LSN(binary.BigEndian.Uint64(body[1:])), WALEnd: change.LSN(binary.BigEndian.Uint64(body[9:])), Data: body[dataHead:],
		}, true, nil
	case len(body) == aliveHead && body[0] == 'k':
		return Message{WALEnd: change.LSN(binary.BigEndian.Uint64(body[1:])), ReplyRequested: body[aliveHead-1] != 0}, true, nil
	case len(body) == 0 || body[0] == 'w' || body[0] == 'k':
		return Message{}, false, fmt.Errorf("receive: malformed message of %d bytes", len(body))
	}
	return Message{}, false, nil
}

// next returns the next message's type and body, which is valid until the next call.
func (s *stream) next() (kind byte, body []byte, err error) {
	if s.buf == nil {
		s.buf = make([]byte, bufferBytes)
	}
	if err := s.fill(headerBytes); err != nil {
		return 0, nil, err
	}
	kind = s.buf[s.from]
	length := int64(binary.BigEndian.Uint32(s.buf[s.from+1:])) - 4
	if length < 0 {
		return 0, nil, fmt.Errorf("receive: message of type %q has a length below zero", kind)
	}
	s.from += headerBytes
	if length > int64(s.max) {
		return 0, nil, s.tooLarge(length)
	}
	size := int(length)
	s.last = size
	if size > len(s.buf) {
		body, err = s.nextLarge(size)
		return kind, body, err
	}
	if s.large != nil {
		if s.since++; s.since > largeKept {
			s.large = nil
		}
	}
	if err := s.fill(size); err != nil {
		return 0, nil, err
	}
	body = s.buf[s.from : s.from+size : s.from+size]
	s.from += size
	return kind, body, nil
}

func (s *stream) nextLarge(size int) ([]byte, error) {
	s.since = 0
	if cap(s.large) < size {
		s.large = nil // so that the old one can go before the new one comes
		s.large = make([]byte, size)
	}
	body := s.large[:size]
	n := copy(body, s.buf[s.from:s.to])
	s.from += n
	if _, err := io.ReadFull(&s.source, body[n:]); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return body, nil
}

func (s *stream) tooLarge(length int64) error {
	body := io.LimitReader(io.MultiReader(&rest{s}, &s.source), length)
	var head [dataHead]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return &TooLargeError{Bytes: length, WALStart: change.LSN(binary.BigEndian.Uint64(head[1:])), Body: body}
}

// rest reads what the buffer still holds.
type rest struct{ s *stream }

func (r *rest) Read(p []byte) (int, error) {
	n := copy(p, r.s.buf[r.s.from:r.s.to])
	if r.s.from += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// fill makes at least n bytes stand in the buffer; n is at most its size.
func (s *stream) fill(n int) error {
	if s.to-s.from >= n {
		return nil
	}
	if s.from == s.to {
		s.from, s.to = 0, 0
		if s.pace.due {
			s.narrow()
		}
		s.pace.before()
	} else if s.from+n > len(s.buf) {
		s.to = copy(s.buf, s.buf[s.from:s.to])
		s.from = 0
	}
	for s.to-s.from < n {
		read, err := s.source.Read(s.buf[s.to:])
		s.to += read
		s.pace.after(read, s.last)
		s.source.busy = s.pace.busy
		if err != nil && s.to-s.from < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("receive: %w", err)
		}
	}
	return nil
}

// narrow keeps the window small.
func (s *stream) narrow() {
	s.pace.narrow = s.local != nil && s.local.narrow()
}

func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }
