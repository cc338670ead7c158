package apply

import (
	"testing"

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
