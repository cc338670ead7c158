package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockName is a file in each server's directory, locked as long as the process that made the directory lives.
const lockName = "lock"

// holdDir marks dir as in use by this process until release is called or the process ends.
func holdDir(dir string) (release func(), err error) {
	// The file gets its name only when it is locked, so that sweepStale never sees it unlocked.
	fresh := filepath.Join(dir, lockName+".new")
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = os.Rename(fresh, filepath.Join(dir, lockName))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", fresh, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// sweepStale removes the directories that processes which were killed left under parent. It is a courtesy: what cannot
// be removed stays.
func sweepStale(parent, pattern string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, pattern))
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}
