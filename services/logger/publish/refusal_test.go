package publish

import (
	"fmt"
	"slices"
	"testing"

	"github.com/seed0419d559/syncline/internal/schema"
)

func TestSummary(t *testing.T) {
	var refusals []Refusal
	for n := range 11 {
		refusals = append(refusals, Refusal{Table: schema.Name{Schema: "s", Name: fmt.Sprintf("t%d", n)}, Reason: "it is not ours", Mend: fmt.Sprintf("take t%d", n)})
	}
	refusals = slices.Insert(refusals, 1, Refusal{Table: schema.Name{Schema: "s", Name: "k"}, Reason: "it has no key", Mend: "give it one"})
	want := []string{
		"table s.t0 is not captured: it is not ours; take t0",
		"table s.t1 is not captured: it is not ours; take t1",
		"table s.t2 is not captured: it is not ours; take t2; the same holds for s.t3, s.t4, s.t5, s.t6, s.t7 and 3 more",
		"table s.k is not captured: it has no key; give it one",
	}
	if got := Summary(refusals); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := Summary(nil); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
