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
		b := newBacklog([]job{{from: 1}, {from: 2}}, copied)
		first, _, others := b.next(t.Context())
		if first == nil || first.from != 1 || others != 1 {
			t.Fatalf("first comes %v with %d others", first, others)
		}
		b.done([]schema.Statement{{Name: "a"}, {Name: "b"}})
		second, index, _ := b.next(t.Context())
		if second == nil || second.from != 2 || index != nil {
			t.Fatalf("an index comes before the last chunk: %v %v", second, index)
		}
		for _, want := range []string{"a", "b"} {
			if _, index, _ := b.next(t.Context()); index == nil || index.Name != want {
				t.Fatalf("beside the last chunk comes %v, want index %s", index, want)
			}
			b.built()
		}
		late := make(chan *schema.Statement)
		go func() {
			_, index, others := b.next(t.Context())
			if others != 0 {
				t.Errorf("the last index has %d others", others)
			}
			late <- index
		}()
		synctest.Wait()
		select {
		case <-copied:
			t.Fatal("a chunk is being copied, and the copy is said to have ended")
		default:
		}
		b.done([]schema.Statement{{Name: "c"}})
		if index := <-late; index == nil || index.Name != "c" {
			t.Fatalf("the waiting session gets %v, want index c", index)
		}
		<-copied
		if chunk, index, _ := b.next(t.Context()); chunk != nil || index != nil {
			t.Fatalf("when all is done comes %v %v", chunk, index)
		}
	})
}

// TestBacklogWithoutChunks: a copy of nothing has ended.
func TestBacklogWithoutChunks(t *testing.T) {
	copied := make(chan struct{})
	b := newBacklog(nil, copied)
	<-copied
	if chunk, index, _ := b.next(t.Context()); chunk != nil || index != nil {
		t.Fatalf("there is something to do: %v %v", chunk, index)
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
