package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/changelog/segment"
)

// parse reads a block from the store and checks it.
func (s *store) parse(number uint64) (*block.Block, error) {
	m, err := s.block(number)
	if err != nil {
		return nil, err
	}
	b, err := block.Parse(m.data)
	if err == nil && b.Number != number {
		err = fmt.Errorf("it says that it is block %d", b.Number)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: block %d: %w", ErrCorrupt, number, err)
	}
	return b, nil
}

// header reads the header of a block from the store.
func (s *store) header(number uint64) (block.Header, error) {
	m, err := s.block(number)
	if err != nil {
		return block.Header{}, err
	}
	h, err := block.ParseHeader(m.data)
	if err == nil && h.Number != number {
		err = fmt.Errorf("it says that it is block %d", h.Number)
	}
	if err != nil {
		return block.Header{}, fmt.Errorf("%w: block %d: %w", ErrCorrupt, number, err)
	}
	return h, nil
}

// Read returns a block; it waits until that one is durable. The block is shared by all readers and must not be changed.
// Blocks near the end come from memory, and are checked against their checksum otherwise. After a Reset blocks carry on
// counting with another log id: a follower compares it. Read returns ErrPurged, ErrOtherLog, ErrNoLog, ErrClosed or ErrCorrupt.
func (l *Log) Read(ctx context.Context, number uint64) (*block.Block, error) {
	for {
		b, changed, err := l.ledger.get(number)
		if b != nil || err != nil {
			return b, err
		}
		if changed == nil {
			s := l.store.Load()
			if b, err = s.parse(number); err == nil {
				return b, nil
			}
			if changed, err = l.retry(ctx, s, number, err); err != nil {
				return nil, fmt.Errorf("read block %d: %w", number, err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for block %d: %w", number, context.Cause(ctx))
		}
	}
}

// retry says what to do when the store did not give a block: an error, or a channel to wait for before trying again.
func (l *Log) retry(ctx context.Context, s *store, number uint64, err error) (<-chan struct{}, error) {
	changed := l.ledger.wait()
	ready := make(chan struct{})
	close(ready)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case l.store.Load() != s:
		return ready, nil // the store was restarted meanwhile
	case errors.Is(err, segment.ErrClosed):
		return changed, nil // it is being restarted
	case errors.Is(err, errNotStored):
		if !l.ledger.storeOnly(number) {
			return ready, nil // it was purged, or the log begun anew
		}
		return nil, fmt.Errorf("%w: it is missing", ErrCorrupt)
	}
	return nil, err
}

// Find returns the number of the first block to read to follow after the position: that block holds the first transaction
// after it, or the beginning of that transaction, and may hold earlier ones (block.Trim drops them). At the end of the log
// it is the number of the next block. Find returns ErrTooOld, ErrAhead, ErrOtherLog, ErrNoLog or ErrClosed.
func (l *Log) Find(ctx context.Context, after change.Position) (uint64, error) {
	v := l.ledger.view()
	switch {
	case v.closed:
		return 0, ErrClosed
	case v.ended:
		return 0, fmt.Errorf("%w: a new one is being begun", ErrOtherLog)
	case !v.begun:
		return 0, ErrNoLog
	case after.LogID != v.last.LogID:
		return 0, fmt.Errorf("%w: it is of %v, and the log is %v", ErrOtherLog, after.LogID, v.last.LogID)
	case after.LSN < v.start:
		return 0, fmt.Errorf("%w: it is %v, and the log begins at %v", ErrTooOld, after.LSN, v.start)
	case after.LSN > v.last.Through:
		return 0, fmt.Errorf("%w: it is %v, and the log ends at %v", ErrAhead, after.LSN, v.last.Through)
	}
	h, err := l.search(ctx, &v, after.LSN)
	if errors.Is(err, ErrPurged) {
		return 0, fmt.Errorf("%w: %w", ErrTooOld, err)
	}
	if err != nil {
		return 0, err
	}
	switch {
	case h == nil && v.last.Open():
		return v.last.Part.FirstBlock, nil
	case h == nil:
		return v.last.Number + 1, nil
	case h.Part != nil:
		return h.Part.FirstBlock, nil
	}
	return h.Number, nil
}

// search returns the header of the first block that reaches beyond the LSN, nil if there is none up to the last one.
func (l *Log) search(ctx context.Context, v *view, lsn change.LSN) (*block.Header, error) {
	var found *block.Header
	low, high := v.first, v.last.Number+1
	narrow := func(middle uint64) error {
		h, err := l.header(ctx, middle)
		switch {
		case err != nil:
			return err
		case h.Through > lsn:
			found, high = h, middle
		default:
			low = middle + 1
		}
		return nil
	}
	// First among the blocks with which files begin, which are found without looking through the files.
	starts := l.store.Load().blocks.Starts()
	for len(starts) > 0 {
		n := len(starts) / 2
		if starts[n] >= low && starts[n] < high {
			if err := narrow(starts[n]); err != nil {
				return nil, err
			}
		}
		if starts[n] < low {
			starts = starts[n+1:]
		} else {
			starts = starts[:n]
		}
	}
	for low < high {
		if err := narrow(low + (high-low)/2); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// header returns the header of a durable block.
func (l *Log) header(ctx context.Context, number uint64) (*block.Header, error) {
	b, err := l.Read(ctx, number)
	if err != nil {
		return nil, err
	}
	return &b.Header, nil
}

// EndOfLarge returns the end of a transaction that is larger than a block and in the log as a whole, by where its commit begins.
func (l *Log) EndOfLarge(ctx context.Context, commit change.LSN) (change.LSN, error) {
	v := l.ledger.view()
	h, err := l.search(ctx, &v, commit)
	switch {
	case err != nil:
		return 0, err
	case h == nil || h.Part == nil || h.Part.CommitLSN != commit || !h.Part.Last:
		return 0, fmt.Errorf("%w: a transaction that commits at %v has no end", ErrCorrupt, commit)
	}
	return h.Through, nil
}

// StoredAfter returns when the first block was stored that reaches beyond the LSN: since then somebody at the LSN is behind. It is
// false when there is none.
func (l *Log) StoredAfter(ctx context.Context, lsn change.LSN) (time.Time, bool, error) {
	v := l.ledger.view()
	if !v.begun || v.closed {
		return time.Time{}, false, nil
	}
	h, err := l.search(ctx, &v, lsn)
	if err != nil || h == nil {
		return time.Time{}, false, err
	}
	m, err := l.store.Load().block(h.Number)
	if errors.Is(err, errNotStored) {
		return time.Time{}, false, nil // purged meanwhile
	}
	return m.at, err == nil, err
}
