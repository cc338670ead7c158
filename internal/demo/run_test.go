package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// program is the real one, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "syncline-demo-test-")
	if err != nil {
		return "", err
	}
	programDir = dir
	path := filepath.Join(dir, "syncline")
	out, err := exec.Command("go", "build", "-o", path, "github.com/seed0419d559/syncline/cmd/syncline").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build syncline: %w: %s", err, out)
	}
	return path, err
})

// programDir is where program has put it, "" before.
var programDir string

// removeProgram is called when the tests have ended.
func removeProgram() {
	if programDir != "" {
		_ = os.RemoveAll(programDir)
	}
}

// output is what a demonstration prints, readable while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run is a demonstration in a process of its own, with a temporary directory of its own.
type run struct {
	*exec.Cmd
	out  *output
	dir  string
	done chan struct{}
}

func startRun(t *testing.T, args ...string) *run {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	// The servers' account has to be able to enter it, which t.TempDir does not promise.
	dir, err := os.MkdirTemp("/tmp", "syncline-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &run{Cmd: exec.Command(path, append([]string{"demo", "--scale", "0.02"}, args...)...), out: &output{}, dir: dir, done: make(chan struct{})}
	r.Env = append(os.Environ(), "TMPDIR="+dir)
	r.Stdout, r.Stderr = r.out, r.out
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.Wait() // the exit code is read from the state
	}()
	t.Cleanup(func() {
		_ = r.Process.Kill()
		<-r.done
		if t.Failed() {
			t.Logf("the demonstration printed:\n%s", r.out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *run) printed(t *testing.T, text string) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		select {
		case <-r.done:
			if !strings.Contains(r.out.String(), text) {
				t.Fatalf("it ended without printing %q", text)
			}
		default:
		}
		if !strings.Contains(r.out.String(), text) {
			return fmt.Errorf("not printed yet: %s", text)
		}
		return nil
	})
}

func (r *run) ended(t *testing.T, code int) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(3 * time.Minute):
		t.Fatal("the demonstration does not end")
	}
	if got := r.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// nothingLeft waits until no process and no directory of the demonstration is left.
func (r *run) nothingLeft(t *testing.T, directories bool) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		if left := processesIn(r.dir); len(left) > 0 {
			return fmt.Errorf("processes are left: %q", left)
		}
		return nil
	})
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if directories && len(entries) > 0 {
		t.Errorf("directories are left: %v", entries)
	}
}

// processesIn lists the processes whose command line or environment names a directory.
func processesIn(dir string) (found []string) {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		command, _ := os.ReadFile(filepath.Join(entry, "cmdline"))
		environment, _ := os.ReadFile(filepath.Join(entry, "environ"))
		if bytes.Contains(command, []byte(dir)) || bytes.Contains(environment, []byte("TMPDIR="+dir)) {
			found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

// TestWhole shows everything, small.
func TestWhole(t *testing.T) {
	r := startRun(t, "--duration", "5s")
	r.ended(t, 0)
	r.nothingLeft(t, true)
	for _, want := range []string{
		`Starting 1 primary and 2 replicas, each with a PostgreSQL \d+`, `\d+ tables, [\d,]+ rows, [\d.]+ MB in`,
		`replica 2 +100 %  [\d,]+ rows`, `Try:  `, `replica 1 running +[0-9A-F]+/[0-9A-F]+`, `kill -9 of the applier of replica 1`, `started again`,
		`Stopped writing, after [\d,]+ transactions`, `replica 1: equal to the primary: 1[04] tables, [\d,]+ rows compared`,
		`Every table is equal on all 3 servers`, `Everything is stopped and removed`,
	} {
		if !regexp.MustCompile(want).MatchString(r.out.String()) {
			t.Errorf("not printed: %s", want)
		}
	}
}

// TestInterrupted ends demonstrations at their stages, as Ctrl-C does, and finds nothing left.
func TestInterrupted(t *testing.T) {
	for _, stage := range []string{"Starting", "Filling", "first copy", "Live for"} {
		t.Run(stage, func(t *testing.T) {
			r := startRun(t, "--duration", "1m", "--replicas", "1")
			r.printed(t, stage)
			if err := r.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			r.ended(t, 1)
			r.nothingLeft(t, true)
			if !strings.Contains(r.out.String(), ErrInterrupted.Error()) {
				t.Error("it does not say that it was interrupted")
			}
		})
	}
}

// TestKept leaves everything running until the signal, and is content then.
func TestKept(t *testing.T) {
	r := startRun(t, "--duration", "1s", "--replicas", "1", "--keep")
	r.printed(t, "Running until Ctrl-C")
	url := regexp.MustCompile(`replica 1 (postgres://\S+)`).FindStringSubmatch(r.out.String())
	if url == nil {
		t.Fatal("no address of the replica is printed")
	}
	conn := pgtest.Connect(t, url[1])
	var orders int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&orders); err != nil || orders == 0 {
		t.Errorf("%d orders on the replica: %v", orders, err)
	}
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.ended(t, 0)
	r.nothingLeft(t, true)
}

// TestKilled kills the demonstration itself: its processes end with it. The directories go when the next one starts.
func TestKilled(t *testing.T) {
	r := startRun(t, "--duration", "1m", "--replicas", "1")
	r.printed(t, "Live for")
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.done
	r.nothingLeft(t, false)
}

// TestDifference plants a changed row: the proof fails and names it.
func TestDifference(t *testing.T) {
	d := &demo{screen: &screen{out: &bytes.Buffer{}}}
	nodes := make([]*node, 2)
	for i := range nodes {
		n, err := newNode(t.Context(), "", "replica", fmt.Sprintf("node %d", i))
		t.Cleanup(func() {
			if err := n.close(); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = n
		conn, err := postgres.Connect(t.Context(), n.url(), application)
		if err != nil {
			t.Fatal(err)
		}
		defer disconnect(conn)
		if _, err := conn.Exec(t.Context(), "CREATE TABLE public.t AS SELECT 1 AS id, 'all is well' AS note"); err != nil {
			t.Fatal(err)
		}
	}
	d.primary, d.replicas = nodes[0], nodes[1:]
	if err := d.prove(t.Context()); err != nil {
		t.Fatalf("equal databases: %v", err)
	}
	conn := pgtest.Connect(t, nodes[1].url())
	pgtest.Exec(t, conn, "UPDATE public.t SET note = 'tampered'")
	var out bytes.Buffer
	d.screen.out = &out
	if err := d.prove(context.Background()); !errors.Is(err, ErrDifferent) || !strings.Contains(out.String(), "tampered") {
		t.Errorf("a changed row: %v\n%s", err, out.String())
	}
}
