package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Config says what server to make. The zero value is good.
type Config struct {
	// Version is a major version as Find takes it.
	Version string
	// Dir is where the server keeps everything. It must be empty or not there. "" means a new temporary directory.
	Dir string
	// Settings are lines of postgresql.conf, over the package's own.
	Settings map[string]string
	// NoSync leaves out fsync: faster, and still safe against Kill, since the kernel keeps what was written.
	NoSync bool
}

// Create makes a cluster and does not start it. The caller must Close it, also when it never starts.
func Create(ctx context.Context, cfg Config) (_ *Server, err error) {
	bin, err := Find(cfg.Version)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, account: serverAccount()}
	if err := s.makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.port, s.holdPort, err = ReservePort(); err != nil {
		return nil, err
	}
	if err := s.initdb(ctx, cfg.NoSync); err != nil {
		return nil, err
	}
	if err := s.writeSettings(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// makeDir makes the server's directory, its socket directory, and holds it against sweepStale.
func (s *Server) makeDir(dir string) (err error) {
	if dir != "" {
		if s.dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if s.emptyDir, err = makeGivenDir(s.dir); err != nil {
			return err
		}
		if err := s.account.canEnter(s.dir); err != nil {
			return err
		}
	} else if s.dir, err = s.makeTempDir(); err != nil {
		return err
	}
	if s.release, err = holdDir(s.dir); err != nil {
		return err
	}
	if err := s.account.own(s.dir); err != nil {
		return err
	}
	s.socket = filepath.Join(s.dir, "socket")
	if len(s.socket) <= longestSocketDir {
		err = os.Mkdir(s.socket, 0o755) //nolint:gosec // clients of other accounts may use the socket
	} else if s.socket, err = os.MkdirTemp("/tmp", "syncline-socket-*"); err == nil {
		err = os.Chmod(s.socket, 0o755) //nolint:gosec // likewise
	}
	if err != nil {
		return err
	}
	return s.account.own(s.socket)
}

func makeGivenDir(dir string) (existed bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, os.MkdirAll(dir, 0o755) //nolint:gosec // the account of the server is another one
	case err != nil:
		return false, err
	case len(entries) > 0:
		return true, fmt.Errorf("make postgresql server in %s: the directory is not empty", dir)
	}
	return true, nil
}

func (s *Server) makeTempDir() (string, error) {
	var failed error
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if err := s.account.canEnter(parent); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		sweepStale(parent, dirPattern)
		dir, err := os.MkdirTemp(parent, dirPattern)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		return dir, os.Chmod(dir, 0o755) //nolint:gosec // likewise
	}
	return "", fmt.Errorf("make a temporary directory for postgresql: %w", failed)
}

func (s *Server) initdb(ctx context.Context, noSync bool) error {
	args := []string{"-D", s.DataDir(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--no-locale"}
	if noSync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin.Dir, "initdb"), args...)
	cmd.Env = childEnv()
	cmd.Dir = s.dir
	cmd.SysProcAttr = s.account.sysProcAttr()
	runtime.LockOSThread() // see run
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb of PostgreSQL %s: %w: %s", s.bin.Version, err, lastLines(out))
	}
	return nil
}
