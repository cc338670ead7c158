package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// ErrNotApplying says that the engine has ended, or that it was not there, when it was to stand still.
var ErrNotApplying = errors.New("nothing is being applied")

// ErrPassed says that a position where the engine was to stand still lies before the one where it is.
var ErrPassed = errors.New("the replica has passed the position")

// Holds is how others have an engine stand still at a position of their choice. Each engine has its own.
type Holds struct {
	requests chan *hold
	ended    chan struct{} // closed when the engine has ended
}

// NewHolds makes the Holds of one engine.
func NewHolds() *Holds {
	return &Holds{requests: make(chan *hold), ended: make(chan struct{})}
}

// hold is one stop of the engine, which waits for the holder wherever it stands still.
type hold struct {
	standing chan change.Position // the engine stands still here, and everything up to here is committed
	until    chan change.Position // where it shall stand still again
	reached  chan struct{}        // closed when it does
	released chan struct{}        // closed when it may go on
}

// At has the engine stand still between two source transactions and calls choose with its position. Then the engine goes on to
// exactly the position that choose returns, and stands still there while there runs: the target holds the source transactions
// that end at or before that position, and no other. After that, or when anything fails, it goes on. Both functions should be
// quick. One caller after the other is served.
func (h *Holds) At(ctx context.Context, choose func(standing change.Position) (change.Position, error), there func() error) error {
	one := &hold{
		standing: make(chan change.Position), until: make(chan change.Position), reached: make(chan struct{}), released: make(chan struct{}),
	}
	defer close(one.released)
	select {
	case h.requests <- one:
	case <-h.ended:
		return ErrNotApplying
	case <-ctx.Done():
		return ctx.Err()
	}
	var standing change.Position
	select {
	case standing = <-one.standing:
	case <-h.ended:
		return ErrNotApplying
	case <-ctx.Done():
		return ctx.Err()
	}
	position, err := choose(standing)
	if err != nil {
		return err
	}
	if position.LogID != standing.LogID || position.LSN < standing.LSN {
		return fmt.Errorf("stand still at %s: %w: it is at %s", position, ErrPassed, standing)
	}
	select {
	case one.until <- position:
	case <-h.ended:
		return ErrNotApplying
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-one.reached:
	case <-h.ended:
		return ErrNotApplying
	case <-ctx.Done():
		return ctx.Err()
	}
	return there()
}

// requests is nil, from which nothing ever comes, while a hold is under way.
func (e *Engine) requests() <-chan *hold {
	if e.config.Holds == nil || e.hold != nil {
		return nil
	}
	return e.config.Holds.requests
}

// mayHold lets a hold begin, or end at its position, between two source transactions. through is how far the stream is known
// to be taken.
func (e *Engine) mayHold(ctx context.Context, through change.LSN) error {
	switch {
	case e.hold == nil || e.txn.open:
		return nil
	case e.holdAt == 0:
		return e.stand(ctx)
	case through >= e.holdAt:
		return e.reach(ctx)
	}
	return nil
}

// stand stands still until the holder has chosen a position.
func (e *Engine) stand(ctx context.Context) error {
	if err := e.settle(ctx); err != nil {
		return err
	}
	at := change.Position{LogID: e.config.Position.LogID, LSN: e.taken}
	select {
	case e.hold.standing <- at:
	case <-e.hold.released:
		e.hold = nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case to := <-e.hold.until:
		e.holdAt = to.LSN
		return e.mayHold(ctx, e.taken)
	case <-e.hold.released:
		e.hold = nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reach stands still at the chosen position until the holder lets the engine go on.
func (e *Engine) reach(ctx context.Context) error {
	if err := e.pass(ctx, e.holdAt); err != nil {
		return err
	}
	close(e.hold.reached)
	select {
	case <-e.hold.released:
	case <-ctx.Done():
		return ctx.Err()
	}
	through := e.through
	e.hold, e.holdAt, e.through = nil, 0, 0
	return e.takeThrough(ctx, through)
}

// upTo cuts a mark off at the position of a hold: the target's position, which others compare, may not lie beyond it. What is cut
// off is taken when the hold ends.
func (e *Engine) upTo(through change.LSN) change.LSN {
	if e.holdAt == 0 || through <= e.holdAt {
		return through
	}
	e.through = through
	return e.holdAt
}

// takeThrough moves the position to a mark, while no transaction is open or waits to be committed.
func (e *Engine) takeThrough(ctx context.Context, through change.LSN) error {
	if through <= e.taken {
		return nil
	}
	e.taken = through
	return e.hand(ctx, task{commit: &commitPoint{position: through}})
}

// pass moves the position to where the engine is known to have everything, and waits until the target has it.
func (e *Engine) pass(ctx context.Context, position change.LSN) error {
	if err := e.commit(ctx); err != nil {
		return err
	}
	if err := e.takeThrough(ctx, position); err != nil {
		return err
	}
	return e.settle(ctx)
}

// settle commits what is whole and waits until the target has it.
func (e *Engine) settle(ctx context.Context) error {
	if err := e.commit(ctx); err != nil {
		return err
	}
	for e.executor.outstanding.Load() > 0 {
		select {
		case <-e.executor.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
