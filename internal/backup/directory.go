package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed0419d559/syncline/internal/durable"
	"github.com/seed0419d559/syncline/internal/fault"
)

// PartialSuffix ends the name of a backup that is being written.
const PartialSuffix = ".partial"

// lockName is a file that only a backup in the making has. Its writer holds a lock on it.
const lockName = "writing.lock"

var (
	// ErrExists says that there is something under the name of a backup that is to be written.
	ErrExists = errors.New("it exists already")
	// ErrWriting says that another process writes a backup of the same name.
	ErrWriting = errors.New("another dump writes there")
)

// directory is a backup in the making.
type directory struct {
	final, partial string
	lock           *os.File
	// begunAnew is set when a dump had broken off here, whose files are gone now.
	begunAnew bool
}

// newDirectory makes the directory in which a backup is written. What a dump that broke off left there is removed: its snapshot is
// gone, so nothing can be added to it.
func newDirectory(dir string) (*directory, error) {
	final, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", dir, err)
	}
	d := &directory{final: final, partial: final + PartialSuffix}
	if err := vacant(final); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.partial, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make backup: %w", err)
	} else if err != nil {
		d.begunAnew = true
		if _, err := os.Lstat(filepath.Join(d.partial, lockName)); err != nil {
			if err := vacant(d.partial); err != nil {
				return nil, err
			}
			d.begunAnew = false
		}
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := d.clear(); err != nil {
		_ = d.lock.Close()
		return nil, err
	}
	return d, nil
}

// vacant returns ErrExists unless there is nothing at path, or an empty directory.
func vacant(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil || len(entries) > 0:
		return fmt.Errorf("backup %s: %w; choose another name, or remove it", path, ErrExists)
	}
	return nil
}

func (d *directory) takeLock() error {
	lock, err := os.OpenFile(filepath.Join(d.partial, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return fmt.Errorf("backup %s: %w", d.final, ErrWriting)
	}
	d.lock = lock
	return nil
}

// clear removes everything but the lock.
func (d *directory) clear() error {
	for _, name := range []string{ManifestName, ManifestName + durable.NewSuffix, schemaName, schemaName + durable.NewSuffix, dataDir} {
		if err := os.RemoveAll(filepath.Join(d.partial, name)); err != nil {
			return fmt.Errorf("remove what a dump left: %w", err)
		}
	}
	if err := os.Mkdir(filepath.Join(d.partial, dataDir), 0o700); err != nil {
		return fmt.Errorf("make backup: %w", err)
	}
	return nil
}

// finish gives the backup its name. Every file but the manifest is whole and synced; it is durable on return.
func (d *directory) finish(m *Manifest) error {
	content, err := m.encode()
	if err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Join(d.partial, dataDir)); err != nil {
		return fmt.Errorf("finish backup: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(d.partial, ManifestName), content); err != nil {
		return fmt.Errorf("finish backup: %w", err)
	}
	fault.Point(FaultManifestWritten)
	if err := os.Rename(d.partial, d.final); err != nil {
		return fmt.Errorf("finish backup: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(d.final)); err != nil {
		return fmt.Errorf("finish backup: %w", err)
	}
	fault.Point(FaultRenamed)
	// It is no part of the backup; one that a crash leaves there does no harm.
	_ = os.Remove(filepath.Join(d.final, lockName))
	return d.lock.Close()
}

// abandon removes what was written, so that a dump that failed leaves the disk as it was.
func (d *directory) abandon() {
	_ = os.RemoveAll(d.partial)
	_ = d.lock.Close()
}
