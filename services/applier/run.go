package applier

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	// resultsKept is how long the result of a transient run can be read, and maxResults how many are kept.
	resultsKept = 24 * time.Hour
	maxResults  = 1_000
	// storeRetry is the pause before what a run ended with is stored again.
	storeRetry = time.Second
)

// results are those of transient runs that have ended.
type results struct {
	mu   sync.Mutex
	list map[string]*applierv1.Replication
}

func (s *results) get(name string) (*applierv1.Replication, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result, found := s.list[name]
	return result, found && time.Since(endOf(result)) < resultsKept
}

// all are copies of those that can be read.
func (s *results) all() map[string]*applierv1.Replication {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*applierv1.Replication, len(s.list))
	for name, result := range s.list {
		if time.Since(endOf(result)) < resultsKept {
			all[name] = result
		}
	}
	return all
}

// add keeps a result in the place of the oldest ones, if there are too many.
func (s *results) add(result *applierv1.Replication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list[result.GetName()] = result
	for len(s.list) > maxResults {
		oldest := result
		for _, other := range s.list {
			if endOf(other).Before(endOf(oldest)) {
				oldest = other
			}
		}
		delete(s.list, oldest.GetName())
	}
}

func (s *results) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.list, name)
}

// endOf is when a run ended: its last state has no end.
func endOf(result *applierv1.Replication) time.Time {
	if len(result.GetHistory()) == 0 {
		return time.Time{}
	}
	return result.GetHistory()[0].GetTime().AsTime()
}

func brieflyOf(r *applierv1.Replication) *applierv1.Replication {
	brief := proto.CloneOf(r)
	brief.Tables = nil
	return brief
}

func refuseTransient(name string) error {
	return rpc.Errorf(codes.FailedPrecondition, reasonTransient, "%s is a transient run, which can be stopped, and nothing else; `syncline replication create` makes a replication that can be controlled", name)
}

// RunReplication stores the run like a replication, so that it applies each transaction exactly once as those do, and forgets that at its
// end. What a killed process leaves is forgotten when the next one starts.
func (s *Service) RunReplication(in *applierv1.RunReplicationRequest, stream grpc.ServerStreamingServer[applierv1.RunReplicationResponse]) error {
	ctx := stream.Context()
	if in.GetSpec().GetSchedule() != nil {
		return rpc.Invalid("spec.schedule", "a run begins at once; create a replication for one that has a schedule")
	}
	if in.GetSpec().GetMode() == applierv1.Mode_MODE_CONTINUOUS {
		return rpc.Invalid("spec.mode", "a run has an end; create a replication for one that goes on")
	}
	if in.GetSpec().GetOnError() == applierv1.OnError_ON_ERROR_QUARANTINE {
		return rpc.Invalid("spec.on_error", "a run leaves nothing behind, so nobody could look after what it sets aside; create a replication with --mode once for that")
	}
	spec := &applierv1.ReplicationSpec{}
	if in.GetSpec() != nil {
		spec = proto.CloneOf(in.GetSpec())
	}
	spec.Mode = applierv1.Mode_MODE_ONCE
	name := in.GetName()
	if name == "" {
		id := make([]byte, 8)
		_, _ = rand.Read(id) // it never fails
		name = "run-" + hex.EncodeToString(id)
	}
	if _, err := s.create(ctx, &applierv1.CreateReplicationRequest{Name: name, Spec: spec}, true); err != nil {
		return err
	}
	r, err := s.runner(ctx, name)
	if err != nil {
		return err
	}
	ended := make(chan *applierv1.Replication, 1)
	s.runs.Go(func() { s.finish(r, ended) })
	return streamRun(ctx, r, between(in.GetInterval(), defaultWatch, minWatch), ended, stream)
}

// streamRun streams a run until it has ended.
func streamRun(ctx context.Context, r *runner, interval time.Duration, ended <-chan *applierv1.Replication, stream grpc.ServerStreamingServer[applierv1.RunReplicationResponse]) error {
	for {
		changed := r.status.watch()
		now := r.status.proto(r.snapshot(), false)
		switch now.GetState() {
		case applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE, applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED: // that is told when it is stored
		default:
			if err := stream.Send(&applierv1.RunReplicationResponse{Replication: now}); err != nil {
				return err
			}
		}
		result, err := awaitChange(ctx, changed, interval, ended)
		if err != nil {
			return err
		}
		if result != nil {
			return stream.Send(&applierv1.RunReplicationResponse{Replication: brieflyOf(result)})
		}
	}
}

// awaitChange waits for a change, not less than minWatch and not longer than the interval; the result comes at once. A nil result from
// ended says that the applier ends.
func awaitChange(ctx context.Context, changed <-chan struct{}, interval time.Duration, ended <-chan *applierv1.Replication) (*applierv1.Replication, error) {
	least, longest := time.NewTimer(minWatch), time.NewTimer(interval)
	defer least.Stop()
	defer longest.Stop()
	for first := true; ; first = false {
		var wake <-chan struct{}
		var timeUp, leastUp <-chan time.Time = longest.C, nil
		if first {
			leastUp, timeUp = least.C, nil
		} else {
			wake = changed
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case result := <-ended:
			if result == nil {
				return nil, rpc.Errorf(codes.Unavailable, reasonInterrupted, "the applier ends, and the run with it; run it again")
			}
			return result, nil
		case <-leastUp:
			continue
		case <-timeUp:
		case <-wake:
		}
		return nil, nil //nolint:nilnil // there is no result yet
	}
}

// finish waits for the end of a transient run and stores its result in the place of all else that is known of it here. When the applier
// ends first, that is left to its next start.
func (s *Service) finish(r *runner, ended chan<- *applierv1.Replication) {
	s.mu.Lock()
	running := s.runCtx
	s.mu.Unlock()
	defer close(ended)
	how, err := r.runOnce(running, running)
	if err != nil || running.Err() != nil || how.state == applierv1.State_STATE_STOPPED {
		if err == nil && running.Err() == nil {
			s.awaitCancelled(running, r, ended)
		}
		return
	}
	fault.Point(FaultRunEnded)
	for {
		result, err := s.forget(running, r)
		if err == nil {
			ended <- result
			return
		}
		r.log.Warn("the result of the run is not stored yet", "error", err)
		if pause(running, storeRetry) != nil {
			return
		}
	}
}

// awaitCancelled passes on what StopReplication or DeleteReplication stores.
func (s *Service) awaitCancelled(ctx context.Context, r *runner, ended chan<- *applierv1.Replication) {
	select {
	case <-r.forgotten:
		if result := r.result; result != nil {
			ended <- result
		}
	case <-ctx.Done():
	}
}

// cancelled stores that a user has ended a run.
func (s *Service) cancelled(ctx context.Context, r *runner) (*applierv1.Replication, error) {
	r.status.setState(applierv1.State_STATE_STOPPED)
	return s.forget(context.WithoutCancel(ctx), r)
}

// forget stores the result of a run that has ended, and forgets the rest.
func (s *Service) forget(ctx context.Context, r *runner) (*applierv1.Replication, error) {
	r.forgetting.Lock()
	defer r.forgetting.Unlock()
	if r.result != nil {
		return r.result, nil
	}
	r.farewell(ctx) // before nothing here knows any more that there is something to forget there
	result := r.status.proto(r.snapshot(), true)
	if err := s.store.endRun(ctx, result, nil); err != nil {
		return nil, err
	}
	fault.Point(FaultRunForgotten)
	s.results.add(result)
	s.mu.Lock()
	delete(s.runners, r.name)
	s.mu.Unlock()
	r.result = result
	close(r.forgotten)
	return result, nil
}

// withoutTransient ends the transient runs of appliers that are gone, and returns the replications that are left.
func (s *Service) withoutTransient(ctx context.Context, list []*stored) ([]*stored, error) {
	seen, err := glimpses(ctx, s.store.pool)
	if err != nil {
		return nil, err
	}
	var left []*stored
	var group errgroup.Group // the sources are told
	for _, one := range list {
		switch g := seen[one.name]; {
		case !one.transient:
			left = append(left, one)
		case g != nil && !g.alive:
			group.Go(func() error { return s.endInterrupted(ctx, one) })
		}
	}
	return left, group.Wait() //nolint:wrapcheck // it is of this package
}

// readResults reads the results of transient runs.
func (s *Service) readResults(ctx context.Context) error {
	list, err := s.store.results(ctx)
	if err == nil {
		s.results.mu.Lock()
		defer s.results.mu.Unlock()
		s.results.list = list
	}
	return err
}

// endInterrupted ends the transient run of an applier that is gone.
func (s *Service) endInterrupted(ctx context.Context, one *stored) error {
	r := newRunner(&s.config, s.store, one)
	r.farewell(ctx)
	const text = "the applier ended while the run went on; what it copied stays: run it again, with --initial incremental to ship only what is missing"
	r.status.note = func(*event) {}
	var e *event
	if one.wanted == wantedCompleted {
		r.status.setState(applierv1.State_STATE_COMPLETED)
	} else {
		r.status.update(func(st *status) {
			st.state, st.reason, st.reasonCode = applierv1.State_STATE_FAILED, text, reasonInterrupted
		})
		e = &event{replication: one.name, kind: kindInterrupted, state: applierv1.State_STATE_FAILED, code: reasonInterrupted, text: text, side: sideLocal, position: one.position, hasPosition: one.hasPosition}
		s.config.Log.Warn("a transient run was interrupted", "replication", one.name)
	}
	return s.store.endRun(ctx, r.status.proto(one, false), e)
}

func (s *Service) deleteResult(ctx context.Context, name string) (bool, error) {
	if _, found := s.results.get(name); !found {
		return false, nil
	}
	if _, err := s.store.pool.Exec(ctx, "DELETE FROM syncline.runs WHERE name = $1", name); err != nil {
		return false, fmt.Errorf("delete the result of run %s: %w", name, err)
	}
	s.results.remove(name)
	return true, nil
}

// endRun stores the result of a run and forgets the run, both or neither.
func (s *store) endRun(ctx context.Context, result *applierv1.Replication, e *event) error {
	content, err := protojson.Marshal(result)
	if err != nil {
		return fmt.Errorf("store the result of run %s: %w", result.GetName(), err)
	}
	if e == nil {
		e = &event{} // its states have told the run log already
	}
	how := ending{result: resultWarning, text: "a user stopped it before its end"}
	if result.GetState() == applierv1.State_STATE_FAILED {
		how = ending{resultError, result.GetReasonCode(), result.GetReason(), sideLocal}
	}
	return s.write(ctx, e, func(tx pgx.Tx) error {
		if err := closeRun(ctx, tx, result.GetName(), how); err != nil { // where that is not done by its completion or its failure
			return err
		}
		if err := forgetReplication(ctx, tx, result.GetName(), whyEnded); err != nil {
			return fmt.Errorf("forget run %s: %w", result.GetName(), err)
		}
		_, err := tx.Exec(ctx, `INSERT INTO syncline.runs (name, content) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET content = excluded.content, ended_at = now()`, result.GetName(), string(content))
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM syncline.runs WHERE ended_at < now() - $1::interval
				OR name IN (SELECT name FROM syncline.runs ORDER BY ended_at DESC OFFSET $2)`, resultsKept, maxResults)
		}
		return wrapUnlessNil(err, "store the result of run "+result.GetName())
	})
}

// results are those that can be read.
func (s *store) results(ctx context.Context) (map[string]*applierv1.Replication, error) {
	rows, err := s.pool.Query(ctx, "SELECT content FROM syncline.runs WHERE ended_at > now() - $1::interval ORDER BY ended_at DESC LIMIT $2", resultsKept, maxResults)
	if err != nil {
		return nil, fmt.Errorf("list results of runs: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*applierv1.Replication, error) {
		var content []byte
		if err := row.Scan(&content); err != nil {
			return nil, err
		}
		one := &applierv1.Replication{}
		// A newer version may have written fields that this one does not know.
		return one, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(content, one)
	})
	if err != nil {
		return nil, fmt.Errorf("list results of runs: %w", err)
	}
	found := make(map[string]*applierv1.Replication, len(list))
	for _, one := range list {
		found[one.GetName()] = one
	}
	return found, nil
}
