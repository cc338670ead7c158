package logger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// childVariable holds the configuration as JSON and makes the test binary run a logger instead of tests.
const childVariable = "SYNCLINE_TEST_LOGGER"

// childMemory is the soft limit with which the garbage collector works, as in the program.
const childMemory = 200 << 20

// runChild runs a logger with a gRPC server, whose address it prints, until it gets SIGTERM.
func runChild() int {
	var cfg Config
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	debug.SetMemoryLimit(childMemory)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	service, err := New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	server := rpc.NewServer(rpc.WithTable(Errors()))
	service.Register(server)
	go func() { _ = server.Run(ctx, listener) }()
	fmt.Println(listener.Addr())
	if err := service.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a logger in a process of its own.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	client loggerv1.LoggerServiceClient
	done   chan error
	log    *tail
}

// tail keeps the end of what a process logs.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 20000
	l.text = append(l.text, p...)
	if len(l.text) > most {
		l.text = l.text[len(l.text)-most:]
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func startChild(t testing.TB, cfg Config, environment ...string) *child {
	t.Helper()
	cfg.Logger = nil
	config, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(os.Args[0]), done: make(chan error, 1), log: &tail{}}
	c.cmd.Env = append(append(os.Environ(), childVariable+"="+string(config)), environment...)
	c.cmd.Stderr = c.log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, c.log)
	}
	conn, err := rpc.Dial(strings.TrimSpace(address))
	if err != nil {
		t.Fatal(err)
	}
	c.client = loggerv1.NewLoggerServiceClient(conn)
	go func() {
		_, _ = io.Copy(io.Discard, out)
		c.done <- c.cmd.Wait()
		conn.Close()
	}()
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// killed waits until the process has killed itself at a fault point.
func (c *child) killed(what string) {
	c.t.Helper()
	select {
	case err := <-c.done:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			c.t.Fatalf("%s: the logger ended with %v\n%s", what, err, c.log)
		}
	case <-time.After(patience):
		_ = c.cmd.Process.Kill()
		c.t.Fatalf("%s was not reached\n%s", what, c.log)
	}
}

// peak is the most memory that the process had resident, in bytes.
func (c *child) peak() int64 {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	c.t.Fatal("no VmHWM")
	return 0
}

func seed(t testing.TB) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

const loadTables = `
	CREATE TABLE accounts (id int PRIMARY KEY, balance int, note text); INSERT INTO accounts SELECT i, 1000, 'x' FROM generate_series(1, 200) i;
	CREATE TABLE entries (id bigserial PRIMARY KEY, account int, amount int, at timestamptz DEFAULT clock_timestamp(), big text);
	ALTER TABLE entries ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE bulk (id int, run int, v text, PRIMARY KEY (run, id));
	CREATE TABLE unpublished (v text)`

// load writes to the primary until it is stopped: small transactions of several clients with savepoints, rollbacks and
// prepared transactions, among them now and then a huge one.
type load struct {
	stop func() // waits until the writers have ended
}

func startLoad(t testing.TB, url string, random *rand.Rand, bulkRows int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	l := &load{stop: func() { cancel(); writers.Wait() }}
	t.Cleanup(l.stop)
	const smallEvery, bulkEvery = 10 * time.Millisecond, 2 * time.Second
	for n := range 4 {
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		writers.Go(func() {
			write(ctx, t, url, smallEvery, func(conn *pgx.Conn, round int) error { return small(ctx, conn, r, fmt.Sprintf("load_%d_%d", n, round)) })
		})
	}
	writers.Go(func() {
		write(ctx, t, url, bulkEvery, func(conn *pgx.Conn, round int) error {
			// Messages that the logger drops stand between the rows: where it resumes it counts what it keeps.
			_, err := conn.Exec(ctx, `INSERT INTO bulk SELECT i, $1, repeat(md5(i::text), 4) || CASE WHEN i % 100 = 1
				THEN pg_logical_emit_message(true, 'syncline.tables', repeat('x', 1000))::text ELSE '' END FROM generate_series(1, $2) i`, time.Now().UnixMicro()%2e9, bulkRows)
			if err == nil && round%3 == 2 {
				_, err = conn.Exec(ctx, "DELETE FROM bulk")
			}
			return err
		})
	})
	return l
}

// write repeats a piece of work over connections that may break; any other error fails the test.
func write(ctx context.Context, t testing.TB, url string, every time.Duration, work func(*pgx.Conn, int) error) {
	var conn *pgx.Conn
	pace := time.NewTicker(every)
	defer pace.Stop()
	for round := 0; ctx.Err() == nil; round++ {
		<-pace.C
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, url); err != nil {
				conn = nil
				continue
			}
		}
		err := work(conn, round)
		var pg interface{ SQLState() string }
		if err != nil && ctx.Err() == nil && errors.As(err, &pg) && !strings.HasPrefix(pg.SQLState(), "57") && pg.SQLState() != "40P01" {
			t.Errorf("a statement of the load failed: %v", err)
			break
		}
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

func small(ctx context.Context, conn *pgx.Conn, r *rand.Rand, gid string) error {
	a, b, amount := 1+r.IntN(200), 1+r.IntN(200), 1+r.IntN(50)
	sql := fmt.Sprintf(`BEGIN; UPDATE accounts SET balance = balance - %d WHERE id = %d; SAVEPOINT s;
		UPDATE accounts SET note = 'never' WHERE id = %d; ROLLBACK TO s;
		UPDATE accounts SET balance = balance + %d WHERE id = %d;
		INSERT INTO entries (account, amount, big) VALUES (%d, %d, %s); INSERT INTO unpublished VALUES ('x'); `,
		amount, min(a, b), max(a, b), amount, max(a, b), a, amount, []string{"NULL", "repeat('b', 3000)", "repeat('c', 400000)"}[r.IntN(40)/19])
	switch r.IntN(10) {
	case 0:
		sql += "ROLLBACK"
	case 1:
		sql += fmt.Sprintf("PREPARE TRANSACTION '%s'; COMMIT PREPARED '%s'", gid, gid)
		sql = strings.Replace(sql, "PREPARE", "SELECT pg_logical_emit_message(true, 'load', 'prepared'); PREPARE", 1)
	default:
		sql += "COMMIT"
	}
	// PREPARE and COMMIT PREPARED cannot stand in one implicit transaction: statement by statement.
	for statement := range strings.SplitSeq(sql, ";") {
		if _, err := conn.Exec(ctx, statement); err != nil {
			if !conn.IsClosed() {
				_, _ = conn.Exec(ctx, "ROLLBACK")
			}
			return err
		}
	}
	return nil
}

// TestKilledAtEveryStep kills the logger between every two durable steps and at random moments under load, also in the
// middle of huge transactions. At the end the log holds what an independent slot delivers.
func TestKilledAtEveryStep(t *testing.T) {
	random := seed(t)
	server := pgtest.New(t, pgtest.WithFsync(false))
	url := server.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), loadTables)
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.unpublished"}
	acted := t.TempDir() + "/faults"
	die := func(point string, count int) {
		t.Helper()
		startChild(t, cfg, fmt.Sprintf("%s=%s:%d", fault.Variable, point, count), fault.LogVariable+"="+acted).killed(point)
	}
	steps := 0
	// The first start, broken off at each of its steps.
	for _, point := range []string{FaultPublished, FaultSlotMade, FaultLogReset, FaultConfirmed} {
		die(point, 1)
		steps++
	}
	first := startChild(t, cfg)
	id := awaitLog(t, first)
	first.kill()

	w := newWitness(t, url, cfg)
	load := startLoad(t, url, random, 20000)
	for range 3 {
		for point, most := range map[string]int{FaultReceived: 30000, FaultAppended: 30000, FaultSpooled: 1000, FaultReplayed: 1000} {
			die(point, 1+random.IntN(most))
			steps++
		}
		for _, point := range []string{FaultDurable, FaultConfirmed} {
			die(point, 1+random.IntN(10))
			steps++
		}
	}
	for range 12 {
		c := startChild(t, cfg)
		select {
		case err := <-c.done:
			t.Fatalf("the logger ended by itself: %v\n%s", err, c.log)
		case <-time.After(time.Duration(random.IntN(1500)) * time.Millisecond):
		}
		c.kill()
	}
	load.stop()
	text, err := os.ReadFile(acted)
	if err != nil || strings.Count(string(text), "\n") != steps {
		t.Errorf("%d fault points acted, want %d: %v", strings.Count(string(text), "\n"), steps, err)
	}

	i := start(t, cfg)
	i.waitCapturing(t)
	to := i.barrier(t)
	if to.GetLogId() != id {
		t.Fatalf("a new log was begun: %v", i.state(t).GetWarnings())
	}
	r := follow(t, i, nil, to)
	w.requireSame(t, url, r.history.done, to.GetLsn())
	t.Logf("%d blocks, %d bytes", r.blocks, rangesOf(t, i).GetBytes())
}

func rangesOf(t testing.TB, i *instance) *loggerv1.GetRangesResponse {
	t.Helper()
	ranges, err := i.client.GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

// awaitLog waits until a child captures and returns the log's id.
func awaitLog(t testing.TB, c *child) string {
	t.Helper()
	var id string
	pgtest.Eventually(t, patience, func() error {
		state, err := c.client.GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && state.GetState() != PhaseCapturing {
			err = fmt.Errorf("%v\n%s", state, c.log)
		}
		id = state.GetPosition().GetLogId()
		return err
	})
	return id
}

// TestReconnects breaks the connection in every way under load; the logger goes on by itself and misses nothing.
func TestReconnects(t *testing.T) {
	random := seed(t)
	server := pgtest.New(t)
	url := server.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), loadTables)
	proxy := pgtest.NewProxy(t, server.Addr())
	cfg := testConfig(t, url)
	cfg.PostgresURL = proxy.URL(t, url)
	cfg.Exclude = []string{"public.unpublished"}
	cfg.SilenceLimit = 2 * time.Second
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	load := startLoad(t, url, random, 5000)
	terminate := func() {
		pgtest.Exec(t, pgtest.Connect(t, url), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = $1", cfg.Slot)
	}
	stalled := func() {
		proxy.Stall()
		i.waitFor(t, "reconnecting", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseReconnecting })
		proxy.Resume()
	}
	refused := func() {
		proxy.Refuse()
		proxy.Cut()
		i.waitFor(t, "reconnecting", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseReconnecting })
		if err := proxy.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	for name, breakIt := range map[string]func(){
		"cut": func() { proxy.Cut() }, "cut inside a message": func() { proxy.CutAfter(pgtest.ToClient, int64(random.IntN(300000))) },
		"stalled": stalled, "refused": refused, "terminated": terminate,
		"restart": func() { server.Restart(t) }, "crash": func() { server.Kill9(t); server.Start(t) },
	} {
		t.Log(name)
		breakIt()
		i.barrier(t)
		i.waitCapturing(t)
	}
	load.stop()
	to := i.barrier(t)
	if to.GetLogId() != from.GetLogId() {
		t.Fatalf("a new log was begun: %v", i.state(t).GetWarnings())
	}
	w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
}

// TestFastShutdown checks that a logger does not keep PostgreSQL from stopping.
func TestFastShutdown(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	url := server.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), loadTables)
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.unpublished"}
	i := start(t, cfg)
	i.waitCapturing(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "INSERT INTO bulk SELECT i, 1, repeat('x', 100) FROM generate_series(1, 50000) i")
	began := time.Now()
	server.Stop(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("stopping took %v", took)
	} else {
		t.Logf("stopping took %v", took)
	}
	server.Start(t)
	i.waitCapturing(t)
}
