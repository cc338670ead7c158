package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Backup is a directory whose manifest and files have been found to be as they were written.
type Backup struct {
	Dir      string
	Manifest *Manifest
	Database schema.Database
}

// mostProblems bounds how many damaged files an error names.
const mostProblems = 10

// readBytes is how much of a file is read at once.
const readBytes = 256 << 10

// Check reads a whole backup, several files at a time, and compares it with its manifest. checked is told how many bytes have been
// read since it was last called; it may be called from several goroutines. The errors are ErrNotABackup, ErrVersion, ErrDamaged with
// the files that are, and those of the file system.
func Check(ctx context.Context, dir string, workers int, checked func(bytes int64)) (*Backup, error) {
	manifest, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	files := []File{manifest.Schema}
	for _, t := range manifest.Tables {
		files = append(files, t.Files...)
	}
	problems, err := checkFiles(ctx, dir, files, workers, checked)
	if err != nil {
		return nil, err
	}
	if problems != nil {
		more := ""
		if len(problems) > mostProblems {
			more = fmt.Sprintf("; and %d more", len(problems)-mostProblems)
			problems = problems[:mostProblems]
		}
		return nil, fmt.Errorf("%w: %s%s; take it from another copy, or make a new one", ErrDamaged, strings.Join(problems, "; "), more)
	}
	b := &Backup{Dir: dir, Manifest: manifest}
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(manifest.Schema.Name)))
	if err != nil {
		return nil, fmt.Errorf("read the backup's schema: %w", err)
	}
	if err := json.Unmarshal(text, &b.Database); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifest.Schema.Name, err)
	}
	for _, t := range manifest.Tables {
		if _, found := b.Database.Table(t.FullName()); !found {
			return nil, fmt.Errorf("%w: %s does not describe table %s", ErrDamaged, manifest.Schema.Name, t.FullName())
		}
	}
	return b, nil
}

func readManifest(dir string) (*Manifest, error) {
	content, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		why := "it has no " + ManifestName
		if _, missing := os.Stat(dir); missing != nil {
			why = "there is no such directory"
		} else if strings.HasSuffix(filepath.Clean(dir), PartialSuffix) {
			why = "it is a dump that did not come to its end"
		}
		return nil, fmt.Errorf("%w: %s: %s", ErrNotABackup, dir, why)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotABackup, err)
	}
	m, err := decodeManifest(content)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", dir, err)
	}
	return m, nil
}

// checkFiles returns what is wrong with the files, sorted.
func checkFiles(ctx context.Context, dir string, files []File, workers int, checked func(bytes int64)) ([]string, error) {
	var mu sync.Mutex
	var problems []string
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(workers, 1))
	for _, f := range files {
		group.Go(func() error {
			problem, err := checkFile(ctx, dir, f, checked)
			if err != nil {
				return err
			}
			if problem != "" {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, problem)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("check backup %s: %w", dir, err)
	}
	slices.Sort(problems)
	return problems, nil
}

func checkFile(ctx context.Context, dir string, about File, checked func(bytes int64)) (problem string, err error) {
	path := filepath.Join(dir, filepath.FromSlash(about.Name))
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return about.Name + " is missing", nil
	case err != nil:
		return "", err //nolint:wrapcheck // it names the file
	case !info.Mode().IsRegular():
		return about.Name + " is no regular file", nil
	case info.Size() != about.Size:
		return fmt.Sprintf("%s has %d bytes instead of %d", about.Name, info.Size(), about.Size), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err //nolint:wrapcheck // it names the file
	}
	defer file.Close()
	sum := sha256.New()
	buffer := make([]byte, readBytes)
	for {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		n, err := file.Read(buffer)
		sum.Write(buffer[:n])
		checked(int64(n))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err //nolint:wrapcheck // it names the file
		}
	}
	if hex.EncodeToString(sum.Sum(nil)) != about.SHA256 {
		return about.Name + " has another content than was written", nil
	}
	return "", nil
}
