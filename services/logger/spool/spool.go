// Package spool keeps transactions that the primary sends before they end, each in a file, until they have ended. Nothing of it is
// durable or has to be: what is lost with the process is sent again. The files have no names, so nothing is left of them.
package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

const (
	// bufferBytes of a transaction are in memory.
	bufferBytes = 256 << 10
	headerBytes = 4 + 8 // length of the message, LSN
	prefix      = "transaction-"
)

var (
	// ErrOrder says that the server sent pieces of transactions in an order that cannot be: the stream cannot be trusted.
	ErrOrder = errors.New("pieces of a transaction came out of order")
	// ErrWhole says that a transaction must not be taken in pieces: it alters tables, or part of it was rolled back. PostgreSQL decodes what
	// comes then with what the catalogs are in the middle of the transaction, and that does not always go well.
	ErrWhole = errors.New("a transaction cannot be taken in pieces")
)

// Spool keeps the transactions of one session. It is for one goroutine, but for Bytes.
type Spool struct {
	dir     string
	open    map[uint32]*Transaction
	current *Transaction // that of the piece that is open
	bytes   atomic.Int64
}

// New makes a spool in a directory of its own, which it makes if need be.
func New(dir string) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for open transactions: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, prefix+"*")) // of a crash just after one was made
	if err != nil {
		return nil, fmt.Errorf("look for files of open transactions: %w", err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return nil, fmt.Errorf("remove file of an open transaction: %w", err)
		}
	}
	return &Spool{dir: dir, open: map[uint32]*Transaction{}}, nil
}

// Close drops all transactions.
func (s *Spool) Close() {
	for _, t := range s.open {
		t.Close()
	}
	clear(s.open)
	s.current = nil
}

// Bytes is how much is kept.
func (s *Spool) Bytes() int64 { return s.bytes.Load() }

// Inside tells whether a piece is open.
func (s *Spool) Inside() bool { return s.current != nil }

// Start opens a piece of a transaction.
func (s *Spool) Start(xid uint32, first bool) error {
	t := s.open[xid]
	switch {
	case s.current != nil:
		return fmt.Errorf("%w: a piece of transaction %d begins inside one of %d", ErrOrder, xid, s.current.xid)
	case first && t != nil, !first && t == nil:
		return fmt.Errorf("%w: a piece of transaction %d begins, its first: %v", ErrOrder, xid, first)
	case first:
		file, err := os.CreateTemp(s.dir, prefix)
		if err != nil {
			return fmt.Errorf("keep open transaction: %w", err)
		}
		if err := os.Remove(file.Name()); err != nil {
			return errors.Join(fmt.Errorf("keep open transaction: %w", err), file.Close())
		}
		t = &Transaction{xid: xid, file: file, total: &s.bytes, described: map[uint32]bool{}}
		s.open[xid] = t
	}
	s.current = t
	return nil
}

// Add takes a message of the open piece, which stands at an LSN.
func (s *Spool) Add(message []byte, at change.LSN) error {
	if s.current == nil {
		return fmt.Errorf("%w: a message outside of a piece", ErrOrder)
	}
	return s.current.add(message, at)
}

// Stop closes the piece.
func (s *Spool) Stop() error {
	if s.current == nil {
		return fmt.Errorf("%w: the end of a piece that was not begun", ErrOrder)
	}
	s.current = nil
	return nil
}

// Abort drops a transaction that was rolled back. Of one that is not known nothing was sent. When it was a subtransaction only, the
// transaction is spoiled, unless it is rolled back itself.
func (s *Spool) Abort(xid, subxid uint32) error {
	t := s.open[xid]
	switch {
	case s.current != nil:
		return fmt.Errorf("%w: transaction %d was rolled back inside of a piece of %d", ErrOrder, xid, s.current.xid)
	case t == nil:
		return nil
	case subxid != xid:
		return t.spoil("a part of it was rolled back")
	}
	delete(s.open, xid)
	t.Close()
	return nil
}

// Commit gives up a transaction that has committed. The caller closes it. The error of one that is spoiled is ErrWhole.
func (s *Spool) Commit(xid uint32) (*Transaction, error) {
	t := s.open[xid]
	if t == nil || s.current != nil {
		return nil, fmt.Errorf("%w: transaction %d has committed, of which nothing was sent or a piece is open", ErrOrder, xid)
	}
	if t.spoiled != nil {
		return nil, t.spoiled
	}
	delete(s.open, xid)
	return t, nil
}

// Transaction is the messages of a transaction. Of each there are its length, its LSN and the message as Decode takes it.
type Transaction struct {
	xid       uint32
	file      *os.File
	flushed   int64  // bytes in the file
	buf       []byte // what comes after them
	events    int64  // messages that are more than a description or an origin
	described map[uint32]bool
	spoiled   error         // it must not be taken in pieces, and nothing of it is kept
	total     *atomic.Int64 // bytes of all
	counted   int64         // bytes of this one in it
}

// Empty tells that there is nothing in it but descriptions and an origin. The server sends a transaction in pieces although nothing in it
// is published.
func (t *Transaction) Empty() bool { return t.events == 0 }

func (t *Transaction) end() int64 { return t.flushed + int64(len(t.buf)) }

// spoil drops all of it.
func (t *Transaction) spoil(why string) error {
	t.spoiled = fmt.Errorf("%w: %d, for %s", ErrWhole, t.xid, why)
	t.buf, t.flushed = nil, 0
	t.count()
	if err := t.file.Truncate(0); err != nil {
		return fmt.Errorf("drop an open transaction: %w", err)
	}
	return nil
}

// count brings total up to date.
func (t *Transaction) count() {
	t.total.Add(t.end() - t.counted)
	t.counted = t.end()
}

func (t *Transaction) add(data []byte, at change.LSN) error {
	if t.spoiled != nil {
		return nil //nolint:nilerr // its commit fails, if it comes to that
	}
	from := len(t.buf)
	t.buf = append(t.buf, make([]byte, headerBytes)...)
	buf, err := pgoutput.Unstream(t.buf, data)
	if err != nil {
		t.buf = t.buf[:from]
		return err //nolint:wrapcheck // it says what failed
	}
	t.buf = buf
	message := buf[from+headerBytes:]
	binary.BigEndian.PutUint32(buf[from:], uint32(len(message)))
	binary.BigEndian.PutUint64(buf[from+4:], uint64(at))
	t.count()
	switch message[0] {
	case 'R':
		if t.describedAgain(message) {
			return t.spoil("a table was described a second time")
		}
	case 'Y', 'O':
	default:
		t.events++
	}
	return t.flush(bufferBytes)
}

// describedAgain notes that a table was described, and tells whether it had been. That happens when the server's view of the catalogs has
// changed.
func (t *Transaction) describedAgain(message []byte) bool {
	const head = 1 + 4
	if len(message) < head {
		return false // it is refused when it is decoded
	}
	oid := binary.BigEndian.Uint32(message[1:])
	again := t.described[oid]
	t.described[oid] = true
	return again
}

// flush writes the buffer to the file when it holds more than so many bytes.
func (t *Transaction) flush(most int) error {
	if len(t.buf) <= most {
		return nil
	}
	if _, err := t.file.WriteAt(t.buf, t.flushed); err != nil {
		return fmt.Errorf("keep open transaction: %w", err)
	}
	t.flushed += int64(len(t.buf))
	if t.buf = t.buf[:0]; cap(t.buf) > 4*bufferBytes {
		t.buf = nil // a large value came
	}
	return nil
}

// Replay hands out the messages in their order, as Decode takes them; each is valid until take returns. It ends with the first error.
func (t *Transaction) Replay(take func(message []byte, at change.LSN) error) error {
	r := bufio.NewReaderSize(io.MultiReader(io.NewSectionReader(t.file, 0, t.flushed), &tail{t.buf}), bufferBytes)
	var large []byte
	for {
		header, err := r.Peek(headerBytes)
		if err != nil && len(header) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read open transaction: %w", err)
		}
		length := int(binary.BigEndian.Uint32(header))
		at := change.LSN(binary.BigEndian.Uint64(header[4:]))
		var message []byte
		if headerBytes+length <= bufferBytes {
			if message, err = r.Peek(headerBytes + length); err != nil {
				return fmt.Errorf("read open transaction: %w", err)
			}
			message = message[headerBytes:]
		} else {
			_, _ = r.Discard(headerBytes) // it is there
			if cap(large) < length {
				large = make([]byte, length)
			}
			message = large[:length]
			if _, err := io.ReadFull(r, message); err != nil {
				return fmt.Errorf("read open transaction: %w", err)
			}
			length = -headerBytes // nothing is left of it
		}
		if err := take(message, at); err != nil {
			return err
		}
		_, _ = r.Discard(headerBytes + length) // it is there
	}
}

// tail reads what is not in the file.
type tail struct{ left []byte }

func (r *tail) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close drops the messages.
func (t *Transaction) Close() {
	t.total.Add(-t.counted)
	t.counted = 0
	_ = t.file.Close() // the file has no name: it is gone
}
