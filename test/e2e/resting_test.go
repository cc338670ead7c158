package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// sessionsOf are the server's process ids of the sessions that apply replications.
func (c *controlled) sessionsOf() []int {
	c.t.Helper()
	rows, _ := c.target.Query(c.t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncline applier of-%' ORDER BY 1")
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		c.t.Fatal(err)
	}
	return pids
}

// rests has more replications than places, of which most have nothing to apply: these cost no sessions and no turns, hear of what comes, and
// stay with their applier while it lives.
func (c *controlled) rests() {
	t := c.t
	c.replica.args = append(c.replica.args, "--max-running", "2")
	c.replica.kill9()
	c.replica.start()
	c.replica.waitHealthy(time.Minute)
	names := []string{"a", "b", "c", "wide"}
	for _, name := range names {
		c.replica.mustCreate("of-"+name, c.primary.grpc, func(s *applierv1.ReplicationSpec) { s.IncludeTables = []string{"public." + name} })
	}
	resting := func() int {
		return pgtest.QueryRow[int](t, c.target, "SELECT count(*)::int FROM syncline.replications WHERE resting")
	}
	restAll := func() {
		t.Helper()
		pgtest.Eventually(t, patience, func() error {
			if n := resting(); n != len(names)-2 {
				return fmt.Errorf("%d of %d replications rest, with two places", n, len(names))
			}
			return nil
		})
	}
	restAll()
	// What is applied nowhere, in the time of several turns, wakes none.
	before := c.sessionsOf()
	pgtest.Exec(t, c.conn, "CREATE TABLE elsewhere (n int PRIMARY KEY)")
	for n := range 20 {
		pgtest.Exec(t, c.conn, fmt.Sprintf("INSERT INTO elsewhere VALUES (%d)", n))
		time.Sleep(200 * time.Millisecond) // so that the log is read in between
	}
	if after := c.sessionsOf(); !slices.Equal(before, after) || len(after) != 2 {
		t.Errorf("while nothing came for them, the sessions %v became %v", before, after)
	}
	// How far they have heard is stored without a session.
	passed := pgtest.QueryRow[string](t, c.conn, "SELECT pg_current_wal_insert_lsn()::text")
	pgtest.Eventually(t, patience, func() error {
		left := pgtest.QueryRow[string](t, c.target, "SELECT coalesce(string_agg(replication, ', '), '') FROM syncline.positions JOIN syncline.replications ON name = replication WHERE resting AND lsn < '"+passed+"'")
		if left != "" {
			return errors.New(left + " is stored to be before what it has heard")
		}
		return nil
	})
	rows := 0
	load := func() {
		for range 10 {
			rows++
			pgtest.Exec(t, c.conn, fmt.Sprintf("INSERT INTO a VALUES (%[1]d, 'x'); INSERT INTO b VALUES (%[1]d, 'x'); INSERT INTO c VALUES (%[1]d, 'x'); UPDATE a SET note = 'y' WHERE id = %[1]d; INSERT INTO elsewhere VALUES (-%[1]d)", 7000+rows))
		}
	}
	applied := func(n *node) {
		t.Helper()
		for _, name := range names {
			n.waitApplied("of-"+name, patience)
		}
		pgtest.RequireEqualWith(t, c.sourceURL, c.targetURL, pgtest.CompareOptions{Except: []string{"public.elsewhere"}})
	}
	load()
	applied(c.replica)
	// Another applier with room for all leaves them to this one.
	second := newNode(t, "applier", "--postgres", c.targetURL, "--retry-max", "500ms")
	restAll()
	second.start()
	second.waitHealthy(patience)
	time.Sleep(3 * time.Second) // several looks
	for _, name := range names {
		if r, err := second.get("of-" + name); err != nil || r.GetState() != applierv1.State_STATE_WAITING || r.GetReasonCode() != inUse {
			t.Errorf("%s at the second applier: %v %v", name, r, err)
		}
	}
	log := filepath.Join(t.TempDir(), "faults")
	for _, point := range restFaultPoints {
		c.replica.kill9()
		load()
		applied(second) // it has taken over what was applied and what rested
		second.kill9()
		c.replica.start(faultEnv(point.name, point.counts[0], log)...)
		pgtest.Eventually(t, patience, func() error {
			load()
			if !c.replica.exited() {
				return errors.New("it was not killed at " + point.name)
			}
			return nil
		})
		second.start()
		second.waitHealthy(patience)
		load()
		applied(second)
		c.replica.start()
		c.replica.waitHealthy(patience)
	}
	if hits := faultsHit(t, log); len(hits) != len(restFaultPoints) {
		t.Errorf("killed at %v", hits)
	}
}
