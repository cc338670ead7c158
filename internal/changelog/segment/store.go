package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store is closed")

	// ErrOrder says that a record's number is not the next one.
	ErrOrder = errors.New("record is not the next one")

	// ErrNotFound says that a record was purged or never appended.
	ErrNotFound = errors.New("no such record")

	// ErrCorrupt says that a record is not what was appended, or missing between others.
	ErrCorrupt = errors.New("store is corrupt")
)

const (
	// segmentBytes is the size from which on a segment takes no more records.
	segmentBytes = 16 << 20
	// aheadBytes are zeros that are written ahead of small records.
	aheadBytes = 1 << 20
	// smallBytes is the size up to which what is appended at once is small.
	smallBytes = 64 << 10
	// filesInUse bounds the segments whose places are known and that are open for reading.
	filesInUse = 64
)

// Store is a directory of records. One process has it open at a time; its methods may be called by several goroutines.
type Store struct {
	dir   string
	limit int64 // segmentBytes, or less in tests

	mu          sync.Mutex
	files       []*file // ascending; the last one is appended to
	used        []*file // those that are in use, in the order of their last use
	first, last uint64  // numbers of the records that count; first is last+1 when there are none
	dead        int64   // bytes before them in the first segment
	firstAt     time.Time
	lastAt      time.Time
	closed      bool

	write    sync.Mutex
	active   *os.File // the last of files, open for writing; nil when there is none
	offset   int64    // where its records end
	prepared int64    // up to where it is filled with zeros
	failed   error    // nothing more is appended after a failure: what is in the file then is not known
	buffer   []byte
}

// Bounds says what a store holds.
type Bounds struct {
	First, Last         uint64 // First is Last+1 when there is nothing
	Bytes               uint64 // that the records take
	FirstTime, LastTime time.Time
}

// Append appends records with the numbers from number on. They are durable on return. It returns ErrOrder and nothing is changed, or
// another error after which the store has to be opened anew, and only then tells what of it was appended.
func (s *Store) Append(number uint64, records ...[]byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.may(number); err != nil {
		return err
	}
	at := time.Now()
	for len(records) > 0 {
		n, err := s.append(number, at, records)
		if err != nil {
			s.failed = err
			return err
		}
		number += uint64(n)
		records = records[n:]
	}
	return nil
}

func (s *Store) may(number uint64) error {
	if s.failed != nil {
		return s.failed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if number != s.last+1 {
		return fmt.Errorf("%w: %d after %d", ErrOrder, number, s.last)
	}
	return nil
}

// append appends as many records as the segment takes, at least one, and makes them durable. It returns how many.
func (s *Store) append(number uint64, at time.Time, records [][]byte) (n int, err error) {
	if s.active != nil && s.offset >= s.limit {
		if err := s.seal(); err != nil {
			return 0, err
		}
	}
	fresh := s.active == nil
	if fresh {
		if err := s.begin(number); err != nil {
			return 0, err
		}
	}
	s.buffer = s.buffer[:0]
	for n < len(records) && (n == 0 || s.offset+int64(len(s.buffer)) < s.limit) {
		s.buffer = appendRecord(s.buffer, number+uint64(n), at, records[n])
		n++
	}
	if err := s.put(s.buffer); err != nil {
		return 0, fmt.Errorf("append record %d: %w", number, err)
	}
	if fresh {
		if err := syncPath(s.dir); err != nil {
			return 0, fmt.Errorf("append record %d: %w", number, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[len(s.files)-1]
	for i := range n {
		f.added(number+uint64(i), headerBytes+len(records[i]))
	}
	s.last, s.lastAt = number+uint64(n)-1, at
	if s.first == number {
		s.firstAt = at
	}
	return n, nil
}

// put writes bytes behind the last record, durably.
func (s *Store) put(bytes []byte) error {
	if _, err := s.active.WriteAt(bytes, s.offset); err != nil {
		return err
	}
	end := s.offset + int64(len(bytes))
	if end > s.prepared {
		s.prepared = end
		if len(bytes) < smallBytes && end < s.limit {
			s.prepare(min(end+aheadBytes, s.limit))
		}
	}
	if err := syncData(s.active); err != nil {
		return err
	}
	s.offset = end
	return nil
}

// prepare writes zeros. It is no failure when there is no room for them.
func (s *Store) prepare(end int64) {
	if _, err := s.active.WriteAt(make([]byte, end-s.prepared), s.prepared); err == nil {
		s.prepared = end
	}
}

// seal ends the last segment; everything in it is durable.
func (s *Store) seal() error {
	err := s.active.Truncate(s.offset)
	if err = errors.Join(err, s.active.Sync(), s.active.Close()); err != nil {
		return fmt.Errorf("end segment: %w", err)
	}
	s.active = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) > 0 {
		s.use(s.files[len(s.files)-1])
	}
	return nil
}

// begin makes the file of the next segment.
func (s *Store) begin(number uint64) error {
	path := filepath.Join(s.dir, fileName(number))
	active, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	s.active, s.offset, s.prepared = active, 0, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, &file{path: path, first: number})
	return nil
}

// Bounds returns what the store holds.
func (s *Store) Bounds() Bounds {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes := -s.dead
	for _, f := range s.files {
		bytes += f.bytes()
	}
	return Bounds{First: s.first, Last: s.last, Bytes: uint64(bytes), FirstTime: s.firstAt, LastTime: s.lastAt}
}

// Close ends everything. Calls under way are finished.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, f := range s.files {
		f.rest(true)
	}
	s.used = nil
	if s.active == nil {
		return nil
	}
	err := s.active.Close()
	s.active = nil
	return err
}
