// Package durable replaces files so that a crash at any moment leaves the old content or the new one.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// NewSuffix ends the name under which a file is written before it takes its place.
const NewSuffix = ".new"

// WriteFile makes a file with this content, or replaces it. It is on disk on return, and only its owner may read it.
func WriteFile(path string, content []byte) error {
	f, err := os.OpenFile(path+NewSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path + NewSuffix)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+NewSuffix, path); err != nil {
		return err //nolint:wrapcheck // it names both files
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err //nolint:wrapcheck // it names the directory
	}
	return errors.Join(f.Sync(), f.Close())
}
