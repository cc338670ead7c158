package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// watchReplications prints every replication, and then each that changes, until the user ends it. As JSON it prints one answer on a line.
func watchReplications(ctx context.Context, f *clientFlags, out io.Writer, client applierv1.ApplierServiceClient, narrow *applierv1.ListReplicationsRequest) error {
	stream, err := client.WatchReplications(ctx, &applierv1.WatchReplicationsRequest{NamePrefix: narrow.GetNamePrefix()})
	if err != nil {
		return err
	}
	shown := map[string]bool{}
	for first := true; ; {
		answer, err := stream.Recv()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // whoever ends it has seen enough
		}
		if err != nil {
			return err
		}
		answer.Replications = slices.DeleteFunc(answer.GetReplications(), func(r *applierv1.Replication) bool {
			wanted := len(narrow.GetStates()) == 0 || slices.Contains(narrow.GetStates(), r.GetState())
			tell := wanted || shown[r.GetName()] // once more, to say that it is not so any more
			shown[r.GetName()] = wanted
			return !tell
		})
		if f.json {
			if err := printJSON(out, answer, false); err != nil {
				return err
			}
			continue
		}
		if first {
			fmt.Fprintln(out, "TIME      NAME  STATE  POSITION  LAG  CHANGES/S  COPIED  REASON")
			first = false
		}
		for _, r := range answer.GetReplications() {
			fmt.Fprintln(out, printable(watchLine(time.Now(), r)))
		}
		for _, name := range answer.GetDeleted() {
			fmt.Fprintf(out, "%s  %s  deleted\n", time.Now().Format(time.TimeOnly), name)
		}
	}
}

// watchLine is a replication on a line.
func watchLine(now time.Time, r *applierv1.Replication) string {
	state := stateName(r.GetState())
	if place := r.GetWaitingPlace(); place > 0 {
		state += fmt.Sprintf(" (place %d)", place)
	}
	return fmt.Sprintf("%s  %s  %s  %s  %s  %s  %.0f %%  %s", now.Format(time.TimeOnly), r.GetName(), state, lsn(r.GetPosition().GetLsn()), size(r.GetLagBytes()),
		count(int64(r.GetChangesPerSecond())), 100*r.GetSync().GetFraction(), why(r.GetReasonCode(), r.GetReason()))
}
