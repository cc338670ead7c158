package changelog

import (
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

// TestMilestones narrows searches in a log of many more blocks than are remembered, and never leaves out what is looked for.
func TestMilestones(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const first, blocks = 77, 5 * mostMilestones
	var m milestones
	through := make([]change.LSN, blocks)
	at := change.LSN(1000)
	for i := range through {
		if r.IntN(3) > 0 { // the parts of a large transaction reach as far as the block before it
			at += change.LSN(r.IntN(50))
		}
		through[i] = at
		m.append(first+uint64(i), at)
	}
	if n := len(m.list); n < mostMilestones/4 || n >= mostMilestones {
		t.Errorf("%d milestones of %d blocks", n, blocks)
	}
	widest := uint64(0)
	check := func(from int) {
		for range 10_000 {
			lsn := 990 + change.LSN(r.IntN(int(at)))
			want := first + uint64(from+sort.Search(blocks-from, func(i int) bool { return through[from+i] > lsn }))
			low, high := m.narrow(lsn, first+uint64(from), first+blocks)
			if low > want || high <= want && want < first+blocks {
				t.Fatalf("%v is in block %d, looked for from %d up to %d", lsn, want, low, high)
			}
			if low > first+uint64(from) {
				widest = max(widest, high-low)
			}
		}
	}
	check(0)
	for range 1000 {
		i := r.IntN(blocks)
		m.learn(first+uint64(i), through[i])
	}
	check(0)
	m.purge(first + blocks/2)
	check(blocks / 2)
	if widest > 2*m.every {
		t.Errorf("a search goes over %d blocks, and each %dth is known", widest, m.every)
	}
	m.purge(first + blocks)
	if low, high := m.narrow(at, 5, 9); low != 5 || high != 9 || len(m.list) > 0 {
		t.Errorf("from %d up to %d, %d milestones", low, high, len(m.list))
	}
}
