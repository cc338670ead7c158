package applier

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// watchPage is how many replications one answer of a watch tells of.
const watchPage = 100

// told is what a watch has told of a replication: a change makes another version, and another replication of the name another runner.
type told struct {
	of      *runner
	result  *applierv1.Replication
	version uint64
}

// WatchReplications looks at what has changed once in each interval: what a watch costs does not grow with the number of changes, and all
// that it keeps is a version for each replication.
func (s *Service) WatchReplications(in *applierv1.WatchReplicationsRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationsResponse]) error {
	ctx := stream.Context()
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(between(in.GetInterval(), defaultWatch, minWatch))
	defer tick.Stop()
	known := map[string]told{}
	for first := true; ; first = false {
		now := s.look(in.GetNamePrefix())
		if err := tellChanges(ctx, known, now, first, stream.Send); err != nil {
			return err
		}
		known = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look returns the version of each replication.
func (s *Service) look(prefix string) map[string]told {
	now := map[string]told{}
	for name, result := range s.results.all() {
		if strings.HasPrefix(name, prefix) {
			now[name] = told{result: result}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.runners {
		if strings.HasPrefix(name, prefix) {
			now[name] = told{of: r, version: r.status.versionNow()}
		}
	}
	return now
}

// versionNow grows with each change that is worth telling.
func (s *status) versionNow() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// tellChanges sends what is new, other or gone, a page at a time. The first time it ends with an answer that says that this was all.
func tellChanges(ctx context.Context, before, now map[string]told, first bool, send func(*applierv1.WatchReplicationsResponse) error) error {
	answer := &applierv1.WatchReplicationsResponse{}
	for name := range before {
		if _, there := now[name]; !there {
			answer.Deleted = append(answer.Deleted, name)
		}
	}
	slices.Sort(answer.Deleted)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		one := now[name]
		if was, there := before[name]; there && was == one {
			continue
		}
		if answer.Replications = append(answer.Replications, one.proto()); len(answer.GetReplications()) < watchPage {
			continue
		}
		if err := send(answer); err != nil {
			return err
		}
		if answer = (&applierv1.WatchReplicationsResponse{}); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if answer.Complete = first; first || len(answer.GetReplications())+len(answer.GetDeleted()) > 0 {
		return send(answer)
	}
	return nil
}

func (t told) proto() *applierv1.Replication {
	if t.of == nil {
		return brieflyOf(t.result)
	}
	return t.of.status.proto(t.of.snapshot(), false)
}
