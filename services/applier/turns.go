package applier

import (
	"context"
	"slices"
	"sync"
	"time"
)

// copyShare is the part (1 ÷ copyShare) of the running replications that may make copies while others wait: a copy cannot give its place
// to another one, and has several sessions.
const copyShare = 4

// turns hands out the places of an applier: so many replications run at a time, and no more. Whoever has waited longest is next.
// Those that apply give up their place after a while when others wait (see leaving), so that a place becomes free whatever runs.
type turns struct {
	most int

	mu      sync.Mutex
	running int
	copying int
	leaving int           // of those that run, how many are about to give up their places
	waiting []*turn       // the one that has waited longest first
	changed chan struct{} // closed and replaced when it may have become crowded
}

// turn is a replication's place, or its wait for one.
type turn struct {
	copies  bool
	leaves  bool // it is about to give up its place
	since   time.Time
	granted chan struct{}
}

func newTurns(most int) *turns { return &turns{most: most, changed: make(chan struct{})} }

// take waits for a place; waits is called when there is none at once. Whoever has got one gives it to copied, when that is so, and to
// release.
func (t *turns) take(ctx context.Context, copies bool, waits func(*turn)) (*turn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	one := &turn{copies: copies, since: time.Now(), granted: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, one)
	t.grant()
	t.mu.Unlock()
	select {
	case <-one.granted:
		return one, nil
	default:
	}
	waits(one)
	select {
	case <-one.granted:
		return one, nil
	case <-ctx.Done():
		t.leave(one)
		return nil, ctx.Err()
	}
}

// grant gives free places to those that have waited longest. The caller holds the lock.
func (t *turns) grant() {
	mostCopies := t.most
	if t.running+len(t.waiting) > t.most {
		mostCopies = max(1, t.most/copyShare)
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(one *turn) bool {
		if t.running >= t.most || one.copies && t.copying >= mostCopies {
			return false
		}
		t.running++
		if one.copies {
			t.copying++
		}
		close(one.granted)
		return true
	})
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *turns) release(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if one.copies {
		t.copying--
	}
	if one.leaves {
		t.leaving--
	}
	t.grant()
}

// claim tells whether a turn is the one to give up its place for somebody who waits. It does so then by release, or goes on after unclaim.
// One place is given up for each that waits, and no more.
func (t *turns) claim(one *turn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !one.leaves && t.crowdedNow() {
		one.leaves = true
		t.leaving++
	}
	return one.leaves
}

// unclaim says that a turn goes on after all.
func (t *turns) unclaim(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.leaves {
		one.leaves = false
		t.leaving--
		t.grant() // another one may
	}
}

// copied says that a turn has made its copies, and applies from now on: others may copy then.
func (t *turns) copied(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.copies {
		one.copies = false
		t.copying--
		t.grant()
	}
}

// leave ends a wait.
func (t *turns) leave(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.waiting)
	t.waiting = slices.DeleteFunc(t.waiting, func(other *turn) bool { return other == one })
	if len(t.waiting) < before {
		t.grant() // fewer that wait may let more copies begin
		return
	}
	t.running-- // it was granted meanwhile
	if one.copies {
		t.copying--
	}
	t.grant()
}

// place is 1 for the turn that comes next, 0 for one that has come.
func (t *turns) place(one *turn) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return 1 + slices.Index(t.waiting, one)
}

// crowded tells whether somebody waits who would have his turn if one that applies gave up its place, and none is about to. The channel is
// closed when that may have changed.
func (t *turns) crowded() (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.crowdedNow(), t.changed
}

// crowdedNow is crowded for a caller that holds the lock.
func (t *turns) crowdedNow() bool {
	copies := 0
	for _, one := range t.waiting {
		if one.copies {
			copies++
		}
	}
	mayCopy := max(0, max(1, t.most/copyShare)-t.copying)
	return len(t.waiting)-copies+min(copies, mayCopy) > t.leaving
}

// waitCrowded returns once it is crowded.
func (t *turns) waitCrowded(ctx context.Context) error {
	for {
		crowded, changed := t.crowded()
		if crowded {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
