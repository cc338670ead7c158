package applier

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// TestTurnsAreFair: so many run at a time and no more, whoever has waited longest is next, and copies have a part of the places.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(4)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		had, most, running, copying := map[string]int{}, 0, 0, 0
		for n := range 40 {
			name, copies := fmt.Sprint("apply", n), n%2 == 0
			if copies {
				name = fmt.Sprint("copy", n)
			}
			go func() {
				for {
					place, err := turns.take(ctx, copies, func(*turn) {})
					if err != nil {
						return
					}
					mu.Lock()
					had[name]++
					if running++; copies {
						copying++
					}
					most = max(most, running)
					if copying > 1 && n > 10 { // while others wait
						t.Errorf("%d copies at a time", copying)
					}
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					if running--; copies {
						copying--
					}
					mu.Unlock()
					turns.release(place)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(400 * time.Second)
		synctest.Wait()
		if most != 4 || len(had) != 40 {
			t.Errorf("%d ran at a time, %d had a turn", most, len(had))
		}
		for name, n := range had {
			if n < 15 {
				t.Errorf("%s had %d turns: %v", name, n, had)
			}
		}
		cancel()
		time.Sleep(2 * time.Second) // those that have a turn end it
		synctest.Wait()
		if len(turns.waiting) != 0 {
			t.Errorf("%d still wait", len(turns.waiting))
		}
		if turns.running != 0 || turns.copying != 0 {
			t.Errorf("%d places and %d of copies are lost", turns.running, turns.copying)
		}
	})
}

// TestAllFit: where there are places for all, copies have as many as they want, and nobody gives one up.
func TestAllFit(t *testing.T) {
	turns := newTurns(3)
	for range 3 {
		if _, err := turns.take(t.Context(), true, func(*turn) { t.Error("it waits") }); err != nil {
			t.Fatal(err)
		}
	}
	if crowded, _ := turns.crowded(); crowded {
		t.Error("nobody waits, and it is crowded")
	}
	if startSpread(freeStarts) != 0 || startSpread(1000) == 0 || startSpread(1_000_000) > mostSpread {
		t.Errorf("starts are spread over %s and %s", startSpread(freeStarts), startSpread(1000))
	}
}

// TestCopiesEnd: replications that have made their copies and go on applying do not keep others from theirs.
func TestCopiesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(3)
		var places []*turn
		for range 3 {
			place, err := turns.take(t.Context(), true, func(*turn) { t.Error("it waits") })
			if err != nil {
				t.Fatal(err)
			}
			places = append(places, place)
		}
		var late *turn
		go func() { late, _ = turns.take(t.Context(), true, func(*turn) {}) }()
		synctest.Wait()
		if crowded, _ := turns.crowded(); crowded {
			t.Error("it is crowded while all places copy")
		}
		for _, place := range places {
			turns.copied(place)
			turns.copied(place)
		}
		if crowded, _ := turns.crowded(); !crowded || turns.copying != 0 {
			t.Errorf("nobody gives up a place, %d copy", turns.copying)
		}
		turns.release(places[0])
		synctest.Wait()
		if late == nil || turns.running != 3 || turns.copying != 1 {
			t.Errorf("%v has a place; %d run, %d copy", late, turns.running, turns.copying)
		}
	})
}

// TestProgressDoesNotEndTheStreak: what applies something and fails again, over and over, is tried again ever more rarely.
func TestProgressDoesNotEndTheStreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatus(&stored{name: "shop"}, func(*event) {})
		s.healthyAfter = time.Minute
		fail := func() {
			s.update(func(s *status) { s.happened(failure{reasonTarget, true}, "full") })
		}
		for n := range 5 {
			s.setState(applierv1.State_STATE_RUNNING)
			s.progressed(apply.Progress{})
			time.Sleep(30 * time.Second)
			if s.endStreak(time.Minute) {
				t.Fatal("half a minute is enough")
			}
			fail()
			if s.errors != int32(n+1) || s.faults[0].count != int32(n+1) {
				t.Errorf("after %d faults %d in a row, %d told", n+1, s.errors, s.faults[0].count)
			}
		}
		s.setState(applierv1.State_STATE_RUNNING)
		time.Sleep(61 * time.Second)
		s.progressed(apply.Progress{})
		if s.errors != 0 || !s.endStreak(time.Minute) {
			t.Errorf("%d faults in a row after a minute of health", s.errors)
		}
	})
}

// TestOnePlaceIsGivenUpForEach: of all that could give up their places so many do as are waited for.
func TestOnePlaceIsGivenUpForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(3)
		var places []*turn
		for range 3 {
			place, err := turns.take(t.Context(), false, func(*turn) { t.Error("it waits") })
			if err != nil {
				t.Fatal(err)
			}
			places = append(places, place)
		}
		claims := func(want ...bool) {
			t.Helper()
			for i, place := range places {
				if got := turns.claim(place); got != want[i] {
					t.Errorf("place %d is to be given up: %v", i, got)
				}
			}
		}
		claims(false, false, false)
		late := make(chan *turn, 2)
		wait := func() {
			go func() {
				place, _ := turns.take(t.Context(), false, func(*turn) {})
				late <- place
			}()
			synctest.Wait()
		}
		wait()
		claims(true, false, false)
		claims(true, false, false) // it may ask again
		if crowded, _ := turns.crowded(); crowded {
			t.Error("a place is to be given up, and others shall give up theirs")
		}
		turns.unclaim(places[0])
		turns.unclaim(places[0])
		if crowded, _ := turns.crowded(); !crowded || turns.leaving != 0 {
			t.Errorf("nobody gives up a place; %d leave", turns.leaving)
		}
		wait()
		claims(true, true, false)
		for _, place := range places[:2] {
			turns.release(place)
		}
		synctest.Wait()
		if len(late) != 2 || turns.running != 3 || turns.leaving != 0 {
			t.Errorf("%d have come, %d run, %d leave", len(late), turns.running, turns.leaving)
		}
	})
}
