package applier

import (
	"context"
	"sync"

	"github.com/seed0419d559/syncline/internal/schema"
)

// backlog is what the sessions of a copy have still to do: chunks, and the indexes of the tables that are whole. Chunks come
// first: the sooner all are copied, the shorter the snapshot holds up vacuum on the source, and the fewer tables are rewritten
// there before they are read. A session for which no chunk is left builds indexes while the others still copy.
type backlog struct {
	mu      sync.Mutex
	chunks  []job
	copying int // chunks that are being copied: each may add indexes when it ends
	indexes []schema.Statement
	running int             // indexes that are being built
	changed chan struct{}   // closed, and replaced, when a waiting session should look again
	copied  chan<- struct{} // closed when no chunk is left and none is being copied
}

func newBacklog(chunks []job, copied chan<- struct{}) *backlog {
	if len(chunks) == 0 {
		close(copied)
	}
	return &backlog{chunks: chunks, changed: make(chan struct{}), copied: copied}
}

// most is how many sessions can have something to do at once.
func (b *backlog) most(indexes map[schema.Name][]schema.Statement) int {
	n := len(b.chunks)
	for _, ofTable := range indexes {
		n += len(ofTable)
	}
	return n
}

// next returns a chunk, whose end is told by done, or an index to build, whose end is told by built, and how many other things
// there are to do at the same time; neither when all is done or ctx has ended.
func (b *backlog) next(ctx context.Context) (chunk *job, index *schema.Statement, others int) {
	for {
		b.mu.Lock()
		others = len(b.chunks) + b.copying + len(b.indexes) + b.running - 1
		switch {
		case len(b.chunks) > 0:
			chunk, b.chunks = &b.chunks[0], b.chunks[1:]
			b.copying++
		case len(b.indexes) > 0:
			index, b.indexes = &b.indexes[0], b.indexes[1:]
			b.running++
		}
		wait, over := b.changed, b.copying == 0
		b.mu.Unlock()
		if chunk != nil || index != nil || over {
			return chunk, index, others
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, 0
		}
	}
}

// done tells that a chunk has been dealt with, and which indexes can be built since.
func (b *backlog) done(indexes []schema.Statement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.copying--
	b.indexes = append(b.indexes, indexes...)
	close(b.changed)
	b.changed = make(chan struct{})
	if b.copying == 0 && len(b.chunks) == 0 {
		close(b.copied)
	}
}

// built tells that an index has been built.
func (b *backlog) built() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
}
