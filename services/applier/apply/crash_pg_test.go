package apply

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// childVariable holds the target's URL in the process that TestCrashChild is meant for.
const childVariable = "SYNCLINE_APPLY_TEST_TARGET"

const crashTables = `CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
	CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE);
	CREATE TABLE ledger (n int PRIMARY KEY, what text)`

// crashLog is a log whose effect can be told from any position: each transaction adds a row to ledger, moves money, writes
// sliceRows rows of noise, and lets two neighbours change seats, which set-wise writing cannot do in one go. ends are the
// transactions' positions.
func crashLog(t testing.TB, transactions int) (l *testLog, ends []change.LSN) {
	l = newTestLog(t)
	l.noise, l.every = sliceRows, 3
	accounts := testRelation("accounts", byKey, "id*", "balance")
	seats := testRelation("seats", byKey, "id*", "seat")
	ledger := testRelation("ledger", byKey, "n*", "what")
	r := rand.New(rand.NewPCG(7, 7))
	balance := make([]int, 10)
	seat := make([]int, 10)
	for n := range transactions {
		ends = append(ends, l.tx(func() {
			if n == 0 {
				for i := range balance {
					balance[i], seat[i] = 1000, i
					l.insert(accounts, i, balance[i])
					l.insert(seats, i, i)
				}
			}
			l.insert(ledger, n, strings.Repeat("x", r.IntN(3000)))
			from, to, amount := r.IntN(10), r.IntN(10), r.IntN(100)
			balance[from] -= amount
			l.update(accounts, from, balance[from])
			balance[to] += amount
			l.update(accounts, to, balance[to])
			a := r.IntN(9)
			l.update(seats, a, nil)
			l.update(seats, a+1, seat[a])
			l.update(seats, a, seat[a+1])
			seat[a], seat[a+1] = seat[a+1], seat[a]
		}))
	}
	l.flush()
	return l, ends
}

func crashOptions(o *Options) {
	o.GroupTransactions = 5
	o.SliceBytes = 32 << 10
}

// requireWhole fails unless the target holds exactly the transactions at or below its position, and returns their number.
func (g *testTarget) requireWhole(ends []change.LSN) int {
	g.t.Helper()
	row := pgtest.QueryRow[string](g.t, g.conn, `SELECT lsn::text || ' ' || (SELECT count(*) FROM ledger) || ' ' || (SELECT coalesce(sum(balance), 0) FROM accounts)
		|| ' ' || (SELECT coalesce(sum(seat), 0) FROM seats) || ' ' || (SELECT count(*) FROM noise) FROM syncline.positions`)
	position := g.positionOf(row)
	applied := 0
	for _, end := range ends {
		if end <= position {
			applied++
		}
	}
	want := fmt.Sprintf("%s %d %d %d %d", position, applied, min(applied, 1)*10_000, min(applied, 1)*45, applied*sliceRows)
	if row != want {
		g.t.Fatalf("position, ledger, balances, seats, noise: %s, want %s", row, want)
	}
	return applied
}

func (g *testTarget) positionOf(row string) change.LSN {
	text, _, _ := strings.Cut(row, " ")
	lsn, err := change.ParseLSN(text)
	if err != nil {
		g.t.Fatal(err)
	}
	return lsn
}

const crashTransactions = 40

// TestCrashChild applies the log of crashLog to the target that the environment names, until it is killed or done. Without
// that it has nothing to do: it is for the processes that TestCrashAtFaultPoints starts.
func TestCrashChild(t *testing.T) {
	url := os.Getenv(childVariable)
	if url == "" {
		return
	}
	l, _ := crashLog(t, crashTransactions)
	g := &testTarget{t: t, url: url, conn: pgtest.Connect(t, url)}
	g.apply(l, allQueued, withOptions(crashOptions))
}

// TestCrashAtFaultPoints kills the process with SIGKILL at each point between two durable steps, again and again, until
// the log is applied.
func TestCrashAtFaultPoints(t *testing.T) {
	l, ends := crashLog(t, crashTransactions)
	for _, point := range []string{FaultSliceWritten, FaultBeforeCommit, FaultAfterCommit, FaultSetWiseFailed} {
		t.Run(strings.TrimPrefix(point, "apply/"), func(t *testing.T) {
			g := newTestTarget(t, l, crashTables)
			if !g.killedAt(point, 1) {
				t.Fatalf("the process was not killed at %q", point)
			}
			if applied := g.requireWhole(ends); point == FaultAfterCommit && applied == 0 {
				t.Error("nothing is there after the first commit")
			}
			kills, applied := 1, 0
			for passage := 2; g.killedAt(point, passage); passage++ {
				kills++
				if now := g.requireWhole(ends); now < applied {
					t.Fatalf("%d transactions were there, now %d are", applied, now)
				} else {
					applied = now
				}
			}
			if got := g.requireWhole(ends); got != crashTransactions {
				t.Errorf("%d transactions of %d at the end", got, crashTransactions)
			}
			if kills < 3 {
				t.Errorf("only %d kills", kills)
			}
			t.Logf("%d kills", kills)
		})
	}
}

// killedAt runs a child that is to be killed at a passage of a point. It reports false when the child came to the log's
// end before.
func (g *testTarget) killedAt(point string, passage int) bool {
	g.t.Helper()
	logged := filepath.Join(g.t.TempDir(), "faults")
	child := exec.CommandContext(g.t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.count=1")
	child.Env = append(os.Environ(), childVariable+"="+g.url, fault.LogVariable+"="+logged, fmt.Sprintf("%s=%s:%d", fault.Variable, point, passage))
	output, err := child.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		g.t.Fatal(err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		g.t.Fatalf("the child failed: %v\n%s", err, output)
	}
	if acted, err := os.ReadFile(logged); err != nil || strings.TrimSpace(string(acted)) != point {
		g.t.Fatalf("the fault log says %q (%v)", acted, err)
	}
	return true
}

// TestCrashOfConnection resets the connection after some number of bytes in either direction, again and again, until the
// log is applied: also between the server's commit and its answer.
func TestCrashOfConnection(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l, ends := crashLog(t, crashTransactions)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
	through := func(r *testRun) { r.url = proxy.URL(t, r.url) }

	newTestTarget(t, l, crashTables).apply(l, allQueued, withOptions(crashOptions), through)
	whole := proxy.Stats()
	const wanted = 40
	cuts, stuck := 0, 0
	for cuts < wanted {
		g := newTestTarget(t, l, crashTables)
		applied, finished := 0, false
		for !finished {
			direction, total := pgtest.ToServer, whole.ToServer
			if r.IntN(2) == 0 {
				direction, total = pgtest.ToClient, whole.ToClient
			}
			// Opening a session takes some bytes too; so most cuts come late enough to get on.
			after := 1 + r.Int64N(total/2)
			err := g.try(l, allQueued, withOptions(crashOptions), through, func(*testRun) { proxy.CutAfter(direction, after) })
			now := g.requireWhole(ends)
			switch {
			case now < applied:
				t.Fatalf("%d transactions were there, now %d are", applied, now)
			case err == nil:
				finished = true
			default:
				cuts++
				if now == applied {
					stuck++
				}
			}
			applied = now
		}
		if applied != crashTransactions {
			t.Fatalf("%d transactions of %d at the end", applied, crashTransactions)
		}
	}
	t.Logf("%d cuts, %d of them before the next commit", cuts, stuck)
}

// TestCrashOfServerSession ends the server's session while it waits in the middle of a transaction.
func TestCrashOfServerSession(t *testing.T) {
	l := newTestLog(t)
	g := newTestTarget(t, l, "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'old')")
	items := testRelation("items", byKey, "id*", "name")
	l.tx(func() { l.insert(items, 2, "new") })
	end := l.tx(func() { l.update(items, 1, "new") })

	blocker := pgtest.Connect(t, g.url)
	pgtest.Exec(t, blocker, "BEGIN; SELECT FROM items WHERE id = 1 FOR UPDATE")
	result := make(chan error)
	go func() { result <- g.try(l, allQueued) }()
	pgtest.Eventually(t, applyDeadline, func() error {
		if !pgtest.QueryRow[bool](t, g.conn, `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
			WHERE application_name = 'syncline applier test' AND wait_event_type = 'Lock' AND datname = current_database()`) {
			return errors.New("no session waits for a lock")
		}
		return nil
	})
	if err := <-result; err == nil {
		t.Fatal("the engine did not notice that its session ended")
	}
	g.requireTable("items", "(1,old)")
	g.requireAt(l.start)
	pgtest.Exec(t, blocker, "ROLLBACK")
	g.apply(l, allQueued)
	g.requireTable("items", "(1,new)", "(2,new)")
	g.requireAt(end)
}
