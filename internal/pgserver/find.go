package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// OldestMajor is the oldest PostgreSQL version that Syncline supports, and so the oldest that Find accepts.
const OldestMajor = 15

// ErrNotFound means that no usable PostgreSQL of the wanted version is on this machine. Its text says how to get one.
var ErrNotFound = errors.New("postgresql not found")

// Binaries are the server programs of one PostgreSQL installation.
type Binaries struct {
	Dir     string // holds postgres and initdb
	Major   int
	Version string // as the server prints it: "15.14", "18beta1"
}

// Postgres is the path of the server program.
func (b Binaries) Postgres() string { return filepath.Join(b.Dir, "postgres") }

// Pgbench is the path of pgbench, from the same installation or from the search path. The packages from npm have none.
func (b Binaries) Pgbench() (path string, ok bool) {
	path = filepath.Join(b.Dir, "pgbench")
	if isProgram(path) {
		return path, true
	}
	path, err := exec.LookPath("pgbench")
	return path, err == nil
}

// Find returns the binaries of a major version ("15"), or for "" and "any" the first usable ones.
//
// The directory in SYNCLINE_PG_BIN stands above everything, whatever its version. Then come Debian's directories
// (newest first), the search path, and what Install has fetched (newest first). The error matches ErrNotFound.
func Find(version string) (Binaries, error) {
	want, err := parseWanted(version)
	if err != nil {
		return Binaries{}, err
	}
	if dir := os.Getenv("SYNCLINE_PG_BIN"); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("use SYNCLINE_PG_BIN: %w", err)
		}
		return b, nil
	}
	var passed []string
	for _, dir := range candidates() {
		b, err := inspect(dir)
		switch {
		case err != nil:
			continue
		case b.Major < OldestMajor || want != 0 && b.Major != want:
			passed = append(passed, b.Version+" in "+dir)
		default:
			return b, nil
		}
	}
	name, arg := "a PostgreSQL of version "+strconv.Itoa(OldestMajor)+" or newer", ""
	if want != 0 {
		name, arg = fmt.Sprintf("PostgreSQL %d", want), fmt.Sprintf(" %d", want)
	}
	seen := ""
	if len(passed) > 0 {
		seen = "; passed over: " + strings.Join(passed, ", ")
	}
	return Binaries{}, fmt.Errorf("find %s: %w%s; run `go run ./internal/pgserver/cmd/getpg%s`, "+
		"or name a directory with postgres and initdb in SYNCLINE_PG_BIN", name, ErrNotFound, seen, arg)
}

// parseWanted returns 0 for any version.
func parseWanted(version string) (int, error) {
	if version == "" || version == "any" {
		return 0, nil
	}
	major, err := strconv.Atoi(version)
	if err != nil || major < OldestMajor {
		return 0, fmt.Errorf("postgresql version %q: want a major version from %d on, or \"any\"", version, OldestMajor)
	}
	return major, nil
}

// candidates are the directories where binaries may be, in the order in which they are preferred.
func candidates() []string {
	dirs := newestFirst("/usr/lib/postgresql/*/bin")
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, cache := range cacheDirs() {
		dirs = append(dirs, newestFirst(filepath.Join(cache, "*", "native", "bin"))...)
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

// newestFirst expands a pattern whose only star is a major version.
func newestFirst(pattern string) []string {
	dirs, _ := filepath.Glob(pattern) // the only error is a malformed pattern
	star := strings.Index(pattern, "*")
	major := func(dir string) int {
		n, _ := strconv.Atoi(digits.FindString(dir[star:]))
		return n
	}
	slices.SortStableFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	return dirs
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+)\S*)`)

// inspect runs the server program in dir to learn its version, which also proves that its libraries are there.
func inspect(dir string) (Binaries, error) {
	b := Binaries{Dir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		if path := filepath.Join(dir, program); !isProgram(path) {
			return b, fmt.Errorf("inspect %s: %w: no program %s there", dir, ErrNotFound, program)
		}
	}
	cmd := exec.CommandContext(context.Background(), b.Postgres(), "--version")
	cmd.Env = childEnv()
	out, err := cmd.Output()
	if err != nil {
		return b, fmt.Errorf("run %s --version: %w", b.Postgres(), err)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return b, fmt.Errorf("run %s --version: not a PostgreSQL server: %q", b.Postgres(), out)
	}
	b.Version = m[1]
	b.Major, err = strconv.Atoi(m[2])
	return b, err
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// childEnv keeps the caller's PG* variables and locale away from the server programs.
func childEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}
