package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed0419d559/syncline/internal/durable"
)

const (
	firstFile = "first"
	suffix    = ".seg"
)

func fileName(number uint64) string { return fmt.Sprintf("%020d%s", number, suffix) }

// Open opens the store in a directory, which is made if it is missing. Everything that it shows then is durable, also what an
// earlier process had appended without living to see that. It returns ErrCorrupt when records are missing.
func Open(dir string) (*Store, error) { return open(dir, segmentBytes) }

func open(dir string, limit int64) (*Store, error) {
	s := &Store{dir: dir, limit: limit}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := errors.Join(syncPath(s.dir), syncPath(filepath.Dir(s.dir))); err != nil {
		return err
	}
	first, err := readFirst(s.dir)
	if err != nil {
		return err
	}
	if s.files, err = list(s.dir); err != nil {
		return err
	}
	s.first, s.last = first, first-1
	for len(s.files) > 1 && s.files[1].first <= first { // a purge was interrupted
		if err := os.Remove(s.files[0].path); err != nil {
			return err
		}
		s.files = slices.Delete(s.files, 0, 1)
	}
	if err := s.settle(); err != nil {
		return err
	}
	if len(s.files) == 0 {
		return nil
	}
	if s.files[0].first > first {
		return fmt.Errorf("%w: it begins with record %d, and the records from %d on are missing", ErrCorrupt, s.files[0].first, first)
	}
	return s.measure()
}

// list returns the segments, and removes what a process left that was interrupted.
func list(dir string) ([]*file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*file
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(path, durable.NewSuffix) {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
		digits, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || fileName(number) != entry.Name() {
			return nil, fmt.Errorf("%w: %s is not the name of a segment", ErrCorrupt, entry.Name())
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, &file{path: path, first: number, size: info.Size()})
	}
	return files, nil // by name, that is in ascending order
}

// settle finds the end of the last segment and goes on behind it. What stands after the end was never acknowledged.
func (s *Store) settle() error {
	for len(s.files) > 0 {
		f := s.files[len(s.files)-1]
		at, err := f.settle()
		if err != nil {
			return err
		}
		if n := len(f.places); n > 0 && f.last >= s.first {
			s.last, s.lastAt, s.offset, s.prepared = f.last, at, f.size, f.size
			s.active, err = os.OpenFile(f.path, os.O_RDWR, 0)
			return err
		}
		// It has nothing, or nothing that counts: a process was interrupted when it had begun it, or while it purged.
		if err := os.Remove(f.path); err != nil {
			return err
		}
		s.files = s.files[:len(s.files)-1]
	}
	return nil
}

// settle makes a segment what its records are, durably. A sync that failed leaves pages in memory that look written and are not,
// so the records are written anew instead of synced again.
func (f *file) settle() (at time.Time, err error) {
	bytes, err := os.ReadFile(f.path)
	if err != nil {
		return at, err
	}
	f.size, f.places = 0, nil
	for number := f.first; ; number++ {
		h, _, ok := parseRecord(bytes[f.size:])
		if !ok || h.number != number {
			break
		}
		f.add(number, headerBytes+h.length)
		f.last, at = number, h.at
	}
	err = durable.WriteFile(f.path, bytes[:f.size])
	if errors.Is(err, syscall.ENOSPC) {
		// A full disk must not keep the log from being read.
		err = errors.Join(os.Truncate(f.path, f.size), syncPath(f.path))
	}
	return at, err
}

func readFirst(dir string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, firstFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	first, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || first == 0 {
		return 0, fmt.Errorf("%w: the file %q holds no number", ErrCorrupt, firstFile)
	}
	return first, nil
}

func writeFirst(dir string, first uint64) error {
	return durable.WriteFile(filepath.Join(dir, firstFile), fmt.Appendln(nil, first))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
