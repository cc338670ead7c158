package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// The variables that repeat a torture, or make it longer.
const (
	tortureSeedVariable     = "SYNCLINE_TORTURE_SEED"
	tortureDurationVariable = "SYNCLINE_TORTURE_DURATION"
)

const defaultTorture = 25 * time.Second

// link is a connection through a proxy.
type link int

const (
	inventoryToPostgres link = iota
	loggerToPostgres
	applierToLogger
	applierToInventory
	applierToPostgres
)

// torture is a cluster whose processes, servers and connections are broken at random.
type torture struct {
	*cluster
	source, target *pgtest.Server
	r              *rand.Rand
	proxies        map[link]*pgtest.Proxy
	troubling      context.Context // of the chaos in the proxies
	endTrouble     func()          // ends it and waits
	troubles       sync.WaitGroup
	did            map[string]int // acts, and processes that ended by themselves
	running        atomic.Bool    // the replica was seen in the phase running
	checks         atomic.Int64   // times that its bank was looked at
	failed         chan error     // from the goroutines beside
	beside         sync.WaitGroup
}

// TestTorture copies and follows a primary under load while everything around it breaks at random: processes and servers are
// killed, connections are cut, stalled, delayed and refused. At all times a reader of the replica sees every transaction
// whole, and at the end both sides are equal and hold every transaction that a client was told is committed.
func TestTorture(t *testing.T) {
	seed, duration := tortureSettings(t)
	t.Logf("%s=%d %s=%s", tortureSeedVariable, seed, tortureDurationVariable, duration)
	x := newTorture(t, seed)
	ctx, stop := context.WithCancel(t.Context())
	defer func() {
		stop()
		x.beside.Wait()
	}()
	x.run(ctx, x.createUntilThere)
	x.run(ctx, x.readTotals)
	mutating, stopMutating := context.WithCancel(ctx)
	defer stopMutating()
	x.run(mutating, x.mutate)
	x.bank.Start(t, x.sourceURL, 4, seed)
	x.load.start(t, seed, 600*time.Millisecond)

	began := time.Now()
	var copied time.Duration
	for copied == 0 || time.Since(began) < max(duration, copied+duration/2) {
		x.act()
		if copied == 0 && x.running.Load() {
			copied = time.Since(began)
		}
		if copied == 0 && time.Since(began) > duration+patience {
			break // what follows says what the replication waits for
		}
	}
	x.endTrouble()
	t.Logf("after %v, of which the first copy took %v: %v, %d looks at the replica", time.Since(began).Round(time.Second), copied.Round(time.Second), x.did, x.checks.Load())
	for l, p := range x.proxies {
		t.Logf("link %d: %+v", l, p.Stats())
	}
	stopMutating()
	x.calm(stop)
}

func tortureSettings(t *testing.T) (seed uint64, duration time.Duration) {
	t.Helper()
	seed, duration = rand.Uint64(), defaultTorture
	var err error
	if text := os.Getenv(tortureSeedVariable); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv(tortureDurationVariable); text != "" {
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	return seed, duration
}

func newTorture(t *testing.T, seed uint64) *torture {
	t.Helper()
	x := &torture{
		cluster: &cluster{t: t}, source: newSource(t), target: newTarget(t), r: rand.New(rand.NewPCG(seed, 1)),
		did: map[string]int{}, failed: make(chan error, 1),
	}
	x.sourceURL, x.targetURL = x.source.Database(t), x.target.Database(t)
	x.bank = pgtest.NewBank(t, x.sourceURL, pgtest.BankOptions{Pause: 10 * time.Millisecond, Patience: 5 * time.Second})
	x.load = newLoad(t, x.sourceURL)
	pgtest.LoadAllKinds(t, x.load.conn)

	x.proxies = map[link]*pgtest.Proxy{
		inventoryToPostgres: pgtest.NewProxy(t, x.source.Addr()), loggerToPostgres: pgtest.NewProxy(t, x.source.Addr()),
		applierToLogger: pgtest.NewProxy(t, ""), applierToInventory: pgtest.NewProxy(t, ""), applierToPostgres: pgtest.NewProxy(t, x.target.Addr()),
	}
	x.inventory = newNode(t, "inventory", "--postgres", x.proxies[inventoryToPostgres].URL(t, x.sourceURL))
	x.logger = newNode(t, "logger", "--postgres", x.proxies[loggerToPostgres].URL(t, x.sourceURL), "--data", t.TempDir(),
		"--advertise", x.proxies[applierToLogger].Addr(), "--inventory", x.proxies[applierToInventory].Addr())
	x.inventory.args = append(x.inventory.args, "--logger", x.logger.grpc)
	x.applier = newNode(t, "applier", "--postgres", x.proxies[applierToPostgres].URL(t, x.targetURL), "--retry-max", "1s")
	x.proxies[applierToLogger].SetTarget(x.logger.grpc)
	x.proxies[applierToInventory].SetTarget(x.inventory.grpc)
	var cancel context.CancelFunc
	x.troubling, cancel = context.WithCancel(t.Context())
	x.endTrouble = func() {
		cancel()
		x.troubles.Wait()
	}
	t.Cleanup(x.endTrouble)
	for _, n := range x.nodes() {
		n.start()
		n.dial()
	}
	return x
}

func (x *torture) nodes() []*node { return []*node{x.logger, x.inventory, x.applier} }

// trouble breaks connections for a while, beside whatever else is broken then.
func (x *torture) trouble(links ...link) {
	x.t.Helper()
	for _, l := range links {
		calm := 100*time.Millisecond + x.random(2*time.Second)
		ctx, cancel := context.WithTimeout(x.troubling, calm+x.random(2*calm))
		r := rand.New(rand.NewPCG(x.r.Uint64(), uint64(l)))
		x.troubles.Go(func() {
			defer cancel()
			x.proxies[l].Chaos(ctx, r, calm)
		})
	}
}

// run runs f beside the test until ctx ends.
func (x *torture) run(ctx context.Context, f func(context.Context) error) {
	x.beside.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			select {
			case x.failed <- err:
			default:
			}
		}
	})
}

// watch fails the test when something went wrong beside it, and starts what has ended.
func (x *torture) watch() {
	x.t.Helper()
	select {
	case err := <-x.failed:
		x.t.Fatal(err)
	default:
	}
	for _, n := range x.nodes() {
		if !n.exited() {
			continue
		}
		x.scan(n)
		x.did[n.name+" ended by itself"]++ // its server was away when it started
		n.start()
	}
}

// scan looks at what a process has printed for what must not happen.
func (x *torture) scan(n *node) {
	x.t.Helper()
	for line := range strings.SplitSeq(n.out.String(), "\n") {
		for _, bad := range []string{"panic:", "fatal error:", "replication stopped", "DATA RACE"} {
			if strings.Contains(line, bad) {
				x.t.Fatalf("%s: %s", n.name, line)
			}
		}
	}
}

// pause lets everything work for a while.
func (x *torture) pause(d time.Duration) {
	x.t.Helper()
	end := time.After(d)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		x.watch()
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

// random is a time up to d.
func (x *torture) random(d time.Duration) time.Duration { return time.Duration(x.r.Int64N(int64(d))) }

// act breaks one thing, and leaves everything in peace for a moment.
func (x *torture) act() {
	x.t.Helper()
	acts := []struct {
		name string
		do   func()
	}{
		{"kill logger", func() { x.kill(x.logger) }},
		{"kill inventory", func() { x.kill(x.inventory) }},
		{"kill applier", func() { x.kill(x.applier) }},
		{"kill logger and applier", func() { x.kill(x.logger, x.applier) }},
		{"kill all processes", func() { x.kill(x.nodes()...) }},
		{"end logger", func() { x.terminate(x.logger) }},
		{"end applier", func() { x.terminate(x.applier) }},
		{"kill primary's PostgreSQL", func() { x.killServer(x.source) }},
		{"kill replica's PostgreSQL", func() { x.killServer(x.target) }},
		{"kill primary's PostgreSQL and logger", func() { x.killServer(x.source, x.logger) }},
		{"kill replica's PostgreSQL and applier", func() { x.killServer(x.target, x.applier) }},
		{"add table", func() { x.add() }},
		{"trouble between inventory and PostgreSQL", func() { x.trouble(inventoryToPostgres) }},
		{"trouble between logger and PostgreSQL", func() { x.trouble(loggerToPostgres) }},
		{"trouble between applier and logger", func() { x.trouble(applierToLogger) }},
		{"trouble between applier and inventory", func() { x.trouble(applierToInventory) }},
		{"trouble between applier and PostgreSQL", func() { x.trouble(applierToPostgres) }},
		{"trouble everywhere", func() {
			x.trouble(inventoryToPostgres, loggerToPostgres, applierToLogger, applierToInventory, applierToPostgres)
		}},
	}
	a := acts[x.r.IntN(len(acts))]
	x.did[a.name]++
	a.do()
	rest := 4 * time.Second
	if !x.running.Load() {
		rest *= 2 // a copy that is never left in peace never ends
	}
	x.pause(x.random(rest))
}

func (x *torture) kill(nodes ...*node) {
	x.t.Helper()
	for _, n := range nodes {
		n.kill9()
		x.scan(n)
	}
	for _, n := range nodes {
		n.start()
	}
}

// terminate ends a process as its supervisor does; it must not take long, whatever its peers do.
func (x *torture) terminate(n *node) {
	x.t.Helper()
	if n.exited() {
		return
	}
	n.terminate(time.Minute)
	x.scan(n)
	n.start()
}

// killServer kills a server, and processes with it, and starts them again after a moment.
func (x *torture) killServer(s *pgtest.Server, with ...*node) {
	x.t.Helper()
	s.Kill9(x.t)
	x.kill(with...)
	x.pause(x.random(1500 * time.Millisecond))
	s.Start(x.t)
}

// add adds a table, unless the primary is starting.
func (x *torture) add() {
	x.t.Helper()
	if err := x.load.addTable(); err != nil && !lost(err) {
		x.t.Fatal(err)
	}
}

// createUntilThere asks for the replication until there is one.
func (x *torture) createUntilThere(ctx context.Context) error {
	for {
		asking, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := x.applier.applier().CreateReplication(asking, &applierv1.CreateReplicationRequest{
			Name: replicationName, Spec: &applierv1.ReplicationSpec{Source: x.proxies[applierToLogger].Addr()},
		})
		cancel()
		switch reason := rpc.Reason(err); {
		case err == nil || reason == "REPLICATION_EXISTS":
			return nil
		case rpc.IsTransient(err) || rpc.Code(err).String() == "DeadlineExceeded":
		default:
			return fmt.Errorf("create replication: %s (%s)", rpc.Message(err), reason)
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// again runs f over a connection, and over a new one each time it is lost, until ctx ends.
func again(ctx context.Context, url string, f func(context.Context, *pgx.Conn) error) error {
	for {
		conn, err := connectAgain(ctx, url)
		if err != nil {
			return err
		}
		err = f(ctx, conn)
		_ = conn.Close(ctx)
		if err != nil && !lost(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// errTorn says that a reader of the replica saw what never was on the primary.
var errTorn = errors.New("the replica shows a state that never was")

// readTotals looks at the bank on the replica all the time: since its tables agree with one another, its total never differs.
func (x *torture) readTotals(ctx context.Context) error {
	var torn error
	err := again(ctx, x.targetURL, func(ctx context.Context, conn *pgx.Conn) error {
		for torn == nil {
			if err := wait(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			if err := x.readTotal(ctx, conn); errors.Is(err, errTorn) {
				torn = err
			} else if err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	return errors.Join(torn, err)
}

func (x *torture) readTotal(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	var there, agree bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('syncline.replications') IS NOT NULL").Scan(&there); err != nil || !there {
		return err
	}
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM syncline.replications WHERE phase = 'running')").Scan(&agree); err != nil || !agree {
		return err
	}
	x.running.Store(true)
	if err := x.bank.CheckConsistent(ctx, conn); err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) || conn.IsClosed() || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	x.checks.Add(1)
	return nil
}

// mutate changes rows of every kind of table until ctx ends, between two transactions.
func (x *torture) mutate(ctx context.Context) error {
	r := rand.New(rand.NewPCG(x.r.Uint64(), 3))
	return again(ctx, x.sourceURL, func(ctx context.Context, conn *pgx.Conn) error {
		if err := pgtest.FinishPrepared(ctx, conn); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if _, err := pgtest.MutateAllKinds(context.WithoutCancel(ctx), conn, r, 10); err != nil {
				return err
			}
			if err := wait(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// calm lets everything work undisturbed, ends the load, and compares.
func (x *torture) calm(stop func()) {
	x.t.Helper()
	x.pause(time.Second)
	x.up(x.nodes()...)
	x.logID = x.currentLog()
	x.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	pgtest.Eventually(x.t, patience, func() error {
		x.watch()
		if x.checks.Load() == 0 {
			return errors.New("nobody has seen the replica in agreement with itself")
		}
		return nil
	})
	x.bank.Stop(x.t)
	x.load.stop(x.t)
	stop()
	x.beside.Wait()
	x.watch()
	if err := pgtest.FinishPrepared(x.t.Context(), pgtest.Connect(x.t, x.sourceURL)); err != nil {
		x.t.Fatal(err)
	}
	x.compare()
	for _, n := range x.nodes() {
		x.scan(n)
	}
}
