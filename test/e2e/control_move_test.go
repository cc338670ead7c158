package e2e

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// moved forces the position.
func (c *controlled) moved() {
	c.create()
	c.equal()
	before := c.get().GetPosition()
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'applied' WHERE id <= 10")
	c.equal()
	c.refused(c.start(before, true), codes.FailedPrecondition, "REPLICATION_ACTIVE", "replication stop shop")
	c.stop()
	here := c.get().GetPosition()
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'passed over' WHERE id > 290")
	barrier := func() *changev1.Position {
		answer, err := c.primary.logger().EmitBarrier(c.t.Context(), &loggerv1.EmitBarrierRequest{})
		if err != nil {
			c.t.Fatal(rpc.Message(err))
		}
		pgtest.Eventually(c.t, patience, func() error {
			ranges, err := c.primary.logger().GetRanges(c.t.Context(), &loggerv1.GetRangesRequest{})
			if err == nil && ranges.GetLastLsn() < answer.GetPosition().GetLsn() {
				err = errors.New("the barrier is not in the log yet")
			}
			return err
		})
		return answer.GetPosition()
	}
	there := barrier()
	pgtest.Exec(c.t, c.conn, "UPDATE b SET note = 'after it' WHERE id > 290")
	at := func(log string, lsn uint64) *changev1.Position { return &changev1.Position{LogId: log, Lsn: lsn} }
	c.refused(c.start(there, false), codes.FailedPrecondition, "SKIPS_TRANSACTIONS", "passed over", "--force")
	c.refused(c.start(before, false), codes.FailedPrecondition, "REPEATS_TRANSACTIONS", "second time", "--force")
	c.refused(c.start(at(strings.Repeat("0", 31)+"1", here.GetLsn()), true), codes.FailedPrecondition, "LOG_ID_MISMATCH")
	c.refused(c.start(at(here.GetLogId(), 16), true), codes.FailedPrecondition, "POSITION_TOO_OLD")
	c.refused(c.start(at(here.GetLogId(), there.GetLsn()+1<<40), true), codes.FailedPrecondition, "POSITION_AHEAD")
	c.refused(c.start(at("x", 16), true), codes.InvalidArgument, "INVALID_FIELD", "from.log_id")
	c.refused(c.start(nil, true), codes.InvalidArgument, "INVALID_FIELD", "force")
	if r := c.get(); r.GetState() != applierv1.State_STATE_STOPPED || !proto.Equal(r.GetPosition(), here) {
		c.t.Errorf("a refusal moved something: %v", r)
	}
	if err := c.start(here, false); err != nil { // where it is anyhow
		c.t.Fatal(rpc.Message(err))
	}
	c.equal()
	c.stop()
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'passed over' WHERE id <= 20")
	there = barrier()
	pgtest.Exec(c.t, c.conn, "UPDATE b SET note = 'after it' WHERE id <= 20")
	log := filepath.Join(c.t.TempDir(), "faults")
	c.replica.kill9()
	c.replica.start(faultEnv(applier.FaultForced, 1, log)...)
	c.replica.waitHealthy(patience)
	_ = c.start(there, true) // it dies before it answers
	pgtest.Eventually(c.t, patience, func() error {
		if !c.replica.exited() {
			return errors.New("it lives")
		}
		return nil
	})
	c.replica.start()
	c.replica.waitHealthy(patience)
	if r := c.get(); r.GetPosition().GetLsn() != there.GetLsn() || len(r.GetWarnings()) == 0 || !strings.Contains(r.GetWarnings()[0], "forced") {
		c.t.Errorf("after the force: %v", r)
	}
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.replica.waitApplied("shop", patience)
	if skipped, applied := pgtest.QueryRow[int](c.t, c.target, "SELECT count(*) FROM a WHERE note = 'passed over' AND id <= 20"), pgtest.QueryRow[int](c.t, c.target, "SELECT count(*) FROM b WHERE note = 'after it' AND id <= 20"); skipped != 0 || applied != 20 {
		c.t.Errorf("%d rows of what was passed over are there, %d of what came after it", skipped, applied)
	}
	// Applied a second time, updates do no harm; and a copy of everything mends what was passed over.
	c.stop()
	if err := c.start(here, true); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.equal()
	if n := len(c.events("shop", applierv1.EventKind_EVENT_KIND_POSITION_FORCED)); n != 2 {
		c.t.Errorf("%d events tell of a forced position", n)
	}
	c.resync()
	c.equal()
	if r := c.get(); len(r.GetWarnings()) != 0 {
		c.t.Errorf("it still warns of what was copied over: %v", r.GetWarnings())
	}
}

// failedOver binds the replication to other servers.
func (c *controlled) failedOver() {
	c.create()
	c.equal()
	copied := c.get().GetCopiedRows()
	// The same change log under another server id: the replica goes on where it was.
	c.primary.kill9()
	if _, errOut, code := run(c.t, "server", "reset-id", "--postgres", c.sourceURL); code != 0 {
		c.t.Fatalf("reset-id: %s", errOut)
	}
	c.primary.start()
	c.primary.waitHealthy(patience)
	c.primary.waitCapturing(patience)
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'by the new one'")
	if r := c.failed("SOURCE_CHANGED"); !strings.Contains(r.GetReason(), "--accept-source") {
		c.t.Errorf("no way out: %s", r.GetReason())
	}
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { in.AcceptSource = true })
	c.equal()
	if got := c.get(); got.GetCopiedRows() != copied {
		c.t.Errorf("%d rows are copied, %d before", got.GetCopiedRows(), copied)
	}

	// Another primary with another change log: only a copy leads on.
	otherURL := c.other()
	other := startPrimary(c.t, otherURL, "--slot", c.slot("two"))
	to := func(in *applierv1.UpdateReplicationRequest) { in.Spec.Source = other.grpc }
	_, err := c.update(to, "source")
	c.refused(err, codes.FailedPrecondition, "SOURCE_CHANGED", "--accept-source")
	_, err = c.update(func(in *applierv1.UpdateReplicationRequest) { to(in); in.AcceptSource = true }, "source")
	c.refused(err, codes.FailedPrecondition, "LOG_ID_MISMATCH", "--auto-resync copy")
	c.running()
	answer := c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) {
		to(in)
		in.AcceptSource, in.Spec.AutoResync = true, applierv1.AutoResync_AUTO_RESYNC_COPY
	}, "source", "auto_resync")
	if !answer.GetPlan().GetResyncs() {
		c.t.Errorf("got %v", answer.GetPlan())
	}
	c.running()
	c.sourceURL = otherURL
	c.equal()
	if n := len(c.events("shop", applierv1.EventKind_EVENT_KIND_SOURCE_ACCEPTED)); n != 2 {
		c.t.Errorf("%d events tell of another source", n)
	}
}

// other is another database with the same tables and other rows.
func (c *controlled) other() string {
	c.t.Helper()
	name := pgtest.QueryRow[string](c.t, c.conn, "SELECT current_database()") + "_other"
	pgtest.Exec(c.t, c.conn, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	config := c.conn.Config()
	url := strings.Replace(c.sourceURL, config.Database, name, 1)
	conn := pgtest.Connect(c.t, url)
	pgtest.Exec(c.t, conn, controlTables+"; UPDATE a SET note = 'other'; DELETE FROM c WHERE id < 30")
	return url
}
