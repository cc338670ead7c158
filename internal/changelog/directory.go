package changelog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// settle makes durable what a store of an earlier process left: it may have been killed between writing and syncing, and what
// is read now is taken for durable. A sync that failed leaves pages that look written and are not, so the files that
// were written last are copied rather than synced again.
func settle(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if err := rewriteNewest(path); err != nil {
				return err
			}
		}
		return syncPath(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make stored blocks durable: %w", err)
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

const (
	messageFile = ".blk"
	copySuffix  = ".syncline-copy"
	// newest is how many message files of 8 MiB may hold what was not acknowledged: fewer than maxInFlight blocks.
	newest = 2
)

// rewriteNewest copies the newest message files of a directory of the store, if it has any.
func rewriteNewest(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var numbers []int
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, copySuffix) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		if text, ok := strings.CutSuffix(name, messageFile); ok {
			if n, err := strconv.Atoi(text); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers[max(0, len(numbers)-newest):] {
		if err := rewrite(filepath.Join(dir, strconv.Itoa(n)+messageFile)); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces a file by a durable copy of itself.
func rewrite(path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := os.OpenFile(path+copySuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		_ = os.Remove(path + copySuffix)
		if errors.Is(err, syscall.ENOSPC) {
			return nil // a full disk must not keep the log from being read; the file is synced as all others are
		}
		return err
	}
	return os.Rename(path+copySuffix, path)
}

// roomFile is the name of the file with which the disk is tried.
const (
	roomFile = "room"
	roomSize = 32 << 20 // enough for copying one message file and writing another
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
