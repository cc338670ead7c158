package changelog

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// However many followers read from the store, few places are read at a time, and everyone gets on.
func TestLanesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lanes
		var mu sync.Mutex
		busy, most := 0, 0
		var followers sync.WaitGroup
		for i := range 30 {
			followers.Go(func() {
				for n := range uint64(150) {
					at, err := l.enter(t.Context(), uint64(i)*1_000_000+n)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					busy++
					most = max(most, busy)
					mu.Unlock()
					time.Sleep(time.Millisecond) // the time that a read takes, in the bubble's clock
					mu.Lock()
					busy--
					mu.Unlock()
					l.leave(at)
				}
			})
		}
		begun := time.Now()
		followers.Wait()
		if most > laneCount {
			t.Errorf("%d places at a time", most)
		}
		if ideal := 30 * 150 * time.Millisecond / laneCount; time.Since(begun) > 2*ideal {
			t.Errorf("took %v where %v is ideal", time.Since(begun), ideal)
		}
	})
}

// A follower that does not come back loses its lane, and one that gives up its wait leaves nothing behind.
func TestLanesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lanes
		for i := range uint64(laneCount) {
			at, err := l.enter(t.Context(), 1000*i)
			must(t, err)
			l.leave(at)
		}
		at, err := l.enter(t.Context(), 1) // in its turn
		must(t, err)
		l.leave(at)
		begun := time.Now()
		at, err = l.enter(t.Context(), 77_000)
		must(t, err)
		if waited := time.Since(begun); waited < laneIdle || waited > 3*laneIdle {
			t.Errorf("waited %v", waited)
		}
		l.leave(at)

		var held []*lane
		for i := range uint64(laneCount) {
			time.Sleep(2 * laneIdle) // every lane is free
			at, err := l.enter(t.Context(), 1_000_000*(i+1))
			must(t, err)
			held = append(held, at)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.enter(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("entered a fifth place: %v", err)
		}
		for _, at := range held {
			l.leave(at)
		}
		at, err = l.enter(t.Context(), 6_000_000)
		must(t, err)
		l.leave(at)
		if len(l.waiting) > 0 {
			t.Errorf("%d wait", len(l.waiting))
		}
	})
}
