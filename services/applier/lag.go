package applier

import (
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// headTimes remembers when the source's head was first heard to be where, so that a lag in time can be told without
// trusting two clocks: the oldest head that is not yet applied has been waiting since it was heard of.
type headTimes struct {
	seen []headTime // ascending, at most maxHeads; the resolution of old ones is halved when it is full
	last change.LSN
}

type headTime struct {
	at  time.Time
	lsn change.LSN
}

const maxHeads = 256

func (h *headTimes) add(now time.Time, head change.LSN) {
	if head == h.last && len(h.seen) > 0 {
		return
	}
	if head < h.last {
		h.seen = h.seen[:0] // another log
	}
	h.last = head
	h.seen = append(h.seen, headTime{now, head})
	if len(h.seen) < maxHeads {
		return
	}
	kept := h.seen[:0]
	for i, t := range h.seen {
		if i%2 == 0 || i == len(h.seen)-1 {
			kept = append(kept, t)
		}
	}
	h.seen = kept
}

// lag returns for how long something has been waiting beyond an applied position; zero when nothing is. It is unknown
// before the first head was heard of.
func (h *headTimes) lag(now time.Time, applied change.LSN) (time.Duration, bool) {
	if len(h.seen) == 0 {
		return 0, false
	}
	first := 0
	for first < len(h.seen) && h.seen[first].lsn <= applied {
		first++
	}
	if first == len(h.seen) {
		h.seen = h.seen[first-1:]
		return 0, true
	}
	h.seen = h.seen[max(first-1, 0):]
	return now.Sub(h.seen[min(first, 1)].at), true
}

// rate is a speed over the last seconds.
type rate struct{ samples []sample }

type sample struct {
	at    time.Time
	total int64
}

const (
	rateWindow = 5 * time.Second
	rateStep   = 250 * time.Millisecond
)

func (r *rate) add(now time.Time, total int64) {
	if n := len(r.samples); n > 1 && now.Sub(r.samples[n-2].at) < rateStep {
		r.samples[n-1] = sample{now, total}
	} else {
		r.samples = append(r.samples, sample{now, total})
	}
	for len(r.samples) > 2 && now.Sub(r.samples[1].at) > rateWindow {
		r.samples = r.samples[1:]
	}
}

func (r *rate) perSecond(now time.Time) float64 {
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	if now.Sub(last.at) > rateWindow {
		return 0
	}
	seconds := now.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(last.total-first.total) / seconds
}
