package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

func TestBuildAndAssemble(t *testing.T) {
	for seed := range uint64(12) {
		f := mixed(seed)
		blocks := f.build(t, NewBuilder(State{LogID: testLog, Number: 7, Through: 900}))
		a := NewAssembler(change.Position{LogID: testLog, LSN: 900})
		requireSame(t, fmt.Sprintf("seed %d", seed), assemble(t, a, blocks), f.want)

		var joined []byte
		var generated []string
		number, previous := uint64(7), change.LSN(900)
		for _, b := range blocks {
			m := checkGenerated(t, b)
			if number++; b.Number != number || b.Previous != previous || len(b.Data()) > MaxSize {
				t.Fatalf("seed %d: block %d after %v of %d bytes, want %d after %v", seed, b.Number, b.Previous, len(b.Data()), number, previous)
			}
			previous = b.Through
			if b.Part == nil && b.Transactions == 0 && len(m.GetRecords()) > 0 {
				t.Fatalf("seed %d: a mark with records", seed)
			}
			used := map[uint32]bool{}
			for _, rec := range m.GetRecords() {
				if p := rec.GetFragment(); p != nil {
					joined = append(joined, p.GetData()...)
					if b.Part == nil {
						t.Fatalf("seed %d: a fragment outside a part", seed)
					}
					used[0] = true
					if !p.GetLast() {
						continue
					}
					rec = &changev1.Record{}
					if err := proto.Unmarshal(joined, rec); err != nil {
						t.Fatal(err)
					}
					joined = nil
				}
				generated = append(generated, renderProto(rec, m.GetRelations()))
				used[rec.GetChange().GetRelation()] = true
				for _, r := range rec.GetTruncate().GetRelations() {
					used[r] = true
				}
			}
			for i := range b.Relations {
				if !used[uint32(i)] {
					t.Fatalf("seed %d: block %d lists relation %d without using it", seed, b.Number, i)
				}
			}
		}
		requireSame(t, fmt.Sprintf("seed %d, generated code", seed), generated, f.want)
	}
}

// A builder that goes on inside a record continues exactly that record, and refuses any other.
func TestResumeInsideRecord(t *testing.T) {
	hash := change.RelationHash{1}
	large := Source{Operation: Insert, Relation: hash, New: tuple("1", strings.Repeat("v", 3*MaxRecord+77))}
	begin := Begin{CommitLSN: 100, CommitTime: 5, XID: 6}
	commit := Commit{CommitLSN: 100, EndLSN: 120, CommitTime: 5, XID: 6}
	small := Source{Operation: Insert, Relation: change.RelationHash{9}, New: tuple("small")}
	whole := NewBuilder(State{LogID: testLog, Through: 5})
	must(t, whole.Begin(begin), whole.Change(&small), whole.Change(&large))
	var all []*Block
	var pieces []byte
	var total uint64
	for whole.Full() {
		b := whole.Cut()
		all = append(all, b)
		var rec Record
		for r := b.Reader(); ; {
			if ok, err := r.Next(&rec); err != nil || !ok {
				must(t, err)
				break
			}
			if rec.Kind == KindFragment {
				total = max(total, rec.Fragment.TotalBytes)
				pieces = append(pieces, rec.Fragment.Data...)
			}
		}
		if !whole.Full() {
			break
		}
		last := &b.Header
		state := State{LogID: testLog, Number: last.Number, Through: last.Through, Open: &Open{
			Begin: begin, FirstBlock: 1, Events: 1,
			Piece: Partial{Bytes: uint64(len(pieces)), Total: total, CRC: Checksum(pieces)},
		}}
		if len(pieces) == 0 {
			state.Open.Piece = Partial{}
		}
		again := NewBuilder(state)
		must(t, again.Change(&large))
		blocks := slices.Clone(all)
		for again.Full() {
			blocks = append(blocks, again.Cut())
		}
		must(t, again.Commit(commit))
		blocks = append(blocks, again.Cut())
		got := assemble(t, &Assembler{}, blocks)
		if len(got) != 4 || got[2] != "change 1 "+fmt.Sprintf("%x", hash)+" false new"+renderTuple(large.New) {
			t.Fatalf("stopped after block %d: got %q", last.Number, got)
		}
		if len(pieces) > 0 {
			other := large
			other.New = tuple("1", strings.Repeat("v", 10)+"w"+strings.Repeat("v", 3*MaxRecord+66))
			for _, wrong := range []*Source{&other, &small} {
				if err := NewBuilder(state).Change(wrong); !errors.Is(err, ErrResume) {
					t.Errorf("another record: %v, want ErrResume", err)
				}
			}
			if err := NewBuilder(state).Commit(commit); !errors.Is(err, ErrOrder) {
				t.Errorf("commit inside a record: %v, want ErrOrder", err)
			}
		}
	}
	if len(all) < 3 {
		t.Fatalf("only %d blocks", len(all))
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTrim(t *testing.T) {
	f := newFeeder(3, 4)
	for range 8 {
		f.transaction(5, 20)
	}
	b := NewBuilder(State{LogID: testLog, Number: 1, Through: 900})
	for _, step := range f.steps {
		must(t, step(b))
	}
	must(t, b.Mark(f.lsn+50))
	whole := b.Cut()
	ends := []change.LSN{900}
	var rec Record
	for r := whole.Reader(); ; {
		if ok, err := r.Next(&rec); err != nil || !ok {
			must(t, err)
			break
		}
		if rec.Kind == KindCommit {
			ends = append(ends, rec.Commit.EndLSN)
		}
	}
	for i, end := range append(ends, f.lsn+20, f.lsn+50) {
		data, err := Trim(whole, end)
		must(t, err)
		trimmed, err := Parse(data)
		must(t, err)
		checkGenerated(t, trimmed)
		left := max(0, len(ends)-1-i)
		if trimmed.Previous != end || trimmed.Through != whole.Through || int(trimmed.Transactions) != left || trimmed.Number != whole.Number {
			t.Errorf("after %v: %+v, want %d transactions", end, trimmed.Header, left)
		}
		// The assembler passes over the same transactions by itself.
		after := change.Position{LogID: testLog, LSN: end}
		requireSame(t, fmt.Sprint("after ", end), assemble(t, NewAssembler(after), []*Block{whole}), assemble(t, NewAssembler(after), []*Block{trimmed}))
	}
	if _, err := Trim(whole, whole.Through+1); err == nil {
		t.Error("a block that ends before the position was trimmed")
	}
}

func TestAssemblerRefuses(t *testing.T) {
	f := newFeeder(1, 2)
	f.transaction(3, 10)
	f.transaction(6000, 300)
	f.transaction(3, 10)
	blocks := f.build(t, NewBuilder(State{LogID: testLog, Number: 1, Through: 900}))
	var firstPart int
	for i, b := range blocks {
		if b.Part != nil {
			firstPart = i
			break
		}
	}
	if firstPart == 0 || !blocks[firstPart+1].Open() {
		t.Fatal("the transaction has too few parts for this test")
	}
	otherLog := NewMark(change.LogID{1}, blocks[0].Number+1, blocks[0].Through, blocks[0].Through+1)
	cases := map[string]struct {
		after  change.Position
		blocks []*Block
	}{
		"hole before the first":  {change.Position{LogID: testLog, LSN: 899}, blocks[:1]},
		"other log first":        {change.Position{LogID: change.LogID{5}, LSN: 900}, blocks[:1]},
		"inside a transaction":   {change.Position{}, blocks[firstPart+1:]},
		"block missing":          {change.Position{}, append(slices.Clone(blocks[:firstPart+1]), blocks[firstPart+2:]...)},
		"block twice":            {change.Position{}, append(slices.Clone(blocks[:1]), blocks[0])},
		"other log":              {change.Position{}, []*Block{blocks[0], otherLog}},
		"number without a chain": {change.Position{}, []*Block{blocks[0], NewMark(testLog, blocks[0].Number+1, blocks[0].Through+1, blocks[0].Through+2)}},
		"mark inside":            {change.Position{}, append(slices.Clone(blocks[:firstPart+1]), NewMark(testLog, blocks[firstPart].Number+1, blocks[firstPart].Through, blocks[firstPart].Through))},
	}
	for name, c := range cases {
		a := NewAssembler(c.after)
		var err error
		var rec Record
		for _, b := range c.blocks {
			if err = a.Push(b); err != nil {
				break
			}
			for ok := true; ok; {
				ok, err = a.Next(&rec)
				must(t, err)
			}
		}
		if !errors.Is(err, ErrChain) {
			t.Errorf("%s: %v, want ErrChain", name, err)
		}
		if again := a.Push(blocks[0]); err != nil && !errors.Is(again, ErrChain) {
			t.Errorf("%s: the error does not stick: %v", name, again)
		}
	}
}

func TestBuilderRefuses(t *testing.T) {
	hash := change.RelationHash{1}
	binaryTuple := pgoutput.Tuple{N: 1, Raw: []byte{'b', 0, 0, 0, 1, 7}}
	wrongCount := pgoutput.Tuple{N: 2, Raw: []byte{'n'}}
	cases := map[string]struct {
		do   func(*Builder) error
		want error
	}{
		"change outside": {func(b *Builder) error { return b.Change(&Source{Operation: Insert, Relation: hash}) }, ErrOrder},
		"commit outside": {func(b *Builder) error { return b.Commit(Commit{CommitLSN: 1, EndLSN: 2}) }, ErrOrder},
		"begin inside": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Begin(Begin{CommitLSN: 30}))
		}, ErrOrder},
		"mark inside":       {func(b *Builder) error { return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Mark(40)) }, ErrOrder},
		"begin in the past": {func(b *Builder) error { return b.Begin(Begin{CommitLSN: 9}) }, ErrOrder},
		"mark in the past":  {func(b *Builder) error { return b.Mark(9) }, ErrOrder},
		"other commit": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Commit(Commit{CommitLSN: 21, EndLSN: 22}))
		}, ErrOrder},
		"binary value": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Change(&Source{Operation: Insert, Relation: hash, New: binaryTuple}))
		}, ErrBinaryValue},
		"wrong count": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Change(&Source{Operation: Insert, Relation: hash, New: wrongCount}))
		}, errColumns},
		"delete without a row": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Change(&Source{Operation: Delete, Relation: hash}))
		}, errRows},
		"too many tables": {func(b *Builder) error {
			return errors.Join(b.Begin(Begin{CommitLSN: 20}), b.Truncate(make([]change.RelationHash, MaxTruncate+1), false, false))
		}, ErrTooManyTables},
	}
	for name, c := range cases {
		b := NewBuilder(State{LogID: testLog, Number: 1, Through: 10})
		if err := c.do(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if len(b.relations.list) != 0 {
			t.Errorf("%s: a relation is listed that nothing uses", name)
		}
	}
}

// However many relations one block names, it stays below the store's limit.
func TestManyRelations(t *testing.T) {
	f := newFeeder(1, 60_000)
	b := NewBuilder(State{LogID: testLog, Through: 5})
	must(t, b.Begin(Begin{CommitLSN: 10}))
	var blocks []*Block
	for i := range f.hashes {
		must(t, b.Change(&Source{Operation: Delete, Relation: f.hashes[i], HasOld: true, Old: tuple("x")}))
		if i == 9_000 {
			must(t, b.Truncate(f.hashes[:MaxTruncate], true, true))
		}
		for b.Full() {
			blocks = append(blocks, b.Cut())
		}
	}
	must(t, b.Commit(Commit{CommitLSN: 10, EndLSN: 11}))
	blocks = append(blocks, b.Cut())
	if got := assemble(t, &Assembler{}, blocks); len(got) != 60_003 {
		t.Errorf("%d records", len(got))
	}
	for _, b := range blocks {
		if len(b.Data()) > MaxSize {
			t.Errorf("block %d has %d bytes", b.Number, len(b.Data()))
		}
	}
}

func TestTextIsMadeValid(t *testing.T) {
	b := NewBuilder(State{LogID: testLog, Through: 5})
	must(t, b.Begin(Begin{CommitLSN: 10}), b.Message(Message{Prefix: "a\xffb", LSN: 5}), b.Origin(Origin{Name: "\xfe"}), b.Commit(Commit{CommitLSN: 10, EndLSN: 11}))
	cut := b.Cut()
	checkGenerated(t, cut)
	if got := strings.Join(assemble(t, &Assembler{}, []*Block{cut}), "\n"); !strings.Contains(got, `message "a�b"`) {
		t.Error(got)
	}
}

func TestParseRefuses(t *testing.T) {
	good := NewMark(testLog, 5, 10, 20).Data()
	for i := range good {
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := Parse(bad); !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		if _, err := Parse(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes", i)
		}
	}
	seal := func(h Header, records string) []byte {
		data := encode(&h, []byte(records))
		body := data[:len(data)-crcField]
		return binary.LittleEndian.AppendUint32(append(slices.Clone(body), tagCRC), Checksum(body))
	}
	for name, h := range map[string]Header{
		"no number":            {LogID: testLog, Through: 5},
		"no through":           {LogID: testLog, Number: 1},
		"backwards":            {LogID: testLog, Number: 1, Previous: 6, Through: 5},
		"time without commit":  {LogID: testLog, Number: 1, Through: 5, HasCommit: true},
		"commit without time":  {LogID: testLog, Number: 1, Through: 5, Transactions: 1},
		"part from the future": {LogID: testLog, Number: 1, Previous: 5, Through: 5, Part: &Part{FirstBlock: 2, CommitLSN: 5}},
		"part that moves":      {LogID: testLog, Number: 1, Previous: 4, Through: 5, Part: &Part{FirstBlock: 1, CommitLSN: 5}},
	} {
		if _, err := Parse(seal(h, "")); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mark := Header{LogID: testLog, Number: 1, Through: 5}
	if _, err := Parse(seal(mark, "")); err != nil {
		t.Errorf("a mark: %v", err)
	}
	for _, records := range []string{"\x52\x00", "\x4a\x00", "\x4a\x02\x42\x00", "\x4a\x04\x1a\x02\x08\x01", "\x4a\x7f"} {
		b, err := Parse(seal(mark, records))
		if err == nil {
			r := b.Reader()
			_, err = r.Next(new(Record))
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("records %q: %v", records, err)
		}
	}
}
