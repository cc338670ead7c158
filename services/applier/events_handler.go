package applier

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	defaultEventPage = 100
	maxEventPage     = 1000
	// eventPoll is how often a watched run log is read although this process has written nothing: another one may have.
	eventPoll = 5 * time.Second
)

// ListReplicationEvents returns a page of the run log.
func (s *Service) ListReplicationEvents(ctx context.Context, in *applierv1.ListReplicationEventsRequest) (*applierv1.ListReplicationEventsResponse, error) {
	order := "oldest"
	if in.GetNewestFirst() {
		order = "newest"
	}
	size, err := pageSize(in.GetPageSize(), defaultEventPage, maxEventPage)
	if err != nil {
		return nil, err
	}
	f := eventFilter{replication: in.GetReplication(), newestFirst: in.GetNewestFirst(), limit: size + 1}
	if f.since, err = timeOf("since", in.GetSince()); err != nil {
		return nil, err
	}
	after, err := readToken(in.GetPageToken(), order)
	if err == nil && after != "" {
		if f.after, err = strconv.ParseInt(after, 10, 64); err != nil {
			err = rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
		}
	}
	if err != nil {
		return nil, err
	}
	list, err := s.store.events(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if err := s.everHeardOf(ctx, in.GetReplication()); err != nil {
			return nil, err
		}
	}
	out := &applierv1.ListReplicationEventsResponse{}
	if len(list) > size {
		list = list[:size]
		out.NextPageToken = writeToken(order, strconv.FormatInt(list[size-1].id, 10))
	}
	for _, e := range list {
		out.Events = append(out.Events, e.proto())
	}
	return out, nil
}

func timeOf(field string, at *timestamppb.Timestamp) (*time.Time, error) {
	if at == nil {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	if err := at.CheckValid(); err != nil {
		return nil, rpc.Invalid(field, "is not a time")
	}
	t := at.AsTime()
	return &t, nil
}

// everHeardOf refuses the name of a replication that there neither is nor was, as far back as the run log goes.
func (s *Service) everHeardOf(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, missing := s.runner(ctx, name)
	if missing == nil {
		return nil
	}
	list, err := s.store.events(ctx, eventFilter{replication: name, limit: 1})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return missing
	}
	return nil
}

// WatchReplicationEvents streams the run log until the call ends.
func (s *Service) WatchReplicationEvents(in *applierv1.WatchReplicationEventsRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationEventsResponse]) error {
	ctx := stream.Context()
	f := eventFilter{replication: in.GetReplication(), after: in.GetAfterId(), limit: maxEventPage}
	if f.after < 0 {
		return rpc.Invalid("after_id", "%d is negative", f.after)
	}
	var err error
	if f.since, err = timeOf("since", in.GetSince()); err != nil {
		return err
	}
	if err := s.everHeardOf(ctx, f.replication); err != nil {
		return err
	}
	tick := time.NewTicker(eventPoll)
	defer tick.Stop()
	for {
		written := s.store.runLog.written()
		list, err := s.store.events(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := stream.Send(&applierv1.WatchReplicationEventsResponse{Event: e.proto()}); err != nil {
				return fmt.Errorf("send event: %w", err)
			}
			f.after = e.id
		}
		if len(list) == f.limit {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-written:
		case <-tick.C:
		}
	}
}
