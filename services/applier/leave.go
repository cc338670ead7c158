package applier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

var (
	// errCompleted ends an attempt because the run has reached its end, and that is stored.
	errCompleted = errors.New("the run is completed")
	// errTurnOver ends an attempt because others wait for its place; it goes on when it has its turn again.
	errTurnOver = errors.New("others have their turn")
	// errNeeded says that the replication is compared or mended, and has to apply for that.
	errNeeded = errors.New("the replication is needed")
	// errNotWanted says that a user has stopped the replication while its run came to its end.
	errNotWanted = errors.New("the replication was stopped meanwhile")
	// errOtherLog says that the change log was begun anew between two questions.
	errOtherLog = errors.New("the source's change log was begun anew meanwhile")
)

// minTurn is how long a place is kept at least: to begin a turn costs a session and questions to both sides, so turns that were as short as
// there is little to do would be all that an applier does. One that has applied something within idleAfter lets idle ones go first, for busyPause.
const (
	minTurn   = 200 * time.Millisecond
	idleAfter = time.Second
	busyPause = 100 * time.Millisecond
)

// leaveRetry is the pause after an engine could not be left; neededPause is that in which one is asked again that is needed.
const (
	leaveRetry  = time.Second
	neededPause = 100 * time.Millisecond
)

// leaving ends an engine between two source transactions, when a run has reached its end or a turn is over. It stores how far the target
// is, AFTER everything up to there is committed, in a transaction that the target has flushed.
type leaving struct {
	runner *runner
	source *source
	holds  *apply.Holds
	end    context.CancelCauseFunc
	from   change.Position // where the engine began
	began  time.Time
	place  *turn
	left   []schema.Name         // tables of which it is watched whether the source captures them
	why    atomic.Pointer[error] // what the engine was left for; what it says after that does not count
}

// or is the reason why the engine was left, or what it ended with.
func (l *leaving) or(err error) error {
	if why := l.why.Load(); why != nil {
		return *why
	}
	return err
}

// at leaves the engine at a position, or where it stands if it is beyond that, to have it rest or go on at its next turn.
func (l *leaving) at(ctx context.Context, goal change.LSN, why error, thenRests bool) error {
	var at change.Position
	choose := func(standing change.Position) (change.Position, error) {
		at = standing
		at.LSN = max(at.LSN, goal)
		return at, nil
	}
	return l.holds.At(ctx, choose, func() error { //nolint:wrapcheck // it is of this program
		if errors.Is(why, errTurnOver) && !l.runner.mayTurn() {
			return errNeeded
		}
		fault.Point(FaultLeaving)
		if err := l.store(ctx, at, why); err != nil {
			l.runner.setTurning(false)
			return err
		}
		if thenRests {
			l.runner.lieDown(at)
		}
		l.why.Store(&why)
		fault.Point(FaultLeft)
		l.end(why)
		return nil
	})
}

func (l *leaving) store(ctx context.Context, at change.Position, why error) error {
	if at == l.from && !errors.Is(why, errCompleted) {
		return nil // nothing came
	}
	if err := l.runner.store.leave(ctx, l.runner.name, at, l.runner.status.appliedSoFar(), errors.Is(why, errCompleted)); err != nil {
		return err
	}
	l.report(ctx, at)
	return nil
}

// report tells the source what is durable: turns may be shorter than the interval of the regular reports.
func (l *leaving) report(ctx context.Context, at change.Position) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	request := &loggerv1.ReportAppliedRequest{Follower: l.runner.followerName(), Position: positionProto(at)}
	if _, err := l.source.loggerClient().ReportApplied(ctx, request); err != nil && ctx.Err() == nil {
		l.runner.log.Debug("the source was not told the position; it will be with the next one", "error", err)
	}
}

// flushedCommit has a transaction be durable when its commit returns, whatever the role's or the database's settings say.
const flushedCommit = "SELECT set_config('synchronous_commit', 'local', true) WHERE current_setting('synchronous_commit') = 'off'"

// leave stores a position at which nothing is applied any more, and that the run is completed, if it is. It is durable on return.
// transactions is the number of those applied since the replication was created: the position's row has not counted all of those that
// wrote nothing.
func (s *store) leave(ctx context.Context, name string, at change.Position, transactions int64, completes bool) error {
	e := &event{replication: name, state: applierv1.State_STATE_RUNNING, position: at, hasPosition: true}
	if completes {
		e.kind, e.state, e.text = kindCompleted, applierv1.State_STATE_COMPLETED, "the run has ended: everything up to "+at.LSN.String()+" is applied"
	}
	return s.write(ctx, e, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, flushedCommit); err != nil {
			return fmt.Errorf("store position of replication %s: %w", name, err)
		}
		tag, err := tx.Exec(ctx, `UPDATE syncline.positions p SET lsn = $3::text::pg_lsn, transactions = greatest(p.transactions, $4 - r.transactions), updated_at = now()
			FROM syncline.replications r WHERE r.name = $1 AND p.replication = $1 AND p.log_id = $2 AND p.lsn <= $3::text::pg_lsn`,
			name, at.LogID.String(), at.LSN.String(), transactions)
		if err == nil && tag.RowsAffected() != 1 {
			err = apply.ErrMoved
		}
		if err != nil || !completes {
			return wrapUnlessNil(err, "store position of replication "+name)
		}
		tag, err = tx.Exec(ctx, `UPDATE syncline.replications SET wanted = 'completed', completed_at = now(), completed_log_id = $2, completed_lsn = $3::text::pg_lsn
			WHERE name = $1 AND wanted = 'running' AND phase = 'running' AND pending = ''`, name, at.LogID.String(), at.LSN.String())
		if err == nil && tag.RowsAffected() != 1 {
			err = errNotWanted
		}
		if err != nil {
			return fmt.Errorf("store that replication %s is completed: %w", name, err)
		}
		return closeRun(ctx, tx, name, ending{result: resultSuccess})
	})
}

func wrapUnlessNil(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// watch leaves the engine when its run has reached the end, or when its turn is over. It returns when ctx ends, or the engine has.
func (l *leaving) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.once(ctx)
		if err == nil || errors.Is(err, apply.ErrNotApplying) {
			return
		}
		if errors.Is(err, errNeeded) {
			_ = pause(ctx, neededPause)
			continue
		}
		if ctx.Err() == nil {
			l.runner.log.Warn("the replication could not be left and goes on for now", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(leaveRetry):
			}
		}
	}
}

// once tries to leave. A run that has an end does so at it; a turn ends when somebody waits and the replication has caught up, or
// has had its time.
func (l *leaving) once(ctx context.Context) (err error) {
	turns, longest := l.runner.config.turns, l.runner.config.MaxTurn
	defer func() {
		if err != nil {
			turns.unclaim(l.place)
		}
	}()
	if goal := l.runner.runEnd; !goal.LogID.IsZero() {
		turn, overTime := context.WithCancel(ctx)
		var claiming sync.WaitGroup
		defer claiming.Wait() // so that nothing is claimed after this
		defer overTime()
		claiming.Go(func() {
			if l.claim(turn, longest) == nil {
				overTime()
			}
		})
		if err := l.at(turn, goal.LSN, errCompleted, false); err == nil || ctx.Err() != nil || turn.Err() == nil {
			return err
		}
		return l.at(ctx, 0, errTurnOver, false)
	}
	if err := l.claim(ctx, minTurn); err != nil {
		return err
	}
	if l.runner.isNeeded() {
		return errNeeded
	}
	rests := l.runner.mayRest(l.left)
	if rests && l.idle() {
		return l.at(ctx, 0, errTurnOver, true) // what may have come meanwhile it hears when it rests
	}
	// What the source has now is applied in this turn, as far as there is time.
	var goal change.LSN
	if ranges, err := l.source.loggerClient().GetRanges(ctx, &loggerv1.GetRangesRequest{}); err == nil && ranges.GetLogId() == l.from.LogID.String() {
		goal = change.LSN(ranges.GetLastLsn())
	}
	limited, cancel := context.WithDeadline(ctx, l.began.Add(longest))
	defer cancel()
	if err := l.at(limited, goal, errTurnOver, rests); err == nil || ctx.Err() != nil || limited.Err() == nil {
		return err
	}
	return l.at(ctx, 0, errTurnOver, false)
}

// claim returns once it is for this one to give up its place, which it has kept for so long at least.
func (l *leaving) claim(ctx context.Context, least time.Duration) error {
	turns := l.runner.config.turns
	for {
		if err := turns.waitCrowded(ctx); err != nil {
			return err
		}
		if err := pause(ctx, time.Until(l.began.Add(least))); err != nil {
			return err
		}
		if !l.idle() {
			if err := pause(ctx, busyPause); err != nil {
				return err
			}
		}
		if turns.claim(l.place) {
			return nil
		}
	}
}

// idle tells whether nothing was applied for a while.
func (l *leaving) idle() bool {
	at := l.runner.status.lastApplied()
	return time.Since(l.began) >= idleAfter && time.Since(at) >= idleAfter
}

// mayTurn has a replication that nobody needs give up its place; whoever needs it from then on waits until it has one again.
func (r *runner) mayTurn() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turning = r.needed == 0
	return r.turning
}

func (r *runner) setTurning(turning bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turning = turning
}

// need keeps a replication at its place until free is called.
func (r *runner) need() (free func()) {
	add := func(n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.needed += n
	}
	add(1)
	select {
	case r.needs <- struct{}{}: // it may rest
	default:
	}
	return func() { add(-1) }
}

func (r *runner) isNeeded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.needed > 0
}

// pause waits, at least until ctx is looked at once.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ctx.Err()
	}
}

// setRunEnd decides where a run of mode once ends: at what is committed on the source now. An attempt after a fault has an end of its
// own; one that goes on after a turn keeps it.
func (r *runner) setRunEnd(ctx context.Context, src *source, spec *applierv1.ReplicationSpec, at change.Position) error {
	if spec.GetMode() != applierv1.Mode_MODE_ONCE {
		r.runEnd = change.Position{}
		return nil
	}
	if r.runEnd.LogID == at.LogID {
		return nil
	}
	barrier, err := src.loggerClient().EmitBarrier(ctx, &loggerv1.EmitBarrierRequest{})
	if err != nil {
		return fmt.Errorf("ask the source where the run ends: %w", err)
	}
	end, err := positionOf(barrier.GetPosition())
	if err == nil && end.LogID != at.LogID {
		err = errOtherLog
	}
	if err != nil {
		return fmt.Errorf("ask the source where the run ends: %w", err)
	}
	r.runEnd = end
	return nil
}
