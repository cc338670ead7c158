package walsender

import "time"

// pacer makes the reads of a busy stream larger. A walsender sends every message by itself, and each one wakes a reader that
// waits: that costs both sides several times what the message does. A reader that is away for a while finds them all in
// a few reads. A stream that is not busy is read as it comes, so that a single transaction is not delayed.
type pacer struct {
	narrow bool // the connection is a socket with a small window: pauses may be longer, since the server's kernel gathers meanwhile

	busy  bool
	small int       // reads of few bytes in a row
	since time.Time // when the first of them returned; while busy, when the last pause began
	got   int       // bytes since the last pause, while busy
	due   bool      // the next read comes after a pause

	reads  int // since the last pause, while busy
	recent [narrowReads]int
}

// window is how many bytes the server may send while we do not read, and the size of a full segment. What it sends beyond that is gathered
// by its kernel, and comes in full segments.
const window = 8 << 10

const (
	busyReads   = 16
	busyWithin  = 4 * time.Millisecond // so many small reads in this time make a stream busy
	smallBytes  = 4 << 10
	idleBytes   = 256      // in a millisecond: with less, the stream is not busy any more
	fullBytes   = 64 << 10 // with so much in a read the server may soon have to wait for us; within the receive buffer that the kernel begins with
	readPause   = time.Millisecond
	narrowPause = 4 * time.Millisecond
	narrowReads = 4
	narrowLeast = window / 2 // in so many reads
	narrowMost  = window - 192
)

// before is called before a read that nothing that came already waits for.
func (p *pacer) before() {
	if p.due {
		p.got, p.reads, p.due, p.since = 0, 0, false, time.Now()
		time.Sleep(p.pause())
	}
}

// after takes the number of bytes that a read brought, and the size of the last message before.
func (p *pacer) after(n, message int) {
	switch {
	case p.busy:
		p.got += n
		if p.drained(n, message) {
			p.busy = p.got*int(time.Millisecond) >= idleBytes*int(time.Since(p.since))
			p.due = p.busy
		}
	case n >= smallBytes:
		p.small = 0
	case p.small == 0:
		p.small, p.since = 1, time.Now()
	default:
		if p.small++; p.small == busyReads {
			p.busy, p.small = time.Since(p.since) <= busyWithin, 0
			p.got, p.reads, p.due = 0, 0, p.busy
		}
	}
}

// drained tells whether what came during the pause has been read. What the sender's kernel has gathered comes in windows of a few segments,
// some of them tiny; what the server sends by itself comes in reads of a message or two.
func (p *pacer) drained(n, message int) bool {
	if !p.narrow {
		return n < fullBytes
	}
	p.recent[p.reads%narrowReads] = n
	if p.reads++; p.reads < narrowReads {
		return false
	}
	sum := 0
	for _, read := range p.recent {
		sum += read
	}
	return sum < min(max(narrowLeast, narrowReads*(message+message/2)), narrowMost)
}

func (p *pacer) pause() time.Duration {
	if p.narrow {
		return narrowPause
	}
	return readPause
}
