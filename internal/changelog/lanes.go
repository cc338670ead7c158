package changelog

import (
	"context"
	"sync"
	"time"
)

// lanes bound how many places of the log are read from the store at a time. The store reads whole files of 8 MiB into memory
// and keeps them while they are used: many followers far behind, each at another place, would fill the memory, or make the
// store read each file again for every block. So a few places are read at a time, each for a file or two in a row, and
// followers take turns. A follower that does not come for its next block, because its network is slow, loses its turn.
type lanes struct {
	mu      sync.Mutex
	lanes   [laneCount]lane
	waiting []*waiter // in the order of arrival
}

const (
	laneCount = 4
	laneTurn  = 64                    // blocks: two files
	laneIdle  = 20 * time.Millisecond // how long a lane is kept for a follower that is away
)

// lane is one place that is being read.
type lane struct {
	next  uint64 // number of the block that continues it
	left  int    // blocks until the turn ends
	busy  int    // reads under way
	since time.Time
}

type waiter struct {
	number uint64
	given  chan *lane
}

// enter waits for a lane in which to read a block. leave has to follow.
func (l *lanes) enter(ctx context.Context, number uint64) (*lane, error) {
	l.mu.Lock()
	if len(l.waiting) == 0 || l.continues(number) {
		if at := l.take(number); at != nil {
			l.mu.Unlock()
			return at, nil
		}
	}
	w := &waiter{number: number, given: make(chan *lane, 1)}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	tick := time.NewTicker(laneIdle)
	defer tick.Stop()
	for {
		select {
		case at := <-w.given:
			return at, nil
		case <-ctx.Done():
			if at := l.withdraw(w); at != nil {
				l.leave(at)
			}
			return nil, context.Cause(ctx)
		case <-tick.C:
			l.mu.Lock()
			l.serve()
			l.mu.Unlock()
		}
	}
}

// leave gives the lane back; its follower has until laneIdle to come for the next block.
func (l *lanes) leave(at *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at.busy--
	at.since = time.Now()
	l.serve()
}

// continues tells whether a lane is kept for this block.
func (l *lanes) continues(number uint64) bool {
	for i := range l.lanes {
		if at := &l.lanes[i]; at.left > 0 && (at.next == number || at.next == number+1) {
			return true
		}
	}
	return false
}

// take returns a lane for a block: the one that is there already, else one that nobody uses.
func (l *lanes) take(number uint64) *lane {
	var free *lane
	for i := range l.lanes {
		at := &l.lanes[i]
		switch {
		case at.left > 0 && at.next == number:
			at.next++
			at.left--
			at.busy++
			return at
		case at.left > 0 && at.busy < 2 && at.next == number+1: // another follower at the same place
			at.busy++
			return at
		case at.busy == 0 && (at.left == 0 || time.Since(at.since) > laneIdle) && free == nil:
			free = at
		}
	}
	if free != nil {
		*free = lane{next: number + 1, left: laneTurn - 1, busy: 1, since: time.Now()}
	}
	return free
}

// serve gives lanes to those who wait, first come, first served.
func (l *lanes) serve() {
	for len(l.waiting) > 0 {
		at := l.take(l.waiting[0].number)
		if at == nil {
			return
		}
		l.waiting[0].given <- at
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
	}
}

// withdraw ends a wait. It returns the lane if one was given meanwhile.
func (l *lanes) withdraw(w *waiter) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.waiting {
		if l.waiting[i] == w {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return nil
		}
	}
	return <-w.given
}
