package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newRunsCommand() *cobra.Command {
	var f clientFlags
	limit, follow := int32(20), false
	cmd := &cobra.Command{
		Use:   "runs NAME",
		Short: "List the runs of a replication, the newest first",
		Long: `Lists each run of a replication of mode once, and each time from start to stop of a continuous one: what it was begun by, how it ended, whose fault
that was, and what it did. success has done all without a fault; warning has met faults that passed, or was stopped by a user before its end; error has given up after
faults that may pass; fatal needs somebody to mend what its reason names. SET ASIDE counts the changes that went into quarantine. Runs are kept as long as
the run log. --follow goes on with each run that begins, meets something or ends.`,
		Example: "  syncline replication runs shop\n  syncline replication runs shop --limit 0 --json\n  syncline replication runs shop --follow",
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError{errors.New("--limit: expected 0, or more")}
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				if follow {
					err := followRuns(ctx, client, &f, cmd.OutOrStdout(), args[0], limit)
					if cmd.Context().Err() != nil {
						return nil //nolint:nilerr // whoever ends it has seen enough
					}
					return err
				}
				answer, err := listRuns(ctx, client, args[0], int(limit))
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderRuns)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on; with --limit 0 from the newest 1,000 on")
	cmd.Flags().Int32Var(&limit, "limit", limit, "show at most so many, the newest; 0 for all")
	return cmd
}

// listRuns puts as many pages as are needed into one answer.
func listRuns(ctx context.Context, client applierv1.ApplierServiceClient, replication string, limit int) (*applierv1.ListRunsResponse, error) {
	request, all := &applierv1.ListRunsRequest{Replication: replication}, &applierv1.ListRunsResponse{}
	for {
		request.PageSize = logPage
		if limit > 0 {
			request.PageSize = int32(min(logPage, limit-len(all.GetRuns())))
		}
		calling, cancel := short(ctx)
		page, err := client.ListRuns(calling, request)
		cancel()
		if err != nil {
			return nil, err
		}
		all.Runs = append(all.Runs, page.GetRuns()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" || limit > 0 && len(all.GetRuns()) >= limit {
			return all, nil
		}
	}
}

func renderRuns(out io.Writer, answer *applierv1.ListRunsResponse) {
	if len(answer.GetRuns()) == 0 {
		fmt.Fprintln(out, "nothing has run yet")
		return
	}
	rows := [][]string{{"RUN", "BY", "BEGAN", "TOOK", "RESULT", "FAULT", "COPIED", "TRANSACTIONS", "CHANGES", "SET ASIDE", "UP TO", "APPLIER", "NOTE"}}
	for _, r := range answer.GetRuns() {
		took := "-"
		if r.GetEndTime() != nil {
			took = r.GetEndTime().AsTime().Sub(r.GetBeginTime().AsTime()).Round(10 * time.Millisecond).String()
		}
		fault := "-"
		if r.GetSide() != applierv1.FaultSide_FAULT_SIDE_UNSPECIFIED {
			fault = enumText(r.GetSide().String(), "FAULT_SIDE_")
		}
		rows = append(rows, []string{
			fmt.Sprint(r.GetId()), enumText(r.GetTrigger().String(), "RUN_TRIGGER_"), stamp(r.GetBeginTime()), took, runResult(r), fault, count(r.GetRowsCopied()),
			count(r.GetTransactions()), count(r.GetChanges()), count(r.GetSetAside()), lsn(r.GetTo().GetLsn()), r.GetApplier(), runNote(r),
		})
	}
	table(out, rows)
}

// mostFollowed is how many runs can be followed from the beginning.
const mostFollowed = 1000

// followRuns prints runs as they begin, meet something and end; with --json whenever they change, in one line each.
func followRuns(ctx context.Context, client applierv1.ApplierServiceClient, f *clientFlags, out io.Writer, replication string, limit int32) error {
	if limit == 0 || limit > mostFollowed {
		limit = mostFollowed
	}
	stream, err := client.WatchRuns(ctx, &applierv1.WatchRunsRequest{Replication: replication, Newest: limit})
	if err != nil {
		return err
	}
	said := map[int64]string{} // of the runs that go on
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		r := answer.GetRun()
		if f.json {
			if err := printJSON(out, r, false); err != nil {
				return err
			}
			continue
		}
		if now := runStage(r); said[r.GetId()] != now {
			said[r.GetId()] = now
			fmt.Fprintln(out, printable(runLine(r)))
		}
		if r.GetEndTime() != nil && len(said) > mostFollowed {
			delete(said, r.GetId())
		}
	}
}

// runStage changes with what is worth a line.
func runStage(r *applierv1.Run) string {
	return fmt.Sprint(r.GetEndTime() != nil, runResult(r), r.GetFaults(), r.GetSetAside() > 0, r.GetTakeovers(), r.GetSkipped())
}

// runLine is a run in one line.
func runLine(r *applierv1.Run) string {
	at := r.GetBeginTime()
	if r.GetEndTime() != nil {
		at = r.GetEndTime()
	}
	line := fmt.Sprintf("%s  run %d  %s  by %s  %s copied, %s transactions, %s changes, %s set aside", stamp(at), r.GetId(), runResult(r), enumText(r.GetTrigger().String(), "RUN_TRIGGER_"),
		count(r.GetRowsCopied()), count(r.GetTransactions()), count(r.GetChanges()), count(r.GetSetAside()))
	if note := runNote(r); note != "-" {
		line += "  " + note
	}
	return line
}

func runResult(r *applierv1.Run) string {
	if r.GetEndTime() == nil {
		return "running"
	}
	return enumText(r.GetResult().String(), "RUN_RESULT_")
}

// runNote is what else is to be said of a run.
func runNote(r *applierv1.Run) string {
	var text string
	add := func(n int32, what string) {
		if n > 0 {
			text += fmt.Sprintf("%d %s; ", n, what)
		}
	}
	add(r.GetMissed(), "missed before")
	add(r.GetSkipped(), "skipped meanwhile")
	add(r.GetTakeovers(), "taken over")
	add(r.GetFaults(), "faults")
	if r.GetText() != "" || r.GetCode() != "" {
		return text + why(r.GetCode(), r.GetText())
	}
	if text == "" {
		return "-"
	}
	return text[:len(text)-2]
}
