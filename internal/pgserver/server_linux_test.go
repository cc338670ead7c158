package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func create(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func exec1(t *testing.T, s *Server, sql string) {
	t.Helper()
	if _, err := connect(t, s).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func start(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestServerLife(t *testing.T) {
	s := create(t, Config{Settings: map[string]string{"application_name": `it's \ "odd"`}})
	start(t, s)
	if err := s.Start(t.Context()); !errors.Is(err, ErrRunning) {
		t.Fatalf("second start: %v", err)
	}
	exec1(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (0)")
	var name string
	if err := connect(t, s).QueryRow(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != `it's \ "odd"` {
		t.Fatalf("setting arrived as %q, %v", name, err)
	}
	exec1(t, s, "SELECT pg_create_logical_replication_slot('a', 'pgoutput')")

	addr, pid := s.Addr(), s.PID()
	for i, end := range []func() error{
		s.Kill,
		func() error { return s.Stop(t.Context()) },
		func() error { return s.StopImmediate(t.Context()) },
		s.Kill,
	} {
		exec1(t, s, fmt.Sprintf("INSERT INTO kept VALUES (%d)", i+1))
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if s.Running() || s.PID() != 0 {
			t.Fatal("runs after its end")
		}
		start(t, s)
	}
	if s.Addr() != addr || s.PID() == pid {
		t.Fatalf("address %s and pid %d became %s and %d", addr, pid, s.Addr(), s.PID())
	}
	var rows int
	if err := connect(t, s).QueryRow(t.Context(), "SELECT count(*) FROM kept").Scan(&rows); err != nil || rows != 5 {
		t.Fatalf("%d rows, %v", rows, err)
	}

	dir := s.Dir()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("directory after Close: %v", err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("start after Close: %v", err)
	}
}

// TestKillIsTotal holds sessions in a busy server and looks for any process that survives.
func TestKillIsTotal(t *testing.T) {
	s := create(t, Config{NoSync: true})
	start(t, s)
	var sessions sync.WaitGroup
	for range 5 {
		conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		sessions.Go(func() {
			defer conn.Close(context.Background())
			if _, err := conn.Exec(context.Background(), "SELECT pg_sleep(600)"); err == nil {
				t.Error("a session slept on")
			}
		})
	}
	busy := func() (bool, error) {
		pids, err := childrenOf(s.PID())
		return len(pids) >= 9, err
	}
	if err := poll(10*time.Second, busy, "backends"); err != nil {
		t.Fatal(err)
	}
	pids, err := childrenOf(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	pids = append(pids, s.PID())
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	sessions.Wait()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d of %d lives", pid, len(pids))
		}
	}
	start(t, s)
}

func TestGivenDir(t *testing.T) {
	parent, err := os.MkdirTemp("/tmp", "syncline-given-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}

	long := filepath.Join(parent, strings.Repeat("long", 30))
	s := create(t, Config{Dir: long, NoSync: true})
	start(t, s)
	exec1(t, s, "SELECT 1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(long); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory that was not there before: %v", err)
	}
	if _, err := os.Stat(s.SocketDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket directory: %v", err)
	}

	if err := os.WriteFile(filepath.Join(parent, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), Config{Dir: parent}); err == nil {
		t.Error("a directory with a file in it was taken")
	}
	if _, err := os.Stat(filepath.Join(parent, "mine")); err != nil {
		t.Error(err)
	}
}

func TestStartFailureSaysWhy(t *testing.T) {
	s := create(t, Config{NoSync: true, Settings: map[string]string{"wal_level": "sideways"}})
	err := s.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "sideways") {
		t.Fatalf("start with a bad setting: %v", err)
	}
}

// TestParentDeath has a second process start a server and die by SIGKILL.
func TestParentDeath(t *testing.T) {
	if os.Getenv("PGSERVER_CHILD") != "" {
		serveAndHang(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestParentDeath$")
	cmd.Env = append(os.Environ(), "PGSERVER_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Fscan(out, &pid, &dir); err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Fatal("the server does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	gone := func() (bool, error) { return !alive(pid), nil }
	if err := poll(20*time.Second, gone, "server of the killed process to end"); err != nil {
		t.Fatal(err)
	}
	// The next one clears away what was left.
	sweepStale(filepath.Dir(dir), dirPattern)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("directory of the killed process: %v", err)
	}
}

func serveAndHang(t *testing.T) {
	s, err := Create(t.Context(), Config{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s)
	fmt.Println(strconv.Itoa(s.PID()), s.Dir())
	select {}
}

func TestFind(t *testing.T) {
	b, err := Find("any")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Find("9.6"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("malformed version: %v", err)
	}
	if _, err := Find("14"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("unsupported version: %v", err)
	}
	if _, err := Find("99"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "getpg 99") {
		t.Errorf("version that is not there: %v", err)
	}
	t.Setenv("SYNCLINE_PG_BIN", b.Dir)
	if got, err := Find("99"); err != nil || got.Dir != b.Dir {
		t.Errorf("SYNCLINE_PG_BIN does not stand above the version: %v, %v", got, err)
	}
	t.Setenv("SYNCLINE_PG_BIN", t.TempDir())
	if _, err := Find(""); !errors.Is(err, ErrNotFound) {
		t.Errorf("SYNCLINE_PG_BIN without binaries: %v", err)
	}
}
