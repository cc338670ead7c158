package logger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// mixedBlocks are blocks of a log in which transactions of all sizes follow one another: some fit a block together, some are larger than
// several, and some have a value that is.
func mixedBlocks(t testing.TB, r *rand.Rand) []*block.Block {
	t.Helper()
	builder := block.NewBuilder(block.State{LogID: change.LogID{1}, Through: 16})
	hash := orders.Hash()
	var blocks []*block.Block
	cut := func(ready func() bool) {
		for ready() {
			blocks = append(blocks, builder.Cut())
		}
	}
	at := change.LSN(32)
	for n := range 150 {
		rows, size := 1+r.IntN(4), 20
		switch r.IntN(40) {
		case 0:
			rows, size = 120, 3000
		case 1:
			rows, size = 1, 1<<20
		}
		must(t, builder.Begin(block.Begin{CommitLSN: at, XID: uint32(n)}))
		for i := range rows {
			org := fmt.Sprintf("org-%d", r.IntN(4))
			source := &block.Source{Operation: block.Update, Relation: hash, HasOld: true, Old: ordersRow(fmt.Sprint(n, ".", i), org, "1", "before"),
				New: ordersRow(fmt.Sprint(n, ".", i), fmt.Sprintf("org-%d", r.IntN(4)), "2", strings.Repeat("x", size))}
			cut(builder.Full)
			must(t, builder.Change(source))
		}
		cut(builder.Full)
		must(t, builder.Commit(block.Commit{CommitLSN: at, EndLSN: at + 8, XID: uint32(n)}))
		at += 16
		if cut(builder.Full); r.IntN(3) > 0 {
			cut(builder.Ready)
		}
		if r.IntN(20) == 0 && !builder.Full() {
			must(t, builder.Mark(at))
			at += 16
		}
	}
	cut(builder.Ready)
	return blocks
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testFollower reads what a stream gives out as appliers do.
type testFollower struct {
	stream    *setStream
	assembler *block.Assembler
	next      int // of the log's blocks
	text      []string
}

func (f *testFollower) take(t testing.TB, own *block.Block) error {
	parsed, err := block.Parse(own.Data())
	must(t, err)
	must(t, f.assembler.Push(parsed))
	var rec block.Record
	for {
		more, err := f.assembler.Next(&rec)
		must(t, err)
		if !more {
			return nil
		}
		switch rec.Kind {
		case block.KindBegin:
			f.text = append(f.text, fmt.Sprint("begin ", rec.Begin))
		case block.KindCommit:
			f.text = append(f.text, fmt.Sprint("commit ", rec.Commit))
		case block.KindChange:
			f.text = append(f.text, fmt.Sprintf("%v %x", rec.Change.Operation, sha256.Sum256(fmt.Append(nil, rec.Change.Old, rec.Change.New))))
		}
	}
}

// TestSharedStreams lets followers of one selection read a log in any order of steps, some from later positions, some that stand still for
// long, with marks whenever it pleases them: each is given exactly what one alone is given, as a chain without a hole.
func TestSharedStreams(t *testing.T) {
	find := ordersLookup()
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		blocks := mixedBlocks(t, r)
		one := ordersSet(t, `{"org": {"$param": "org"}}`)
		parameters := map[string]string{"org": "org-1"}
		var all sharing
		follower := func(at change.LSN, group *shareGroup) *testFollower {
			from := change.Position{LogID: change.LogID{1}, LSN: at}
			f := &testFollower{stream: newSetStream(find, one, parameters, from), assembler: block.NewAssembler(from)}
			f.stream.group = group
			for blocks[f.next].Through <= at {
				f.next++
			}
			if part := blocks[f.next].Part; part != nil {
				f.next = int(part.FirstBlock) - 1
			}
			return f
		}
		step := func(f *testFollower, marks bool) {
			emit := func(own *block.Block) error { return f.take(t, own) }
			must(t, f.stream.take(t.Context(), blocks[f.next], emit))
			if f.next++; marks {
				must(t, f.stream.mark(emit))
			}
		}
		var shared, alone []*testFollower
		for n := range 5 {
			at := change.LSN(16)
			if n >= 3 {
				for _, b := range blocks[:r.IntN(len(blocks)/2)] {
					at = b.Through - 8*change.LSN(r.IntN(2)) // also in the middle of a block
				}
				at = max(at, 16)
			}
			shared, alone = append(shared, follower(at, all.join("x"))), append(alone, follower(at, nil))
		}
		for running := true; running; {
			running = false
			for n, f := range shared {
				for range r.IntN(2 + 3*n) {
					if f.next < len(blocks) {
						step(f, r.IntN(3) == 0)
					}
				}
				running = running || f.next < len(blocks)
			}
		}
		for n, f := range alone {
			for f.next < len(blocks) {
				step(f, false)
			}
			for _, f := range []*testFollower{f, shared[n]} {
				must(t, f.stream.mark(func(own *block.Block) error { return f.take(t, own) }))
			}
			if !slices.Equal(f.text, shared[n].text) || f.assembler.Progress() != shared[n].assembler.Progress() || len(f.text) == 0 {
				t.Fatalf("seed %d, follower %d: %d records up to %v, and alone %d up to %v", seed, n, len(shared[n].text), shared[n].assembler.Progress(), len(f.text), f.assembler.Progress())
			}
		}
		if g := shared[0].stream.group; g.taken == 0 || all.bytes > maxGroupBytes || all.bytes != g.bytes {
			t.Errorf("seed %d: %d blocks were shared, %d bytes are kept", seed, g.taken, all.bytes)
		}
		for _, f := range shared {
			f.stream.group.leave()
		}
		if len(all.groups) != 0 || all.bytes != 0 {
			t.Errorf("%d groups and %d bytes are left", len(all.groups), all.bytes)
		}
	}
}

// TestSharedFailure leaves what one follower could not select to the next, which waits for it.
func TestSharedFailure(t *testing.T) {
	var all sharing
	g := all.join("x")
	all.join("x")
	first, mine, err := g.claim(t.Context(), 7)
	if !mine || err != nil {
		t.Fatal("not claimed")
	}
	next := make(chan bool)
	go func() {
		_, mine, _ := g.claim(context.Background(), 7)
		next <- mine
	}()
	g.publish(7, first, nil, false)
	if !<-next {
		t.Error("nobody selects it again")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.claim(ctx, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for ever: %v", err)
	}
}

func ordersLookup() lookup {
	return lookup{
		relation: func(change.RelationHash) (*change.Relation, error) { return orders, nil },
		above:    func(context.Context, uint32, uint32) ([]schema.Name, error) { return nil, nil },
		version:  func() uint64 { return 0 },
	}
}

func ordersSet(t testing.TB, rows string) *set {
	t.Helper()
	spec := &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.orders", Rows: rows}}}
	definition, err := parseSet("spec", spec)
	must(t, err)
	return &set{spec: spec, definition: definition}
}

// BenchmarkSelect has so many followers of one log, each with its own organisation of 100, or all with the same: the time is that of all
// of them for each change of the log.
func BenchmarkSelect(b *testing.B) {
	blocks := ordersBlocks(b, 100)
	changes, bytes := 0, 0
	for _, one := range blocks {
		changes += 3 * int(one.Transactions)
		bytes += len(one.Data())
	}
	one := ordersSet(b, `{"org": {"$param": "org"}}`)
	for _, same := range []bool{false, true} {
		for _, followers := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("same=%v/followers=%d", same, followers), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(bytes))
				sent := 0
				emit := func(own *block.Block) error { sent += len(own.Data()); return nil }
				for b.Loop() {
					var all sharing
					streams := make([]*setStream, followers)
					for n := range streams {
						parameters := map[string]string{"org": fmt.Sprintf("org-%d", n)}
						if same {
							parameters["org"] = "org-1"
						}
						streams[n] = newSetStream(ordersLookup(), one, parameters, change.Position{LogID: change.LogID{1}, LSN: 16})
						streams[n].group = all.join(shareKey(one, parameters))
					}
					for _, one := range blocks {
						for _, s := range streams {
							must(b, s.take(b.Context(), one, emit))
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
}
