package changelog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockFile is the name of the file whose lock says that a process has the directory open.
const lockFile = "lock"

// lockDir makes the directory and takes it. The lock ends with the process at the latest.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make change log directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock change log directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock change log directory: %w", err)
	}
	return f, nil
}

// roomFile is the name of the file with which the disk is tried.
const (
	roomFile = "room"
	roomSize = 32 << 20 // enough for copying one segment and beginning another
)

// tryRoom fails when the disk has no room for writing on: then a store that can still be read is better than none.
func tryRoom(dir string) error {
	path := filepath.Join(dir, roomFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(make([]byte, roomSize)); err != nil {
		err = fmt.Errorf("less than %d MiB can be written: %w", roomSize>>20, err)
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}
