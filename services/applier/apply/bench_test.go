package apply

import (
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// benchPlan is the plan of a table with a key and four other columns.
func benchPlan(b testing.TB) *Plan {
	b.Helper()
	r := &change.Relation{Schema: "public", Name: "item", Identity: change.IdentityDefault}
	t := &Target{Schema: "public", Name: "item", OID: 1, UniqueKeys: [][]string{{"id"}}}
	for _, c := range []struct {
		name, typ string
		oid       uint32
	}{{"id", "bigint", 20}, {"customer", "integer", 23}, {"amount", "numeric", 1700}, {"note", "text", 25}, {"created", "timestamp with time zone", 1184}} {
		r.Columns = append(r.Columns, change.Column{Name: c.name, TypeOID: c.oid, TypeModifier: -1, Key: c.name == "id"})
		t.Columns = append(t.Columns, TargetColumn{
			Name: c.name, NotNull: c.name == "id", Equality: EqualityExact, Operator: "=", Type: c.typ, TypeOID: c.oid, HasArray: true,
		})
	}
	p, err := NewPlan(r, t)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// benchOps are operations as the engine holds them, whose rows are views of blocks; each key has changes of them.
func benchOps(b testing.TB, p *Plan, operation Operation, n, changes int) []op {
	b.Helper()
	builder := block.NewBuilder(block.State{LogID: change.LogID{1}, Number: 1, Through: 1})
	if err := builder.Begin(block.Begin{CommitLSN: 10, CommitTime: 1, XID: 1}); err != nil {
		b.Fatal(err)
	}
	kinds := map[Operation]block.Operation{Insert: block.Insert, Update: block.Update}
	var ops []op
	cut := func() {
		reader := builder.Cut().Reader()
		for {
			var rec block.Record
			ok, err := reader.Next(&rec)
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				return
			}
			if rec.Kind == block.KindChange {
				ops = append(ops, op{plan: p, operation: operation, new: rec.Change.New})
			}
		}
	}
	for i := range n {
		row := testRow(i*7919%(n/changes), "4711", "199.99", "a note of twenty chr", "2026-02-28 23:59:59.123456+00")
		err := builder.Change(&block.Source{Operation: kinds[operation], Relation: change.RelationHash{1}, New: row})
		if err != nil {
			b.Fatal(err)
		}
		if builder.Full() {
			cut()
		}
	}
	if err := builder.Commit(block.Commit{CommitLSN: 10, EndLSN: 20, CommitTime: 1, XID: 1}); err != nil {
		b.Fatal(err)
	}
	cut()
	if len(ops) != n {
		b.Fatalf("%d operations, want %d", len(ops), n)
	}
	return ops
}

const benchRows = 10_000

// BenchmarkGroup takes the net effect of operations.
func BenchmarkGroup(b *testing.B) {
	for _, c := range []struct {
		name      string
		operation Operation
		changes   int
	}{{"inserts", Insert, 1}, {"updates", Update, 1}, {"updates-of-few", Update, 100}} {
		b.Run(c.name, func(b *testing.B) {
			ops := benchOps(b, benchPlan(b), c.operation, benchRows, c.changes)
			var n netting
			b.ReportAllocs()
			for b.Loop() {
				if taken := n.take(ops); taken != benchRows {
					b.Fatalf("took %d", taken)
				}
			}
			b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "changes/s")
		})
	}
}

// BenchmarkStage makes what travels to the target: COPY rows and arrays, both binary.
func BenchmarkStage(b *testing.B) {
	for _, c := range []struct {
		name      string
		operation Operation
	}{{"inserts", Insert}, {"updates", Update}} {
		b.Run(c.name, func(b *testing.B) {
			ops := benchOps(b, benchPlan(b), c.operation, benchRows, 1)
			var n netting
			if taken := n.take(ops); taken != benchRows {
				b.Fatalf("took %d", taken)
			}
			b.ReportAllocs()
			for b.Loop() {
				s := n.build()
				for _, in := range s.inserts {
					if in.binary == nil {
						b.Fatal("the rows are text")
					}
					copyBuffers.Put(in.binary)
				}
			}
			b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "changes/s")
		})
	}
}
