package pgserver

import (
	"errors"
	"os"
	"path/filepath"
)

// systemCache is where root keeps what it fetches: the account that runs the servers must be able to read it, and
// root's home is closed to it.
const systemCache = "/var/cache/syncline/postgres"

// cacheDir is where Install puts the binaries it fetches, one directory for each major version.
func cacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return systemCache, nil
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(user, "syncline", "postgres"), nil
}

// cacheDirs are the places where Find looks for fetched binaries.
func cacheDirs() []string {
	dirs := []string{systemCache}
	if own, err := cacheDir(); err == nil && own != systemCache {
		dirs = append([]string{own}, dirs...)
	}
	return dirs
}

// makeCache makes cacheDir. Root's is opened to all, whatever the umask.
func makeCache() (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	//nolint:gosec // the account that runs the servers is another one and must read this
	if err := os.MkdirAll(dir, 0o755); err != nil || dir != systemCache {
		return dir, err
	}
	//nolint:gosec // likewise
	return dir, errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
}
