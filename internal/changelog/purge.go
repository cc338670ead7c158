package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
)

// purgeStep bounds how many bytes are looked at in one purge by size.
const purgeStep = 1 << 30

func (l *Log) purgeLoop(ctx context.Context) {
	if l.opts.MaxAge <= 0 && l.opts.MaxBytes <= 0 {
		return
	}
	tick := time.NewTicker(l.opts.PurgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for more := true; more; {
			before := l.Ranges().FirstBlock
			if err := l.Purge(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("change log could not be purged; it is tried again", "error", err)
			}
			r := l.Ranges()
			more = r.FirstBlock > before && l.opts.MaxBytes > 0 && r.Bytes > uint64(l.opts.MaxBytes)
		}
	}
}

// Purge removes the oldest transactions as far as Options.MaxAge and MaxBytes ask for it. Transactions go whole, and the
// last block and the transaction that it belongs to stay. One call removes about purgeStep bytes for MaxBytes at most, so
// that nothing waits for long. The log does this by itself, as often as it takes, every Options.PurgeInterval.
func (l *Log) Purge(ctx context.Context) error {
	return l.purge(ctx, l.opts.MaxBytes, l.opts.MaxAge)
}

func (l *Log) purge(ctx context.Context, maxBytes int64, maxAge time.Duration) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.closed {
		return ErrClosed
	}
	v := l.ledger.view()
	if !v.begun || l.broken.Load() {
		return nil
	}
	s := l.store.Load()
	b, err := s.bounds(ctx)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	l.ledger.setBytes(b.bytes)
	first, err := l.purgePoint(ctx, s, &v, b, maxBytes, maxAge)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	if first == v.first {
		return nil
	}
	m, err := s.block(ctx, first)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	h, err := block.ParseHeader(m.data)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	l.ledger.purged(&h, m.at)
	fault.Point(FaultPurge)
	if err := s.purge(ctx, first); err != nil {
		return err
	}
	fault.Point(FaultPurged)
	if b, err = s.bounds(ctx); err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	l.ledger.setBytes(b.bytes)
	l.log.Info("change log purged", "first", h.Start(), "block", first, "bytes", b.bytes)
	return nil
}

// purgePoint returns the number of the block with which the log may begin.
func (l *Log) purgePoint(ctx context.Context, s *store, v *view, b bounds, maxBytes int64, maxAge time.Duration) (uint64, error) {
	limit := v.last.Number // the last block stays, and the transaction inside which the log ends
	if v.last.Part != nil {
		limit = v.last.Part.FirstBlock
	}
	first := v.first
	if maxAge > 0 {
		aged, err := l.firstSince(ctx, s, first, limit, time.Now().Add(-maxAge))
		if err != nil {
			return 0, err
		}
		first = aged
	}
	if maxBytes <= 0 || b.bytes <= uint64(maxBytes) {
		return first, nil
	}
	return l.shrink(ctx, s, v.first, first, limit, min(purgeStep, b.bytes-uint64(maxBytes)))
}

// firstSince returns the first block that was stored at or after a time, or the beginning of its transaction. Times of
// storing count, not of committing: what was captured late is kept as long as anything.
func (l *Log) firstSince(ctx context.Context, s *store, low, limit uint64, since time.Time) (uint64, error) {
	first := low
	for high := limit; low < high; {
		middle := low + (high-low)/2
		m, err := s.block(ctx, middle)
		if err != nil {
			return 0, err
		}
		if m.at.Before(since) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	h, err := s.header(ctx, low)
	if err != nil {
		return 0, err
	}
	if h.Part != nil {
		low = h.Part.FirstBlock
	}
	return max(first, low), nil
}

// shrink returns the first block from which on the log is smaller by excess bytes, at least from and at most limit.
func (l *Log) shrink(ctx context.Context, s *store, number, from, limit uint64, excess uint64) (uint64, error) {
	var freed uint64
	boundary := number
	for ; number < limit; number++ {
		if boundary == number && number >= from && freed >= excess {
			break
		}
		m, err := s.block(ctx, number)
		if err != nil {
			return 0, err
		}
		h, err := block.ParseHeader(m.data)
		if err != nil {
			return 0, errors.Join(ErrCorrupt, err)
		}
		freed += uint64(len(m.data) + messageOverhead)
		if !h.Open() {
			boundary = number + 1
		}
	}
	return boundary, nil
}
