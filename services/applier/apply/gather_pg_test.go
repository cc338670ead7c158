package apply

import (
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/gather"
)

// TestGatheredEndsByItself feeds a busy stream that falls silent: what was gathered is committed although nothing comes any more.
func TestGatheredEndsByItself(t *testing.T) {
	l := newTestLog(t)
	l.every = 40
	r := testRelation("gathered", change.IdentityDefault, "id*", "note")
	for id := range 120 {
		l.tx(func() { l.insert(r, id, "note") })
	}
	g := newTestTarget(t, l, "CREATE TABLE gathered (id bigint PRIMARY KEY, note text)")
	const gap = 300 * time.Millisecond
	g.apply(l, func(r *testRun) { r.gather = gather.Gather{Least: gap, Most: gap} })
	g.requireAt(l.lsn)
	if rows := len(g.table("gathered")); rows != 120 || g.progress.Transactions != 120 {
		t.Errorf("%d rows and %d transactions", rows, g.progress.Transactions)
	}
}
