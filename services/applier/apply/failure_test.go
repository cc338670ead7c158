package apply

import (
	"errors"
	"testing"

	"github.com/seed0419d559/syncline/internal/schema"
)

func TestTextOfAChangeThatFailed(t *testing.T) {
	for want, e := range map[string]*ChangeError{
		"insert into table public.a, row ⟦id=5⟧: no":                                 {Table: schema.Name{Schema: "public", Name: "a"}, Operation: Insert, Key: "id=5", Err: errors.New("no")},
		"update table public.a: no":                                                  {Table: schema.Name{Schema: "public", Name: "a"}, Operation: Update, Err: errors.New("no")},
		"delete from table public.a, row ⟦id=5⟧: the replica does not have this row": {Table: schema.Name{Schema: "public", Name: "a"}, Operation: Delete, Key: "id=5", Err: &RowCountError{Want: 1}},
	} {
		if e.Error() != want {
			t.Errorf("%s, want %s", e, want)
		}
	}
}
