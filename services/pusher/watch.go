package pusher

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	defaultWatch = time.Second
	minWatch     = 100 * time.Millisecond
	// watchPage is how many pushes one answer of a watch tells of.
	watchPage = 100

	defaultEventPage = 100
	maxEventPage     = 1000
)

// told is what a watch has told of a push: a change makes another version, and another push of the name is another one.
type told struct {
	of      *push
	version uint64
}

// WatchPushes looks at what has changed once in each interval: what a watch costs does not grow with the number of changes, and all that it
// keeps is a version for each push.
func (s *Service) WatchPushes(in *pushv1.WatchPushesRequest, stream grpc.ServerStreamingServer[pushv1.WatchPushesResponse]) error {
	ctx := stream.Context()
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	interval := defaultWatch
	if d := in.GetInterval(); d != nil {
		interval = max(d.AsDuration(), minWatch)
	}
	tick := time.NewTicker(interval)
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

// look returns the version of each push.
func (s *Service) look(prefix string) map[string]told {
	now := map[string]told{}
	for _, p := range s.all() {
		if strings.HasPrefix(p.name, prefix) {
			p.mu.Lock()
			now[p.name] = told{p, p.version}
			p.mu.Unlock()
		}
	}
	return now
}

// tellChanges sends what is new, other or gone, a page at a time. The first time it ends with an answer that says that this was all.
func tellChanges(ctx context.Context, before, now map[string]told, first bool, send func(*pushv1.WatchPushesResponse) error) error {
	answer := &pushv1.WatchPushesResponse{}
	for name := range before {
		if _, there := now[name]; !there {
			answer.Deleted = append(answer.Deleted, name)
		}
	}
	slices.Sort(answer.Deleted)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if before[name] == now[name] {
			continue
		}
		if answer.Pushes = append(answer.Pushes, now[name].of.proto()); len(answer.GetPushes()) < watchPage {
			continue
		}
		if err := send(answer); err != nil {
			return err
		}
		if answer = (&pushv1.WatchPushesResponse{}); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if answer.Complete = first; first || len(answer.GetPushes())+len(answer.GetDeleted()) > 0 {
		return send(answer)
	}
	return nil
}

// ListPushEvents returns a page of what has happened.
func (s *Service) ListPushEvents(ctx context.Context, in *pushv1.ListPushEventsRequest) (*pushv1.ListPushEventsResponse, error) {
	size := int(in.GetPageSize())
	switch {
	case size < 0 || size > maxEventPage:
		return nil, rpc.Invalid("page_size", "%d is not from 0 to %d", size, maxEventPage)
	case size == 0:
		size = defaultEventPage
	}
	f := eventFilter{push: in.GetPush(), newestFirst: in.GetNewestFirst(), limit: size + 1}
	if at := in.GetSince(); at != nil {
		if err := at.CheckValid(); err != nil {
			return nil, rpc.Invalid("since", "is not a time")
		}
		since := at.AsTime()
		f.since = &since
	}
	order := "oldest"
	if f.newestFirst {
		order = "newest"
	}
	var err error
	if f.after, err = readToken(in.GetPageToken(), order); err != nil {
		return nil, err
	}
	list, err := s.store.events(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && f.push != "" {
		if err := s.everHeardOf(ctx, f.push); err != nil {
			return nil, err
		}
	}
	out := &pushv1.ListPushEventsResponse{}
	if len(list) > size {
		list = list[:size]
		out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(order + " " + strconv.FormatInt(list[size-1].id, 10)))
	}
	for _, e := range list {
		out.Events = append(out.Events, e.proto())
	}
	return out, nil
}

// readToken returns after which event a page begins; 0 for the first one.
func readToken(token, order string) (after int64, err error) {
	if token == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	number, found := strings.CutPrefix(string(text), order+" ")
	if err == nil && found {
		after, err = strconv.ParseInt(number, 10, 64)
	}
	if err != nil || !found || after <= 0 {
		return 0, rpc.Invalid("page_token", "is not the next_page_token of an answer to the same question")
	}
	return after, nil
}

// everHeardOf refuses the name of a push that there neither is nor was, as far back as events are kept.
func (s *Service) everHeardOf(ctx context.Context, name string) error {
	_, missing := s.find(ctx, name)
	if missing == nil {
		return nil
	}
	list, err := s.store.events(ctx, eventFilter{push: name, limit: 1})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return missing
	}
	return nil
}
