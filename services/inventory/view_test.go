package inventory

import (
	"errors"
	"slices"
	"testing"
)

func TestParseView(t *testing.T) {
	v, err := parseView("730:738:735,730")
	if err != nil || v.xmin != 730 || v.xmax != 738 || !slices.Equal(v.running, []uint64{730, 735}) {
		t.Errorf("got %+v, %v", v, err)
	}
	if v, err := parseView("8589934592:8589934592:"); err != nil || v.xmin != 1<<33 || len(v.running) != 0 {
		t.Errorf("got %+v, %v", v, err)
	}
	for _, text := range []string{"", "1", "1:2", "1:2:3:4", "a:2:", "1:b:", "1:2:c", "1:2:3,", "-1:2:", "1:2: 3"} {
		if _, err := parseView(text); !errors.Is(err, errView) {
			t.Errorf("parseView(%q): %v, want errView", text, err)
		}
	}
}

func TestUnsettled(t *testing.T) {
	for _, c := range []struct {
		name, snapshot, now string
		want                []uint64
	}{
		{"idle", "100:100:", "100:100:", nil},
		{"all ended long ago", "100:104:101", "150:150:", nil},
		{"running for both", "100:104:100", "100:104:100", nil},
		{"begun later", "100:104:", "105:110:105,107", nil},
		{"committing, in the running list", "100:104:101", "101:110:101,103,105", []uint64{103}},
		{"committing, older than the snapshot's oldest", "100:104:", "99:110:99", []uint64{99}},
		{"committing, and the newest of all: not in the running list", "104:105:", "100:104:", []uint64{104}},
		{"the newest of all, with a running one before it", "103:105:103", "103:103:", []uint64{104}},
		{"the newest of all, still running for the snapshot", "103:105:103,104", "103:103:", nil},
		{"the newest of all, older than the snapshot's oldest", "104:104:", "103:103:", []uint64{103}},
		{"both", "100:106:101", "99:104:101,102", []uint64{102, 104, 105}},
		{"far behind", "90:104:", "100:100:", []uint64{100, 101, 102, 103}},
	} {
		snapshot, err := parseView(c.snapshot)
		if err != nil {
			t.Fatal(err)
		}
		now, err := parseView(c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := snapshot.unsettled(now); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	huge := view{xmin: 1, xmax: 1 << 40}
	if got := huge.unsettled(view{xmin: 1, xmax: 1}); len(got) != mostNamed {
		t.Errorf("%d ids listed, want %d", len(got), mostNamed)
	}
}
