package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// glimpse is what a look has seen of a replication.
type glimpse struct {
	name      string
	at        time.Time // before the look
	createdAt time.Time
	wanted    string
	pending   pending
	starts    int64
	revision  int64
	transient bool
	applier   string
	alive     bool      // that applier
	resting   bool      // it listens for the replication, without a session
	holder    int       // the server's process id of the session that holds the replication's lock; 0 for none
	held      time.Time // since when that session holds it, as far as this applier has seen
	phase     phase
	due       bool
	position  string
	totals    totals
}

// lookQuery reads one row for each replication, and pg_locks once.
const lookQuery = `WITH held AS (
	SELECT classid::bigint AS space, objid::bigint AS object, max(pid) AS pid FROM pg_catalog.pg_locks
	WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND objsubid = 2 AND classid::bigint IN ($1, $2)
		AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
	GROUP BY 1, 2)
	SELECT r.name, r.created_at, r.wanted, r.phase, r.pending, r.starts, r.revision, r.transient, r.applier, coalesce(r.next_run <= now(), false),
		coalesce(l.pid, 0), a.pid IS NOT NULL, coalesce(p.log_id || '@' || p.lsn::text, ''), r.transactions + coalesce(p.transactions, 0), r.changes + coalesce(p.changes, 0), r.resting
	FROM syncline.replications r LEFT JOIN syncline.positions p ON p.replication = r.name
	LEFT JOIN held l ON l.space = $1 AND l.object = hashtext(r.name)::bigint & 4294967295
	LEFT JOIN held a ON a.space = $2 AND a.object = hashtext(r.applier)::bigint & 4294967295`

// glimpses looks at all replications.
func glimpses(ctx context.Context, q querier) (map[string]*glimpse, error) {
	at := time.Now()
	rows, err := q.Query(ctx, lookQuery, apply.LockSpace, instanceSpace)
	if err != nil {
		return nil, fmt.Errorf("look at the replications: %w", err)
	}
	seen := map[string]*glimpse{}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*glimpse, error) {
		g := &glimpse{at: at}
		return g, row.Scan(&g.name, &g.createdAt, &g.wanted, &g.phase, &g.pending, &g.starts, &g.revision, &g.transient, &g.applier, &g.due, &g.holder, &g.alive, &g.position,
			&g.totals.transactions, &g.totals.changes, &g.resting)
	})
	if err != nil {
		return nil, fmt.Errorf("look at the replications: %w", err)
	}
	for _, g := range list {
		seen[g.name] = g
	}
	return seen, nil
}

// restsAt is the applier at which the replication rests, "" for none.
func (g *glimpse) restsAt() string {
	if g.resting && g.alive && g.wanted == wantedRunning {
		return g.applier
	}
	return ""
}

// taken tells whether somebody runs the replication: a session holds its lock, or it rests at another applier than that one.
func (g *glimpse) taken(instance string) bool {
	at := g.restsAt()
	return g.holder != 0 || at != "" && at != instance
}

// look takes over what was seen.
func (r *runner) look(g *glimpse) {
	g.held = g.at
	if before := r.seen.Load(); before != nil && before.holder == g.holder && before.restsAt() == g.restsAt() {
		g.held = before.held
	}
	r.seen.Store(g)
	select {
	case r.glanced <- struct{}{}:
	default:
	}
	if !r.standsBy() && r.active() {
		return
	}
	r.mu.Lock()
	old := !g.at.After(r.adopted)
	r.mu.Unlock()
	if old {
		return
	}
	position, err := change.ParsePosition(g.position)
	r.status.lookedAt(position, err == nil, g.totals)
}

// differs tells whether what was seen is not what this applier knows of.
func (r *runner) differs(g *glimpse) bool {
	now, active := r.snapshot(), r.active()
	if now.starts != g.starts || now.revision != g.revision || now.wanted != g.wanted || now.pending != g.pending && g.pending != pendingNothing {
		return true
	}
	return g.wanted == wantedRunning && !active && r.worksElsewhere(g)
}

// worksElsewhere tells whether another applier applies without a fault what has failed here, and has for some time: this one stands by then. Sooner the two
// would try again and again in turns what fails at both.
func (r *runner) worksElsewhere(g *glimpse) bool {
	return g.taken(r.config.Instance) && g.phase == phaseRunning && g.at.Sub(g.held) >= r.config.HealthyAfter
}
