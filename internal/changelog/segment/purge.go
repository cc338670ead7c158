package segment

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// Purge removes the records before a number, durably. Their segments go when nothing in them counts any more, so up to one
// segment more than Bounds tells stays on the disk. Numbers are never used again, also when nothing is left.
func (s *Store) Purge(before uint64) error {
	s.write.Lock()
	defer s.write.Unlock()
	b := s.Bounds()
	before = min(before, b.Last+1)
	if before <= b.First {
		return nil
	}
	if err := writeFirst(s.dir, before); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if before > b.Last && s.active != nil {
		if err := s.active.Close(); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		s.active = nil
	}
	gone, err := s.drop(before)
	for _, f := range gone {
		f.rest(true)
		err = errors.Join(err, os.Remove(f.path))
	}
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// drop lets the store begin with a record, and returns the segments in which nothing counts any more.
func (s *Store) drop(first uint64) ([]*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.files) && (n+1 < len(s.files) && s.files[n+1].first <= first || first > s.last) {
		n++
	}
	gone := slices.Clone(s.files[:n])
	s.files = slices.Delete(s.files, 0, n)
	s.used = slices.DeleteFunc(s.used, func(f *file) bool { return slices.Contains(gone, f) })
	s.first = first
	return gone, s.measure()
}

// measure finds out what stands before the first record that counts, and when that was appended. The lock is held.
func (s *Store) measure() (err error) {
	s.dead = 0
	if len(s.files) == 0 {
		return nil
	}
	if s.dead, err = s.files[0].before(s.first); err != nil {
		return err
	}
	_, s.firstAt, err = s.files[0].read(s.first)
	return err
}

// Starts returns the numbers of the records with which the segments begin, which are the fastest to read.
func (s *Store) Starts() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	starts := make([]uint64, len(s.files))
	for i, f := range s.files {
		starts[i] = f.first
	}
	return starts
}

// Skip returns the number of the record that begins a segment such that all before it take at most so many bytes, the last one
// of those, and how many bytes they take; the first record and 0 when the first segment is larger.
func (s *Store) Skip(most uint64) (number, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number = s.first
	for i := 0; i+1 < len(s.files); i++ {
		size := uint64(s.files[i].bytes())
		if i == 0 {
			size -= uint64(s.dead)
		}
		if bytes+size > most {
			break
		}
		number, bytes = s.files[i+1].first, bytes+size
	}
	return number, bytes
}
