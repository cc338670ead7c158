package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/schema"
)

// patience is for what takes moments on an idle machine.
const patience = 3 * time.Minute

// cluster is a primary and a replica whose services run as processes of their own.
type cluster struct {
	t                          testing.TB
	sourceURL, targetURL       string
	logger, inventory, applier *node
	bank                       *pgtest.Bank
	load                       *load
	logID                      string // of the change log that the replication began with
}

// replicationName is the name of the one replication.
const replicationName = "all"

// capturing is the logger's state while all is well.
const capturing = "capturing"

// newCluster prepares everything and starts inventory and applier; the logger is left to the caller.
func newCluster(t testing.TB, source, target *pgtest.Server, name string) *cluster {
	t.Helper()
	c := &cluster{t: t, sourceURL: source.Database(t), targetURL: target.Database(t)}
	c.bank = pgtest.NewBank(t, c.sourceURL, pgtest.BankOptions{Accounts: 50, Pause: 20 * time.Millisecond})
	c.load = newLoad(t, c.sourceURL)
	c.inventory = newNode(t, "inventory", "--postgres", c.sourceURL)
	c.logger = newNode(t, "logger", "--postgres", c.sourceURL, "--data", t.TempDir(), "--slot", "syncline_"+name,
		"--publication", "syncline_"+name, "--inventory", c.inventory.grpc)
	c.inventory.args = append(c.inventory.args, "--logger", c.logger.grpc)
	c.applier = newNode(t, "applier", "--postgres", c.targetURL, "--retry-max", "500ms")
	return c
}

// up starts a process without a fault, unless it runs.
func (c *cluster) up(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		if n.exited() {
			n.start()
		}
	}
	for _, n := range nodes {
		n.waitHealthy(patience)
	}
}

// begin puts load on the primary.
func (c *cluster) begin(seed uint64) {
	c.t.Helper()
	c.t.Logf("seed %d", seed)
	c.bank.Start(c.t, c.sourceURL, 2, seed)
	c.load.start(c.t, seed, 400*time.Millisecond)
}

// create creates the replication. An applier that is about to be killed may not live to say that it did.
func (c *cluster) create(options ...func(*applierv1.ReplicationSpec)) {
	c.t.Helper()
	_, err := c.applier.create(replicationName, c.logger.grpc, options...)
	if err == nil {
		return
	}
	conn := pgtest.Connect(c.t, c.targetURL)
	if pgtest.QueryRow[int](c.t, conn, "SELECT count(*) FROM syncline.replications") != 1 {
		c.t.Fatalf("create replication: %v", err)
	}
}

// remember notes the change log that the replication will live on.
func (c *cluster) remember() {
	c.t.Helper()
	c.logID = c.currentLog()
}

// currentLog is the id of the change log in which the logger captures, as soon as it does.
func (c *cluster) currentLog() (id string) {
	c.t.Helper()
	pgtest.Eventually(c.t, patience, func() error {
		state, err := c.logger.logger().GetState(c.t.Context(), &loggerv1.GetStateRequest{})
		if err != nil {
			return err
		}
		if state.GetState() != capturing {
			return fmt.Errorf("the logger is %s: %s", state.GetState(), state.GetReason())
		}
		id = state.GetPosition().GetLogId()
		return nil
	})
	return id
}

// verify lets everything run without faults, ends the load, and holds the replica against the primary.
func (c *cluster) verify() {
	c.t.Helper()
	c.up(c.logger, c.inventory, c.applier)
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	c.bank.Stop(c.t)
	c.load.stop(c.t)
	c.compare()
}

// compare waits until the replica has everything, and holds it against the primary, which nobody writes to any more.
func (c *cluster) compare() {
	c.t.Helper()
	c.touchAdded()
	c.applier.waitApplied(replicationName, patience)
	pgtest.RequireEqual(c.t, c.sourceURL, c.targetURL)
	for side, url := range map[string]string{"primary": c.sourceURL, "replica": c.targetURL} {
		if err := c.bank.Check(c.t.Context(), pgtest.Connect(c.t, url)); err != nil {
			c.t.Errorf("%s: %v", side, err)
		}
	}
	if id := c.currentLog(); id != c.logID {
		c.t.Errorf("the change log is %s now; the replication began with %s", id, c.logID)
	}
	c.t.Logf("load: %d rounds, bank: %+v", c.load.steps, c.bank.Stats())
}

// touchAdded writes to each table that was added once the logger captures it: then the replica has heard of it.
func (c *cluster) touchAdded() {
	c.t.Helper()
	for _, name := range c.load.added {
		quoted := schema.Name{Schema: "bank", Name: strings.TrimPrefix(name, "bank.")}.SQL()
		pgtest.Eventually(c.t, patience, func() error {
			state, err := c.logger.logger().GetState(c.t.Context(), &loggerv1.GetStateRequest{})
			if err != nil {
				return err
			}
			if slices.Contains(state.GetTables(), quoted) {
				return nil
			}
			return fmt.Errorf("the logger does not capture %s", name)
		})
		if err := c.load.run("INSERT INTO " + name + " VALUES (0, 'last')"); err != nil {
			c.t.Fatal(err)
		}
	}
}

// hits adds up what was killed where, over all clusters.
type hits struct {
	mu     sync.Mutex
	counts map[string]int
}

func (h *hits) add(more map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, n := range more {
		h.counts[name] += n
	}
}

// killAt starts a process once for each step, armed with it, and waits each time until it has killed itself there. nudge is
// called again and again meanwhile; it makes happen what does not happen by itself.
func (c *cluster) killAt(n *node, log string, steps []step, nudge func() error, env ...string) {
	c.t.Helper()
	for _, s := range steps {
		before := faultsHit(c.t, log)[s.point]
		began := time.Now()
		n.start(append(faultEnv(s.point, s.count, log), env...)...)
		last := time.Now()
		pgtest.Eventually(c.t, patience, func() error {
			if n.exited() {
				return nil
			}
			if nudge != nil && time.Since(last) > 2*time.Second {
				last = time.Now()
				if err := nudge(); err != nil {
					c.t.Fatal(err)
				}
			}
			return fmt.Errorf("%s did not pass %s %d times", n.name, s.point, s.count)
		})
		if status, ok := n.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			c.t.Fatalf("%s ended by itself, not at %s: %v", n.name, s.point, n.cmd.ProcessState)
		}
		if after := faultsHit(c.t, log)[s.point]; after != before+1 {
			c.t.Fatalf("%s was killed %d times at %s, expected %d", n.name, after, s.point, before+1)
		}
		c.t.Logf("%s was killed at %s:%d after %v", n.name, s.point, s.count, time.Since(began).Round(time.Millisecond))
	}
}

// TestFaultPoints kills each process at each point between two of its durable steps, one kill after the other under load,
// and each time goes on with what the kill left. At the end no row is lost, doubled or different.
func TestFaultPoints(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	all := &hits{counts: map[string]int{}}
	t.Run("each", func(t *testing.T) {
		for name, kill := range map[string]func(*cluster, string){
			"logger": killLogger, "inventory": killInventory, "applier_copy": killApplierCopy, "applier_apply": killApplierApply,
			"applier_repair": killApplierRepair,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				log := filepath.Join(t.TempDir(), "faults")
				c := newCluster(t, source, target, name)
				c.begin(rand.Uint64())
				kill(c, log)
				c.verify()
				all.add(faultsHit(t, log))
			})
		}
	})
	if t.Failed() {
		return
	}
	for _, p := range faultPoints {
		if all.counts[p.name] < len(p.counts) {
			t.Errorf("%s was hit %d times, expected %d", p.name, all.counts[p.name], len(p.counts))
		}
		delete(all.counts, p.name)
	}
	for name := range maps.Keys(all.counts) {
		t.Errorf("%s was hit and is not in the table", name)
	}
}

// killLogger kills the logger while it begins its log, while it captures under load and replicas copy, and while it purges.
func killLogger(c *cluster, log string) {
	c.killAt(c.logger, log, stepsOf("logger", atStart), nil)
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.create()
	c.logger.kill9()
	c.killAt(c.logger, log, stepsOf("logger", whileLoaded), c.load.addTable)
	c.up(c.logger)

	// The follower is at the head when the log is purged, or it would be told, rightly, that its position is too old.
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	c.load.mu.Lock()
	for i := range 12 {
		if err := c.load.run(wideValue(10+i, 2000)); err != nil {
			c.t.Fatal(err)
		}
	}
	c.applier.waitApplied(replicationName, patience)
	c.logger.kill9()
	c.killAt(c.logger, log, stepsOf("logger", whilePurged), nil, "SYNCLINE_LOG_MAX_BYTES=8000000")
	c.load.mu.Unlock()
}

// killInventory kills the inventory while snapshots are opened and tables are dumped.
func killInventory(c *cluster, log string) {
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.create()
	c.inventory.kill9()
	c.killAt(c.inventory, log, stepsOf("inventory", whileCopied), c.addTableWhenRunning)
}

// killApplierCopy kills the applier during the first copy, and during the copy of a table that is added later.
func killApplierCopy(c *cluster, log string) {
	c.up(c.logger, c.inventory)
	c.remember()
	steps := stepsOf("applier", whileCopied)
	c.applier.start()
	c.applier.waitHealthy(patience)
	c.create()
	c.applier.kill9()
	c.killAt(c.applier, log, steps, c.addTableWhenRunning)
	c.up(c.applier)
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	c.applier.kill9()
	// A table is copied in one chunk now.
	for i := range steps {
		steps[i].count = 1
	}
	c.killAt(c.applier, log, slices.Compact(steps), c.addTableWhenRunning)
}

// killApplierApply kills the applier while it applies.
func killApplierApply(c *cluster, log string) {
	c.up(c.logger, c.inventory, c.applier)
	c.remember()
	c.create()
	c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
	c.applier.kill9()
	c.killAt(c.applier, log, stepsOf("applier", whileLoaded), nil)
}

// addTableWhenRunning adds a table when all others are copied, so that there is something to copy.
func (c *cluster) addTableWhenRunning() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	answer, err := c.applier.applier().GetReplication(ctx, &applierv1.GetReplicationRequest{Name: replicationName})
	if err != nil {
		return nil // the applier is being killed
	}
	switch r := answer.GetReplication(); r.GetState() {
	case applierv1.State_STATE_RUNNING:
		return c.load.addTable()
	case applierv1.State_STATE_FAILED:
		return errors.New(r.GetReason())
	default:
		return nil
	}
}
