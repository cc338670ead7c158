package main

import (
	"testing"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func TestRenameFlag(t *testing.T) {
	var rules []*applierv1.TableRename
	flag := renameList{&rules}
	for _, text := range []string{"public.*=acme.*", `public."a=b,c"=acme."x=y", sales.orders=acme.orders_in`} {
		if err := flag.Set(text); err != nil {
			t.Error(err)
		}
	}
	if want := `public.*=acme.*,public."a=b,c"=acme."x=y",sales.orders=acme.orders_in`; flag.String() != want || len(rules) != 3 {
		t.Errorf("got %s", flag.String())
	}
	for _, bad := range []string{"public.*", "public.*=", "=acme.*", "orders=acme.orders", "public.*=pg_catalog.*", `"public.*=acme.*"`} {
		if err := flag.Set(bad); err == nil {
			t.Errorf("took %s", bad)
		}
	}
}

func TestBothNames(t *testing.T) {
	for want, table := range map[string]*applierv1.TableProgress{
		"public.orders":               {Schema: "public", Name: "orders"},
		"a.b":                         {Schema: "a", Name: "b", TargetSchema: "a", TargetName: "b"},
		"public.orders → acme.orders": {Schema: "public", Name: "orders", TargetSchema: "acme", TargetName: "orders"},
	} {
		if got := bothNames(table); got != want {
			t.Errorf("got %s, expected %s", got, want)
		}
	}
}
