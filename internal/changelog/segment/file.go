package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
)

// placeGap is the distance of two places in a file, unless a record is larger.
const placeGap = 32 << 10

// place is where a record begins.
type place struct {
	number uint64
	offset int64
}

// file is a segment. Its places are some of its records, so that each record lies less than placeGap behind one, or has one of
// its own.
type file struct {
	path  string
	first uint64 // number of the first record

	mu     sync.Mutex
	size   int64    // of its records
	last   uint64   // number of the last one, of the segment that was settled
	places []place  // nil: the file has not been looked through
	open   *os.File // nil: it is not open for reading
}

// added takes note of a record that was appended.
func (f *file) added(number uint64, length int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(number, length)
}

func (f *file) add(number uint64, length int) {
	n := len(f.places)
	if n == 0 || f.size+int64(length)-f.places[n-1].offset > placeGap {
		f.places = append(f.places, place{number, f.size})
	}
	f.size += int64(length)
}

func (f *file) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// before returns the bytes of the records before one.
func (f *file) before(number uint64) (int64, error) {
	from, offset, end, _, err := f.span(number)
	if err != nil {
		return 0, err
	}
	head := make([]byte, headerBytes)
	for offset < end {
		if _, err := from.ReadAt(head, offset); err != nil {
			return 0, err
		}
		h, ok := parseHeader(head)
		if !ok || h.number > number {
			break
		}
		if h.number == number {
			return offset, nil
		}
		offset += int64(headerBytes + h.length)
	}
	return 0, fmt.Errorf("%w: record %d is not where it should be in %s", ErrCorrupt, number, filepath.Base(f.path))
}

// span returns the bytes among which a record lies, and whether it is alone there.
func (f *file) span(number uint64) (from *os.File, offset, end int64, alone bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		if f.open, err = os.Open(f.path); err != nil {
			return nil, 0, 0, false, err
		}
	}
	switch {
	case f.places != nil:
	case number == f.first:
		end, err = firstEnd(f.open)
		return f.open, 0, end, true, err
	default:
		if err := f.look(); err != nil {
			return nil, 0, 0, false, err
		}
	}
	n := sort.Search(len(f.places), func(i int) bool { return f.places[i].number > number }) - 1
	if n < 0 {
		return nil, 0, 0, false, fmt.Errorf("%w: record %d is not in %s", ErrCorrupt, number, filepath.Base(f.path))
	}
	end = f.size
	if n+1 < len(f.places) {
		end = f.places[n+1].offset
		alone = f.places[n+1].number == f.places[n].number+1
	}
	return f.open, f.places[n].offset, end, alone, nil
}

// firstEnd returns where the first record of a file ends.
func firstEnd(f *os.File) (int64, error) {
	head := make([]byte, headerBytes)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	h, ok := parseHeader(head)
	if !ok {
		return 0, fmt.Errorf("%w: %s begins with no record", ErrCorrupt, filepath.Base(f.Name()))
	}
	return int64(headerBytes + h.length), nil
}

// look finds the places. Data are not read where they are large, nor checked.
func (f *file) look() (err error) {
	size, number := f.size, f.first
	defer func() {
		if err != nil {
			f.size, f.places = size, nil
		}
	}()
	buffer := make([]byte, placeGap)
	for f.size = 0; f.size < size; {
		n, err := f.open.ReadAt(buffer, f.size)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		rest := buffer[:n]
		if n < headerBytes {
			return fmt.Errorf("%w: %s ends inside a record", ErrCorrupt, filepath.Base(f.path))
		}
		for len(rest) >= headerBytes {
			h, ok := parseHeader(rest)
			if !ok || h.number != number {
				return fmt.Errorf("%w: no record %d at byte %d of %s", ErrCorrupt, number, f.size, filepath.Base(f.path))
			}
			f.add(number, headerBytes+h.length)
			number++
			rest = rest[min(headerBytes+h.length, len(rest)):]
		}
	}
	if f.size != size {
		return fmt.Errorf("%w: %s ends inside a record", ErrCorrupt, filepath.Base(f.path))
	}
	return nil
}

// rest gives back what is needed for reading. All of it comes back when it is needed.
func (f *file) rest(places bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open != nil {
		_ = f.open.Close()
	}
	f.open = nil
	if places {
		f.places = nil
	}
}
