package applier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// runner runs one replication until it is stopped: it copies what is not copied, then applies the stream, and tries again
// after faults that pass.
type runner struct {
	name   string
	config *Config
	store  *store
	log    *slog.Logger
	status *status

	mu     sync.Mutex
	stored *stored
	// adopted is when it was last read while no engine ran.
	adopted time.Time
	cancel  context.CancelFunc // nil while it does not run
	done    chan struct{}
	wake    chan struct{} // holds one when the next attempt shall not wait
	holds   *apply.Holds  // of the engine that runs, nil while none does
	aside   *apply.Held   // by that engine's quarantine
	holder  uint32        // the server's process id of that engine's session

	runEnd     change.Position // where a run of mode once ends, zero before that is decided; of the running goroutine
	spread     time.Duration   // how much the first attempt may be put off
	needed     int             // by how many who compare or mend: it does not give up its place meanwhile
	place      *turn           // what the attempt has; of the running goroutine
	turning    bool            // it has given up its place, and goes on when it has one again
	rest       *rest           // while it has nothing to apply and no place
	needs      chan struct{}   // holds one when it may be needed while it rests
	forgetting sync.Mutex
	forgotten  chan struct{}          // closed when the result of a transient run is stored and the rest is forgotten
	result     *applierv1.Replication // of a transient run, once forgotten is closed
	last       outcome                // how the last run ended, once done is closed

	seen      atomic.Pointer[glimpse] // what the last look has shown; nil before
	glanced   chan struct{}           // holds one after a look
	attempted time.Time               // the end of the last attempt; of the running goroutine

	control   chan struct{}           // holds one while a user's decision is carried out
	endStream context.CancelCauseFunc // ends the engine that runs
	verifying sync.Mutex              // held while the replica is compared with its source, or mended

	ignored       map[schema.Name]ignored // tables that appeared and were gone again; belongs to the running goroutine
	looked        change.LSN              // position after which the target was looked at twice; it belongs to the running goroutine too
	planned       *plan                   // what this attempt has carried out and not copied yet, nil for nothing; of the running goroutine
	setChanged    bool                    // the source serves another version of the set than the target holds; of the running goroutine
	noForeignKeys bool                    // this attempt has seen that no foreign keys are to be added; of the running goroutine
}

func newRunner(config *Config, st *store, r *stored) *runner {
	return &runner{
		name: r.name, config: config, store: st, stored: r, status: newStatus(r, st.runLog.note), ignored: map[schema.Name]ignored{}, wake: make(chan struct{}, 1),
		control: make(chan struct{}, 1), forgotten: make(chan struct{}), glanced: make(chan struct{}, 1), needs: make(chan struct{}, 1),
		log: config.Log.With("replication", r.name),
	}
}

func (r *runner) snapshot() *stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	copied := *r.stored
	return &copied
}

// start runs the replication in a goroutine that ends with stop or with ctx. One that runs is left alone, but it tries again at
// once if it waits to do so.
func (r *runner) start(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		select {
		case <-r.done:
		default:
			select {
			case r.wake <- struct{}{}:
			default:
			}
			return
		}
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	done := r.done
	r.status.setState(applierv1.State_STATE_INITIALIZING)
	go func() {
		for again := true; again; {
			how := r.run(ctx)
			again = r.ended(ctx, done, how)
		}
	}()
}

// ended closes done, unless somebody has started the replication since its last attempt began: he was told that it runs.
func (r *runner) ended(ctx context.Context, done chan struct{}, how outcome) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.wake:
		if ctx.Err() == nil {
			return true
		}
	default:
	}
	r.last = how
	close(done)
	return false
}

// stop ends the run between two target transactions and waits for it.
func (r *runner) stop() {
	r.mu.Lock()
	cancel, done := r.cancel, r.done
	r.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	<-done
}

// active tells whether it runs, or waits to try again.
func (r *runner) active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// runOnce runs a replication and tells how that ended: a continuous one is stopped or fails, one of mode once may be completed. Ending ctx
// ends the wait, not the run.
func (r *runner) runOnce(ctx, running context.Context) (outcome, error) {
	r.start(running)
	r.mu.Lock()
	done := r.done
	r.mu.Unlock()
	select {
	case <-done:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.last, nil
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
}

// run tries until it is stopped, its end is reached, or something fails that does not pass by itself.
func (r *runner) run(ctx context.Context) outcome {
	stopped := outcome{state: applierv1.State_STATE_STOPPED}
	r.runEnd = change.Position{}
	r.getUp() // what was decided meanwhile may select other rows
	if r.putOff(ctx) != nil {
		return stopped
	}
	goesOn := false
	for attempt := 0; ; attempt++ {
		select {
		case <-r.wake: // this is the attempt
		default:
		}
		err := r.inTurn(ctx, goesOn)
		r.setTurning(errors.Is(err, errTurnOver))
		r.attempted = time.Now()
		r.status.engineEnded()
		if errors.Is(err, apply.ErrInUse) && ctx.Err() == nil {
			err, goesOn = r.standby(ctx), false
			if attempt--; err == nil {
				continue
			}
		}
		goesOn = errors.Is(err, errTurnOver)
		switch {
		case errors.Is(err, errCompleted):
			return r.complete(ctx)
		case errors.Is(err, errEnded):
			how, again := r.endedElsewhere(ctx)
			if !again {
				return how
			}
			attempt--
			continue
		case ctx.Err() != nil:
			return stopped
		case goesOn:
			attempt--
			continue
		case errors.Is(err, errCopyAgain):
			attempt = -1
			if _, err := r.refresh(ctx); err != nil { // tables wait, so it needs the place of one that copies
				r.log.Warn("the stored state cannot be read", "error", err)
			}
			continue
		}
		r.runEnd = change.Position{}
		o := r.config.options(r.snapshot().spec)
		if r.status.endStreak(o.healthyAfter) {
			attempt = 0
		}
		f, text := classify(err), rpc.Message(err)
		r.setChanged = r.setChanged || f.code == reasonSetChanged
		if f.mayBeStale() && r.lookTwice() {
			f.passes = true
		}
		if f.isGap() {
			var resynced bool
			if resynced, f, text = r.closeGap(ctx, f, text); resynced {
				continue
			}
		}
		how := resultFatal
		if limit := o.retryLimit; f.passes && limit > 0 && attempt >= limit {
			how, f.passes, text = resultError, false, fmt.Sprintf("%s; it failed %d times in a row, and was to be tried again %d times (retry_limit)", text, attempt+1, limit)
		}
		if !f.passes {
			return r.fail(ctx, f, text, how)
		}
		if r.waitRetry(ctx, f, text, backoff(o, attempt)) != nil {
			return stopped
		}
	}
}

// putOff spreads the first attempts of many replications after a start of the process.
func (r *runner) putOff(ctx context.Context) error {
	most := r.spread
	if r.spread = 0; most <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.wake:
	case <-time.After(rand.N(most)):
	}
	return nil
}

const (
	// spreadEach and mostSpread are over how long the first attempts are spread, for each replication beyond freeStarts, and in all.
	spreadEach = 10 * time.Millisecond
	mostSpread = 10 * time.Second
	freeStarts = 8
)

// startSpread is the time over which so many replications are started, so that a source is not called by all at the same moment.
func startSpread(replications int) time.Duration {
	return min(spreadEach*time.Duration(max(0, replications-freeStarts)), mostSpread)
}

// inTurn makes an attempt when the replication has a place.
func (r *runner) inTurn(ctx context.Context, goesOn bool) error {
	if r.elsewhere() {
		return apply.ErrInUse // that is known without a place and a session
	}
	if _, rests := r.resting(); rests {
		r.setTurning(true)
		if err := r.listen(ctx); err != nil {
			return err
		}
		goesOn = true
	}
	turns, now := r.config.turns, r.snapshot()
	copies := now.phase == phaseNew || now.phase == phaseSyncing || now.pending != pendingNothing
	place, err := turns.take(ctx, copies, func(one *turn) { r.status.waits(one, turns.place) })
	r.status.waits(nil, nil)
	if err != nil {
		return err
	}
	defer turns.release(place)
	r.place = place
	return r.attempt(ctx, goesOn)
}

// waitRetry shows a fault that may pass, and waits until the next attempt. It has no place meanwhile.
func (r *runner) waitRetry(ctx context.Context, f failure, text string, pause time.Duration) error {
	r.log.Warn("replication is tried again", "reason", f.code, "error", text, "pause", pause)
	r.status.update(func(s *status) {
		s.state, s.reasonCode, s.reason, s.nextRetry = applierv1.State_STATE_RETRYING, f.code, text, time.Now().Add(pause)
		s.happened(f, text)
	})
	if err := r.store.noteFault(ctx, r.name, f, text); err != nil {
		r.log.Warn("the fault is not counted in the run", "error", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.wake:
	case <-time.After(pause):
	}
	return nil
}

// lookTwice tells whether what failed deserves a second look from a fresh session, which it does once for each position: a
// concurrent update of the target can hide a row from one scan, and the target's tables may have been altered since the session
// read what they are. The position shown may fall back to the stored one, so it has to be passed.
func (r *runner) lookTwice() bool {
	at := r.status.positionNow()
	if at <= r.looked {
		return false
	}
	r.looked = at
	return true
}

// backoff is the pause before the next attempt: exponential, with jitter, capped.
func backoff(o options, attempt int) time.Duration {
	pause := o.retryBase << min(attempt, 20)
	if pause <= 0 || pause > o.retryCap {
		pause = o.retryCap
	}
	return pause/2 + rand.N(pause/2+1)
}

// refresh reads again what is stored.
func (r *runner) refresh(ctx context.Context) (*stored, error) {
	fresh, err := r.store.get(ctx, r.name)
	if err != nil {
		return nil, err
	}
	r.adopt(fresh)
	return fresh, nil
}

// adopt takes over what is stored, while no engine runs.
func (r *runner) adopt(fresh *stored) {
	r.mu.Lock()
	r.stored, r.adopted = fresh, time.Now()
	r.mu.Unlock()
	r.status.update(func(s *status) { s.restore(fresh) })
}

// setPhase reads again what is stored after the phase was moved there.
func (r *runner) setPhase(ctx context.Context, to phase) error {
	fresh, err := r.store.get(ctx, r.snapshot().name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.stored = fresh
	r.mu.Unlock()
	if fresh.phase != to {
		return fmt.Errorf("replication %s is in phase %s, expected %s", fresh.name, fresh.phase, to)
	}
	r.status.update(func(s *status) { s.sync.started, s.sync.ended = fresh.syncStarted, fresh.syncEnded })
	return nil
}

// setEngine notes how the engine that runs is held and ended.
func (r *runner) setEngine(holds *apply.Holds, held *apply.Held, holder uint32, end context.CancelCauseFunc) {
	r.mu.Lock()
	r.holds, r.aside, r.holder, r.endStream = holds, held, holder, end
	r.turning = r.turning && holds == nil
	r.mu.Unlock()
	r.status.update(func(*status) {}) // wakes those who wait for it
}

// followerName is how the source's logger lists this replication.
func (r *runner) followerName() string { return r.config.ServerID + "/" + r.name }
