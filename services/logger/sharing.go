package logger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// What is kept of selected blocks for others of a group, and of all groups together. A follower that comes later selects by itself.
const (
	maxGroupBytes = 4 << 20
	maxShareBytes = 64 << 20
	// sharedBlockBytes is about what a block takes of which nothing was selected.
	sharedBlockBytes = 256
)

// sharing lets followers of the same version of a set with the same parameters select each block of the log once. It holds nobody up: who
// is slow finds that the blocks are gone, and selects by himself until he has caught up.
type sharing struct {
	mu     sync.Mutex
	groups map[string]*shareGroup
	bytes  int
}

// shareGroup is the followers of one selection.
type shareGroup struct {
	all     *sharing
	key     string
	members int
	blocks  map[uint64]*sharedBlock // by the number of the log's block
	order   []uint64                // those of them that are selected, as they were
	bytes   int
	shapes  shapes
	taken   int // how often a block was selected by another
}

// sharedBlock is what is selected of a block of the log. blocks may be read once done is closed, if ok.
type sharedBlock struct {
	done   chan struct{}
	ok     bool
	blocks []*block.Block
	size   int
}

// shareKey is equal for selections that select the same.
func shareKey(one *set, parameters map[string]string) string {
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(one.spec)
	if err != nil {
		panic(err) // it came in a message
	}
	text, err := json.Marshal([]any{one.name, one.version, spec, parameters})
	if err != nil {
		panic(err) // numbers and texts
	}
	sum := sha256.Sum256(text)
	return string(sum[:])
}

func (s *sharing) join(key string) *shareGroup {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[key]
	if g == nil {
		if s.groups == nil {
			s.groups = make(map[string]*shareGroup)
		}
		g = &shareGroup{all: s, key: key, blocks: make(map[uint64]*sharedBlock)}
		s.groups[key] = g
	}
	g.members++
	return g
}

func (g *shareGroup) leave() {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.members--; g.members == 0 {
		g.all.bytes -= g.bytes
		delete(g.all.groups, g.key)
	}
}

// claim returns what is selected of a block of the log, when another has done that or does it now; or what the caller has to publish,
// which is mine. It is nil when there is nobody to share with.
func (g *shareGroup) claim(ctx context.Context, number uint64) (entry *sharedBlock, mine bool, err error) {
	if g == nil {
		return nil, false, nil
	}
	for {
		if entry, mine = g.enter(number); entry == nil || mine {
			return entry, mine, nil
		}
		select {
		case <-entry.done:
		case <-ctx.Done():
			return nil, false, fmt.Errorf("wait for what another follower selects: %w", context.Cause(ctx))
		}
		if entry.ok {
			return entry, false, nil
		}
	}
}

func (g *shareGroup) enter(number uint64) (entry *sharedBlock, mine bool) {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if entry = g.blocks[number]; entry != nil {
		g.taken++
		return entry, false
	}
	if g.members < 2 {
		return nil, false
	}
	entry = &sharedBlock{done: make(chan struct{})}
	g.blocks[number] = entry
	return entry, true
}

// publish gives the others what was claimed, or leaves it to the next one of them.
func (g *shareGroup) publish(number uint64, entry *sharedBlock, blocks []*block.Block, ok bool) {
	entry.blocks, entry.ok = blocks, ok
	entry.size = sharedBlockBytes
	for _, b := range blocks {
		entry.size += len(b.Data())
	}
	close(entry.done)
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if !ok {
		delete(g.blocks, number)
		return
	}
	g.order = append(g.order, number)
	g.grow(entry.size)
	for len(g.order) > 0 && (g.bytes > maxGroupBytes || g.all.bytes > maxShareBytes) {
		g.grow(-g.blocks[g.order[0]].size)
		delete(g.blocks, g.order[0])
		g.order = g.order[1:]
	}
}

func (g *shareGroup) grow(bytes int) {
	g.bytes += bytes
	g.all.bytes += bytes
}
