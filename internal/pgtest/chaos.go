package pgtest

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// Chaos makes trouble until ctx ends: it cuts, stalls, delays and refuses connections at random. What it does, in which
// order and for how long, comes from r alone. At its end the proxy works undisturbed again. It returns how often it did
// what.
//
// calm is the mean time without trouble between two acts; an act lasts up to the same time.
func (p *Proxy) Chaos(ctx context.Context, r *rand.Rand, calm time.Duration) map[string]int {
	did := map[string]int{}
	defer p.noCut()
	for {
		if !wait(ctx, time.Duration(r.ExpFloat64()*float64(calm))) {
			return did
		}
		length := time.Duration(r.Float64() * float64(calm))
		bytes := int64(r.ExpFloat64() * float64(r.IntN(1<<20)))
		switch r.IntN(6) {
		case 0:
			did["cut"]++
			p.Cut()
		case 1:
			did["cut after bytes to the client"]++
			p.CutAfter(ToClient, bytes)
		case 2:
			did["cut after bytes to the server"]++
			p.CutAfter(ToServer, bytes)
		case 3:
			did["stall"]++
			p.Stall()
			wait(ctx, length)
			if r.IntN(2) == 0 {
				p.Cut()
			}
			p.Resume()
		case 4:
			did["delay"]++
			p.Delay(length / 10)
			wait(ctx, length)
			p.Delay(0)
		case 5:
			did["refuse"]++
			p.Refuse()
			p.Cut()
			wait(ctx, length)
			if err := p.Accept(); err != nil {
				return did // closed
			}
		}
	}
}

// StartChaos runs Chaos with a seed, which it logs, until stop is called or the test ends.
func (p *Proxy) StartChaos(t testing.TB, seed uint64, calm time.Duration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Chaos(ctx, seeded(seed, 0), calm)
	}()
	t.Logf("proxy %s: chaos with seed %d", p.addr, seed)
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// seeded is the random source of one of several who share a seed.
func seeded(seed uint64, who int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(who)))
}

// wait tells whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
