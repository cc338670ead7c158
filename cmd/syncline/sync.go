package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// syncFlags are the flags that set what the API calls otherwise.
var syncFlags = map[string]string{
	"include_tables": "--table", "exclude_tables": "--exclude-table", "mode": "--mode", "max_hold": "--max-hold", "name": "NAME", "sync_id": "ID",
}

func newSyncCommand() *cobra.Command {
	var f clientFlags
	var mode string
	var wait bool
	hold := 30 * time.Second
	request := &applierv1.SyncReplicationRequest{}
	cmd := &cobra.Command{
		Use:   "sync NAME --mode copy|incremental",
		Short: "Make tables of a replica equal to its source's, by a job on the replica",
		Long: `Begins a job that works on the replica whether or not this command goes on. The mode copy empties the tables and copies them anew;
incremental compares them and mends what differs, as repair does. The replication has to be running, and follows on afterwards.

One job of a replication runs at a time. Its result can be read for a day. With --wait the command shows the progress and ends with
the job: exit code 0 when all is equal, 1 otherwise.`,
		Example: `  syncline sync shop --mode incremental --dry-run --wait
  syncline sync shop --mode copy --table public.orders
  syncline sync list`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			modes := map[string]applierv1.SyncMode{"copy": applierv1.SyncMode_SYNC_MODE_COPY, "incremental": applierv1.SyncMode_SYNC_MODE_INCREMENTAL}
			if request.Mode = modes[mode]; request.GetMode() == applierv1.SyncMode_SYNC_MODE_UNSPECIFIED {
				return usageError{fmt.Errorf("--mode %q is unknown: use copy to empty the tables and copy them anew, or incremental to mend what differs", mode)}
			}
			request.Name, request.MaxHold = args[0], durationpb.New(hold)
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				return startSync(ctx, cmd, &f, client, request, wait)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", "", "copy, or incremental (needed)")
	patternsFlag(flags, &request.IncludeTables, "table", "only these tables of the source: schema.table, schema.*; may be repeated")
	patternsFlag(flags, &request.ExcludeTables, "exclude-table", "leave these tables out")
	flags.BoolVar(&request.DryRun, "dry-run", false, "change nothing, and tell what would be changed")
	flags.DurationVar(&hold, "max-hold", hold, "how long applying may stand still at a time, in the mode incremental")
	flags.BoolVar(&wait, "wait", false, "show the progress, and return when the job has ended")
	cmd.AddCommand(newSyncListCommand(), newSyncIDCommand("show", "Show a job with its tables and rows", showSync), newSyncIDCommand("watch", "Follow a job until it ends", watchOne),
		newSyncIDCommand("cancel", "End a job", cancelSync))
	return cmd
}

func startSync(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, request *applierv1.SyncReplicationRequest, wait bool) error {
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.SyncReplication(calling, request)
	if err != nil {
		return flagError(err, syncFlags)
	}
	id := answer.GetSync().GetSyncId()
	switch {
	case wait:
		return watchOne(ctx, cmd, f, client, id)
	case f.json:
		return printJSON(cmd.OutOrStdout(), answer.GetSync(), true)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "sync %s of replication %s has begun\nnext: syncline sync watch %s --addr %s\n", id, request.GetName(), id, f.address)
	return nil
}

func newSyncListCommand() *cobra.Command {
	var f clientFlags
	request := &applierv1.ListSyncsRequest{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the jobs that run, and those that ended within the last day",
		Args:  wrongUse(cobra.NoArgs),

		Example: "  syncline sync list --replication shop",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				answer, err := client.ListSyncs(ctx, request)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), answer, true)
				}
				rows := [][]string{{"ID", "REPLICATION", "MODE", "STATE", "BEGAN", "RESULT"}}
				for _, s := range answer.GetSyncs() {
					rows = append(rows, []string{s.GetSyncId(), s.GetReplication(), syncMode(s), syncState(s), s.GetCreateTime().AsTime().Format(time.RFC3339), syncOutcome(s)})
				}
				if len(rows) == 1 {
					fmt.Fprintln(cmd.OutOrStdout(), "no jobs")
					return nil
				}
				table(cmd.OutOrStdout(), rows)
				return nil
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().StringVar(&request.Replication, "replication", "", "only those of this replication")
	return cmd
}

// newSyncIDCommand makes a command for one job.
func newSyncIDCommand(verb, short string, run func(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, id string) error) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   verb + " ID",
		Short: short,

		Example: "  syncline sync " + verb + " 7f3a9c0d51e2b846",
		Args: wrongUse(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("the ID of one job is expected; `syncline sync list` shows them")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				return run(ctx, cmd, &f, client, args[0])
			})
		},
	}
	f.register(cmd, replicaGRPC)
	return cmd
}

func showSync(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.GetSync(ctx, &applierv1.GetSyncRequest{SyncId: id})
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), answer.GetSync(), true)
	}
	renderSync(cmd.OutOrStdout(), answer.GetSync())
	return nil
}

func cancelSync(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.CancelSync(ctx, &applierv1.CancelSyncRequest{SyncId: id})
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), answer.GetSync(), true)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "sync %s is %s\n", id, syncState(answer.GetSync()))
	return nil
}

// watchOne shows a job's progress, and at its end what came of it.
func watchOne(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, id string) error {
	stream, err := client.WatchSync(ctx, &applierv1.WatchSyncRequest{SyncId: id})
	if err != nil {
		return err
	}
	progress := &repairLines{out: cmd.ErrOrStderr()}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if answer.GetSync().GetState() == applierv1.SyncState_SYNC_STATE_RUNNING {
			progress.update(answer.GetSync().GetProgress())
		}
	}
	if err := showSync(ctx, cmd, f, client, id); err != nil {
		return err
	}
	answer, err := client.GetSync(ctx, &applierv1.GetSyncRequest{SyncId: id})
	switch s := answer.GetSync(); {
	case err != nil:
		return err
	case s.GetState() != applierv1.SyncState_SYNC_STATE_COMPLETED:
		return fmt.Errorf("sync %s is %s", id, syncState(s))
	case !s.GetResult().GetEqual():
		return fmt.Errorf("%w: %s", errNotMended, syncOutcome(s))
	}
	return nil
}

func renderSync(out io.Writer, s *applierv1.Sync) {
	for _, row := range s.GetRows() {
		fmt.Fprintln(out, printable(repairedLine(row, s.GetDryRun())))
	}
	for _, t := range s.GetTables() {
		renderRepairedTable(out, t)
	}
	line := fmt.Sprintf("sync %s of %s, %s: %s", s.GetSyncId(), s.GetReplication(), syncMode(s), syncState(s))
	if s.GetState() == applierv1.SyncState_SYNC_STATE_RUNNING {
		line += ", " + s.GetProgress().GetPhase() + repairNumbers(s.GetProgress())
	} else if outcome := syncOutcome(s); outcome != "" {
		line += ": " + outcome
	}
	fmt.Fprintln(out, printable(line))
}

func syncMode(s *applierv1.Sync) string {
	mode := strings.ToLower(strings.TrimPrefix(s.GetMode().String(), "SYNC_MODE_"))
	if s.GetDryRun() {
		mode += " (dry run)"
	}
	return mode
}

func syncState(s *applierv1.Sync) string {
	return strings.ToLower(strings.TrimPrefix(s.GetState().String(), "SYNC_STATE_"))
}

// syncOutcome is what came of a job, in words.
func syncOutcome(s *applierv1.Sync) string {
	r := s.GetResult()
	switch {
	case s.GetReason() != "":
		return s.GetReasonCode() + ": " + s.GetReason()
	case r == nil:
		return ""
	case r.GetDryRun():
		return fmt.Sprintf("%d tables would be changed, %d are equal, %d cannot be mended", r.GetTablesDifferent(), r.GetTablesEqual(), r.GetTablesNotMended())
	case r.GetEqual():
		return fmt.Sprintf("equal, %d tables were equal and %d were made so: %s", r.GetTablesEqual(), r.GetTablesMended(), changedRows(r))
	}
	return fmt.Sprintf("%d tables are not equal, %d were made so: %s", r.GetTablesNotMended(), r.GetTablesMended(), changedRows(r))
}
