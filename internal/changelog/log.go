package changelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
)

// Named points between two durable steps, see package fault.
const (
	FaultMetaStored     = "changelog/meta-stored"     // Reset: the new log id is durable, the old blocks are still there
	FaultBlocksPurged   = "changelog/blocks-purged"   // Reset: they are gone, the new log has no block yet
	FaultBegun          = "changelog/begun"           // Reset: the first mark is durable
	FaultRelationStored = "changelog/relation-stored" // a relation version is durable, no block uses it yet
	FaultPublish        = "changelog/publish"         // a block is about to be sent to the store; takes the action error
	FaultPublished      = "changelog/published"       // it is on its way, not acknowledged
	FaultAcknowledged   = "changelog/acknowledged"    // it is durable, nobody was told yet
	FaultPurge          = "changelog/purge"           // readers are refused the old blocks, which are still stored
	FaultPurged         = "changelog/purged"          // they are gone
)

const (
	defaultPurgeInterval = 10 * time.Second
	defaultCacheBytes    = 16 << 20
	// storeTimeout bounds the wait for a store that hangs, as a failing disk does.
	storeTimeout = 30 * time.Second
)

// Log is a change log.
type Log struct {
	opts   Options
	log    *slog.Logger
	lock   *os.File
	ledger *ledger
	shapes relationCache

	admin     sync.Mutex // held by what opens, resets, purges and closes
	appender  *Appender  // the last one that was opened
	meta      atomic.Pointer[Meta]
	store     atomic.Pointer[store] // replaced as a whole when the store has to be restarted
	broken    atomic.Bool           // the store has to be restarted before it takes anything
	retention atomic.Pointer[Retention]
	unkept    atomic.Uint64 // see RetentionStart
	closed    bool

	stop func() // ends the purge loop and waits for it
}

// Open opens the log in a directory, which may hold none yet. It finishes a Reset that was interrupted, and makes sure that
// everything it finds is durable. It returns ErrLocked, and ErrCorrupt when what is there is not a log.
func Open(opts Options) (*Log, error) {
	if opts.PurgeInterval <= 0 {
		opts.PurgeInterval = defaultPurgeInterval
	}
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = defaultCacheBytes
	}
	l := &Log{opts: opts, log: opts.Logger, ledger: newLedger(opts.CacheBytes)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.retention.Store(&opts.Retention)
	lock, err := lockDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	l.lock = lock
	if err := l.start(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open change log: %w", err)
	}
	// Before anything is appended: on a full disk it has to come first.
	if err := l.Purge(); err != nil {
		l.log.Warn("change log could not be purged; it is tried again", "error", err)
	}
	loop, cancel := context.WithCancel(context.Background())
	var purging sync.WaitGroup
	purging.Go(func() { l.purgeLoop(loop) })
	l.stop = func() { cancel(); purging.Wait() }
	return l, nil
}

// start opens the store and reads what it holds.
func (l *Log) start() error {
	s, err := openStore(l.opts.Dir)
	if err != nil {
		return err
	}
	if err := l.recover(s); err != nil {
		s.close()
		return err
	}
	l.store.Store(s)
	l.broken.Store(false)
	return nil
}

// restart closes a store that takes nothing more and opens it again, when there is room to write: until then it is read.
func (l *Log) restart() error {
	if err := tryRoom(l.opts.Dir); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if s := l.store.Load(); s != nil {
		s.close()
	}
	l.broken.Store(true)
	if err := l.start(); err != nil {
		return fmt.Errorf("%w: restart: %w", ErrStore, err)
	}
	l.ledger.wake()
	return nil
}

// recover brings the ledger in line with the store.
func (l *Log) recover(s *store) error {
	meta, ok, err := s.meta()
	if err != nil {
		return err
	}
	b := s.blocks.Bounds()
	if !ok {
		if b.First <= b.Last {
			return fmt.Errorf("%w: it has blocks and does not say of what", ErrCorrupt)
		}
		return nil
	}
	var last *block.Block
	if b.First <= b.Last {
		if last, err = s.parse(b.Last); err != nil {
			return err
		}
	}
	if last == nil || last.LogID != meta.LogID { // a Reset was interrupted
		l.ledger.forget()
		return l.begin(s, meta)
	}
	if head := l.ledger.head(); head.Position.LogID == meta.LogID && head.Number > b.Last {
		return fmt.Errorf("%w: block %d was durable, and the store ends with %d", ErrCorrupt, head.Number, b.Last)
	}
	first, err := s.header(b.First)
	if err != nil {
		return err
	}
	if first.LogID != meta.LogID || first.Part != nil && first.Part.FirstBlock != b.First {
		return fmt.Errorf("%w: it begins with block %d of log %v inside a transaction, or of another log", ErrCorrupt, b.First, first.LogID)
	}
	l.meta.Store(&meta)
	l.ledger.begin(b, &first, last)
	return l.findLastCommit(s, b.First, last)
}

// maxCommitSearch bounds how many blocks without a commit are read to find the last commit's time.
const maxCommitSearch = 2000

func (l *Log) findLastCommit(s *store, first uint64, last *block.Block) error {
	h := last.Header
	for n := 0; n < maxCommitSearch && !h.HasCommit; n++ {
		number := h.Number - 1
		if h.Part != nil {
			number = h.Part.FirstBlock - 1
		}
		if number < first {
			return nil
		}
		var err error
		if h, err = s.header(number); err != nil {
			return err
		}
	}
	if h.HasCommit {
		l.ledger.committed(h.LastCommitTime)
	}
	return nil
}

// begin makes the log that meta names out of a store whose blocks are of no use any more. It can be repeated.
func (l *Log) begin(s *store, meta Meta) error {
	if err := s.purge(0); err != nil {
		return err
	}
	fault.Point(FaultBlocksPurged)
	mark := block.NewMark(meta.LogID, s.blocks.Bounds().Last+1, 0, meta.Start)
	if err := s.append(mark.Number, mark.Data()); err != nil {
		return fmt.Errorf("store first block: %w", err)
	}
	fault.Point(FaultBegun)
	l.meta.Store(&meta)
	l.ledger.begin(s.blocks.Bounds(), &mark.Header, mark)
	return nil
}

// Close stops everything. Calls under way fail with ErrClosed. Durable blocks stay; what is in flight may or may not.
func (l *Log) Close() error {
	l.stop()
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.appender != nil {
		l.appender.fail(ErrClosed)
	}
	l.ledger.close()
	l.store.Load().close()
	if l.appender != nil {
		<-l.appender.exited
	}
	if err := l.lock.Close(); err != nil {
		return fmt.Errorf("unlock change log directory: %w", err)
	}
	return nil
}

// Meta returns what the log is a log of; false before the first Reset.
func (l *Log) Meta() (Meta, bool) {
	if m := l.meta.Load(); m != nil {
		return *m, true
	}
	return Meta{}, false
}

// Reset begins a new incarnation of the log: everything that it held goes, except relation versions. It is durable on
// return; a crash before that leaves the old log, or the new one. The appender fails with ErrFenced.
func (l *Log) Reset(ctx context.Context, meta Meta) error {
	if meta.LogID.IsZero() || meta.Start == 0 {
		return errors.New("reset change log: a log id and a start position are needed")
	}
	if meta.Created.IsZero() {
		meta.Created = time.Now().UTC()
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	if err := l.prepare(ctx); err != nil {
		return fmt.Errorf("reset change log: %w", err)
	}
	s := l.store.Load()
	err := s.putMeta(meta)
	if err == nil {
		fault.Point(FaultMetaStored)
		l.ledger.forget()
		l.meta.Store(nil)
		err = l.begin(s, meta)
	}
	if err != nil {
		l.broken.Store(true) // how far it came is read anew
		return fmt.Errorf("reset change log: %w", err)
	}
	return nil
}

// prepare ends the appender and restarts the store if that is needed.
func (l *Log) prepare(ctx context.Context) error {
	if l.closed {
		return ErrClosed
	}
	if a := l.appender; a != nil {
		a.fail(ErrFenced)
		select {
		case <-a.exited:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(storeTimeout):
			return fmt.Errorf("%w: the store does not answer", ErrStore)
		}
		l.appender = nil
	}
	if l.broken.Load() {
		return l.restart()
	}
	return nil
}

// Head returns the durable end, zero before the first Reset.
func (l *Log) Head() Head { return l.ledger.head() }

// HeadChanged returns a channel that is closed when Head has changed. Take it before calling Head.
func (l *Log) HeadChanged() <-chan struct{} { return l.ledger.wait() }

// Ranges returns what the log holds, zero before the first Reset.
func (l *Log) Ranges() Ranges { return l.ledger.ranges() }
