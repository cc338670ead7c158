package block

import (
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
)

func benchSource() *Source {
	return &Source{Operation: Insert, Relation: change.RelationHash{1}, New: tuple("1234567", "Alice Example", "alice@example.org",
		"2026-02-28 23:59:59.123456+00", nil, "199.99", strings.Repeat("note ", 12), "t")}
}

func fill(tb testing.TB, b *Builder, s *Source) *Block {
	must(tb, b.Begin(Begin{CommitLSN: b.whole.through + 1, CommitTime: 1, XID: 1}))
	for !b.Full() {
		must(tb, b.Change(s))
	}
	must(tb, errFull(b.Full()))
	return b.Cut()
}

func errFull(full bool) error {
	if !full {
		return ErrOrder
	}
	return nil
}

func BenchmarkEncode(b *testing.B) {
	s := benchSource()
	builder := NewBuilder(State{LogID: testLog, Number: 1, Through: 1})
	must(b, builder.Begin(Begin{CommitLSN: 10, CommitTime: 1, XID: 1}))
	b.ReportAllocs()
	b.SetBytes(int64(len(s.New.Raw)))
	for b.Loop() {
		if err := builder.Change(s); err != nil {
			b.Fatal(err)
		}
		if builder.Full() {
			builder.Cut()
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	whole := fill(b, NewBuilder(State{LogID: testLog, Number: 1, Through: 1}), benchSource())
	var rec Record
	r := whole.Reader()
	b.ReportAllocs()
	b.SetBytes(int64(len(benchSource().New.Raw)))
	for b.Loop() {
		ok, err := r.Next(&rec)
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			r = whole.Reader()
			continue
		}
		for c := rec.Change.New.Columns(); c.More(); {
			c.Next()
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data := fill(b, NewBuilder(State{LogID: testLog, Number: 1, Through: 1}), benchSource()).Data()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

// Reading and appending allocate nothing for a record or a column.
func TestAllocations(t *testing.T) {
	s := benchSource()
	builder := NewBuilder(State{LogID: testLog, Number: 1, Through: 1})
	whole := fill(t, builder, s)
	if n := testing.AllocsPerRun(100, func() { must(t, builder.Change(s)) }); n != 0 {
		t.Errorf("appending a change allocates %v times", n)
	}
	var rec Record
	r := whole.Reader()
	if n := testing.AllocsPerRun(100, func() {
		if ok, err := r.Next(&rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		for c := rec.Change.New.Columns(); c.More(); {
			c.Next()
		}
	}); n != 0 {
		t.Errorf("reading a change allocates %v times", n)
	}
}
