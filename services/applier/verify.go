package applier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Limits and defaults of a verification.
const (
	defaultDifferences = 100
	maxDifferences     = 10_000
	defaultHold        = 30 * time.Second
	minHold            = 100 * time.Millisecond
	maxHold            = time.Hour
	// verifyWorkers is how many tables are compared at the same time.
	verifyWorkers = 2
	// verifyRounds bounds how often tables are compared again, as of a later position, because either side truncated or rewrote
	// them between the opening of its snapshot and their turn.
	verifyRounds = 4
	// verifyInterval is the time between two answers that tell of progress.
	verifyInterval = 500 * time.Millisecond
)

// VerifyReplication compares source and replica as of one position of the source; see docs/adr/0008-verify-at-one-position.md.
func (s *Service) VerifyReplication(in *applierv1.VerifyReplicationRequest, stream grpc.ServerStreamingServer[applierv1.VerifyReplicationResponse]) error {
	ctx := stream.Context()
	r, err := s.runner(ctx, in.GetName())
	if err != nil {
		return err
	}
	v, err := newVerification(r, in, stream.Send)
	if err != nil {
		return err
	}
	src, done, err := r.beginComparing(ctx)
	if err != nil {
		return fmt.Errorf("verify replication %s: %w", in.GetName(), err)
	}
	defer done()
	v.source = src
	if err := v.run(ctx); err != nil {
		return fmt.Errorf("verify replication %s: %w", in.GetName(), verifyRefusal(ctx, err))
	}
	return nil
}

// beginComparing connects to the source, and makes sure that nobody else compares or mends the replica until done is called.
func (r *runner) beginComparing(ctx context.Context) (src *source, done func(), err error) {
	stored := r.snapshot()
	if !r.verifying.TryLock() {
		return nil, nil, rpc.Errorf(codes.Aborted, reasonVerifying, "replication %s is being verified or mended already; try again when that has ended", stored.name)
	}
	stays := r.need()
	free := func() {
		stays()
		r.verifying.Unlock()
	}
	if err = r.awaitTurn(ctx); err == nil {
		src, err = r.config.dialSource(ctx, r.name, stored.spec)
	}
	if err != nil {
		free()
		return nil, nil, err
	}
	done = func() {
		src.close()
		free()
	}
	if id := src.server.GetServerId(); id != stored.sourceServerID {
		done()
		return nil, nil, failed(reasonSourceChanged, "the source at %s is now another server (%s instead of %s), to which this replica cannot be compared", stored.spec.GetSource(), id, stored.sourceServerID)
	}
	src.set.version = stored.setVersion
	return src, done, nil
}

// awaitTurn returns once a replication that waits for its turn has it, and applies.
func (r *runner) awaitTurn(ctx context.Context) error {
	for waits := false; ; {
		changed := r.status.watch()
		if err := r.refuseStandby(); err != nil {
			return err
		}
		if _, code := r.status.stateAndCode(); code == reasonScheduled {
			return nil // that nothing is applied is told by what comes next
		}
		now := r.status.stateNow()
		away := now == applierv1.State_STATE_WAITING || r.isTurning()
		waits = waits || away
		if !waits || !away && (r.applies() || now != applierv1.State_STATE_RUNNING && now != applierv1.State_STATE_CATCHING_UP) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *runner) isTurning() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.turning
}

// applies tells whether an engine runs.
func (r *runner) applies() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holds != nil
}

// verifyRefusal gives an error without a status of its own the one that says whether it is worth while to try again.
func verifyRefusal(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return err
	}
	if rpc.Reason(err) == reasonSnapshotGone {
		return rpc.Errorf(codes.Unavailable, reasonSnapshotGone, "the source's snapshot was lost before everything was compared; verify again: %s", rpc.Message(err))
	}
	if rpc.Code(err) == codes.Unavailable || rpc.Code(err) == codes.DeadlineExceeded {
		return err
	}
	return refusal(err)
}

// verification is one run of VerifyReplication.
type verification struct {
	name      string // of the replication
	purpose   string // what it is for, in a word
	runner    *runner
	source    *source
	selection schema.Selection
	asked     bool // the selection is what somebody asked for: a misspelt name must not quietly mean nothing
	limit     int  // differences of a table that are described
	maxHold   time.Duration
	differing *differing // where a repair has what differs collected; nil for a verification

	mu       sync.Mutex // guards what follows, and sending
	send     func(*applierv1.VerifyReplicationResponse) error
	progress applierv1.VerifyProgress
	result   applierv1.VerifyResult
}

func newVerification(r *runner, in *applierv1.VerifyReplicationRequest, send func(*applierv1.VerifyReplicationResponse) error) (*verification, error) {
	v := &verification{name: in.GetName(), purpose: "verification", runner: r, send: send, asked: true, limit: int(in.GetMaxDifferences()), maxHold: defaultHold}
	var err error
	if v.selection, err = schema.ParseSelection(in.GetIncludeTables(), in.GetExcludeTables()); err != nil {
		return nil, rpc.Invalid("include_tables", "%v", err)
	}
	switch {
	case v.limit < 0 || v.limit > maxDifferences:
		return nil, rpc.Invalid("max_differences", "%d is not from 0 to %d", v.limit, maxDifferences)
	case v.limit == 0:
		v.limit = defaultDifferences
	}
	if in.GetMaxHold() != nil {
		if v.maxHold = in.GetMaxHold().AsDuration(); v.maxHold < minHold || v.maxHold > maxHold {
			return nil, rpc.Invalid("max_hold", "must be between %v and %v", minHold, maxHold)
		}
	}
	return v, nil
}

// run compares everything and sends the result. Tables that changed their storage meanwhile are left to a next round.
func (v *verification) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer cancel(nil)
	telling.Go(func() { v.tell(ctx, cancel) })

	var units []*verifyUnit // nil before the first round
	for round := 1; ; round++ {
		again, err := v.round(ctx, units, round == verifyRounds)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return err
		}
		if len(again) == 0 {
			break
		}
		units = again
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r := &v.result
	r.Equal = r.GetTablesDifferent() == 0 && r.GetTablesNotCompared() == 0
	return v.send(&applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Result{Result: r}})
}

// tell sends the progress now and then, until ctx ends.
func (v *verification) tell(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(verifyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := v.sendProgress(); err != nil {
			stop(err)
			return
		}
	}
}

func (v *verification) sendProgress() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.send(&applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Progress{Progress: &v.progress}})
}

func (v *verification) say(phase, detail string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress.Phase, v.progress.Detail = phase, detail
}

func (v *verification) read(rows int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress.Rows += rows
}

// done sends the differences and the outcome of a table.
func (v *verification) done(t *applierv1.TableVerification, differences []*applierv1.RowDifference) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch t.GetOutcome() {
	case applierv1.TableOutcome_TABLE_OUTCOME_EQUAL:
		v.result.TablesEqual++
	case applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED:
		v.result.TablesNotCompared++
	default:
		v.result.TablesDifferent++
	}
	v.result.Rows += t.GetSourceRows()
	v.result.Unsynced += t.GetUnsynced()
	v.result.Differences += t.GetMissing() + t.GetExtra() + t.GetChanged()
	v.progress.TablesDone++
	for _, d := range differences {
		if err := v.send(&applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Difference{Difference: d}}); err != nil {
			return err
		}
	}
	return v.send(&applierv1.VerifyReplicationResponse{Event: &applierv1.VerifyReplicationResponse_Table{Table: t}})
}
