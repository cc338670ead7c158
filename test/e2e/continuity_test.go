package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// waitFailed waits until the replication has stopped for a reason, which tells the way out.
func (c *cluster) waitFailed(reason string) {
	c.t.Helper()
	pgtest.Eventually(c.t, patience, func() error {
		r, err := c.applier.get(replicationName)
		if err != nil {
			return err
		}
		if r.GetState() != applierv1.State_STATE_FAILED {
			return fmt.Errorf("the replication is %s: %s %s", r.GetState(), r.GetReasonCode(), r.GetReason())
		}
		if r.GetReasonCode() != reason || !strings.Contains(r.GetReason(), "copied anew") {
			c.t.Fatalf("the replication failed with %s %q, expected %s and a way out", r.GetReasonCode(), r.GetReason(), reason)
		}
		return nil
	})
}

// copyAnew is the way out: the replication is deleted and made again.
func (c *cluster) copyAnew() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if _, err := c.applier.applier().DeleteReplication(ctx, &applierv1.DeleteReplicationRequest{Name: replicationName}); err != nil {
		c.t.Fatal(err)
	}
	c.remember()
	c.applier.mustCreate(replicationName, c.logger.grpc, func(spec *applierv1.ReplicationSpec) { spec.Replace = true })
}

// dataDir is where the logger keeps its change log.
func (c *cluster) dataDir() string { return c.logger.args[8] }

// TestLostContinuity takes away what proves that a change log continues, while the logger is down and the primary goes on.
// Nothing is passed over: the replica stays at a state that the primary had, and says why and what to do.
func TestLostContinuity(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	for name, test := range map[string]struct {
		reason string
		lose   func(t *testing.T, c *cluster)
	}{
		"slot dropped": {"LOG_ID_MISMATCH", func(t *testing.T, c *cluster) {
			conn := pgtest.Connect(t, c.sourceURL)
			c.logger.kill9()
			pgtest.WaitSlotsIdle(t, conn)
			pgtest.Exec(t, conn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
			c.wait(20)
			c.up(c.logger)
		}},
		"publication replaced": {"LOG_ID_MISMATCH", func(t *testing.T, c *cluster) {
			conn := pgtest.Connect(t, c.sourceURL)
			c.logger.kill9()
			for _, publication := range strings.Fields(pgtest.QueryRow[string](t, conn, "SELECT string_agg(pubname, ' ') FROM pg_publication")) {
				pgtest.Exec(t, conn, "DROP PUBLICATION "+publication)
			}
			c.wait(20)
			c.up(c.logger)
		}},
		"data lost": {"LOG_ID_MISMATCH", func(t *testing.T, c *cluster) {
			c.logger.kill9()
			entries, err := os.ReadDir(c.dataDir())
			if err != nil || len(entries) == 0 {
				t.Fatalf("%s: %d entries, %v", c.dataDir(), len(entries), err)
			}
			for _, entry := range entries {
				if err := os.RemoveAll(filepath.Join(c.dataDir(), entry.Name())); err != nil {
					t.Fatal(err)
				}
			}
			c.wait(20)
			c.up(c.logger)
		}},
		"position purged": {"POSITION_TOO_OLD", func(t *testing.T, c *cluster) {
			r, err := c.applier.get(replicationName)
			if err != nil {
				t.Fatal(err)
			}
			position := r.GetPosition().GetLsn()
			c.applier.kill9()
			c.load.mu.Lock()
			for i := range 12 {
				if err := c.load.run(wideValue(10+i, 2000)); err != nil {
					t.Error(err)
				}
			}
			c.load.mu.Unlock()
			c.logger.kill9()
			c.logger.start("SYNCLINE_LOG_MAX_BYTES=4000000", "SYNCLINE_LOG_KEEP_BYTES=0") // the replica may have told less than it has
			pgtest.Eventually(t, patience, func() error {
				ranges, err := c.logger.logger().GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
				if err != nil {
					return err
				}
				if ranges.GetFirstLsn() <= position {
					return fmt.Errorf("the log begins at %d, the replica is at %d", ranges.GetFirstLsn(), position)
				}
				return nil
			})
			c.up(c.applier)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, source, target, strings.Fields(name)[0])
			c.up(c.logger, c.inventory, c.applier)
			c.remember()
			c.begin(rand.Uint64())
			c.create()
			c.applier.waitState(replicationName, patience, applierv1.State_STATE_RUNNING)
			c.wait(20)
			test.lose(t, c)
			c.waitFailed(test.reason)
			c.applier.kill9()
			c.up(c.applier)
			c.waitFailed(test.reason)
			if err := c.bank.CheckConsistent(t.Context(), pgtest.Connect(t, c.targetURL)); err != nil {
				t.Errorf("replica: %v", err)
			}
			c.logger.kill9() // so that it has its ordinary limits
			c.up(c.logger)
			c.copyAnew()
			c.verify()
		})
	}
}

// wait lets the clients of the bank commit some transactions.
func (c *cluster) wait(transactions int) {
	c.t.Helper()
	before := c.bank.Stats().Promised
	pgtest.Eventually(c.t, patience, func() error {
		if done := c.bank.Stats().Promised - before; done < transactions {
			return fmt.Errorf("%d transactions were committed", done)
		}
		return nil
	})
}
