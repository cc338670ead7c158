package applier

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// etag changes whenever what the user decided changes, also when a replication is deleted and created again.
func (r *stored) etag() string { return fmt.Sprintf("%x-%d", r.createdAt.UnixMicro(), r.revision) }

// decide begins to carry out what a user decides about a replication: one decision at a time, on what is stored now. The caller
// calls release.
func (s *Service) decide(ctx context.Context, name, etag string) (_ *runner, fresh *stored, release func(), err error) {
	r, err := s.runner(ctx, name)
	if err != nil {
		return nil, nil, nil, err
	}
	select {
	case r.control <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, nil, ctx.Err()
	}
	done := func() { <-r.control }
	defer func() {
		if err != nil {
			done()
		}
	}()
	now, err := s.runner(ctx, name)
	if err != nil {
		return nil, nil, nil, err
	}
	if now != r {
		return nil, nil, nil, rpc.Errorf(codes.Aborted, reasonETag, "replication %s was deleted and created again meanwhile; look at it and decide again", name)
	}
	if fresh, err = s.store.get(ctx, name); err != nil {
		return nil, nil, nil, err
	}
	if err = checkETag(fresh, etag); err != nil {
		return nil, nil, nil, err
	}
	return r, fresh, done, nil
}

func checkETag(fresh *stored, etag string) error {
	if etag == "" || etag == fresh.etag() {
		return nil
	}
	return rpc.Errorf(codes.Aborted, reasonETag, "replication %s has been changed by somebody else: its etag is %s now, not %s; look at it and decide again", fresh.name, fresh.etag(), etag).
		With("etag", fresh.etag())
}

// StartReplication is idempotent. One that waits until it tries again does so at once.
func (s *Service) StartReplication(ctx context.Context, in *applierv1.StartReplicationRequest) (*applierv1.StartReplicationResponse, error) {
	if in.GetForce() && in.GetFrom() == nil {
		return nil, rpc.Invalid("force", "is for a start from a position; give that too, or leave force out")
	}
	r, fresh, release, err := s.decide(ctx, in.GetName(), "")
	if err != nil {
		return nil, err
	}
	defer release()
	if fresh.transient {
		return nil, refuseTransient(in.GetName())
	}
	if in.GetFrom() != nil {
		if err := s.moveTo(ctx, r, fresh, in); err != nil {
			return nil, err
		}
	}
	if err := s.store.setWanted(ctx, in.GetName(), wantedRunning); err != nil {
		return nil, err
	}
	if fresh.wanted == wantedRunning && !r.active() {
		r.status.update(func(st *status) { st.tell(&event{kind: kindStarted, text: "started again by a user"}) })
	}
	if err := r.reread(ctx); err != nil {
		return nil, err
	}
	s.resume(r)
	return &applierv1.StartReplicationResponse{Replication: r.status.proto(r.snapshot(), true)}, nil
}

// reread takes over what was just decided.
func (r *runner) reread(ctx context.Context) error {
	fresh, err := r.store.get(context.WithoutCancel(ctx), r.name)
	if err != nil {
		return err
	}
	if r.active() {
		r.decided(fresh)
	} else {
		r.adopt(fresh)
	}
	return nil
}

// resume starts a runner unless the service is stopping.
func (s *Service) resume(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.start(s.runCtx)
}

// StopReplication is idempotent; the wish is durable before the replication stops.
func (s *Service) StopReplication(ctx context.Context, in *applierv1.StopReplicationRequest) (*applierv1.StopReplicationResponse, error) {
	r, fresh, release, err := s.decide(ctx, in.GetName(), "")
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.store.setWanted(ctx, in.GetName(), wantedStopped); err != nil {
		return nil, err
	}
	r.stop()
	if err := s.awaitReleased(ctx, in.GetName(), nil); err != nil {
		return nil, err
	}
	if err := s.store.settleRun(ctx, in.GetName()); err != nil {
		return nil, err
	}
	if fresh.transient {
		result, err := s.cancelled(ctx, r)
		return &applierv1.StopReplicationResponse{Replication: result}, err
	}
	r.status.setState(applierv1.State_STATE_STOPPED)
	if _, err := r.refresh(ctx); err != nil { // so that the position shown is the one that it goes on after
		return nil, err
	}
	return &applierv1.StopReplicationResponse{Replication: r.status.proto(r.snapshot(), true)}, nil
}

// DeleteReplication stops and forgets a replication. Its follower's entry at the source is removed where the source can be reached.
func (s *Service) DeleteReplication(ctx context.Context, in *applierv1.DeleteReplicationRequest) (*applierv1.DeleteReplicationResponse, error) {
	r, fresh, release, err := s.decide(ctx, in.GetName(), in.GetEtag())
	if errors.Is(err, errNotFound) {
		if forgotten, err := s.deleteResult(ctx, in.GetName()); forgotten || err != nil {
			return &applierv1.DeleteReplicationResponse{}, err
		}
	}
	if err != nil {
		return nil, err
	}
	defer release()
	r.stop()
	if fresh.transient {
		if _, err := s.cancelled(ctx, r); err != nil {
			return nil, err
		}
		_, err := s.deleteResult(ctx, in.GetName())
		return &applierv1.DeleteReplicationResponse{}, err
	}
	ask := func() error { return s.store.setWanted(ctx, in.GetName(), wantedStopped) }
	if err := s.awaitReleased(ctx, in.GetName(), ask); err != nil {
		return nil, err
	}
	if err := s.store.remove(ctx, in.GetName()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.runners, in.GetName())
	s.mu.Unlock()
	r.farewell(ctx)
	return &applierv1.DeleteReplicationResponse{}, nil
}

const maxReplicationPage = 1000

// ListReplications returns those that the request names, by name.
func (s *Service) ListReplications(ctx context.Context, in *applierv1.ListReplicationsRequest) (*applierv1.ListReplicationsResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	size, err := pageSize(in.GetPageSize(), maxReplicationPage, maxReplicationPage)
	if err != nil {
		return nil, err
	}
	after, err := readToken(in.GetPageToken(), "name")
	if err != nil {
		return nil, err
	}
	if slices.Contains(in.GetStates(), applierv1.State_STATE_UNSPECIFIED) {
		return nil, rpc.Invalid("states", "STATE_UNSPECIFIED is no state; leave states empty for all")
	}
	s.mu.Lock()
	shown := map[string]func() *applierv1.Replication{}
	wanted := func(name string) bool { return name > after && strings.HasPrefix(name, in.GetNamePrefix()) }
	for name, r := range s.runners {
		if wanted(name) {
			shown[name] = func() *applierv1.Replication { return r.status.proto(r.snapshot(), false) }
		}
	}
	s.mu.Unlock()
	for name, result := range s.results.all() {
		if wanted(name) && shown[name] == nil {
			shown[name] = func() *applierv1.Replication { return brieflyOf(result) }
		}
	}
	out := &applierv1.ListReplicationsResponse{}
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		one := shown[name]()
		if len(in.GetStates()) > 0 && !slices.Contains(in.GetStates(), one.GetState()) {
			continue
		}
		if len(out.GetReplications()) == size {
			out.NextPageToken = writeToken("name", out.GetReplications()[size-1].GetName())
			break
		}
		out.Replications = append(out.Replications, one)
	}
	return out, nil
}

func pageSize(asked int32, byDefault, most int) (int, error) {
	switch {
	case asked < 0 || int(asked) > most:
		return 0, rpc.Invalid("page_size", "%d is not from 0 to %d", asked, most)
	case asked == 0:
		return byDefault, nil
	}
	return int(asked), nil
}

// A page token says after what the next page begins, and in which order that is meant.
func writeToken(order, after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(order + " " + after))
}

// readToken returns "" for the first page.
func readToken(token, order string) (string, error) {
	if token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	after, found := strings.CutPrefix(string(text), order+" ")
	if err != nil || !found || after == "" {
		return "", rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
	}
	return after, nil
}
