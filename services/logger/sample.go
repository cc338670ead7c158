package logger

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// sampleInterval is the time between two samples, and speedSamples how many of them a speed is made of.
const (
	sampleInterval = time.Second
	speedSamples   = 11
)

// speed is how much a count grows in a second, over the last ten seconds. The zero speed is ready.
type speed struct {
	times  [speedSamples]time.Time
	values [speedSamples]int64
	count  int // samples so far
}

// add takes a sample. A count that falls begins anew.
func (s *speed) add(now time.Time, value int64) {
	if s.count > 0 && value < s.values[(s.count-1)%speedSamples] {
		s.count = 0
	}
	s.times[s.count%speedSamples], s.values[s.count%speedSamples] = now, value
	s.count++
}

// perSecond is 0 before there are two samples.
func (s *speed) perSecond() float64 {
	if s.count < 2 {
		return 0
	}
	oldest, newest := max(0, s.count-speedSamples)%speedSamples, (s.count-1)%speedSamples
	seconds := s.times[newest].Sub(s.times[oldest]).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(s.values[newest]-s.values[oldest]) / seconds
}

// maxPoints bounds a timeline. When it is full those points go that lie close to the next one for their age: what was passed less than
// exactFor ago is told exactly, and the error of what is older is some parts of its age in finePoints. Some years find room.
const (
	maxPoints  = 2500
	exactFor   = 10 * time.Minute
	finePoints = 100
)

// timeline remembers when an ascending LSN was where, in bounded memory.
type timeline struct {
	mu     sync.Mutex
	points []point
}

type point struct {
	lsn change.LSN
	at  time.Time
}

// add notes that the LSN is reached now. One that falls begins anew.
func (t *timeline) add(lsn change.LSN, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.points); n > 0 {
		if lsn == t.points[n-1].lsn {
			return
		}
		if lsn < t.points[n-1].lsn {
			t.points = t.points[:0]
		}
	}
	if len(t.points) == maxPoints {
		kept := t.points[:0:0]
		for i, p := range slices.Backward(t.points) {
			n := len(kept)
			if age := now.Sub(p.at); n == 0 || i == 0 || age < exactFor || kept[n-1].at.Sub(p.at) >= age/finePoints {
				kept = append(kept, p)
			}
		}
		slices.Reverse(kept)
		t.points = kept
	}
	t.points = append(t.points, point{lsn, now})
}

// after returns when the LSN was first seen passed; false when that was before the timeline, or has not been.
func (t *timeline) after(lsn change.LSN) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.points) == 0 || lsn < t.points[0].lsn {
		return time.Time{}, false
	}
	low, high := 0, len(t.points)
	for low < high {
		middle := (low + high) / 2
		if t.points[middle].lsn > lsn {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == len(t.points) {
		return time.Time{}, false
	}
	return t.points[low].at, true
}

// sample notes once a second how far everything is: nobody is asked for that.
func (s *Service) sample(ctx context.Context) error {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		s.sampleOnce(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) sampleOnce(now time.Time) {
	st := &s.status
	s.speeds.mu.Lock()
	s.speeds.transactions.add(now, st.transactions.Load())
	s.speeds.changes.add(now, st.changes.Load())
	s.speeds.bytes.add(now, st.logBytes.Load())
	s.speeds.mu.Unlock()
	if head := s.changes.Head().Position; head.LSN != 0 {
		s.heads.add(head.LSN, now)
	}
	if wal := st.walLSN(); wal != 0 {
		s.wal.add(wal, now)
	}
	s.followers.sample(now)
}

// speeds are those of capture.
type speeds struct {
	mu                           sync.Mutex
	transactions, changes, bytes speed
}
