package applier

import (
	"context"
	"slices"
	"sync"

	"github.com/seed0419d559/syncline/internal/schema"
)

// backlog is what the sessions of a copy have still to do: chunks, and the indexes of the tables that are whole. Chunks come
// first: the sooner all are copied, the shorter the snapshot holds up vacuum on the source, and the fewer tables are rewritten
// there before they are read. A session that has no chunk to take builds indexes while the others still copy.
//
// A table that one session copies alone has its rows in the order of the source. That is worth having: an index whose order is about that
// of the rows is built with little sorting, and what was clustered stays so. So sessions spread over the tables, and join in one that another
// copies only while no more than joining copy.
type backlog struct {
	joining int

	mu      sync.Mutex
	tables  []*tableChunks // that nobody copies, in the order in which they are begun
	begun   []*tableChunks // that sessions copy
	left    int            // chunks that nobody has begun
	copying int            // chunks that are being copied: each may add indexes when it ends
	indexes []schema.Statement
	running int             // indexes that are being built
	changed chan struct{}   // closed, and replaced, when a waiting session should look again
	copied  chan<- struct{} // closed when no chunk is left and none is being copied
}

// tableChunks are those of one table.
type tableChunks struct {
	left    []job
	copying int
}

func newBacklog(chunks []job, copied chan<- struct{}, joining int) *backlog {
	if len(chunks) == 0 {
		close(copied)
	}
	b := &backlog{joining: joining, left: len(chunks), changed: make(chan struct{}), copied: copied}
	for from := 0; from < len(chunks); {
		to := from + 1
		for to < len(chunks) && chunks[to].table == chunks[from].table {
			to++
		}
		b.tables = append(b.tables, &tableChunks{left: chunks[from:to:to]})
		from = to
	}
	return b
}

// most is how many sessions can have something to do at once.
func (b *backlog) most(indexes map[schema.Name][]schema.Statement) int {
	n := b.left
	for _, ofTable := range indexes {
		n += len(ofTable)
	}
	return n
}

// work is a chunk to copy, whose end is told by done, or an index to build, whose end is told by built.
type work struct {
	chunk  *job
	table  *tableChunks // of chunk
	index  *schema.Statement
	others int // how many other things there are to do at the same time
}

// next returns what to do next: nothing when all is done or ctx has ended.
func (b *backlog) next(ctx context.Context) work {
	for {
		b.mu.Lock()
		w := work{others: b.left + b.copying + len(b.indexes) + b.running - 1}
		if w.chunk, w.table = b.take(); w.chunk == nil && len(b.indexes) > 0 {
			w.index, b.indexes = &b.indexes[0], b.indexes[1:]
			b.running++
		}
		wait, over := b.changed, b.copying == 0
		b.mu.Unlock()
		if w.chunk != nil || w.index != nil || over {
			return w
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return work{}
		}
	}
}

// take gives the next chunk of a table that nobody copies, else of the one with the most to do for each of its sessions, nil if there is none
// for now.
func (b *backlog) take() (*job, *tableChunks) {
	var t *tableChunks
	if len(b.tables) > 0 {
		t, b.tables = b.tables[0], b.tables[1:]
		b.begun = append(b.begun, t)
	} else if b.copying < b.joining {
		for _, other := range b.begun {
			if len(other.left) > 0 && (t == nil || len(other.left)*t.copying > len(t.left)*other.copying) {
				t = other
			}
		}
	}
	if t == nil {
		return nil, nil
	}
	chunk := &t.left[0]
	t.left = t.left[1:]
	t.copying++
	b.copying++
	b.left--
	return chunk, t
}

// done tells that a chunk has been dealt with, and which indexes can be built since.
func (b *backlog) done(w work, indexes []schema.Statement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.copying--
	if w.table.copying--; w.table.copying == 0 {
		b.begun = slices.DeleteFunc(b.begun, func(t *tableChunks) bool { return t == w.table })
		if len(w.table.left) > 0 {
			b.tables = slices.Insert(b.tables, 0, w.table) // it is gone on with
		}
	}
	b.indexes = append(b.indexes, indexes...)
	close(b.changed)
	b.changed = make(chan struct{})
	if b.copying == 0 && b.left == 0 {
		close(b.copied)
	}
}

// built tells that an index has been built.
func (b *backlog) built() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
}
