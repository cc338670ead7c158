package applier

import (
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// TestMisspeltTables must not quietly mean that nothing of that name is compared, mended or left alone.
func TestMisspeltTables(t *testing.T) {
	name := func(n string) schema.Name { return schema.Name{Schema: "public", Name: n} }
	families := [][]schema.Name{{name("orders")}, {name("parts_2026"), name("parts")}}
	for _, test := range []struct {
		include, exclude []string
		unknown          string
	}{
		{nil, nil, ""},
		{[]string{"public.orders", "public.parts"}, []string{"public.parts_2026", "other.*"}, ""},
		{[]string{"public.orders", "public.oders"}, nil, "public.oders"},
		{[]string{"public.orders", "sales.*"}, nil, "sales.*"},
		{nil, []string{"public.part"}, "public.part"},
	} {
		selection, err := schema.ParseSelection(test.include, test.exclude)
		if err != nil {
			t.Fatal(err)
		}
		err = everyNameCounts("shop", selection, families)
		if (err != nil) != (test.unknown != "") || err != nil && (rpc.Reason(err) != reasonUnknownTable || !strings.Contains(rpc.Message(err), "is called "+test.unknown+" on")) {
			t.Errorf("%v without %v: %v", test.include, test.exclude, err)
		}
	}
}
