package applier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// errEnded says that a run has ended at another applier, or was stopped there.
var errEnded = errors.New("the replication is not to run any more")

// elsewhere tells whether somebody else runs the replication, as far as a look after this applier's last attempt has shown.
func (r *runner) elsewhere() bool {
	g := r.seen.Load()
	return g != nil && g.taken(r.config.Instance) && g.at.After(r.attempted)
}

// standby shows that another applier runs the replication and waits until that one has ended, or what it does has. It has no place meanwhile, and that
// is no fault.
func (r *runner) standby(ctx context.Context) error {
	for since := time.Now(); ; {
		g := r.seen.Load()
		by := "another session"
		if g != nil && g.applier != "" && g.applier != r.config.Instance {
			by = "applier " + g.applier
		}
		reason := by + " with this database runs it; this one takes over when that one ends"
		if _, code := r.status.stateAndCode(); code != reasonInUse || r.status.reasonNow() != reason {
			r.status.update(func(s *status) {
				s.state, s.reasonCode, s.reason, s.nextRetry = applierv1.State_STATE_WAITING, reasonInUse, reason, time.Time{}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
			return nil
		case <-r.glanced:
		}
		switch g := r.seen.Load(); {
		case g == nil || !g.at.After(since): // of before
		case g.wanted != wantedRunning:
			return errEnded
		case !g.taken(r.config.Instance):
			return nil
		}
	}
}

// standsBy tells whether another applier runs the replication.
func (r *runner) standsBy() bool {
	state, code := r.status.stateAndCode()
	return state == applierv1.State_STATE_WAITING && code == reasonInUse
}

const (
	// releasePoll is how often it is looked whether another applier has let a replication go, and releaseGrace how long one of this process may take
	// for that before its end is asked for.
	releasePoll  = 50 * time.Millisecond
	releaseGrace = 500 * time.Millisecond
)

// awaitReleased returns when nobody runs the replication any more: another applier ends it once it has seen that it is to.
func (s *Service) awaitReleased(ctx context.Context, name string, ask func() error) error {
	for began, asked := time.Now(), false; ; {
		seen, err := glimpses(ctx, s.store.pool)
		if err != nil {
			return err
		}
		g := seen[name]
		if g == nil || g.holder == 0 {
			return nil
		}
		if !asked && time.Since(began) > releaseGrace && ask != nil {
			if err := ask(); err != nil {
				return err
			}
			asked = true
		}
		if pause(ctx, releasePoll) != nil {
			return rpc.Errorf(codes.Unavailable, reasonInUse, "replication %s is to stop, and applier %s has not ended its transaction yet; ask again", name, g.applier)
		}
	}
}

// stateAndCode is the state without turns.
func (s *status) stateAndCode() (applierv1.State, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.reasonCode
}

func (s *status) reasonNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// lookedAt takes over how far another applier is.
func (s *status) lookedAt(at change.Position, known bool, counted totals) {
	s.mu.Lock()
	moved := known && (!s.hasPosition || s.position != at) || s.applied != counted
	s.mu.Unlock()
	if !moved {
		return
	}
	s.update(func(s *status) {
		if known {
			s.position, s.hasPosition, s.durable = at, true, at
		}
		s.applied, s.engine = counted, totals{}
	})
}

func isNotFound(err error) bool { return errors.Is(err, errNotFound) }

// refuseStandby refuses what only the applier can do that runs the replication.
func (r *runner) refuseStandby() error {
	if !r.standsBy() {
		return nil
	}
	return fmt.Errorf("%w", rpc.Errorf(codes.FailedPrecondition, reasonInUse, "replication %s: %s; ask that one", r.name, r.status.reasonNow()))
}
