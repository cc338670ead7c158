package changelog

import (
	"fmt"
	"sync"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/changelog/segment"
)

// ledger is what is known in memory of the durable log: its bounds and its last blocks. Everything in it is durable.
type ledger struct {
	mu         sync.Mutex
	limit      int // bytes of blocks kept
	begun      bool
	ended      bool       // a log was given up and the next has not begun
	start      change.LSN // following may start at or after it
	first      uint64     // number of the oldest block
	last       block.Header
	lastCommit change.Timestamp
	hasCommit  bool
	bytes      uint64
	firstTime  time.Time
	lastTime   time.Time

	tail      []*block.Block // consecutive, up to last
	tailBytes int
	changed   chan struct{} // closed at the next change
	closed    bool
}

func newLedger(limit int) *ledger { return &ledger{limit: limit, changed: make(chan struct{})} }

func (l *ledger) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// begin replaces everything: the log has these bounds, first is its oldest and last its newest block.
func (l *ledger) begin(b segment.Bounds, first *block.Header, last *block.Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun, l.ended = true, false
	l.start, l.first, l.bytes = first.Start(), first.Number, b.Bytes
	l.firstTime, l.lastTime = b.FirstTime, b.LastTime
	l.last, l.tail, l.tailBytes = last.Header, []*block.Block{last}, len(last.Data())+memoryOverhead
	l.lastCommit, l.hasCommit = last.LastCommitTime, last.HasCommit
	l.broadcast()
}

// forget leaves no log until the next begin.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = l.ended || l.begun
	l.begun, l.tail, l.tailBytes, l.hasCommit = false, nil, 0, false
	l.broadcast()
}

// committed sets the time of the last commit when the last block does not say it.
func (l *ledger) committed(at change.Timestamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hasCommit {
		l.lastCommit, l.hasCommit = at, true
	}
}

// memoryOverhead is what a block takes in memory beyond its own bytes.
const memoryOverhead = 512

// append adds a block that has become durable, and wakes who waits for it. It returns ErrCorrupt if it does not follow.
func (l *ledger) append(b *block.Block, at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun || b.Number != l.last.Number+1 || b.LogID != l.last.LogID || b.Previous != l.last.Through {
		return fmt.Errorf("%w: block %d of log %v after %v does not follow block %d of log %v up to %v", ErrCorrupt,
			b.Number, b.LogID, b.Previous, l.last.Number, l.last.LogID, l.last.Through)
	}
	l.last, l.lastTime = b.Header, at
	if b.HasCommit {
		l.lastCommit, l.hasCommit = b.LastCommitTime, true
	}
	l.bytes += uint64(len(b.Data()))
	l.tail = append(l.tail, b)
	l.tailBytes += len(b.Data()) + memoryOverhead
	drop := 0
	for l.tailBytes > l.limit && drop < len(l.tail)-1 {
		l.tailBytes -= len(l.tail[drop].Data()) + memoryOverhead
		l.tail[drop] = nil
		drop++
	}
	l.tail = l.tail[drop:]
	l.broadcast()
	return nil
}

// purged says that the oldest block is now first.
func (l *ledger) purged(first *block.Header, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first, l.start, l.firstTime = first.Number, first.Start(), at
	for len(l.tail) > 1 && l.tail[0].Number < l.first {
		l.tailBytes -= len(l.tail[0].Data()) + memoryOverhead
		l.tail[0] = nil
		l.tail = l.tail[1:]
	}
}

func (l *ledger) setBytes(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = n
}

// close ends every wait with ErrClosed.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.broadcast()
	}
}

// get returns a block if it is in memory. If not, it returns a channel when the block is yet to come, and neither when it is
// in the store only.
func (l *ledger) get(number uint64) (*block.Block, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, ErrClosed
	case l.ended:
		return nil, nil, fmt.Errorf("%w: a new one is being begun", ErrOtherLog)
	case !l.begun:
		return nil, nil, ErrNoLog
	case number < l.first:
		return nil, nil, fmt.Errorf("%w: it begins with block %d, and %d was asked for", ErrPurged, l.first, number)
	case number > l.last.Number:
		return nil, l.changed, nil
	case number >= l.tail[0].Number:
		return l.tail[number-l.tail[0].Number], nil, nil
	}
	return nil, nil, nil
}

// storeOnly tells whether a block has to be in the store and is not in memory.
func (l *ledger) storeOnly(number uint64) bool {
	b, changed, err := l.get(number)
	return b == nil && changed == nil && err == nil
}

func (l *ledger) head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		return Head{}
	}
	return Head{
		Position: change.Position{LogID: l.last.LogID, LSN: l.last.Through}, Number: l.last.Number,
		LastCommitTime: l.lastCommit, HasCommit: l.hasCommit,
	}
}

func (l *ledger) ranges() Ranges {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		return Ranges{}
	}
	return Ranges{
		LogID: l.last.LogID, First: l.start, Last: l.last.Through, FirstBlock: l.first, LastBlock: l.last.Number,
		Bytes: l.bytes, FirstTime: l.firstTime, LastTime: l.lastTime,
	}
}

// view is the part of a ledger that a search needs.
type view struct {
	begun, ended, closed bool
	start                change.LSN
	first                uint64
	last                 block.Header
}

func (l *ledger) view() view {
	l.mu.Lock()
	defer l.mu.Unlock()
	return view{begun: l.begun, ended: l.ended, closed: l.closed, start: l.start, first: l.first, last: l.last}
}

// wake wakes whoever waits although nothing became durable.
func (l *ledger) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broadcast()
}

// wait returns a channel that is closed at the next change.
func (l *ledger) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}
