package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute
	// A fast shutdown waits until the walsenders have sent everything, so a stuck reader can hold it up to
	// wal_sender_timeout.
	stopTimeout = 90 * time.Second
	killTimeout = 30 * time.Second

	superuser  = "postgres"
	dirPattern = "syncline-pg-*"
	// The path of a unix socket, with PostgreSQL's ".s.PGSQL.12345" in it, must fit into 107 bytes.
	longestSocketDir = 90
)

// ErrRunning means that the server runs already.
var ErrRunning = errors.New("postgresql server runs already")

// ErrClosed means that the server was closed and its directory is gone.
var ErrClosed = errors.New("postgresql server is closed")

// Server is one PostgreSQL cluster. Its methods may be called at the same time.
type Server struct {
	bin      Binaries
	account  account
	dir      string
	socket   string
	port     int
	holdPort net.Listener
	release  func() // ends this process's hold on dir
	emptyDir bool   // dir was there before: leave it behind, empty

	mu     sync.Mutex
	child  *child // nil before the first start and after a stop
	closed bool
}

// Start starts the server and returns when it takes connections, after crash recovery if that is needed.
// It matches ErrRunning when it runs already.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.running() {
		return ErrRunning
	}
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	cmd := exec.Command(s.bin.Postgres(), "-D", s.DataDir())
	cmd.Env = childEnv()
	cmd.Dir = s.dir
	cmd.SysProcAttr = s.account.sysProcAttr()
	cmd.Stdout, cmd.Stderr = log, log
	if s.child, err = run(cmd); err != nil {
		s.child = nil
		return fmt.Errorf("start %s: %w", s.bin.Postgres(), err)
	}
	return s.waitReady(ctx)
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !s.ready() {
		select {
		case <-s.child.done:
			return fmt.Errorf("start PostgreSQL %s in %s: it ended: %w: %s", s.bin.Version, s.dir, endOf(s.child), s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("start PostgreSQL %s in %s: %w: %s", s.bin.Version, s.dir, ctx.Err(), s.logTail())
		case <-tick.C:
		}
	}
	return nil
}

func endOf(c *child) error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// Stop ends the server in PostgreSQL's fast mode: transactions are rolled back, and a checkpoint is written.
// A server that does not run is no error.
func (s *Server) Stop(ctx context.Context) error {
	return s.stop(ctx, syscall.SIGINT)
}

// StopImmediate ends the server without a checkpoint; the next start recovers from WAL.
func (s *Server) StopImmediate(ctx context.Context) error {
	return s.stop(ctx, syscall.SIGQUIT)
}

func (s *Server) stop(ctx context.Context, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		s.child = nil
		return nil
	}
	if err := s.child.signal(sig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-s.child.done:
		s.child = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL in %s: %w: %s", s.dir, ctx.Err(), s.logTail())
	}
}

// Kill ends the postmaster and every process of the server with SIGKILL, as a crash would, and returns when all are
// gone. What they had written to the kernel stays. A server that does not run is no error.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *Server) kill() error {
	if !s.running() {
		s.child = nil
		return nil
	}
	if err := s.child.killAll(killTimeout); err != nil {
		return err
	}
	s.child = nil
	return nil
}

// Close kills the server, if it runs, and removes everything that Create made. It may be called again.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.kill(); err != nil {
		return err
	}
	s.closed = true
	err := os.RemoveAll(s.dir)
	if s.holdPort != nil {
		err = errors.Join(err, s.holdPort.Close())
	}
	if s.emptyDir {
		err = errors.Join(err, os.MkdirAll(s.dir, 0o755)) //nolint:gosec // as it was
	}
	if s.socket != "" {
		err = errors.Join(err, os.RemoveAll(s.socket))
	}
	if s.release != nil {
		s.release()
	}
	return err
}

// running needs mu.
func (s *Server) running() bool {
	if s.child == nil {
		return false
	}
	select {
	case <-s.child.done:
		return false
	default:
		return true
	}
}

// Running tells whether the postmaster runs now.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running()
}

// PID is the postmaster's process id, or 0 when it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return 0
	}
	return s.child.pid
}

// URL is a connection URL of a database, for the superuser.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Host: s.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Addr is host and port of the server. It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Port is the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Binaries are the programs that the server runs on.
func (s *Server) Binaries() Binaries { return s.bin }

// Dir is the server's directory.
func (s *Server) Dir() string { return s.dir }

// DataDir is the data directory within Dir.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// SocketDir holds the server's unix socket.
func (s *Server) SocketDir() string { return s.socket }

// LogPath is the server's log. It grows over restarts.
func (s *Server) LogPath() string { return filepath.Join(s.dir, "log") }
