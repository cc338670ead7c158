package applier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	// mostRest is for how long a replication rests at most, and up to half as long again less: what only happens while it applies is done then.
	mostRest = 10 * time.Minute
	// restPause is how often the source's log is read for one that rests, and restHeartbeat how often it is asked to tell that it lives.
	restPause     = 500 * time.Millisecond
	restHeartbeat = 5 * time.Second
	// restsStored is how often it is stored how far those that rest have heard the log, and restsAtOnce of how many in one transaction.
	restsStored = 10 * time.Second
	restsAtOnce = 200
)

// rest is what is known of a replication that has applied what concerns it and has given up its place. It has no session on the replica, and
// listens to its source until something comes.
type rest struct {
	from   change.Position      // up to here all is applied, and that is stored
	at     change.Position      // nothing that concerns it lies between
	stored chan change.Position // a newer from that is durable, to be reported; holds one
}

// mayRest tells whether nothing but what comes from the source is to be done for a replication that has applied all it had.
func (r *runner) mayRest(leftOut []schema.Name) bool {
	now := r.snapshot()
	return len(leftOut) == 0 && now.spec.GetMode() != applierv1.Mode_MODE_ONCE && now.phase == phaseRunning && now.pending == pendingNothing && now.autoResyncs == 0
}

// lieDown has the replication rest when its attempt has ended.
func (r *runner) lieDown(at change.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = &rest{from: at, at: at, stored: make(chan change.Position, 1)}
}

// getUp ends the rest and returns what was known of it, nil for none.
func (r *runner) getUp() *rest {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.rest
	r.rest = nil
	return was
}

// resting is a copy of what is known of the rest.
func (r *runner) resting() (now rest, rests bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rest == nil {
		return rest{}, false
	}
	return *r.rest, true
}

// heardUpTo notes that nothing that concerns the replication lies before a position.
func (r *runner) heardUpTo(at change.LSN) {
	r.mu.Lock()
	if r.rest == nil || r.rest.at.LSN >= at {
		r.mu.Unlock()
		return
	}
	r.rest.at.LSN = at
	position := r.rest.at
	r.mu.Unlock()
	r.status.update(func(s *status) { s.position, s.hasPosition = position, true })
}

// listen returns when something has come for a replication that rests, or it is needed. What came is read again by the attempt that follows.
func (r *runner) listen(ctx context.Context) (err error) {
	now, rests := r.resting()
	if !rests || r.isNeeded() {
		return nil
	}
	if err := r.store.setResting(ctx, r.name, r.config.Instance, true); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return // the attempt says that it rests no more
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handshakeTimeout)
		defer cancel()
		if undone := r.store.setResting(ctx, r.name, r.config.Instance, false); undone != nil {
			r.log.Warn("other appliers may believe that the replication rests here", "error", undone)
		}
		if !worthRest(err) {
			r.getUp()
		}
	}()
	spec := r.snapshot()
	src, err := r.reachSource(ctx, spec)
	if err != nil {
		return err
	}
	defer src.close()
	src.set.version = spec.setVersion
	ctx, cancel := context.WithCancel(ctx)
	events := follow(ctx, src.logger, src.set, r.followRequest(now.at, restHeartbeat, restPause), r.config.options(spec.spec).sourceTimeout+restHeartbeat, r.heardAtRest)
	defer func() {
		cancel()
		for range events { // until nobody hears anything any more
		}
	}()
	return r.await(ctx, src, events, now.stored)
}

// await returns at the first event that says more than how far the log was read.
func (r *runner) await(ctx context.Context, src *source, events <-chan apply.Event, stored <-chan change.Position) error {
	end := time.NewTimer(mostRest/2 + rand.N(mostRest/2))
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-r.needs:
			if r.isNeeded() {
				return nil
			}
		case at := <-stored:
			_, err := src.loggerClient().ReportApplied(ctx, &loggerv1.ReportAppliedRequest{Follower: r.followerName(), Position: positionProto(at)})
			if err != nil && ctx.Err() == nil {
				r.log.Debug("the source was not told the position; it will be with the next one", "error", err)
			}
		case event := <-events:
			switch {
			case event.Err != nil:
				return event.Err
			case event.Relation != nil || !event.Block.IsMark():
				return nil
			}
			r.heardUpTo(event.Block.Through)
		}
	}
}

// heardAtRest notes a heartbeat, which ends the shown fault of a replication that rests.
func (r *runner) heardAtRest(h *loggerv1.Heartbeat) {
	if state, _ := r.status.stateAndCode(); state != applierv1.State_STATE_RUNNING {
		r.status.setState(applierv1.State_STATE_RUNNING)
	}
	r.status.heard(h)
}

// worthRest tells whether a fault is the way to the source, and passes: nothing on the replica can help then.
func worthRest(err error) bool {
	return errors.Is(err, errSilent) || errors.Is(err, io.ErrUnexpectedEOF) || rpc.Code(err) == codes.Unavailable
}

// followRequest asks for the replication's stream after a position.
func (r *runner) followRequest(after change.Position, heartbeat, pause time.Duration) *loggerv1.FollowRequest {
	request := &loggerv1.FollowRequest{Position: positionProto(after), Follower: r.followerName(), Heartbeat: durationpb.New(heartbeat)}
	if pause > 0 {
		request.IdlePause = durationpb.New(pause)
	}
	return request
}

// setResting stores whether the replication rests at an applier. A crash of the server may lose it.
func (s *store) setResting(ctx context.Context, name, applier string, rests bool) error {
	batch := &pgx.Batch{} // one transaction
	batch.Queue("SELECT pg_catalog.set_config('synchronous_commit', 'off', true)")
	batch.Queue("UPDATE syncline.replications SET resting = $3 WHERE name = $1 AND applier = $2 AND resting <> $3", name, applier, rests)
	return wrapUnlessNil(s.pool.SendBatch(ctx, batch).Close(), "store that replication "+name+" rests")
}

// endRest says in the session of an attempt that the replication rests no more, and moves its stored position to where the log was heard.
func endRest(ctx context.Context, conn *pgx.Conn, name string, was *rest) error {
	if was == nil {
		_, err := conn.Exec(ctx, "UPDATE syncline.replications SET resting = false WHERE name = $1 AND resting", name)
		return wrapUnlessNil(err, "store that replication "+name+" rests no more")
	}
	_, err := conn.Exec(ctx, `WITH awake AS (UPDATE syncline.replications SET resting = false WHERE name = $1 AND resting)
		UPDATE syncline.positions SET lsn = $4::text::pg_lsn, updated_at = now() WHERE replication = $1 AND log_id = $2 AND lsn >= $3::text::pg_lsn AND lsn < $4::text::pg_lsn`,
		name, was.at.LogID.String(), was.from.LSN.String(), was.at.LSN.String())
	if err != nil {
		return fmt.Errorf("store how far replication %s has heard the log: %w", name, err)
	}
	fault.Point(FaultRestEnded)
	return nil
}

// moveRest is how far one replication that rests has heard the log.
type moveRest struct {
	runner   *runner
	from, at change.Position
}

// storeRests stores how far those that rest have heard the log, so that their sources need not keep it for them.
func (c *coordinator) storeRests(ctx context.Context, here map[string]*runner) error {
	if time.Since(c.restsStored) < restsStored {
		return nil
	}
	c.restsStored = time.Now()
	var moves []moveRest
	for _, r := range here {
		if now, rests := r.resting(); rests && now.at != now.from {
			moves = append(moves, moveRest{r, now.from, now.at})
		}
	}
	for some := range slices.Chunk(moves, restsAtOnce) {
		if err := c.service.store.moveRests(ctx, c.service.config.Instance, some); err != nil {
			return err
		}
	}
	return nil
}

// moveRests moves the stored positions of replications that rest here. It leaves alone those that somebody applies, and is durable on return.
func (s *store) moveRests(ctx context.Context, applier string, moves []moveRest) error {
	names, logs, from, at := make([]string, len(moves)), make([]string, len(moves)), make([]string, len(moves)), make([]string, len(moves))
	for i, m := range moves {
		names[i], logs[i], from[i], at[i] = m.runner.name, m.at.LogID.String(), m.from.LSN.String(), m.at.LSN.String()
	}
	var moved []string
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, flushedCommit); err != nil {
			return err //nolint:wrapcheck // it is wrapped below
		}
		rows, err := tx.Query(ctx, `UPDATE syncline.positions p SET lsn = m.at::pg_lsn, updated_at = now()
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS m(name, log_id, since, at)
			JOIN syncline.replications r ON r.name = m.name AND r.resting AND r.applier = $5 AND r.wanted = 'running' AND r.phase = 'running' AND r.pending = ''
			WHERE p.replication = m.name AND p.log_id = m.log_id AND p.lsn >= m.since::pg_lsn AND p.lsn < m.at::pg_lsn AND pg_catalog.pg_try_advisory_xact_lock($6::int, hashtext(m.name))
			RETURNING p.replication`, names, logs, from, at, applier, apply.LockSpace)
		if err == nil {
			moved, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return err //nolint:wrapcheck // it is wrapped below
	})
	if err != nil {
		return fmt.Errorf("store how far replications that rest have heard the log: %w", err)
	}
	if len(moved) > 0 {
		fault.Point(FaultRestMoved)
	}
	for _, m := range moves {
		if slices.Contains(moved, m.runner.name) {
			m.runner.restStored(m.at)
		}
	}
	return nil
}

// restStored has the position reported that is durable now.
func (r *runner) restStored(at change.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rest == nil || r.rest.from.LogID != at.LogID || r.rest.from.LSN > at.LSN {
		return
	}
	r.rest.from = at
	select {
	case <-r.rest.stored: // an older one
	default:
	}
	r.rest.stored <- at
}
