package applier

import (
	"testing"
	"testing/synctest"

	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// TestBacklog: chunks come before indexes, a session without work waits for what those that copy may add, and the end of the copy
// is told before the indexes are built.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		copied := make(chan struct{})
		b := newBacklog([]job{{from: 1}, {from: 2}}, copied, 2)
		first := b.next(t.Context())
		if first.chunk == nil || first.chunk.from != 1 || first.others != 1 {
			t.Fatalf("first comes %+v", first)
		}
		b.done(first, []schema.Statement{{Name: "a"}, {Name: "b"}})
		second := b.next(t.Context())
		if second.chunk == nil || second.chunk.from != 2 || second.index != nil {
			t.Fatalf("an index comes before the last chunk: %+v", second)
		}
		for _, want := range []string{"a", "b"} {
			if w := b.next(t.Context()); w.index == nil || w.index.Name != want {
				t.Fatalf("beside the last chunk comes %+v, want index %s", w, want)
			}
			b.built()
		}
		late := make(chan *schema.Statement)
		go func() {
			w := b.next(t.Context())
			if w.others != 0 {
				t.Errorf("the last index has %d others", w.others)
			}
			late <- w.index
		}()
		synctest.Wait()
		select {
		case <-copied:
			t.Fatal("a chunk is being copied, and the copy is said to have ended")
		default:
		}
		b.done(second, []schema.Statement{{Name: "c"}})
		if index := <-late; index == nil || index.Name != "c" {
			t.Fatalf("the waiting session gets %v, want index c", index)
		}
		<-copied
		if w := b.next(t.Context()); w.chunk != nil || w.index != nil {
			t.Fatalf("when all is done comes %+v", w)
		}
	})
}

// TestBacklogSpreads: each session has a table of its own as long as there are so many, and goes on with it; sessions join in the table with
// the most to do, as far as they may.
func TestBacklogSpreads(t *testing.T) {
	large, small, last := &tableCopy{}, &tableCopy{}, &tableCopy{}
	var chunks []job
	for _, t := range []struct {
		table *tableCopy
		n     int64
	}{{large, 5}, {small, 2}, {last, 1}} {
		for from := range t.n {
			chunks = append(chunks, job{table: t.table, from: from})
		}
	}
	copied := make(chan struct{})
	b := newBacklog(chunks, copied, 3)
	take := func(table *tableCopy, from int64) work {
		t.Helper()
		w := b.next(t.Context())
		if w.chunk == nil || w.chunk.table != table || w.chunk.from != from {
			t.Fatalf("next comes %+v, want chunk %d of another table", w.chunk, from)
		}
		return w
	}
	one, two := take(large, 0), take(small, 0)
	b.done(one, nil)
	one = take(large, 1)
	three := take(last, 0)
	b.done(three, []schema.Statement{{Name: "i"}})
	three = take(large, 2)
	if w := b.next(t.Context()); w.index == nil {
		t.Fatalf("a fourth session gets %+v, want the index: three may copy", w)
	}
	b.built()
	b.done(two, nil)
	two = take(small, 1)
	b.done(three, nil)
	three = take(large, 3)
	for _, w := range []work{one, two, three} {
		b.done(w, nil)
	}
	b.done(take(large, 4), nil)
	<-copied
	if w := b.next(t.Context()); w.chunk != nil || w.index != nil {
		t.Fatalf("when all is done comes %+v", w)
	}
}

// TestBacklogJoinsLater: a session that may not join, with nothing else to do, does so as soon as another one has nothing to copy any more.
func TestBacklogJoinsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large, small := &tableCopy{}, &tableCopy{}
		b := newBacklog([]job{{table: large}, {table: large, from: 1}, {table: large, from: 2}, {table: small}}, make(chan struct{}), 2)
		b.next(t.Context())
		other := b.next(t.Context())
		if other.chunk == nil || other.chunk.table != small {
			t.Fatalf("the second session gets %+v", other.chunk)
		}
		third := make(chan work, 1)
		go func() { third <- b.next(t.Context()) }()
		synctest.Wait()
		select {
		case w := <-third:
			t.Fatalf("a third session gets %+v, though two may copy", w.chunk)
		default:
		}
		b.done(other, nil)
		if w := <-third; w.chunk == nil || w.chunk.table != large || w.chunk.from != 1 {
			t.Fatalf("the third session joins in with %+v", w.chunk)
		}
	})
}

// TestBacklogWithoutChunks: a copy of nothing has ended.
func TestBacklogWithoutChunks(t *testing.T) {
	copied := make(chan struct{})
	b := newBacklog(nil, copied, 2)
	<-copied
	if w := b.next(t.Context()); w.chunk != nil || w.index != nil {
		t.Fatalf("there is something to do: %+v", w)
	}
}

// TestBinary: only tables whose columns have types of the list, and the same ones on both sides, travel in the binary format.
func TestBinary(t *testing.T) {
	const int4, int8, text, enum = 23, 20, 25, 16400
	for name, c := range map[string]struct {
		source []schema.Column
		target []apply.TargetColumn
		want   bool
	}{
		"same types":         {[]schema.Column{{Name: "a", TypeOID: int4}, {Name: "b", TypeOID: text}}, []apply.TargetColumn{{Name: "b", TypeOID: text}, {Name: "a", TypeOID: int4}}, true},
		"wider target":       {[]schema.Column{{Name: "a", TypeOID: int4}}, []apply.TargetColumn{{Name: "a", TypeOID: int8}}, false},
		"type of a user":     {[]schema.Column{{Name: "a", TypeOID: enum}}, []apply.TargetColumn{{Name: "a", TypeOID: enum}}, false},
		"missing column":     {[]schema.Column{{Name: "a", TypeOID: int4}}, nil, false},
		"generated column":   {[]schema.Column{{Name: "a", TypeOID: int4}, {Name: "g", TypeOID: enum, Generated: "s"}}, []apply.TargetColumn{{Name: "a", TypeOID: int4}}, true},
		"no column":          {nil, nil, false},
		"only one generated": {[]schema.Column{{Name: "g", TypeOID: int4, Generated: "s"}}, []apply.TargetColumn{{Name: "g", TypeOID: int4}}, false},
	} {
		if got := binary(schema.Table{Columns: c.source}, &apply.Target{Columns: c.target}); got != c.want {
			t.Errorf("%s: binary = %v, want %v", name, got, c.want)
		}
	}
	if binary(schema.Table{Columns: []schema.Column{{Name: "a", TypeOID: int4}}}, nil) {
		t.Error("a target that is gone takes binary rows")
	}
}
