package backup

import (
	"sync"
	"sync/atomic"
)

// Progress is how far a dump, a check or a restore is. Its counters may be read and written at any time from any goroutine.
type Progress struct {
	Rows, Bytes, Total atomic.Int64 // Total bytes are an estimate; 0 while there is none
	mu                 sync.Mutex
	phase              string
}

// Begin names what is done now, and starts its counters at zero.
func (p *Progress) Begin(phase string, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = phase
	p.Rows.Store(0)
	p.Bytes.Store(0)
	p.Total.Store(total)
}

// Phase is what is done now.
func (p *Progress) Phase() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase
}
