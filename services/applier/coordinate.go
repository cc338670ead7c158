package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	// lookInterval is how often an applier looks at what is stored: so long it takes until it begins a run that is due, takes over what another one
	// has left, and carries out what a user has decided at another one.
	lookInterval = time.Second
	// instanceSpace is the first number of the advisory lock that says that an applier lives; see apply.LockSpace for the others.
	instanceSpace = apply.LockSpace + 2
	// goneAfter is how many looks in a row an applier has to be missed before its transient runs are given up.
	goneAfter = 10
)

// coordinator keeps an applier in step with what is stored, and so with the others of its database. Its session holds a lock for as long as the
// applier lives.
type coordinator struct {
	service *Service
	conn    *pgx.Conn      // nil while there is none
	missed  map[string]int // looks in a row in which an applier was missed

	restsStored time.Time // when it was last stored how far those that rest have heard
}

// run looks until ctx ends.
func (c *coordinator) run(ctx context.Context) {
	defer c.disconnect()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for warned := false; ; {
		err := c.look(ctx)
		if err != nil && ctx.Err() == nil && !warned {
			c.service.config.Log.Warn("what is stored cannot be looked at; it is tried again", "error", err)
		}
		warned = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// connect opens the session that says that this applier lives.
func (c *coordinator) connect(ctx context.Context) error {
	if c.conn != nil && !c.conn.IsClosed() {
		return nil
	}
	conn, err := postgres.Connect(ctx, c.service.config.PostgresURL, "syncline applier")
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_try_advisory_lock($1::int, hashtext($2))", instanceSpace, c.service.config.Instance); err != nil {
		_ = conn.Close(ctx) // that failed is what matters
		return fmt.Errorf("say that this applier lives: %w", err)
	}
	c.conn = conn
	return nil
}

func (c *coordinator) disconnect() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // it is only read from
	c.conn = nil
}

// look compares what is stored with what runs here. Replications that are created meanwhile are left to the next look.
func (c *coordinator) look(ctx context.Context) error {
	s := c.service
	here := s.all()
	seen, err := c.glimpses(ctx)
	if err != nil {
		return err
	}
	for name, r := range here {
		g := seen[name]
		if g == nil || !g.createdAt.Equal(r.snapshot().createdAt) {
			s.inBackground(func(ctx context.Context) { s.drop(ctx, r) })
			continue
		}
		r.look(g)
		if r.differs(g) {
			s.inBackground(func(ctx context.Context) { s.adjust(ctx, r) })
		}
	}
	for name, g := range seen {
		if here[name] == nil && !g.transient {
			s.inBackground(func(ctx context.Context) { s.take(ctx, name) })
		}
	}
	c.giveUp(ctx, seen, here)
	for name, g := range seen {
		if g.due {
			s.beginDue(ctx, name)
		}
	}
	return c.storeRests(ctx, here)
}

// glimpses looks at all replications in the session of this applier.
func (c *coordinator) glimpses(ctx context.Context) (map[string]*glimpse, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	seen, err := glimpses(ctx, c.conn)
	if err != nil {
		c.disconnect()
	}
	return seen, err
}

// giveUp ends the transient runs of appliers that are gone.
func (c *coordinator) giveUp(ctx context.Context, seen map[string]*glimpse, here map[string]*runner) {
	missed := map[string]int{}
	for name, g := range seen {
		if !g.transient || here[name] != nil || g.alive || g.holder != 0 {
			continue
		}
		if missed[name] = c.missed[name] + 1; missed[name] < goneAfter {
			continue
		}
		one, err := c.service.store.get(ctx, name)
		if err == nil && one.transient && one.createdAt.Equal(g.createdAt) {
			err = c.service.endInterrupted(ctx, one)
		}
		if err == nil {
			err = c.service.readResults(ctx)
		}
		if err != nil {
			c.service.config.Log.Warn("a transient run of an applier that is gone cannot be ended yet", "replication", name, "error", err)
		}
	}
	c.missed = missed
}

// all are the runners by name.
func (s *Service) all() map[string]*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*runner, len(s.runners))
	for name, r := range s.runners {
		all[name] = r
	}
	return all
}

// inBackground does what may wait for a transaction to end, as long as the service runs.
func (s *Service) inBackground(do func(context.Context)) {
	s.mu.Lock()
	ctx := s.runCtx
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.runs.Go(func() { do(ctx) })
	}
}

// beginDue begins a run that is due, unless another applier has.
func (s *Service) beginDue(ctx context.Context, name string) {
	begun, err := s.store.claimDue(ctx, name)
	if err != nil && ctx.Err() == nil {
		s.config.Log.Warn("a run that is due cannot be begun yet", "replication", name, "error", err)
	}
	if !begun {
		return
	}
	fault.Point(FaultClaimed)
	if r, err := s.runner(ctx, name); err == nil {
		s.inBackground(func(ctx context.Context) { s.adjust(ctx, r) })
	}
}

// take makes a runner of a replication that another applier has created.
func (s *Service) take(ctx context.Context, name string) {
	fresh, err := s.store.get(ctx, name)
	if err != nil || fresh.transient {
		return // it is gone again, or the next look tries again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runners[name] == nil && ctx.Err() == nil {
		r := newRunner(&s.config, s.store, fresh)
		s.runners[name] = r
		r.begin(ctx, fresh)
	}
}

// drop forgets a runner whose replication was deleted at another applier.
func (s *Service) drop(ctx context.Context, r *runner) {
	if !r.tryDecide() {
		return // it is being decided about here
	}
	defer r.endDecide()
	fresh, err := s.store.get(ctx, r.name)
	if err == nil && fresh.createdAt.Equal(r.snapshot().createdAt) || err != nil && !isNotFound(err) || r.snapshot().transient {
		return
	}
	r.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runners[r.name] == r {
		delete(s.runners, r.name)
	}
}

// adjust carries out what was decided at another applier, or by the schedule.
func (s *Service) adjust(ctx context.Context, r *runner) {
	if !r.tryDecide() {
		return
	}
	defer r.endDecide()
	before := r.snapshot()
	fresh, err := s.store.get(ctx, r.name)
	if err != nil || !fresh.createdAt.Equal(before.createdAt) || fresh.transient {
		return
	}
	switch {
	case fresh.wanted == wantedStopped:
		r.stop()
		r.adopt(fresh)
		r.showIdle(fresh)
	case fresh.wanted != wantedRunning:
		if !r.active() {
			r.adopt(fresh)
			r.showIdle(fresh)
		}
	default:
		if r.active() && (fresh.revision != before.revision || fresh.pending != before.pending && fresh.pending != pendingNothing) {
			r.stop() // it goes on with what was decided
		}
		active, g := r.active(), r.seen.Load()
		if active {
			r.decided(fresh)
		} else {
			r.adopt(fresh)
		}
		changed := fresh.starts != before.starts || fresh.revision != before.revision || fresh.pending != before.pending
		if changed || !active && g != nil && r.worksElsewhere(g) {
			s.resume(r)
		}
	}
}

// tryDecide begins what decide begins, unless somebody else is at it.
func (r *runner) tryDecide() bool {
	select {
	case r.control <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *runner) endDecide() { <-r.control }

// begin starts a runner whose replication is to run, and shows what became of one that is not.
func (r *runner) begin(ctx context.Context, fresh *stored) {
	if fresh.wanted == wantedRunning {
		r.start(ctx)
		return
	}
	r.showIdle(fresh)
}

// showIdle shows a replication that does nothing until a user or its schedule starts it.
func (r *runner) showIdle(fresh *stored) {
	state, code, reason := applierv1.State_STATE_STOPPED, "", ""
	switch {
	case fresh.wanted == wantedFailed:
		state, code, reason = applierv1.State_STATE_FAILED, reasonInternal, "the last run has failed"
		if run := fresh.lastRun; run != nil {
			code, reason = run.Code, run.Text
		}
	case fresh.wanted == wantedCompleted && fresh.completedAt == nil:
		state, code, reason = applierv1.State_STATE_WAITING, reasonScheduled, "its first run is due by its schedule; `syncline replication start "+r.name+"` begins one now"
	case fresh.wanted == wantedCompleted:
		state = applierv1.State_STATE_COMPLETED
	}
	if now, nowCode := r.status.stateAndCode(); now == state && nowCode == code {
		return
	}
	r.status.update(func(s *status) {
		s.state, s.reasonCode, s.reason, s.nextRetry = state, code, reason, time.Time{}
	})
}
