package walsender

import (
	"testing"
	"testing/synctest"
	"time"
)

// paced reads as often, with gap between the reads, and returns how long the pauses took together.
func paced(p *pacer, reads, bytes int, gap time.Duration) (paused time.Duration) {
	for range reads {
		began := time.Now()
		p.before()
		paused += time.Since(began)
		time.Sleep(gap)
		p.after(bytes, 100)
	}
	return paused
}

func TestPacerLeavesAQuietStreamAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		if paused := paced(&p, 1000, 100, 300*time.Microsecond); paused != 0 {
			t.Errorf("a stream of 3,300 messages a second was delayed by %v", paused)
		}
		if paused := paced(&p, 1000, smallBytes, 0); paused != 0 {
			t.Errorf("reads that are large anyway were delayed by %v", paused)
		}
	})
}

func TestPacerGathersABusyStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		paced(&p, busyReads, 100, 10*time.Microsecond)
		if paused := paced(&p, 10, 8<<10, 0); paused != 10*readPause {
			t.Errorf("10 reads of a busy stream were delayed by %v", paused)
		}
		if paused := paced(&p, 10, fullBytes, 0); paused != readPause {
			t.Errorf("reads that the server may have to wait for were delayed by %v", paused)
		}
		paced(&p, 2, idleBytes-1, 0)
		if paused := paced(&p, 10, 100, 10*time.Microsecond); paused != 0 {
			t.Errorf("a stream that is not busy any more was delayed by %v", paused)
		}
	})
}

func TestPacerOfASmallWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{narrow: true}
		paced(&p, busyReads, 100, 10*time.Microsecond)
		// A pause, then windows, which may end with small segments, until messages come by themselves.
		for range 10 {
			if paused := paced(&p, 1, 8180, 0); paused != narrowPause {
				t.Errorf("the first read was delayed by %v", paused)
			}
			for range 5 {
				if paused := paced(&p, 1, 12, 0) + paced(&p, 1, 3, 0) + paced(&p, 1, 8180, 0) + paced(&p, 1, 5000, 0); paused != 0 {
					t.Errorf("a read of gathered messages was delayed by %v", paused)
				}
			}
			if paused := paced(&p, narrowReads, 100, 0); paused != 0 {
				t.Errorf("the first messages by themselves were delayed by %v", paused)
			}
		}
		paced(&p, narrowReads, 100, 0)
		if paused := paced(&p, 10, 100, 300*time.Microsecond); paused != 0 {
			t.Errorf("a stream that is not busy any more was delayed by %v", paused)
		}
	})
}

// 500 transactions a second that come after many do not make a busy stream, though a few of them bring as much as a pause of a busy one.
func TestPacerOfASlowStreamAfterABusyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{narrow: true}
		paced(&p, busyReads, 100, 10*time.Microsecond)
		paced(&p, 2*narrowReads, 300, 2*time.Millisecond)
		if paused := paced(&p, 100, 300, 2*time.Millisecond); paused != 0 {
			t.Errorf("it was delayed by %v", paused)
		}
	})
}
