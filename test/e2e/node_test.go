// Package e2e tests Syncline as its users have it: the real binary, real PostgreSQL servers, and connections and processes
// that break. Every test ends with a comparison of all rows of all tables.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// binary is the syncline binary under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "syncline-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "syncline")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/seed0419d559/syncline/cmd/syncline").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build syncline: %v\n%s", err, out)
		return 1
	}
	return pgtest.Main(m)
}

// node is one running syncline server process, which can be killed and started again on the same addresses.
type node struct {
	t    testing.TB
	name string
	args []string
	env  []string
	grpc string
	http string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  *lockedBuffer
	conn *grpc.ClientConn
}

// lockedBuffer keeps what a process prints, at most its last part.
type lockedBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	file *os.File // takes all of it, unless nil
}

// logsVariable names a directory for all that the processes print.
const logsVariable = "SYNCLINE_TEST_LOGS"

const keptOutput = 1 << 20

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > keptOutput {
		b.buf.Next(b.buf.Len() - keptOutput/2)
	}
	if b.file != nil {
		_, _ = b.file.Write(p)
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func freeAddress(t testing.TB) string {
	t.Helper()
	port, hold, err := pgserver.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hold.Close() })
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// newNode prepares a server process of a role ("primary", "replica", "logger", …) without starting it.
func newNode(t testing.TB, role string, args ...string) *node {
	t.Helper()
	n := &node{t: t, name: role, grpc: freeAddress(t), http: freeAddress(t), out: &lockedBuffer{}}
	n.args = append([]string{role, "--grpc", n.grpc, "--http", n.http}, args...)
	if dir := os.Getenv(logsVariable); dir != "" {
		var err error
		name := strings.ReplaceAll(t.Name(), "/", "_") + "_" + role + "_"
		if n.out.file, err = os.CreateTemp(dir, name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.out.file.Close() })
	}
	t.Cleanup(func() {
		n.kill9()
		if n.conn != nil {
			n.conn.Close()
		}
		if t.Failed() {
			text := n.out.String()
			if len(text) > 12000 {
				text = "…" + text[len(text)-12000:]
			}
			t.Logf("%s %s printed:\n%s", role, n.grpc, text)
		}
	})
	return n
}

func startPrimary(t testing.TB, url string, args ...string) *node {
	t.Helper()
	n := newNode(t, "primary", append([]string{"--postgres", url, "--data", t.TempDir()}, args...)...)
	n.start()
	n.waitHealthy(time.Minute)
	n.waitCapturing(time.Minute)
	return n
}

// waitCapturing waits until the change log has been begun and capture runs.
func (n *node) waitCapturing(timeout time.Duration) {
	n.t.Helper()
	pgtest.Eventually(n.t, timeout, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		state, err := n.logger().GetState(ctx, &loggerv1.GetStateRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if state.GetState() != "capturing" {
			return fmt.Errorf("the logger is %s: %s %s", state.GetState(), state.GetReasonCode(), state.GetReason())
		}
		return nil
	})
}

func startReplica(t testing.TB, url string, args ...string) *node {
	t.Helper()
	n := newNode(t, "replica", append([]string{"--postgres", url}, args...)...)
	n.start()
	n.waitHealthy(time.Minute)
	return n
}

// start starts the process; env is added for this start only.
func (n *node) start(env ...string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = exec.Command(binary, n.args...)
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SYNCLINE_TEST_") || strings.HasPrefix(v, "SYNCLINE_TORTURE_") // ours, not the program's
	})
	n.cmd.Env = append(append(own, n.env...), env...)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		err := cmd.Wait()
		n.mu.Lock()
		n.err = err
		n.mu.Unlock()
		close(done)
	}(n.cmd, n.done)
}

// kill9 kills the process as kill -9 does and waits until it is gone.
func (n *node) kill9() {
	n.mu.Lock()
	cmd, done := n.cmd, n.done
	n.mu.Unlock()
	if cmd == nil || cmd.Process == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-done
}

// terminate asks the process to end and returns its exit code.
func (n *node) terminate(timeout time.Duration) int {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	return n.wait(timeout)
}

// wait waits for the process to end and returns its exit code, -1 for a signal.
func (n *node) wait(timeout time.Duration) int {
	n.t.Helper()
	select {
	case <-n.done:
	case <-time.After(timeout):
		n.t.Fatalf("%s did not end within %s", n.name, timeout)
	}
	return n.cmd.ProcessState.ExitCode()
}

func (n *node) exited() bool {
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	if done == nil {
		return true // it was never started
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (n *node) pid() int { return n.cmd.Process.Pid }

func (n *node) dial() *grpc.ClientConn {
	n.t.Helper()
	if n.conn == nil {
		conn, err := rpc.Dial(n.grpc)
		if err != nil {
			n.t.Fatal(err)
		}
		n.conn = conn
	}
	return n.conn
}

func (n *node) applier() applierv1.ApplierServiceClient {
	return applierv1.NewApplierServiceClient(n.dial())
}
func (n *node) logger() loggerv1.LoggerServiceClient {
	return loggerv1.NewLoggerServiceClient(n.dial())
}

func (n *node) waitHealthy(timeout time.Duration) {
	n.t.Helper()
	pgtest.Eventually(n.t, timeout, func() error {
		if n.exited() {
			n.t.Fatalf("%s ended: %v\n%s", n.name, n.err, n.out)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		answer, err := grpc_health_v1.NewHealthClient(n.dial()).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("%s is %s", n.name, answer.GetStatus())
		}
		return nil
	})
}

// create creates a replication from a primary.
func (n *node) create(name, source string, edit ...func(*applierv1.ReplicationSpec)) (*applierv1.Replication, error) {
	spec := &applierv1.ReplicationSpec{Source: source}
	for _, e := range edit {
		e(spec)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := n.applier().CreateReplication(ctx, &applierv1.CreateReplicationRequest{Name: name, Spec: spec})
	return answer.GetReplication(), err
}

func (n *node) mustCreate(name, source string, edit ...func(*applierv1.ReplicationSpec)) {
	n.t.Helper()
	if _, err := n.create(name, source, edit...); err != nil {
		n.t.Fatalf("create replication: %s", rpc.Message(err))
	}
}

func (n *node) get(name string) (*applierv1.Replication, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := n.applier().GetReplication(ctx, &applierv1.GetReplicationRequest{Name: name}, grpc.WaitForReady(true))
	return answer.GetReplication(), err
}

// waitState waits until a replication is in one of the states.
func (n *node) waitState(name string, timeout time.Duration, states ...applierv1.State) *applierv1.Replication {
	n.t.Helper()
	var last *applierv1.Replication
	pgtest.Eventually(n.t, timeout, func() error {
		r, err := n.get(name)
		if err != nil {
			return err
		}
		last = r
		for _, s := range states {
			if r.GetState() == s {
				return nil
			}
		}
		text := fmt.Sprintf("replication %s is %s: %s %s (%s %s)", name, r.GetState(), r.GetReasonCode(), r.GetReason(), r.GetSync().GetPhase(), r.GetSync().GetDetail())
		if r.GetState() == applierv1.State_STATE_FAILED {
			n.t.Fatal(text)
		}
		return errors.New(text)
	})
	return last
}

// waitApplied waits until everything committed on the source before the call is applied. It goes on over faults.
func (n *node) waitApplied(name string, timeout time.Duration) {
	n.t.Helper()
	pgtest.Eventually(n.t, timeout, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_, err := n.applier().WaitReplication(ctx, &applierv1.WaitReplicationRequest{Name: name}, grpc.WaitForReady(true))
		if err != nil {
			return errors.New(rpc.Message(err))
		}
		return nil
	})
}

// run runs the binary to its end and returns what it printed and its exit code.
func run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// faultsHit returns how often each named fault acted, from the file that the processes wrote.
func faultsHit(t testing.TB, path string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	hits := map[string]int{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		if line != "" {
			hits[line]++
		}
	}
	return hits
}

func faultEnv(name string, count int, log string) []string {
	return []string{fmt.Sprintf("%s=%s:%d", fault.Variable, name, count), fault.LogVariable + "=" + log}
}
