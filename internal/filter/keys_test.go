package filter

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestKeysRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		columns []string
		keys    [][]string
		want    string
	}{
		"none":       {[]string{"i4"}, nil, "at least one key"},
		"too many":   {[]string{"i4"}, slices.Repeat([][]string{{"1"}}, MaxKeys+1), "10001 keys"},
		"too large":  {[]string{"i4"}, [][]string{{strings.Repeat("1", maxKeyBytes+1)}}, "bytes"},
		"twice":      {[]string{"i4", "i4"}, [][]string{{"1", "2"}}, "named twice"},
		"too short":  {[]string{"i4", "b"}, [][]string{{"1", "true"}, {"1"}}, "keys[1]"},
		"no column":  {[]string{"nowhere"}, [][]string{{"1"}}, "no column"},
		"no integer": {[]string{"i4"}, [][]string{{"x"}}, "keys[0]"},
	} {
		k, err := NewKeys(c.columns, c.keys)
		if err == nil {
			_, err = k.Compile(kinds)
		}
		if !errors.Is(err, ErrSelector) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	one, _ := NewKeys([]string{"i4"}, [][]string{{"1"}, {"2"}})
	same, _ := NewKeys([]string{"i4"}, [][]string{{"2"}, {"1"}, {"2"}})
	other, _ := NewKeys([]string{"i4"}, [][]string{{"1"}, {"3"}})
	if one.String() == other.String() || strings.Split(one.String(), "sha256")[1] != strings.Split(same.String(), "sha256")[1] {
		t.Errorf("%s, %s, %s", one, same, other)
	}
}
