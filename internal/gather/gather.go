package changelog

import "time"

// gather makes the blocks of a busy stream larger. Each block is synced by itself, and that, with all that is done for a block
// on its way to a replica, costs many times what a small transaction does. While transactions come one after the other, blocks are
// sent gatherLeast apart, and the faster they come the further, up to gatherMost. A stream that is not busy never waits.
type gather struct {
	count int       // transactions in a row
	since time.Time // when the first of them ended
	busy  bool
	gap   time.Duration
	sent  time.Time // when the last block was
}

const (
	gatherCount  = 16
	gatherStays  = 12
	gatherWithin = 16 * time.Millisecond // 16 transactions in this time make a stream busy, and it stays so with 12 each time
	gatherLeast  = 4 * time.Millisecond
	gatherMost   = 20 * time.Millisecond
	gatherEach   = time.Microsecond // of the gap for each transaction in a second
)

// committed takes note of a transaction.
func (g *gather) committed(now time.Time) {
	if g.count == 0 || now.Sub(g.since) > gatherWithin {
		passed := now.Sub(g.since)
		g.busy = g.busy && g.count >= gatherStays && passed <= 2*gatherWithin
		rate := float64(g.count) / passed.Seconds() // the pause before is longer than gatherWithin, so this is finite
		g.gap = min(max(time.Duration(rate*float64(gatherEach)), gatherLeast), gatherMost)
		g.count, g.since = 0, now
	}
	if g.count++; g.count >= gatherCount {
		g.busy = true
	}
}

// wait says how long a block that nothing else holds up has to wait.
func (g *gather) wait(now time.Time) time.Duration {
	if !g.busy || now.Sub(g.since) > gatherWithin {
		return 0
	}
	return g.gap - now.Sub(g.sent)
}
