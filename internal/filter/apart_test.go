package filter

import (
	"slices"
	"testing"
)

func TestApart(t *testing.T) {
	columns := []Column{{Name: "org", TypeOID: 25}, {Name: "n", TypeOID: 23}, {Name: "f", TypeOID: 1700}}
	predicate := func(selector string) *Predicate {
		s, err := Parse([]byte(selector))
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Compile(columns, map[string]string{"a": "acme", "g": "globex"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		a, b string
		by   []string
	}{
		{`{"org": {"$param": "a"}}`, `{"org": {"$param": "g"}}`, []string{"org"}},
		{`{"org": {"$param": "a"}, "n": {"$gte": 1}}`, `{"org": "globex"}`, []string{"org"}},
		{`{"org": "acme", "n": 1}`, `{"n": {"$in": [2, 3]}, "org": "globex"}`, []string{"n", "org"}},
		{`{"org": {"$in": ["x", "y"]}}`, `{"org": {"$in": ["y", "z"]}}`, nil},
		{`{"org": "acme"}`, `{"org": "acme"}`, nil},
		{`{"org": "acme"}`, `{"n": 1}`, nil},
		{`{"f": 1.0}`, `{"f": 1}`, nil},
		{`{"$or": [{"org": "acme"}, {"n": 1}]}`, `{"org": "globex"}`, nil},
		{`{"$not": {"org": "acme"}}`, `{"org": "globex"}`, nil},
		{`{"org": {"$ne": "acme"}}`, `{"org": "acme"}`, nil},
		{`{"n": {"$lt": 1}}`, `{"n": {"$gt": 1}}`, nil}, // they are apart, which need not be known
	} {
		a, b := predicate(c.a), predicate(c.b)
		if got := a.Apart(b); !slices.Equal(got, c.by) {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
		if got := b.Apart(a); !slices.Equal(got, c.by) {
			t.Errorf("%s and %s: %v", c.b, c.a, got)
		}
	}
	if got := predicate(`{"org": "acme", "$and": [{"n": {"$in": [1, 2]}}, {"f": {"$gt": 1}}]}`).Pinned(); !slices.Equal(got, []string{"n", "org"}) {
		t.Errorf("pinned: %v", got)
	}
}
