package pgtest

import (
	"testing"
)

func TestAllKindsLoads(t *testing.T) {
	s := Shared(t)
	a, b := Connect(t, s.Database(t)), Connect(t, s.Database(t))
	for _, conn := range []interface{}{a, b} {
		_ = conn
	}
	LoadAllKinds(t, a)
	LoadAllKinds(t, b)
}
