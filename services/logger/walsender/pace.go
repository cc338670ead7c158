package walsender

import "time"

// pacer makes the reads of a busy stream larger. A walsender sends every message by itself, and each one wakes a reader that
// waits: that costs both sides several times what the message does. A reader that is away for a while finds them all in
// a few reads. A stream that is not busy is read as it comes, so that a single transaction is not delayed.
type pacer struct {
	narrow bool // the connection is a socket with a small window: pauses may be longer, since the server's kernel gathers meanwhile

	busy  bool
	small int       // reads of few bytes in a row, while not busy
	since time.Time // when the first of them returned
	got   int       // bytes since the last pause, while busy
	full  bool      // the last read brought so much that the server may soon have to wait for us
}

const (
	busyReads   = 16
	busyWithin  = 4 * time.Millisecond // so many small reads in this time make a stream busy
	smallBytes  = 4 << 10
	idleBytes   = 256      // in a millisecond: with less, the stream is not busy any more
	fullBytes   = 64 << 10 // within the receive buffer that the kernel begins with
	readPause   = time.Millisecond
	narrowFull  = 4 << 10 // half a window
	narrowPause = 4 * time.Millisecond
)

// before is called before a read that nothing that came already waits for.
func (p *pacer) before() {
	if p.busy && !p.full {
		p.got = 0
		time.Sleep(p.pause())
	}
}

// after takes the number of bytes that a read brought.
func (p *pacer) after(n int) {
	limit := fullBytes
	if p.narrow {
		limit = narrowFull
	}
	p.full = n >= limit
	p.got += n
	switch {
	case p.busy:
		p.busy = p.full || p.got >= idleBytes*int(p.pause()/time.Millisecond)
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

func (p *pacer) pause() time.Duration {
	if p.narrow {
		return narrowPause
	}
	return readPause
}
