package apply

import (
	"math/rand/v2"
	"testing"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// sameStart takes the moment of creation out of the few rows that pgtest.AllKinds makes itself.
const sameStart = ";UPDATE kinds.altered SET moment = '2026-01-01'; CREATE TABLE public.last_of_all (id uuid PRIMARY KEY)"

// withoutNoise compares all but the tests' own table.
var withoutNoise = pgtest.CompareOptions{Except: []string{"public.noise"}}

// TestDifferential loads and changes every kind of table on a source, takes what its slot sends, and applies it to targets
// in many ways. In the end each target must have the source's rows.
func TestDifferential(t *testing.T) {
	r := testSeed(t)
	s := newSourceDatabase(t, pgtest.AllKinds+sameStart)
	pgtest.Exec(t, s.conn, pgtest.AllKindsLoad)
	did, err := pgtest.MutateAllKinds(t.Context(), s.conn, r, 300)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.conn, "INSERT INTO public.last_of_all VALUES (gen_random_uuid())") // the position is stored with a row, and what came before may have written none
	messages := s.read()
	t.Logf("%d messages, %+v", len(messages), did)

	ways := []struct {
		name   string
		every  int // transactions per block
		padded bool
		stops  int // how often an engine ends and another goes on
		how    []testTweak
	}{
		{"as usual", 0, false, 0, []testTweak{allQueued}},
		{"one by one", 1, false, 0, nil},
		{"slices of one change", 3, false, 0, []testTweak{allQueued, withOptions(func(o *Options) { o.SliceBytes = 1 })}},
		{"small slices, groups of seven", 1, true, 0, []testTweak{allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupTransactions = 1000, 7 })}},
		{"single transactions, padded", 5, true, 0, []testTweak{allQueued, withOptions(func(o *Options) { o.GroupTransactions = 1 })}},
		{"large slices, padded", 0, true, 3, []testTweak{allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupBytes = 64<<20, 256<<20 })}},
		{"middle slices, stop and go", 7, true, 10, []testTweak{allQueued, withOptions(func(o *Options) { o.SliceBytes, o.GroupTransactions = 30_000, 20 })}},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			var padding *rand.Rand
			if way.padded {
				padding = rand.New(rand.NewPCG(r.Uint64(), 2))
			}
			l := encodeLog(t, s, messages, way.every, padding)
			g := newTestTarget(t, l, pgtest.AllKinds+sameStart)
			fallbacks := l.goOn(g, way.stops, r, way.how)
			t.Logf("%d events, %d slices replayed row by row", len(l.events), fallbacks)
			g.requireAt(l.lsn)
			pgtest.RequireEqualWith(t, s.url, g.url, withoutNoise)
		})
	}
}

// goOn applies the log, stopping so many times at random positions.
func (l *testLog) goOn(g *testTarget, stops int, r *rand.Rand, how []testTweak) (fallbacks int64) {
	g.t.Helper()
	var blocks []*block.Block
	for _, e := range l.events {
		if e.Block != nil {
			blocks = append(blocks, e.Block)
		}
	}
	for i := range stops {
		until := blocks[min(len(blocks)*(i+1)/(stops+1)+r.IntN(5), len(blocks)-1)].Through
		g.apply(l, append([]testTweak{func(r *testRun) { r.until = until }}, how...)...)
		fallbacks += g.progress.Fallbacks
	}
	g.apply(l, how...)
	return fallbacks + g.progress.Fallbacks
}
