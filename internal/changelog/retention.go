package changelog

import (
	"context"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// Retention says how much of a log is kept. Purge obeys it, with whole transactions only, and never takes the last block.
type Retention struct {
	// MaxAge is how long a transaction is kept at least, counted from when it was stored; 0 keeps it for ever.
	MaxAge time.Duration
	// MaxBytes is the disk space above which the oldest transactions are purged; 0 sets no limit.
	MaxBytes int64
	// KeepBytes is the disk space up to which what is needed is kept beyond MaxAge and MaxBytes. 0 keeps nothing for anybody.
	KeepBytes int64
	// Needed returns the position of whoever is the furthest behind and has to be able to follow; false when nobody is.
	Needed func() (change.Position, bool)
}

// SetRetention replaces what was set before, and purges accordingly.
func (l *Log) SetRetention(r Retention) error {
	l.retention.Store(&r)
	return l.Purge()
}

// keep moves the beginning that age and size ask for back to what somebody needs, as far as the disk space for that reaches.
func (l *Log) keep(s *store, v *view, bytes uint64, first uint64, r *Retention) (uint64, error) {
	h, err := s.header(first)
	if err != nil {
		return 0, err
	}
	l.unkept.Store(uint64(h.Start()))
	if r.KeepBytes <= 0 || r.Needed == nil || first == v.first {
		return first, nil
	}
	position, ok := r.Needed()
	if !ok || position.LogID != v.last.LogID || position.LSN < v.start {
		return first, nil
	}
	next, err := l.search(context.Background(), v, position.LSN)
	if err != nil || next == nil { // without one it has everything
		return first, err
	}
	needed := boundary(next)
	if needed >= first {
		return first, nil
	}
	if excess := int64(bytes) - r.KeepBytes; excess > 0 {
		capped, err := shrink(s, v.first, needed, first, uint64(excess))
		if err != nil {
			return 0, err
		}
		needed = max(needed, capped)
	}
	return min(first, needed), nil
}

// RetentionStart is where the log would begin by age and size alone, as of the last look: what lies before is kept for who needs it.
// It is 0 before the first look.
func (l *Log) RetentionStart() change.LSN { return change.LSN(l.unkept.Load()) }

// boundary returns the number of a block or of the one with which its transaction begins.
func boundary(h *block.Header) uint64 {
	if h.Part != nil {
		return h.Part.FirstBlock
	}
	return h.Number
}
