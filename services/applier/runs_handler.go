package applier

import (
	"context"
	"strconv"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	defaultRunPage = 100
	maxRunPage     = 1000
)

// ListRuns returns a page of runs, the newest first.
func (s *Service) ListRuns(ctx context.Context, in *applierv1.ListRunsRequest) (*applierv1.ListRunsResponse, error) {
	size, err := pageSize(in.GetPageSize(), defaultRunPage, maxRunPage)
	if err != nil {
		return nil, err
	}
	after, err := readToken(in.GetPageToken(), "runs")
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if after != "" {
		if before, err = strconv.ParseInt(after, 10, 64); err != nil {
			return nil, rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
		}
	}
	list, err := s.store.runsBefore(ctx, in.GetReplication(), before, size+1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if err := s.everHeardOf(ctx, in.GetReplication()); err != nil {
			return nil, err
		}
	}
	out := &applierv1.ListRunsResponse{}
	if len(list) > size {
		list = list[:size]
		out.NextPageToken = writeToken("runs", strconv.FormatInt(list[size-1].ID, 10))
	}
	for _, run := range list {
		out.Runs = append(out.Runs, run.proto())
	}
	return out, nil
}
