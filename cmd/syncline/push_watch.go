package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/services/pusher"
)

// watchPushes prints every push, and then each that changes, until the user ends it. As JSON it prints one answer on a line.
func watchPushes(ctx context.Context, f *clientFlags, out io.Writer, client pushv1.PushServiceClient) error {
	stream, err := client.WatchPushes(ctx, &pushv1.WatchPushesRequest{})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		answer, err := stream.Recv()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // whoever ends it has seen enough
		}
		if err != nil {
			return err
		}
		if f.json {
			if err := printJSON(out, answer, false); err != nil {
				return err
			}
			continue
		}
		if first {
			fmt.Fprintln(out, "TIME      NAME  STATE  TARGET  REPLICA  POSITION  LAG  REASON")
		}
		for _, p := range answer.GetPushes() {
			fmt.Fprintln(out, printable(pushLine(time.Now(), p)))
		}
		for _, name := range answer.GetDeleted() {
			fmt.Fprintf(out, "%s  %s  deleted\n", time.Now().Format(time.TimeOnly), name)
		}
	}
}

// pushLine is a push on a line.
func pushLine(now time.Time, p *pushv1.Push) string {
	reason := why(p.GetReasonCode(), p.GetReason())
	if p.GetReasonCode() == "" {
		reason = p.GetReplicationReason()
	}
	return strings.TrimRight(fmt.Sprintf("%s  %s  %s  %s  %s  %s  %s  %s", now.Format(time.TimeOnly), p.GetName(), pushState(p), p.GetSpec().GetTarget(), replicaState(p),
		lsn(p.GetPosition().GetLsn()), strings.TrimSpace(size(p.GetLagBytes())+pushLag(p)), reason), " ")
}

// pushLogFlags say what of the pushes' past is shown.
type pushLogFlags struct {
	clientFlags
	limit int32
	since time.Duration
}

func newPushLogCommand() *cobra.Command {
	f := pushLogFlags{limit: 50}
	cmd := &cobra.Command{
		Use:   "log [NAME]",
		Short: "Show what has happened to one push, or to all",
		Long: fmt.Sprintf(`Shows what users decided, when the replica was reached, faults and whose they were, and what the replica's replication did. The primary
keeps it for %.0f days, and %s events of each push. With --json one object for each line.`, pusher.EventsMaxAge.Hours()/24, count(pusher.EventsMaxCount)),
		Example: `  syncline push log berlin
  syncline push log --since 24h --limit 0 --json`,
		Args: wrongUse(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.limit < 0 || f.since < 0 {
				return usageError{errors.New("--limit and --since: expected 0, or more")}
			}
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				return f.print(ctx, cmd.OutOrStdout(), pushv1.NewPushServiceClient(conn), strings.Join(args, ""))
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().Int32Var(&f.limit, "limit", f.limit, "show at most so many events, the newest; 0 for all")
	cmd.Flags().DurationVar(&f.since, "since", 0, "show only what happened in this time, as in 2h; 0 for all")
	return cmd
}

// print shows the newest events, the oldest of them first.
func (f *pushLogFlags) print(ctx context.Context, out io.Writer, client pushv1.PushServiceClient, push string) error {
	request := &pushv1.ListPushEventsRequest{Push: push, NewestFirst: true}
	if f.since > 0 {
		request.Since = timestamppb.New(time.Now().Add(-f.since))
	}
	var events []*pushv1.PushEvent
	for {
		request.PageSize = logPage
		if f.limit > 0 {
			request.PageSize = min(logPage, f.limit-int32(len(events)))
		}
		page, err := pushEvents(ctx, client, request)
		if err != nil {
			return err
		}
		events = append(events, page.GetEvents()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" || f.limit > 0 && len(events) >= int(f.limit) {
			break
		}
	}
	if len(events) == 0 && !f.json {
		fmt.Fprintln(out, "nothing has happened")
	}
	for _, e := range slices.Backward(events) {
		if f.json {
			if err := printJSON(out, e, false); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(out, printable(pushEventLine(e)))
	}
	return nil
}

func pushEvents(ctx context.Context, client pushv1.PushServiceClient, request *pushv1.ListPushEventsRequest) (*pushv1.ListPushEventsResponse, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	return client.ListPushEvents(ctx, request)
}

// pushEventLine is an event as people read it.
func pushEventLine(e *pushv1.PushEvent) string {
	name := e.GetPush()
	if name == "" {
		name = "-"
	}
	parts := []string{stamp(e.GetTime()), name, enumText(e.GetKind().String(), "PUSH_EVENT_KIND_")}
	if e.GetKind() == pushv1.PushEventKind_PUSH_EVENT_KIND_REPLICATION {
		parts = append(parts, stateName(e.GetReplicationState()))
	}
	if e.GetKind() != pushv1.PushEventKind_PUSH_EVENT_KIND_LOST && e.GetCount() > 1 {
		parts = append(parts, fmt.Sprintf("%d times in a row", e.GetCount()))
	}
	text := e.GetText()
	if e.GetCode() != "" {
		text = why(e.GetCode(), text)
	}
	if e.GetSide() != applierv1.FaultSide_FAULT_SIDE_UNSPECIFIED {
		text = enumText(e.GetSide().String(), "FAULT_SIDE_") + " fault " + text
	}
	if text != "" {
		parts = append(parts, text)
	}
	if e.GetPosition() != nil {
		parts = append(parts, "at "+lsn(e.GetPosition().GetLsn()))
	}
	return strings.Join(parts, "  ")
}
