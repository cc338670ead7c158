package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"
)

// spans holds buffers for the bytes among which a small record lies.
var spans = sync.Pool{New: func() any { return new([placeGap]byte) }}

// Read returns a record and when it was appended. The data are the caller's. It returns ErrNotFound, ErrCorrupt or ErrClosed.
func (s *Store) Read(number uint64) ([]byte, time.Time, error) {
	for {
		f, err := s.find(number)
		if err != nil {
			return nil, time.Time{}, err
		}
		data, at, err := f.read(number)
		switch {
		case err == nil:
			return data, at, nil
		case errors.Is(err, os.ErrClosed): // others needed more files at once than are kept open
			continue
		case errors.Is(err, os.ErrNotExist):
			if _, err := s.find(number); err != nil {
				return nil, time.Time{}, err // purged meanwhile
			}
		}
		return nil, time.Time{}, fmt.Errorf("read record %d: %w", number, err)
	}
}

// find returns the segment of a record, as the one that was used last.
func (s *Store) find(number uint64) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case number < s.first || number > s.last:
		return nil, fmt.Errorf("%w: %d, of %d to %d", ErrNotFound, number, s.first, s.last)
	}
	n := sort.Search(len(s.files), func(i int) bool { return s.files[i].first > number }) - 1
	s.use(s.files[n])
	return s.files[n], nil
}

// use makes a segment the one that was used last, and lets another one rest for it. The lock is held.
func (s *Store) use(f *file) {
	if i := slices.Index(s.used, f); i >= 0 {
		s.used = slices.Delete(s.used, i, i+1)
	}
	s.used = append(s.used, f)
	if len(s.used) > filesInUse {
		s.used[0].rest(s.used[0] != s.files[len(s.files)-1])
		s.used = slices.Delete(s.used, 0, 1)
	}
}

func (f *file) read(number uint64) ([]byte, time.Time, error) {
	from, offset, end, alone, err := f.span(number)
	if err != nil {
		return nil, time.Time{}, err
	}
	var bytes []byte
	length := int(end - offset)
	kept := alone || length > placeGap
	if kept {
		bytes = make([]byte, length)
	} else {
		buffer := spans.Get().(*[placeGap]byte) //nolint:forcetypeassert // the pool has nothing else
		defer spans.Put(buffer)
		bytes = buffer[:length]
	}
	if _, err := from.ReadAt(bytes, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %s is too short", ErrCorrupt, filepath.Base(f.path))
		}
		return nil, time.Time{}, err
	}
	for {
		h, ok := parseHeader(bytes)
		if !ok || h.number > number || headerBytes+h.length > len(bytes) {
			return nil, time.Time{}, fmt.Errorf("%w: it is not where it should be in %s", ErrCorrupt, filepath.Base(f.path))
		}
		if h.number < number {
			bytes = bytes[headerBytes+h.length:]
			continue
		}
		h, data, ok := parseRecord(bytes)
		if !ok {
			return nil, time.Time{}, fmt.Errorf("%w: its checksum is wrong", ErrCorrupt)
		}
		if !kept {
			data = slices.Clone(data)
		}
		return data, h.at, nil
	}
}
