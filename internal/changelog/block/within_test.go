package block

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

// TestWithin reads a large transaction, in which some records are larger than a block, from each of its blocks on: it is the rest of what is
// read from its beginning, and the events are counted alike.
func TestWithin(t *testing.T) {
	begin, commit := Begin{CommitLSN: 100, CommitTime: 5, XID: 6}, Commit{CommitLSN: 100, EndLSN: 120, CommitTime: 5, XID: 6}
	b := NewBuilder(State{LogID: testLog, Through: 5})
	var blocks []*Block
	must(t, b.Begin(begin))
	for n := range 4000 {
		size := 100
		if n%900 == 450 {
			size = 3*MaxRecord + n
		}
		must(t, b.Change(&Source{Operation: Insert, Relation: change.RelationHash{1}, New: tuple(fmt.Sprint(n), strings.Repeat("v", size))}))
		for b.Full() {
			blocks = append(blocks, b.Cut())
		}
	}
	must(t, b.Commit(commit))
	for b.Ready() {
		blocks = append(blocks, b.Cut())
	}
	read := func(a *Assembler, from int) (events []string, counts []uint64) {
		for _, b := range blocks[from:] {
			if err := a.Push(b); err != nil {
				t.Fatal(err)
			}
			var rec Record
			for {
				ok, err := a.Next(&rec)
				if err != nil {
					t.Fatalf("from block %d: %v", from, err)
				}
				if !ok {
					break
				}
				if rec.Kind.Event() {
					events = append(events, fmt.Sprintf("%d %.40q %d", rec.Change.Operation, firstValue(rec.Change.New), rec.Change.New.Size()))
					counts = append(counts, a.Events())
				}
			}
		}
		return events, counts
	}
	all, counts := read(new(Assembler), 0)
	for i, n := range counts {
		if n != uint64(i+1) {
			t.Fatalf("event %d is counted as %d", i, n)
		}
	}
	for from := 1; from < len(blocks); from++ {
		rest, numbers := read(NewAssemblerWithin(), from)
		if len(rest) == 0 {
			if from < len(blocks)-3 {
				t.Errorf("nothing from block %d on, of %d", from, len(blocks))
			}
			continue
		}
		if !slices.Equal(rest, all[len(all)-len(rest):]) || !slices.Equal(numbers, counts[len(all)-len(rest):]) {
			t.Errorf("from block %d: %d events of %d, counted from %d", from, len(rest), len(all), numbers[0])
		}
	}
}

func firstValue(row Row) []byte {
	c := row.Columns()
	_, value := c.Next()
	return value
}
