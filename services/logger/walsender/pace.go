package walsender

import "time"

// pacer makes the reads of a busy stream larger. A walsender sends every message by itself, and each one wakes a reader that
// waits: that costs both sides several times what the message does. A reader that is away for a millisecond finds them all in
// one read. A stream that is not busy is read as it comes, so that a single transaction is not delayed.
type pacer struct {
	busy  bool
	small int       // reads of few bytes in a row, while not busy
	since time.Time // when the first of them returned
	full  bool      // the last read brought so much that the server may soon have to wait for us
}

const (
	busyReads  = 16
	busyWithin = 4 * time.Millisecond // so many small reads in this time make a stream busy
	smallBytes = 4 << 10
	idleBytes  = 256      // less than this after a pause, and the stream is not busy any more
	fullBytes  = 64 << 10 // within the receive buffer that the kernel begins with
	readPause  = time.Millisecond
)

// before is called before a read that nothing that came already waits for.
func (p *pacer) before() {
	if p.busy && !p.full {
		time.Sleep(readPause)
	}
}

// after takes the number of bytes that a read brought.
func (p *pacer) after(n int) {
	p.full = n >= fullBytes
	switch {
	case p.busy:
		p.busy = n >= idleBytes
	case n >= smallBytes:
		p.small = 0
	case p.small == 0:
		p.small, p.since = 1, time.Now()
	default:
		if p.small++; p.small == busyReads {
			p.busy, p.small = time.Since(p.since) <= busyWithin, 0
		}
	}
}
