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
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/services/applier"
)

// logFlags say what of the run log is shown.
type logFlags struct {
	clientFlags
	follow bool
	limit  int32
	since  time.Duration
}

func newReplicationLogCommand() *cobra.Command {
	return newRunLogCommand("log NAME", "Show what has happened to one replication", `  syncline replication log shop
  syncline replication log shop --since 24h --json
  syncline replication log shop -f`, oneName)
}

func newLogCommand() *cobra.Command {
	return newRunLogCommand("log", "Show what has happened to all replications of a replica", `  syncline log --limit 100
  syncline log -f`, wrongUse(cobra.NoArgs))
}

func newRunLogCommand(use, about, example string, args cobra.PositionalArgs) *cobra.Command {
	f, kept := logFlags{limit: 50}, applier.DefaultConfig()
	cmd := &cobra.Command{
		Use: use, Short: about, Example: example, Args: args,
		Long: about + fmt.Sprintf(`: what users decided, states, faults and whose they are, and copies. The replica keeps events for
%.0f days, and %s of each replication, unless it was started with other limits. With --json one object for each line.`,
			kept.EventsMaxAge.Hours()/24, count(int64(kept.EventsMaxCount))),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.limit < 0 || f.since < 0 {
				return usageError{errors.New("--limit and --since: expected 0, or more")}
			}
			return applierCall(cmd.Context(), &f.clientFlags, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				err := f.print(ctx, cmd.OutOrStdout(), client, strings.Join(args, ""))
				if f.follow && cmd.Context().Err() != nil {
					return nil //nolint:nilerr // whoever ends it has seen enough
				}
				return err
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().Int32Var(&f.limit, "limit", f.limit, "show at most so many events, the newest; 0 for all")
	cmd.Flags().DurationVar(&f.since, "since", 0, "show only what happened in this time, as in 2h; 0 for all")
	return cmd
}

func (f *logFlags) print(ctx context.Context, out io.Writer, client applierv1.ApplierServiceClient, replication string) error {
	events, err := f.newest(ctx, client, replication)
	if err != nil {
		return err
	}
	last := int64(0)
	for _, e := range slices.Backward(events) {
		if err := f.one(out, e); err != nil {
			return err
		}
		last = e.GetId()
	}
	if !f.follow {
		if len(events) == 0 && !f.json {
			fmt.Fprintln(out, "nothing has happened")
		}
		return nil
	}
	stream, err := client.WatchReplicationEvents(ctx, &applierv1.WatchReplicationEventsRequest{Replication: replication, AfterId: last})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := f.one(out, answer.GetEvent()); err != nil {
			return err
		}
	}
}

// newest returns the newest events, the newest first.
func (f *logFlags) newest(ctx context.Context, client applierv1.ApplierServiceClient, replication string) ([]*applierv1.Event, error) {
	request := &applierv1.ListReplicationEventsRequest{Replication: replication, NewestFirst: true}
	if f.since > 0 {
		request.Since = timestamppb.New(time.Now().Add(-f.since))
	}
	var events []*applierv1.Event
	for {
		request.PageSize = logPage
		if f.limit > 0 {
			request.PageSize = min(logPage, f.limit-int32(len(events)))
		}
		page, err := f.page(ctx, client, request)
		if err != nil {
			return nil, err
		}
		events = append(events, page.GetEvents()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" || f.limit > 0 && len(events) >= int(f.limit) {
			return events, nil
		}
	}
}

const logPage = 1000

func (f *logFlags) page(ctx context.Context, client applierv1.ApplierServiceClient, request *applierv1.ListReplicationEventsRequest) (*applierv1.ListReplicationEventsResponse, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	return client.ListReplicationEvents(ctx, request)
}

func (f *logFlags) one(out io.Writer, e *applierv1.Event) error {
	if f.json {
		return printJSON(out, e, false)
	}
	_, err := fmt.Fprintln(out, printable(eventLine(e)))
	return err
}

// eventLine is an event as people read it.
func eventLine(e *applierv1.Event) string {
	kind := enumText(e.GetKind().String(), "EVENT_KIND_")
	parts := []string{stamp(e.GetTime()), e.GetReplication(), kind}
	if e.GetReplication() == "" {
		parts[1] = "-"
	}
	switch e.GetKind() {
	case applierv1.EventKind_EVENT_KIND_STATE:
		parts = append(parts, stateName(e.GetState()))
	case applierv1.EventKind_EVENT_KIND_RETRIED, applierv1.EventKind_EVENT_KIND_FAILED:
		if e.GetCount() > 1 {
			parts = append(parts, fmt.Sprintf("%d times in a row", e.GetCount()))
		}
	}
	text := e.GetText()
	if e.GetCode() != "" {
		text = why(e.GetCode(), text)
	}
	if side := enumText(e.GetSide().String(), "FAULT_SIDE_"); e.GetSide() != applierv1.FaultSide_FAULT_SIDE_UNSPECIFIED {
		text = side + " fault " + text
	}
	if text != "" {
		parts = append(parts, text)
	}
	if e.GetPosition() != nil {
		parts = append(parts, "at "+lsn(e.GetPosition().GetLsn()))
	}
	return strings.Join(parts, "  ")
}

// enumText is the name of an enum's value as people read it.
func enumText(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

// stamp prints a moment; a dash for none.
func stamp(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().Format("2006-01-02 15:04:05 MST")
}
