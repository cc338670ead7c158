package pusher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// farewell is how long the followers of pushes that are deleted are waited for to be gone from the change log.
const farewell = 5 * time.Second

// DeletePush stops and forgets a push, and has the change log forget its follower.
func (s *Service) DeletePush(ctx context.Context, in *pushv1.DeletePushRequest) (*pushv1.DeletePushResponse, error) {
	_, err := s.decide(ctx, in.GetName(), func(p *push) error {
		r := p.snapshot()
		if err := checkETag(r, in.GetEtag()); err != nil {
			return err
		}
		if in.GetDeleteReplication() {
			if err := s.deleteReplication(ctx, p, r); err != nil {
				return err
			}
		}
		if err := s.naming.take(ctx); err != nil { // nobody gets its name before its follower is gone
			return err
		}
		defer s.naming.give()
		p.stop()
		if err := s.store.remove(ctx, r.name); err != nil {
			if r.wanted == wantedRunning {
				s.start(p)
			}
			return err
		}
		s.mu.Lock()
		delete(s.pushes, r.name)
		s.mu.Unlock()
		fault.Point(FaultRemoved)
		s.forget(ctx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pushv1.DeletePushResponse{}, nil
}

// deleteReplication has the target forget its replication. One that is another's, or not there, is left alone.
func (s *Service) deleteReplication(ctx context.Context, p *push, r *stored) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := p.dial(r)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, replication := applierv1.NewApplierServiceClient(conn), replicationName(r.name, r.spec)
	there, err := client.GetReplication(ctx, &applierv1.GetReplicationRequest{Name: replication})
	if rpc.Reason(err) == reasonNoReplication {
		return nil
	}
	if err == nil && !s.owns(there.GetReplication(), r.name) {
		return nil
	}
	if err == nil {
		_, err = client.DeleteReplication(ctx, &applierv1.DeleteReplicationRequest{Name: replication, Etag: there.GetReplication().GetEtag()})
	}
	if err != nil {
		f := classify(err, r.spec.GetTarget())
		return rpc.Errorf(codes.FailedPrecondition, f.reason, "the target's replication %s cannot be deleted, so push %s stays: %s", replication, r.name, f.text)
	}
	return nil
}

// forget has the change log keep nothing for a push any more.
func (s *Service) forget(ctx context.Context, p *push) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	err := s.forgetFollowers(ctx, func(push string) bool { return push == p.name })
	if err != nil {
		p.log.Warn("the change log still lists the push as a follower, until this server starts again", "error", rpc.Message(err))
	}
}

// forgetGone has the change log keep nothing for pushes that there are no longer: the process ended after one was deleted, and before its
// follower was. It tries until that is done, or ctx is.
func (s *Service) forgetGone(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if s.forgetGoneOnce(ctx) == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause(DefaultRetryBase, DefaultRetryCap, attempt)):
		}
	}
}

func (s *Service) forgetGoneOnce(ctx context.Context) error {
	if err := s.naming.take(ctx); err != nil {
		return err
	}
	defer s.naming.give() // so no push is created meanwhile
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	return s.forgetFollowers(ctx, func(push string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pushes[push] == nil
	})
}

// forgetFollowers deletes the followers of the pushes that are gone.
func (s *Service) forgetFollowers(ctx context.Context, gone func(push string) bool) error {
	list, err := s.loggerClient().ListFollowers(ctx, &loggerv1.ListFollowersRequest{})
	for _, one := range list.GetFollowers() {
		name, ours := strings.CutPrefix(one.GetName(), followerPrefix)
		push, _, named := strings.Cut(name, "/")
		if !ours || !named || !gone(push) {
			continue
		}
		if failed := s.forgetFollower(ctx, one.GetName()); failed != nil {
			err = failed
		}
	}
	return err
}

func (s *Service) forgetFollower(ctx context.Context, name string) error {
	for {
		_, err := s.loggerClient().DeleteFollower(ctx, &loggerv1.DeleteFollowerRequest{Follower: name})
		switch rpc.Reason(err) {
		case reasonNoFollower:
			return nil
		case reasonFollows:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("delete follower %s: %w", name, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
