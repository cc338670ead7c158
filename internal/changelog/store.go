package changelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed0419d559/syncline/internal/changelog/segment"
	"github.com/seed0419d559/syncline/internal/durable"
)

// The directories and files of a log.
const (
	blocksDir    = "blocks"
	relationsDir = "relations" // files named by hash
	metaFile     = "meta.json"
)

// store is where a log stands: its blocks by number, and small values by name. What it has taken is durable.
type store struct {
	dir    string
	blocks *segment.Store
}

// stored is a block as it is stored, and when that was.
type stored struct {
	data []byte
	at   time.Time
}

var errNotStored = errors.New("not in the store")

// formerDir is where versions before the segment files kept a log.
const formerDir = "jetstream"

func openStore(dir string) (*store, error) {
	if _, err := os.Stat(filepath.Join(dir, formerDir)); err == nil {
		return nil, fmt.Errorf("open store: %s holds a change log of an earlier version of Syncline, which this one cannot read: "+
			"remove its content to begin a new one (replicas are copied anew then)", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, relationsDir), 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	blocks, err := segment.Open(filepath.Join(dir, blocksDir))
	if errors.Is(err, segment.ErrCorrupt) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it opened
	}
	return &store{dir: dir, blocks: blocks}, nil
}

// close leaves nothing to do for what was taken: it is durable.
func (s *store) close() { _ = s.blocks.Close() }

// append stores blocks with the numbers from number on. It returns ErrFenced unless the last block of the store is number-1, or
// ErrStore.
func (s *store) append(number uint64, blocks ...[]byte) error {
	err := s.blocks.Append(number, blocks...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, segment.ErrOrder):
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// block returns a stored block. It returns errNotStored.
func (s *store) block(number uint64) (stored, error) {
	data, at, err := s.blocks.Read(number)
	switch {
	case err == nil:
		return stored{data, at}, nil
	case errors.Is(err, segment.ErrNotFound):
		return stored{}, errNotStored
	case errors.Is(err, segment.ErrCorrupt):
		return stored{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return stored{}, fmt.Errorf("read from store: %w", err)
}

// purge removes the blocks before number, all of them when number is 0.
func (s *store) purge(number uint64) error {
	if number == 0 {
		number = s.blocks.Bounds().Last + 1
	}
	if err := s.blocks.Purge(number); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// put stores a value under a name; it is durable on return.
func (s *store) put(name string, value []byte) error {
	if err := durable.WriteFile(filepath.Join(s.dir, name), value); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// get returns the value of a name. It returns errNotStored.
func (s *store) get(name string) ([]byte, error) {
	value, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotStored
	}
	if err != nil {
		return nil, fmt.Errorf("read from store: %w", err)
	}
	return value, nil
}
