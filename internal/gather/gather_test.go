package gather

import (
	"testing"
	"time"
)

func testGather() *Gather {
	return &Gather{Least: 4 * time.Millisecond, Most: 20 * time.Millisecond, Each: time.Microsecond}
}

// gathered feeds transactions at an interval and returns the longest wait of one.
func gathered(g *Gather, now *time.Time, n int, interval time.Duration) (longest time.Duration) {
	for range n {
		*now = now.Add(interval)
		g.Committed(*now)
		wait := g.Wait(*now)
		longest = max(longest, wait)
		if wait <= 0 {
			g.Sent(*now)
		}
	}
	return longest
}

func TestGatherLeavesAQuietStreamAlone(t *testing.T) {
	g := testGather()
	now := time.Unix(1, 0)
	if wait := gathered(g, &now, 1000, 2*time.Millisecond); wait > 0 {
		t.Errorf("of 500 transactions a second one was held up for %v", wait)
	}
	for range 10 {
		now = now.Add(time.Second)
		if wait := gathered(g, &now, busyCount-1, 0); wait > 0 {
			t.Errorf("one of a few at once was held up for %v", wait)
		}
	}
}

func TestGatherHoldsABusyStream(t *testing.T) {
	g := testGather()
	now := time.Unix(1, 0)
	gathered(g, &now, 100, 500*time.Microsecond)
	if !g.busy {
		t.Error("2000 transactions a second do not make a stream busy")
	}
	if wait := gathered(g, &now, 100, 500*time.Microsecond); wait <= 0 || wait > g.Least {
		t.Errorf("one of 2000 a second waited for %v", wait)
	}
	if wait := gathered(g, &now, 1000, 100*time.Microsecond); wait <= g.Least || wait > 11*time.Millisecond {
		t.Errorf("one of 10,000 a second waited for %v", wait)
	}
	if wait := gathered(g, &now, 10_000, 10*time.Microsecond); wait <= 11*time.Millisecond || wait > g.Most {
		t.Errorf("one of 100,000 a second waited for %v", wait)
	}
	now = now.Add(time.Second)
	if wait := gathered(g, &now, 1, 0); wait > 0 {
		t.Errorf("the first one after a pause was held up for %v", wait)
	}
	gathered(g, &now, 100, 500*time.Microsecond)
	gathered(g, &now, 2*busyCount, 2*time.Millisecond)
	if wait := gathered(g, &now, 100, 2*time.Millisecond); wait > 0 {
		t.Errorf("one of a stream that is busy no more was held up for %v", wait)
	}
}
