package logger

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/schema"
)

var orders = &change.Relation{OID: 1, Schema: "public", Name: "orders", Identity: change.IdentityFull, Columns: []change.Column{
	{Name: "id", TypeOID: 20, Key: true}, {Name: "org", TypeOID: 25, Key: true}, {Name: "amount", TypeOID: 1700, Key: true}, {Name: "note", TypeOID: 25, Key: true},
}}

func ordersRow(values ...string) pgoutput.Tuple {
	t := pgoutput.Tuple{N: len(values)}
	for _, v := range values {
		t.Raw = binary.BigEndian.AppendUint32(append(t.Raw, 't'), uint32(len(v)))
		t.Raw = append(t.Raw, v...)
	}
	return t
}

// ordersBlocks are blocks of transactions of three rows each, of so many organisations.
func ordersBlocks(b testing.TB, organisations int) []*block.Block {
	b.Helper()
	log := change.LogID{1}
	builder := block.NewBuilder(block.State{LogID: log, Through: 16})
	hash := orders.Hash()
	var blocks []*block.Block
	at := change.LSN(32)
	for n := 0; len(blocks) < 16; n++ {
		if err := builder.Begin(block.Begin{CommitLSN: at, XID: uint32(n)}); err != nil {
			b.Fatal(err)
		}
		for i := range 3 {
			org := fmt.Sprintf("org-%d", (3*n+i)%organisations)
			source := &block.Source{
				Operation: block.Update, Relation: hash, HasOld: true, Old: ordersRow("12345", org, "10.50", "a note of an ordinary length"),
				New: ordersRow("12345", org, "11.50", "a note of an ordinary length"),
			}
			for builder.Full() {
				blocks = append(blocks, builder.Cut())
			}
			if err := builder.Change(source); err != nil {
				b.Fatal(err)
			}
		}
		if err := builder.Commit(block.Commit{CommitLSN: at, EndLSN: at + 8, XID: uint32(n)}); err != nil {
			b.Fatal(err)
		}
		at += 16
		for builder.Full() {
			blocks = append(blocks, builder.Cut())
		}
	}
	return blocks
}

// BenchmarkSelect has so many followers of one log, each with its own organisation of 100: the time is that of all of them for each
// change of the log.
func BenchmarkSelect(b *testing.B) {
	blocks := ordersBlocks(b, 100)
	changes, bytes := 0, 0
	for _, one := range blocks {
		changes += 3 * int(one.Transactions)
		bytes += len(one.Data())
	}
	definition, err := parseSet("spec", &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.orders", Rows: `{"org": {"$param": "org"}}`}}})
	if err != nil {
		b.Fatal(err)
	}
	find := lookup{
		relation: func(change.RelationHash) (*change.Relation, error) { return orders, nil },
		above:    func(context.Context, uint32) ([]schema.Name, error) { return nil, nil },
	}
	for _, followers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(bytes))
			sent := 0
			for b.Loop() {
				for n := range followers {
					s := newSelecting(find, &set{definition: definition}, map[string]string{"org": fmt.Sprintf("org-%d", n)}, change.Position{LogID: change.LogID{1}, LSN: 16})
					for _, one := range blocks {
						if err := s.take(b.Context(), one, func(own *block.Block) error { sent += len(own.Data()); return nil }); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(changes), "ns/change")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(changes)/float64(followers), "ns/change/follower")
			if sent == 0 {
				b.Fatal("nothing was selected")
			}
		})
	}
}
