package applier

import (
	"context"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// outcome is how a run ended.
type outcome struct {
	state  applierv1.State // COMPLETED, FAILED, or STOPPED when it was ended from outside
	reason failure         // of FAILED
	text   string
}

// complete shows the end of a run, which is stored.
func (r *runner) complete(ctx context.Context) outcome {
	if _, err := r.refresh(context.WithoutCancel(ctx)); err != nil {
		r.log.Warn("what the run ended at cannot be shown", "error", err)
	}
	r.status.setState(applierv1.State_STATE_COMPLETED)
	r.status.update(func(s *status) { s.recovered() })
	r.log.Info("the run is completed", "position", r.snapshot().completed.String())
	return outcome{state: applierv1.State_STATE_COMPLETED}
}

// fail stores and shows what stopped the replication.
func (r *runner) fail(ctx context.Context, f failure, text, how string) outcome {
	r.log.Error("replication stopped", "reason", f.code, "error", text)
	for { // the schedule leads on only when it is stored
		err := r.store.failRun(ctx, r.name, ending{how, f.code, text, f.side()}, r.snapshot().spec.GetSchedule() != nil)
		if err == nil || ctx.Err() != nil {
			break
		}
		r.log.Warn("what the run has failed with is not stored yet", "error", err)
		if pause(ctx, storeRetry) != nil {
			break
		}
	}
	if _, err := r.refresh(ctx); err != nil { // so that the position shown is the one that it goes on after
		r.log.Warn("the stored position cannot be shown", "error", err)
	}
	r.status.update(func(s *status) {
		s.state, s.reasonCode, s.reason, s.nextRetry = applierv1.State_STATE_FAILED, f.code, text, time.Time{}
		s.happened(f, text)
	})
	return outcome{applierv1.State_STATE_FAILED, f, text}
}

// endedElsewhere shows what became of a replication at another applier; again is set where it is to run after all.
func (r *runner) endedElsewhere(ctx context.Context) (how outcome, again bool) {
	fresh, err := r.refresh(context.WithoutCancel(ctx))
	if err != nil {
		r.log.Warn("what the run ended with cannot be shown", "error", err)
		return outcome{state: applierv1.State_STATE_STOPPED}, false
	}
	if fresh.wanted == wantedRunning {
		return outcome{}, true
	}
	r.showIdle(fresh)
	return outcome{state: r.status.stateNow()}, false
}
