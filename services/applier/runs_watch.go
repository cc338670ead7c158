package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	defaultWatchedRuns = 20
	// runSettles is how long a run that has ended is looked at: what was applied before its stop is counted a moment later.
	runSettles = 10 * time.Second
)

// watchedRun is a run as a watch has told it.
type watchedRun struct {
	told  *applierv1.Run
	ended time.Time // when that was noticed; zero while it goes on
}

// WatchRuns streams runs until the call ends. It looks at what is stored once in each interval, so it keeps no more than the runs that go on, one
// for each replication, and those that have just ended.
func (s *Service) WatchRuns(in *applierv1.WatchRunsRequest, stream grpc.ServerStreamingServer[applierv1.WatchRunsResponse]) error {
	ctx := stream.Context()
	newest := int(in.GetNewest())
	switch {
	case newest < 0 || newest > maxRunPage:
		return rpc.Invalid("newest", "%d is not from 0 to %d", newest, maxRunPage)
	case newest == 0:
		newest = defaultWatchedRuns
	}
	if err := s.everHeardOf(ctx, in.GetReplication()); err != nil {
		return err
	}
	after, err := s.store.runsBehind(ctx, in.GetReplication(), newest)
	if err != nil {
		return err
	}
	tick := time.NewTicker(between(in.GetInterval(), defaultWatch, minWatch))
	defer tick.Stop()
	watched := map[int64]*watchedRun{}
	for {
		list, err := s.store.runsChanging(ctx, in.GetReplication(), after, keysOf(watched))
		if err != nil {
			return err
		}
		for _, run := range list {
			after = max(after, run.ID)
			if err := tellRun(watched, run.ID, run.proto(), stream.Send); err != nil {
				return err
			}
		}
		forgetRuns(watched)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tellRun sends a run that is new or has changed.
func tellRun(watched map[int64]*watchedRun, id int64, now *applierv1.Run, send func(*applierv1.WatchRunsResponse) error) error {
	known := watched[id]
	if known == nil {
		known = &watchedRun{}
		watched[id] = known
	}
	if now.GetEndTime() != nil && known.ended.IsZero() {
		known.ended = time.Now()
	}
	if proto.Equal(known.told, now) {
		return nil
	}
	known.told = now
	if err := send(&applierv1.WatchRunsResponse{Run: now}); err != nil {
		return fmt.Errorf("send run: %w", err)
	}
	return nil
}

// forgetRuns forgets those of which nothing more is to come.
func forgetRuns(watched map[int64]*watchedRun) {
	for id, known := range watched {
		if !known.ended.IsZero() && time.Since(known.ended) > runSettles {
			delete(watched, id)
		}
	}
}

func keysOf(watched map[int64]*watchedRun) []int64 {
	ids := make([]int64, 0, len(watched))
	for id := range watched {
		ids = append(ids, id)
	}
	return ids
}

// runsBehind is the id of the run before the newest so many; 0 where there is none.
func (s *store) runsBehind(ctx context.Context, replication string, newest int) (id int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce((SELECT id FROM syncline.job_runs WHERE $1 = '' OR replication = $1 ORDER BY id DESC OFFSET $2 LIMIT 1), 0)`, replication, newest).Scan(&id)
	return id, wrapUnlessNil(err, "list runs")
}

// runsChanging are the runs that go on, those after an id, and those that are watched.
func (s *store) runsChanging(ctx context.Context, replication string, after int64, watched []int64) ([]*jobRun, error) {
	rows, err := s.pool.Query(ctx, `SELECT to_jsonb(j) FROM syncline.shown_runs j
		WHERE ($1 = '' OR replication = $1) AND (ended_at IS NULL OR id > $2 OR id = ANY ($3)) ORDER BY id`, replication, after, watched)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanRun)
	return list, wrapUnlessNil(err, "list runs")
}

func scanRun(row pgx.CollectableRow) (*jobRun, error) {
	var content []byte
	if err := row.Scan(&content); err != nil {
		return nil, err
	}
	return readRun(content)
}
