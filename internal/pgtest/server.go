// Package pgtest gives tests real PostgreSQL servers, databases in them, load to put on them, a proxy that breaks
// connections, and an exact comparison. Whatever it starts ends with the test, and a missing server fails the test.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// VersionVariable names the environment variable that sets the version for all servers made without WithVersion.
const VersionVariable = "SYNCLINE_TEST_PG"

const cleanupTimeout = time.Minute

// Server is a PostgreSQL server of a test.
type Server struct {
	Cluster *pgserver.Server
}

// Option changes how New makes a server.
type Option func(*pgserver.Config)

// WithSetting sets a line of postgresql.conf.
func WithSetting(name, value string) Option {
	return func(c *pgserver.Config) { c.Settings[name] = value }
}

// WithVersion asks for a major version, "15" and so on.
func WithVersion(major string) Option {
	return func(c *pgserver.Config) { c.Version = major }
}

// WithFsync(false) makes a server faster. It stays safe against Kill9, for the kernel keeps what was written.
func WithFsync(on bool) Option {
	return func(c *pgserver.Config) { c.NoSync = !on }
}

// New starts a server that belongs to the test alone and is removed at its end.
func New(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s, err := newServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of PostgreSQL on port %d ends:\n%s", s.Port(), s.LogTail())
		}
		if err := s.Cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newServer(opts []Option) (*Server, error) {
	cfg := pgserver.Config{Version: os.Getenv(VersionVariable), Settings: map[string]string{
		"logical_decoding_work_mem": "1MB", // what tests think large is sent in pieces, or goes over the disk
	}}
	for _, opt := range opts {
		opt(&cfg)
	}
	ctx := context.Background()
	cluster, err := pgserver.Create(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := cluster.Start(ctx); err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	return &Server{Cluster: cluster}, nil
}

var shared = sync.OnceValues(func() (*Server, error) { return newServer([]Option{WithFsync(false)}) })

var sharedMade atomic.Bool

// Shared is one server for the whole test process. Do not stop, kill or configure it. A package that uses it calls Main
// in its TestMain; without that the server still ends with the process, and its directory goes when the next one is made.
func Shared(t testing.TB) *Server {
	t.Helper()
	sharedMade.Store(true)
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Main runs the tests of a package and then removes the shared server:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if !sharedMade.Load() {
		return code
	}
	if s, err := shared(); err == nil {
		if err := s.Cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
	}
	return code
}

// URL is a connection URL of a database of this server, for its superuser.
func (s *Server) URL(database string) string { return s.Cluster.URL(database) }

// Addr is host:port, for a Proxy.
func (s *Server) Addr() string { return s.Cluster.Addr() }

// Port is the server's TCP port on 127.0.0.1; it stays over restarts.
func (s *Server) Port() int { return s.Cluster.Port() }

// PID is the postmaster's process id, 0 when it does not run.
func (s *Server) PID() int { return s.Cluster.PID() }

// Major is the server's major version.
func (s *Server) Major() int { return s.Cluster.Binaries().Major }

// Start starts a server that was stopped or killed, and waits until it takes connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.Cluster.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the server in fast mode.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.Cluster.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Restart stops and starts the server.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// Kill9 ends every process of the server with SIGKILL, as a crash would.
func (s *Server) Kill9(t testing.TB) {
	t.Helper()
	if err := s.Cluster.Kill(); err != nil {
		t.Fatal(err)
	}
}

// LogTail is the end of the server's log.
func (s *Server) LogTail() string {
	text, err := os.ReadFile(s.Cluster.LogPath())
	if err != nil {
		return err.Error()
	}
	const most = 8000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}

var (
	databases  atomic.Int64
	notInNames = regexp.MustCompile(`[^a-z0-9]+`)
)

// Database makes a new database and returns its URL. At the test's end its replication slots and prepared transactions
// go, and then the database itself, whoever is still connected.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := notInNames.ReplaceAllString(strings.ToLower(t.Name()), "_")
	name = fmt.Sprintf("%.40s_%d", strings.Trim(name, "_"), databases.Add(1))
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+postgres.Ident(name)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !s.Cluster.Running() {
			return // killed by the test, and removed with its directory
		}
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return s.URL(name)
}

func (s *Server) drop(ctx context.Context, name string) error {
	if err := s.rollbackPrepared(ctx, name); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	ident := postgres.Ident(name)
	// First nobody may come in any more: a client could connect again and take its slot back.
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+ident+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	dropSlots := func() error {
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE database = $1 AND active_pid IS NOT NULL`, name)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE database = $1`, name)
		return err
	}
	if err := retry(ctx, dropSlots); err != nil {
		return err
	}
	return retry(ctx, func() error {
		_, err := conn.Exec(ctx, "DROP DATABASE "+ident+" WITH (FORCE)")
		return err
	})
}

// rollbackPrepared ends the prepared transactions of a database, which only a session in that database can do.
func (s *Server) rollbackPrepared(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.URL(name))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
			return err
		}
	}
	return nil
}
