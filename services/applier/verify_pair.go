package applier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// snapshotPair is a snapshot of the source and one of the target that hold the same source transactions: those that end at or
// before the position of the first.
type snapshotPair struct {
	source   copySnapshot
	from     *source
	conn     *pgx.Conn
	target   pgx.Tx // keeps the target's snapshot
	exported string
	renewing sync.WaitGroup
}

// openPair has applying stand still from before the source's snapshot is opened, whose position is known only then, until the
// target stands at that position and has its snapshot too. lost is called when the source's snapshot is gone later.
func (v *verification) openPair(ctx context.Context, lost context.CancelCauseFunc) (_ *snapshotPair, err error) {
	p := &snapshotPair{from: v.source}
	if p.conn, err = v.connect(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lost(err) // nothing is renewed any more
			p.close(ctx)
		}
	}()
	return p, v.standStill(ctx, lost, &p.renewing, func(snapshot copySnapshot) { p.source = snapshot }, func() error { return p.take(ctx, v.name) })
}

// standStill opens a snapshot of the source and runs there while applying stands still at exactly its position. The snapshot is
// renewed until ctx ends, by what is waited for through renewing. Once opened has been called the caller has to close it.
func (v *verification) standStill(ctx context.Context, lost context.CancelCauseFunc, renewing *sync.WaitGroup, opened func(copySnapshot), there func() error) error {
	r := v.runner
	r.mu.Lock()
	holds := r.holds
	r.mu.Unlock()
	if holds == nil {
		return r.notApplying()
	}
	heldReason := "applying stands still for a moment, until a " + v.purpose + " has its snapshot of the source"
	defer r.held("")
	err := holds.At(ctx, func(change.Position) (change.Position, error) {
		began := time.Now()
		r.held(heldReason)
		opening, cancel := context.WithTimeout(ctx, v.maxHold+handshakeTimeout) // the source may be gone
		defer cancel()
		request := &inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(snapshotTTL), Wait: durationpb.New(v.maxHold)}
		snapshot, err := v.source.openSnapshot(opening, request, func(reason string) { v.say("opening snapshots", reason) })
		if err != nil {
			return change.Position{}, v.explainOpening(err)
		}
		r.held("")
		r.log.Info(v.purpose+" has a snapshot of the source", "position", snapshot.position.String(), "held", time.Since(began))
		opened(snapshot)
		renewing.Go(func() { v.source.renew(ctx, snapshot.id, lost) })
		v.say("opening snapshots", "the replica applies what the source's snapshot holds")
		return snapshot.position, nil
	}, there)
	if errors.Is(err, apply.ErrNotApplying) {
		return r.notApplying()
	}
	return err
}

func (v *verification) explainOpening(err error) error {
	if rpc.Code(err) != codes.DeadlineExceeded || rpc.Reason(err) == "" {
		return err
	}
	return rpc.Errorf(codes.DeadlineExceeded, rpc.Reason(err), "applying was held up for %v and went on then, because the source could not be read in that time: %s. A longer time is --max-hold", v.maxHold, rpc.Message(err))
}

// take opens the target's snapshot, and makes sure that the target stands where it should.
func (p *snapshotPair) take(ctx context.Context, replication string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if p.target, err = p.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}); err != nil {
		return fmt.Errorf("open snapshot of the replica: %w", err)
	}
	var log, lsn string
	if err := p.target.QueryRow(ctx, "SELECT pg_catalog.pg_export_snapshot(), log_id, lsn::text FROM syncline.positions WHERE replication = $1", replication).
		Scan(&p.exported, &log, &lsn); err != nil {
		return fmt.Errorf("open snapshot of the replica: %w", err)
	}
	// What concerns no table of the replica moves the stored position later.
	stored, err := change.ParsePosition(log + "@" + lsn)
	if err == nil && (stored.LogID != p.source.position.LogID || stored.LSN > p.source.position.LSN) {
		err = fmt.Errorf("the replica is at %s instead of %s", stored, p.source.position)
	}
	return err
}

// close ends both snapshots.
func (p *snapshotPair) close(ctx context.Context) {
	p.renewing.Wait()
	if p.source.id != "" {
		p.from.closeSnapshot(ctx, p.source.id)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = p.conn.Close(closing) // its transaction ends with it
}

// held shows why applying stands still, or that it does not any more.
func (r *runner) held(reason string) {
	r.status.update(func(s *status) {
		switch {
		case reason != "" && s.reason == "":
			s.reason, s.reasonCode = reason, reasonHeld
		case reason == "" && s.reasonCode == reasonHeld:
			s.reason, s.reasonCode = "", ""
		}
	})
}

// notApplying refuses to compare or mend a replica that does not follow its source.
func (r *runner) notApplying() error {
	stored := r.snapshot()
	now := r.status.proto(stored, false)
	why := stateName(now.GetState())
	if now.GetReason() != "" {
		why += ": " + now.GetReasonCode() + ": " + now.GetReason()
	}
	refused := rpc.Errorf(codes.FailedPrecondition, reasonNotRunning, "replication %s is %s; it can be compared and mended while it follows its source, when every table has its first copy", stored.name, why)
	if isCompleted(now.GetState()) {
		refused.Message += fmt.Sprintf(". `syncline replication update %s --mode continuous`, and then `syncline replication start %s`, has it follow", stored.name, stored.name)
	}
	if r.hasFailed() {
		refused.Message += fmt.Sprintf(". `syncline sync %s --mode incremental` makes its tables equal to the source's and starts it again", stored.name)
	}
	return refused
}
