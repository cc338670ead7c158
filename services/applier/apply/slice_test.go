package apply

import (
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// TestSliceOfManyTables: a slice may be larger if it has changes of many tables, each in its turn, and no more than three times as large.
func TestSliceOfManyTables(t *testing.T) {
	plan := benchPlan(t)
	ops := benchOps(t, plan, Insert, 1000, 1)
	for tables, want := range map[int]int{1: 4, 63: 4, 64: 8, 127: 8, 128: 12, 500: 12} {
		e := NewEngine(Config{Session: &Session{}, Options: DefaultOptions()})
		e.tasks = make(chan task, 10)
		b := &block.Block{}
		for i := range tables {
			hash := change.RelationHash{byte(i), byte(i >> 8)}
			b.Relations = append(b.Relations, hash)
			e.routes[hash] = &route{plan: plan}
			e.group.started = time.Now()
		}
		e.txn = txn{open: true, resolved: true, begin: block.Begin{CommitLSN: 1}}
		for slice := range 2 {
			bytes := 0
			for i := 0; len(e.tasks) == slice; i++ {
				o := &ops[i%len(ops)]
				bytes += o.size()
				if err := e.change(t.Context(), b, &block.Change{Relation: uint32(i % tables), Operation: block.Insert, HasNew: true, New: o.new}); err != nil {
					t.Fatal(err)
				}
			}
			if over := bytes - want<<20; over < 0 || over > 1000 {
				t.Errorf("slice %d of %d tables has %d bytes, want %d MiB", slice, tables, bytes, want)
			}
		}
	}
}

// TestSliceEndsWithGroup: what is left of a small transaction when the group is full goes with the rest of it; a large one is cut.
func TestSliceEndsWithGroup(t *testing.T) {
	plan := benchPlan(t)
	ops := benchOps(t, plan, Insert, 1000, 1)
	most := DefaultOptions().SliceBytes
	for name, c := range map[string]struct {
		before int   // bytes of whole transactions in the group
		last   int   // bytes of the transaction that is read then
		slices []int // bytes of those that were written before it has ended, at most 1000 more
	}{
		"small": {most - 1000, 1 << 20, nil},
		"large": {most - 1000, 8 << 20, []int{most + most/4, most + most/4}},
		"alone": {0, 13 << 20, []int{most, most, most}},
	} {
		t.Run(name, func(t *testing.T) {
			hash := change.RelationHash{1}
			e := NewEngine(Config{Session: &Session{}, Options: DefaultOptions()})
			e.tasks = make(chan task, 10)
			e.routes[hash] = &route{plan: plan}
			e.group.started = time.Now()
			b := &block.Block{}
			b.Relations = append(b.Relations, hash)
			var slices []int
			fill := func(size int) {
				e.txn = txn{open: true, resolved: true, begin: block.Begin{CommitLSN: 1}}
				for i, done := 0, 0; done < size; i++ {
					o := &ops[i%len(ops)]
					done += o.size()
					before := e.bytes
					if err := e.change(t.Context(), b, &block.Change{Operation: block.Insert, HasNew: true, New: o.new}); err != nil {
						t.Fatal(err)
					}
					if len(e.tasks) > len(slices) {
						slices = append(slices, before+o.size())
					}
				}
			}
			if c.before > 0 {
				fill(c.before)
				if err := e.endTransaction(t.Context(), &block.Commit{CommitLSN: 1, EndLSN: 2}); err != nil {
					t.Fatal(err)
				}
			}
			fill(c.last)
			if len(slices) != len(c.slices) {
				t.Fatalf("slices of %v bytes were written, want %v", slices, c.slices)
			}
			for i, want := range c.slices {
				if over := slices[i] - want; over < 0 || over > 1000 {
					t.Errorf("slice %d has %d bytes, want %d", i, slices[i], want)
				}
			}
		})
	}
}
