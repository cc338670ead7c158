package logger

import (
	"testing"

	"github.com/seed0419d559/syncline/services/logger/walsender"
)

func TestContinuity(t *testing.T) {
	base := func() *continuation {
		from := lineage{LogID: "a", System: "7", Database: "d", Timeline: 1, Publications: [2]uint32{1, 2}}
		known := from
		return &continuation{
			logID: "a", through: 100, known: &known, now: from, flushed: 500,
			slot: slot{exists: true, confirmed: 100},
		}
	}
	for _, c := range []struct {
		name string
		edit func(*continuation)
		want string
	}{
		{"unchanged", func(*continuation) {}, ""},
		{"slot behind the log", func(c *continuation) { c.slot.confirmed = 50 }, ""},
		{"nothing written since", func(c *continuation) { c.flushed = 100 }, ""},
		{"no log", func(c *continuation) { c.empty, c.slot = true, slot{} }, newLogFirst},
		{"no log, and a slot", func(c *continuation) { c.empty = true }, newLogFirst},
		{"no lineage", func(c *continuation) { c.known = nil }, newLogSystem},
		{"lineage of another log", func(c *continuation) { c.known.LogID = "b" }, newLogSystem},
		{"other system", func(c *continuation) { c.now.System = "8" }, newLogSystem},
		{"other database", func(c *continuation) { c.now.Database = "e" }, newLogDatabase},
		{"publication made again", func(c *continuation) { c.now.Publications[1]++ }, newLogPublications},
		{"slot dropped", func(c *continuation) { c.slot = slot{} }, newLogSlotMissing},
		{"slot lost", func(c *continuation) { c.slot.lost = true }, newLogSlotLost},
		{"slot half made", func(c *continuation) { c.slot.confirmed = 0 }, newLogSlotAhead},
		{"slot made again, or log restored", func(c *continuation) { c.slot.confirmed = 101 }, newLogSlotAhead},
		{"server restored", func(c *continuation) { c.flushed = 99 }, newLogWAL},
		{"promoted after the log's end", func(c *continuation) {
			c.now.Timeline, c.history = 2, []walsender.Switch{{Timeline: 1, At: 100}}
		}, ""},
		{"promoted before the log's end", func(c *continuation) {
			c.now.Timeline, c.history = 2, []walsender.Switch{{Timeline: 1, At: 99}}
		}, newLogTimeline},
		{"promoted twice", func(c *continuation) {
			c.now.Timeline, c.history = 3, []walsender.Switch{{Timeline: 1, At: 120}, {Timeline: 2, At: 200}}
		}, ""},
		{"another branch", func(c *continuation) {
			c.known.Timeline, c.now.Timeline, c.history = 2, 3, []walsender.Switch{{Timeline: 1, At: 90}}
		}, newLogTimeline},
	} {
		t.Run(c.name, func(t *testing.T) {
			situation := base()
			c.edit(situation)
			got := ""
			if broken := situation.broken(); broken != nil {
				got = broken.code
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLineageFile(t *testing.T) {
	dir := t.TempDir()
	if l, err := readLineage(dir); l != nil || err != nil {
		t.Fatal(l, err)
	}
	for _, want := range []lineage{{LogID: "a", Timeline: 1}, {LogID: "b", System: "7", Publications: [2]uint32{3, 4}}} {
		if err := writeLineage(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := readLineage(dir); err != nil || *got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}
