package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
)

func (l *Log) purgeLoop(ctx context.Context) {
	tick := time.NewTicker(l.opts.PurgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.Purge(); err != nil {
			l.log.Warn("change log could not be purged; it is tried again", "error", err)
		}
	}
}

// Purge removes the oldest transactions as far as the retention asks for it. Transactions go whole, and the
// last block and the transaction that it belongs to stay. The log does this by itself, every Options.PurgeInterval.
func (l *Log) Purge() error {
	return l.purge(*l.retention.Load())
}

func (l *Log) purge(r Retention) error {
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
	bytes := s.blocks.Bounds().Bytes
	l.ledger.setBytes(bytes)
	first, err := purgePoint(s, &v, bytes, r.MaxBytes, r.MaxAge)
	if err == nil {
		first, err = l.keep(s, &v, bytes, first, &r)
	}
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	if first == v.first {
		return nil
	}
	m, err := s.block(first)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	h, err := block.ParseHeader(m.data)
	if err != nil {
		return fmt.Errorf("purge change log: %w", err)
	}
	l.ledger.purged(&h, m.at)
	fault.Point(FaultPurge)
	if err := s.purge(first); err != nil {
		return err
	}
	fault.Point(FaultPurged)
	bytes = s.blocks.Bounds().Bytes
	l.ledger.setBytes(bytes)
	l.log.Info("change log purged", "first", h.Start(), "block", first, "bytes", bytes)
	return nil
}

// purgePoint returns the number of the block with which the log may begin.
func purgePoint(s *store, v *view, bytes uint64, maxBytes int64, maxAge time.Duration) (uint64, error) {
	limit := v.last.Number // the last block stays, and the transaction inside which the log ends
	if v.last.Part != nil {
		limit = v.last.Part.FirstBlock
	}
	first := v.first
	if maxAge > 0 {
		aged, err := firstSince(s, first, limit, time.Now().Add(-maxAge))
		if err != nil {
			return 0, err
		}
		first = aged
	}
	if maxBytes <= 0 || bytes <= uint64(maxBytes) {
		return first, nil
	}
	return shrink(s, v.first, first, limit, bytes-uint64(maxBytes))
}

// firstSince returns the first block that was stored at or after a time, or the beginning of its transaction. Times of
// storing count, not of committing: what was captured late is kept as long as anything.
func firstSince(s *store, low, limit uint64, since time.Time) (uint64, error) {
	first := low
	for high := limit; low < high; {
		middle := low + (high-low)/2
		m, err := s.block(middle)
		if err != nil {
			return 0, err
		}
		if m.at.Before(since) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	h, err := s.header(low)
	if err != nil {
		return 0, err
	}
	return max(first, boundary(&h)), nil
}

// shrink returns the first block from which on the log is smaller by excess bytes, at least from and at most limit.
func shrink(s *store, first, from, limit, excess uint64) (uint64, error) {
	number, freed := s.blocks.Skip(excess)
	if number > limit {
		number, freed = first, 0
	}
	for boundary := first; ; number++ {
		m, err := s.block(number)
		if err != nil {
			return 0, err
		}
		h, err := block.ParseHeader(m.data)
		if err != nil {
			return 0, errors.Join(ErrCorrupt, err)
		}
		if h.Part == nil || h.Part.FirstBlock == number {
			boundary = number
		}
		if number >= limit || boundary == number && number >= from && freed >= excess {
			return max(boundary, from), nil
		}
		freed += uint64(len(m.data))
	}
}
