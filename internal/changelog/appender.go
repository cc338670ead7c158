package changelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/gather"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

// maxInFlight is the number of blocks that may be on their way to the store. Those that wait there are made durable together.
const maxInFlight = 4

// Appender is the single writer of a log. What is fed is cut into blocks: a block is sent when it is full, or when it holds
// something whole and nothing is in flight, so that one small transaction travels at once and a busy stream travels in
// full blocks; see package gather too. Its appending methods are called by one goroutine, with what a logical replication stream delivers from any
// position at or before Tail().Through on: what is logged already is compared and dropped. They wait while too much is in
// flight. After an error the appender takes nothing more: ErrFenced, ErrStore, ErrClosed and a context's end are mended by
// opening another one and feeding again from what is durable; ErrDiverged and ErrOrder are not.
type Appender struct {
	log   *Log
	store *store
	tail  Tail
	feed  *feed // of the feeding goroutine only

	durable atomic.Uint64

	slots  chan struct{}     // holds one for each block in flight, and for one that is about to be
	sent   chan *block.Block // in order; as large as slots, so that sending never waits
	done   chan struct{}     // closed when the appender failed
	exited chan struct{}     // closed when nothing is in flight any more after that

	mu       sync.Mutex
	builder  *block.Builder
	inFlight int
	err      error
	gather   gather.Gather
	later    *time.Timer // sends what waits because of gather
	waiting  bool        // it is set
}

// Appender opens the single writer at the end of the log; one that was open before fails with ErrFenced. It restarts the store
// if that had failed. It returns ErrNoLog before the first Reset.
func (l *Log) Appender(ctx context.Context) (*Appender, error) {
	l.admin.Lock()
	defer l.admin.Unlock()
	if err := l.prepare(ctx); err != nil {
		return nil, fmt.Errorf("open appender: %w", err)
	}
	if _, ok := l.Meta(); !ok {
		return nil, fmt.Errorf("open appender: %w", ErrNoLog)
	}
	s := l.store.Load()
	if err := l.catchUp(s); err != nil {
		return nil, fmt.Errorf("open appender: %w", err)
	}
	last := l.ledger.view().last
	open, err := l.readOpen(ctx, &last)
	if err != nil {
		return nil, fmt.Errorf("open appender: %w", err)
	}
	state := block.State{LogID: last.LogID, Number: last.Number, Through: last.Through}
	tail := Tail{Through: last.Through, Number: last.Number}
	if open != nil {
		state.Open = &open.Open
		tail.Open, tail.XID, tail.Events = true, open.XID, open.Events
	}
	a := &Appender{
		log: l, store: s, tail: tail, feed: &feed{log: l, through: last.Through, open: open},
		slots: make(chan struct{}, maxInFlight), sent: make(chan *block.Block, maxInFlight),
		done: make(chan struct{}), exited: make(chan struct{}), builder: block.NewBuilder(state),
		gather: gather.Gather{Least: 10 * time.Millisecond, Most: 20 * time.Millisecond, Each: time.Microsecond},
	}
	a.durable.Store(uint64(last.Through))
	l.appender = a
	a.later = time.AfterFunc(time.Hour, a.shipLater)
	a.later.Stop()
	go a.run()
	return a, nil
}

// catchUp takes over blocks that the store has and the ledger does not: they were stored when something failed.
func (l *Log) catchUp(s *store) error {
	end := s.blocks.Bounds().Last
	for number := l.ledger.view().last.Number + 1; number <= end; number++ {
		next, err := s.parse(number)
		if err != nil {
			return err
		}
		if err := l.ledger.append(next, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// Tail returns where the appender went on when it was opened.
func (a *Appender) Tail() Tail { return a.tail }

// Durable returns through of the last durable block: the only LSN that may be confirmed to the slot.
func (a *Appender) Durable() change.LSN { return change.LSN(a.durable.Load()) }

// DurableChanged returns a channel that is closed when Durable has moved or the appender has failed. Take it before calling
// Durable.
func (a *Appender) DurableChanged() <-chan struct{} { return a.log.ledger.wait() }

// Err returns why the appender takes nothing more, nil while it works.
func (a *Appender) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close gives the writer up. It does not wait for what is in flight, which becomes durable or not; what is not in flight yet
// is dropped.
func (a *Appender) Close() { a.fail(ErrClosed) }

// fail lets nothing more in. What is in flight is still stored.
func (a *Appender) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failLocked(err)
}

func (a *Appender) failLocked(err error) {
	if a.err != nil {
		return
	}
	if errors.Is(err, ErrStore) {
		a.log.broken.Store(true)
	}
	a.err = err
	close(a.done)
	a.log.ledger.wake()
}

// Begin starts a transaction.
func (a *Appender) Begin(ctx context.Context, commitLSN change.LSN, commitTime change.Timestamp, xid uint32) error {
	begin := block.Begin{CommitLSN: commitLSN, CommitTime: commitTime, XID: xid}
	if drop, err := a.feed.begin(begin); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Begin(begin)
	}
	return a.appended(ctx, err)
}

// Change appends a row operation on a relation that was put. oldKind is pgoutput.OldNone, OldKey or OldFull. The rows are
// copied.
func (a *Appender) Change(ctx context.Context, operation block.Operation, relation change.RelationHash, oldKind byte, old, row pgoutput.Tuple) error {
	source := block.Source{
		Operation: operation, Relation: relation, HasOld: oldKind != pgoutput.OldNone, OldIsKey: oldKind == pgoutput.OldKey, Old: old, New: row,
	}
	if drop, err := a.feed.event(func(r *block.Replay) error { return r.Change(&source) }); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Change(&source)
	}
	return a.appended(ctx, err)
}

// Truncate appends a truncate of relations that were put.
func (a *Appender) Truncate(ctx context.Context, tables []change.RelationHash, cascade, restartIdentity bool) error {
	same := func(r *block.Replay) error { return r.Truncate(tables, cascade, restartIdentity) }
	if drop, err := a.feed.event(same); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Truncate(tables, cascade, restartIdentity)
	}
	return a.appended(ctx, err)
}

// Message appends a transactional logical message. The content is copied.
func (a *Appender) Message(ctx context.Context, prefix string, content []byte, lsn change.LSN) error {
	message := block.Message{Prefix: prefix, Content: content, LSN: lsn}
	if drop, err := a.feed.event(func(r *block.Replay) error { return r.Message(message) }); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Message(message)
	}
	return a.appended(ctx, err)
}

// Origin appends where the transaction first happened.
func (a *Appender) Origin(ctx context.Context, origin block.Origin) error {
	if drop, err := a.feed.origin(); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Origin(origin)
	}
	return a.appended(ctx, err)
}

// Commit ends the transaction.
func (a *Appender) Commit(ctx context.Context, commitLSN, endLSN change.LSN, commitTime change.Timestamp, xid uint32) error {
	commit := block.Commit{CommitLSN: commitLSN, EndLSN: endLSN, CommitTime: commitTime, XID: xid}
	if drop, err := a.feed.commit(ctx, commit); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil {
		err = a.builder.Commit(commit)
		a.gather.Committed(time.Now())
	}
	return a.appended(ctx, err)
}

// Mark says that every transaction that ends at or below through was fed: nothing else that concerns the log happened up
// to there. It stands between two transactions. One that the log has passed already is dropped, and so is one while the log
// waits for the rest of a transaction. A mark while nothing else
// is on its way becomes a block of its own, so it should not come often.
func (a *Appender) Mark(ctx context.Context, through change.LSN) error {
	if drop, err := a.feed.mark(); drop || err != nil {
		return a.refuse(err)
	}
	a.mu.Lock()
	err := a.ready()
	if err == nil && through > a.builder.Through() {
		err = a.builder.Mark(through)
	}
	return a.appended(ctx, err)
}

// Flush waits until everything whole that was fed is durable.
func (a *Appender) Flush(ctx context.Context) error {
	for {
		changed := a.DurableChanged()
		a.mu.Lock()
		err, through := a.err, a.builder.Through()
		a.mu.Unlock()
		if err != nil {
			return err
		}
		if a.Durable() >= through {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the change log: %w", context.Cause(ctx))
		}
	}
}
