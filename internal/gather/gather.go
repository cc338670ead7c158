// Package gather holds up what is sent of a busy stream, so that more of it goes at once, and never a stream that is quiet. Where
// sending costs many times what one more transaction does, that is what lets a busy stream keep up.
package gather

import "time"

// A stream with busyCount transactions within busyWithin is busy, and stays so with stillBusy each time.
const (
	busyCount  = 16
	stillBusy  = 12
	busyWithin = 16 * time.Millisecond
)

// Gather says when to send. Its three durations are set before its use.
type Gather struct {
	// While a stream is busy, what is sent is at least Least apart, and the more transactions come the further, up to Most.
	Least, Most time.Duration
	Each        time.Duration // of the gap for each transaction in a second

	count int       // transactions in a row
	since time.Time // when the first of them ended
	busy  bool
	gap   time.Duration
	sent  time.Time
}

// Committed takes note of the end of a transaction.
func (g *Gather) Committed(now time.Time) {
	if g.count == 0 || now.Sub(g.since) > busyWithin {
		passed := now.Sub(g.since)
		g.busy = g.busy && g.count >= stillBusy && passed <= 2*busyWithin
		rate := float64(g.count) / passed.Seconds() // the pause before is longer than busyWithin, so this is finite
		g.gap = min(max(time.Duration(rate*float64(g.Each)), g.Least), g.Most)
		g.count, g.since = 0, now
	}
	if g.count++; g.count >= busyCount {
		g.busy = true
	}
}

// Sent takes note that something was sent.
func (g *Gather) Sent(now time.Time) { g.sent = now }

// Wait says how long to wait before the next sending; not at all if it is 0 or less.
func (g *Gather) Wait(now time.Time) time.Duration {
	if !g.busy || now.Sub(g.since) > 2*busyWithin {
		return 0
	}
	return g.gap - now.Sub(g.sent)
}
