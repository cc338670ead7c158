package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	if wait := a.gather.Wait(time.Now()); wait > 0 {
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
	if err := fault.Error(FaultPublish); err != nil {
		<-a.slots
		a.failLocked(fmt.Errorf("%w: %w", ErrStore, err))
		return
	}
	a.gather.Sent(time.Now())
	a.inFlight++
	a.sent <- next
	fault.Point(FaultPublished)
}

// run stores what is sent, in order. When the appender has failed it stores what was sent before, unless it is the store that
// failed.
func (a *Appender) run() {
	defer close(a.exited)
	for {
		select {
		case b := <-a.sent:
			if !a.settle(b) {
				return
			}
			continue
		default:
		}
		select {
		case b := <-a.sent:
			if !a.settle(b) {
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

// settle stores a block, with those that wait behind it, and announces them.
func (a *Appender) settle(first *block.Block) bool {
	blocks := append(make([]*block.Block, 0, maxInFlight), first)
	data := append(make([][]byte, 0, maxInFlight), first.Data())
	for len(blocks) < maxInFlight && len(a.sent) > 0 {
		b := <-a.sent
		blocks, data = append(blocks, b), append(data, b.Data())
	}
	err := a.store.append(first.Number, data...)
	for _, b := range blocks {
		if err != nil {
			break
		}
		fault.Point(FaultAcknowledged)
		a.durable.Store(uint64(b.Through))
		err = a.log.ledger.append(b, time.Now())
		if stored := a.log.opts.Stored; err == nil && stored != nil {
			stored(len(b.Data()))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight -= len(blocks)
	for range blocks {
		<-a.slots
	}
	if err != nil {
		a.failLocked(err)
		return false
	}
	a.shipIdle()
	return true
}
