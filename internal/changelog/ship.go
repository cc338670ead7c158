package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
)

// refuse makes an error final.
func (a *Appender) refuse(err error) error {
	if err == nil {
		return nil // dropped: it is in the log
	}
	a.fail(err)
	return err
}

// ready is called with the lock held.
func (a *Appender) ready() error { return a.err }

// appended ends every appending method: it is called with the lock held, releases it, sends what is to be sent, and waits
// while the builder is full.
func (a *Appender) appended(ctx context.Context, err error) error {
	switch {
	case err == nil:
	case a.err != nil:
		err = a.err
	case errors.Is(err, block.ErrResume):
		err = fmt.Errorf("%w: %w", ErrDiverged, err)
	case errors.Is(err, block.ErrOrder):
		err = fmt.Errorf("%w: %w", ErrOrder, err)
	}
	if err != nil {
		a.failLocked(err)
		a.mu.Unlock()
		return err
	}
	full := a.builder.Full()
	if !full {
		a.shipIdle()
	}
	a.mu.Unlock()
	if full {
		return a.drain(ctx)
	}
	return nil
}

// drain sends blocks until the builder has room.
func (a *Appender) drain(ctx context.Context) error {
	for {
		select {
		case a.slots <- struct{}{}:
		case <-a.done:
			return a.Err()
		case <-ctx.Done():
			err := fmt.Errorf("append to change log: %w", context.Cause(ctx))
			a.fail(err)
			return err
		}
		a.mu.Lock()
		if a.err != nil {
			a.mu.Unlock()
			return a.Err()
		}
		full := a.builder.Full()
		if full {
			a.ship()
		} else {
			<-a.slots
			a.shipIdle()
		}
		err := a.err
		a.mu.Unlock()
		if err != nil || !full {
			return err
		}
	}
}

// shipIdle sends what is whole when nothing is in flight. The lock is held.
func (a *Appender) shipIdle() {
	if a.inFlight > 0 || a.waiting || a.err != nil || !a.builder.Ready() {
		return
	}
	if wait := a.gather.wait(time.Now()); wait > 0 {
		a.waiting = true
		a.later.Reset(wait)
		return
	}
	a.shipNow()
}

// shipLater sends what has waited long enough.
func (a *Appender) shipLater() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = false
	if a.inFlight == 0 && a.err == nil && a.builder.Ready() {
		a.shipNow()
	}
}

// shipNow sends what is whole. The lock is held.
func (a *Appender) shipNow() {
	select {
	case a.slots <- struct{}{}:
		a.ship()
	default: // the feeding goroutine is about to send
	}
}

// ship sends the next block. The lock and a slot are held; the slot goes on to the block.
func (a *Appender) ship() {
	next := a.builder.Cut()
	err := fault.Error(FaultPublish)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrStore, err)
	}
	var future jetstream.PubAckFuture
	if err == nil {
		future, err = a.store.publish(next.Number, next.Data())
	}
	if err != nil {
		<-a.slots
		a.failLocked(err)
		return
	}
	fault.Point(FaultPublished)
	a.gather.sent = time.Now()
	a.inFlight++
	a.sent <- flight{next, future}
}

// acknowledge takes the acknowledgements in order and announces what is durable. When the appender has failed it waits
// for what is in flight, unless the failure is the store's.
func (a *Appender) acknowledge() {
	defer close(a.exited)
	for {
		select {
		case f := <-a.sent:
			if !a.settle(f) {
				return
			}
			continue
		default:
		}
		select {
		case f := <-a.sent:
			if !a.settle(f) {
				return
			}
		case <-a.done:
			// Nothing is sent after done is closed, and what was sent before is seen by the first select.
			if len(a.sent) == 0 {
				return
			}
		}
	}
}

// settle waits for one block and announces it.
func (a *Appender) settle(f flight) bool {
	number, err := a.store.await(f.future, nil)
	if err == nil && number != f.block.Number {
		err = fmt.Errorf("%w: block %d was stored as %d", ErrFenced, f.block.Number, number)
	}
	if err == nil {
		fault.Point(FaultAcknowledged)
		a.durable.Store(uint64(f.block.Through))
		err = a.log.ledger.append(f.block, time.Now())
	}
	if stored := a.log.opts.Stored; err == nil && stored != nil {
		stored(len(f.block.Data()))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight--
	<-a.slots
	if err != nil {
		a.failLocked(err)
		return false
	}
	a.shipIdle()
	return true
}
