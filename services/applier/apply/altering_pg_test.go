package apply

import (
	"slices"

	"github.com/seed0419d559/syncline/internal/change"
)

// altering runs SQL on the target when the position is reached, and lets the stream go on after that.
func altering(g *testTarget, at change.LSN, sql string) testTweak {
	return func(r *testRun) {
		reached, told := make(chan struct{}), r.Applied
		r.Applied = func(p Progress) error {
			if p.Position.LSN >= at && reached != nil {
				close(reached)
				reached = nil
			}
			return told(p)
		}
		first := slices.IndexFunc(r.events, func(e Event) bool { return e.Block != nil && e.Block.Through > at })
		stream, wait := make(chan Event, len(r.events)), reached
		r.stream = stream
		for _, e := range r.events[:first] {
			stream <- e
		}
		go func(rest []Event) {
			select {
			case <-wait:
			case <-g.t.Context().Done():
				return
			}
			g.exec(sql)
			for _, e := range rest {
				stream <- e
			}
		}(r.events[first:])
	}
}

// withEvents gives the run its events, for those tweaks that need them.
func withEvents(g *testTarget, l *testLog) testTweak {
	return func(r *testRun) { r.events = l.after(g.position()) }
}
