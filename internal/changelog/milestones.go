package changelog

import (
	"slices"
	"sort"

	"github.com/seed0419d559/syncline/internal/change"
)

// milestones are some of the blocks with the positions that they reach: of those that were appended by this process some at even
// distances, of older ones those that a search has met. Looking for a position in the store alone reads a message file of 8 MiB for
// nearly every step.
type milestones struct {
	list  []milestone
	every uint64 // one block in so many is kept; 0 is 1
}

type milestone struct {
	number  uint64
	through change.LSN
}

// mostMilestones bounds the memory to 1 MiB. When it is reached every other one goes.
const mostMilestones = 64 << 10

func (m *milestones) append(number uint64, through change.LSN) {
	m.every = max(m.every, 1)
	if number%m.every != 0 {
		return
	}
	m.list = append(m.list, milestone{number, through})
	if len(m.list) < mostMilestones {
		return
	}
	m.every *= 2
	m.list = slices.DeleteFunc(m.list, func(s milestone) bool { return s.number%m.every != 0 })
}

// learn adds a block that a search has read.
func (m *milestones) learn(number uint64, through change.LSN) {
	n := sort.Search(len(m.list), func(i int) bool { return m.list[i].number >= number })
	if len(m.list) < mostMilestones-1 && (n == len(m.list) || m.list[n].number != number) {
		m.list = slices.Insert(m.list, n, milestone{number, through})
	}
}

// purge forgets the blocks before first.
func (m *milestones) purge(first uint64) {
	n := sort.Search(len(m.list), func(i int) bool { return m.list[i].number >= first })
	m.list = slices.Delete(m.list, 0, n)
}

// narrow returns bounds within which the first block lies that reaches beyond the LSN: it is at or after low and before high,
// unless there is none before high.
func (m *milestones) narrow(lsn change.LSN, low, high uint64) (uint64, uint64) {
	n := sort.Search(len(m.list), func(i int) bool { return m.list[i].through > lsn })
	if n > 0 {
		low = max(low, m.list[n-1].number+1)
	}
	if n < len(m.list) {
		high = min(high, m.list[n].number+1)
	}
	return low, high
}
