package logger

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

func TestSpeed(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var s speed
	if s.perSecond() != 0 {
		t.Errorf("without samples: %v", s.perSecond())
	}
	for i := range 100 {
		value := int64(i) * 50
		if i > 50 {
			value = 50*50 + int64(i-50)*7 // slower
		}
		s.add(start.Add(time.Duration(i)*time.Second), value)
		if want := 50.0; i > 0 && i <= 50 && s.perSecond() != want {
			t.Fatalf("after %d seconds: %v", i, s.perSecond())
		}
	}
	if s.perSecond() != 7 {
		t.Errorf("what is older than ten seconds counts: %v", s.perSecond())
	}
	s.add(start.Add(time.Hour), 3)
	if s.perSecond() != 0 {
		t.Errorf("after a new beginning: %v", s.perSecond())
	}
}

// TestTimeline compares a timeline with everything it was told: it never says too old a time by more than the gap between two of its
// points, and its newest part is exact.
func TestTimeline(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var line timeline
	if at, ok := line.after(1); ok {
		t.Errorf("an empty timeline says %v", at)
	}
	var all []point
	lsn := change.LSN(1000)
	for i := range 50_000 {
		all = append(all, point{lsn, start.Add(time.Duration(i) * time.Second)})
		line.add(lsn, all[i].at)
		lsn += change.LSN(r.IntN(3)) // it may stand still
	}
	if len(line.points) > maxPoints || cap(line.points) > 2*maxPoints {
		t.Fatalf("%d points", len(line.points))
	}
	for range 2000 {
		n := r.IntN(len(all) - 1)
		at, ok := line.after(all[n].lsn)
		var want time.Time
		for _, p := range all[n:] {
			if p.lsn > all[n].lsn {
				want = p.at
				break
			}
		}
		age := all[len(all)-1].at.Sub(want)
		switch {
		case want.IsZero() && ok:
			t.Errorf("nothing lies after %v, and it says %v", all[n].lsn, at)
		case want.IsZero():
		case !ok || at.Before(want):
			t.Fatalf("%v was passed at %v, and it says %v, %v", all[n].lsn, want, at, ok)
		case age < exactFor && !at.Equal(want), at.Sub(want) > 6*age/finePoints+3*time.Second:
			t.Fatalf("%v was passed at %v, %v ago, and it says %v", all[n].lsn, want, age, at)
		}
	}
	if _, ok := line.after(999); ok {
		t.Error("it knows of what was before it began")
	}
	line.add(5, start) // another log
	if _, ok := line.after(1000); ok || len(line.points) != 1 {
		t.Error("it knows of what was before it began anew")
	}
}
