package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newRunCommand() *cobra.Command {
	var f clientFlags
	var r replicationFlags
	var name, initial string
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "run --source HOST:PORT",
		Short: "Copy a primary's tables once, catch up, and leave no replication behind",
		Long: `Copies, applies what was committed on the source until then, and forgets all but the result, which ` + "`replication show`" + `
and ` + "`replication list`" + ` show for a day. The run goes on when this command is interrupted; ` + "`replication stop`" + ` cancels it. It is
gone when the replica's process ends. To run it again on the same tables, --initial incremental ships only what differs.`,
		Example: `  syncline replication run --source db1:7400
  syncline replication run --source db1:7400 --table 'public.orders' --initial incremental --name nightly`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.spec.GetSource() == "" {
				return usageError{errors.New("--source (SYNCLINE_SOURCE) is needed: the gRPC address of a primary, such as db1:7400")}
			}
			r.spec.Set, r.spec.Parameters = only.set, only.parameters
			if err := errors.Join(r.finish(), setInitial(&r.spec, initial)); err != nil {
				return err
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				final, err := runToEnd(ctx, client, &applierv1.RunReplicationRequest{Name: name, Spec: &r.spec}, cmd.ErrOrStderr())
				if err != nil {
					return inFlags(err)
				}
				if err := howItEnded(final); err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), final, func(out io.Writer, final *applierv1.Replication) {
					fmt.Fprintf(out, "run %s is completed: %s rows copied, %s transactions applied, up to %s\n", final.GetName(), count(final.GetCopiedRows()),
						count(final.GetTransactions()), lsn(final.GetCompletedPosition().GetLsn()))
				})
			})
		},
	}
	f.register(cmd, replicaGRPC)
	spec := pflag.NewFlagSet("run", pflag.ContinueOnError)
	r.register(spec)
	spec.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "mode" && !slices.Contains(scheduleFlagNames, flag.Name) { // a run is one, and begins at once
			cmd.Flags().AddFlag(flag)
		}
	})
	r.registerNames(cmd.Flags())
	only.register(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "name of the run; made up when empty")
	withoutVariable(cmd.Flags().Lookup("name"))
	cmd.Flags().StringVar(&initial, "initial", "copy", "what is done with tables that hold rows: copy refuses or replaces them, incremental mends what differs")
	return cmd
}

// runToEnd shows a run's progress and returns its result.
func runToEnd(ctx context.Context, client applierv1.ApplierServiceClient, request *applierv1.RunReplicationRequest, progress io.Writer) (*applierv1.Replication, error) {
	stream, err := client.RunReplication(ctx, request)
	if err != nil {
		return nil, err
	}
	view := newSyncView(progress)
	defer view.end()
	name := ""
	for {
		answer, err := stream.Recv()
		switch {
		case ctx.Err() != nil && name != "":
			return nil, fmt.Errorf("%w: run %s goes on by itself; `syncline replication show %s` tells how far it is, and `syncline replication stop %s` cancels it", errWatchEnded, name, name, name)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("the replica did not tell how run %s ended; `syncline replication show %s` does, once it has", name, name)
		case err != nil:
			return nil, err
		}
		r := answer.GetReplication()
		if name = r.GetName(); isOver(r) {
			return r, nil
		}
		view.update(r)
	}
}

// isOver tells whether a replication does nothing any more by itself.
func isOver(r *applierv1.Replication) bool {
	switch r.GetState() {
	case applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE, applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED:
		return true
	default:
		return false
	}
}

// howItEnded makes an error of a run that was not completed.
func howItEnded(r *applierv1.Replication) error {
	switch r.GetState() {
	case applierv1.State_STATE_COMPLETED:
		return nil
	case applierv1.State_STATE_STOPPED:
		return fmt.Errorf("%w: run %s was cancelled", errReplicationFailed, r.GetName())
	default:
		return fmt.Errorf("%w: run %s: %s: %s", errReplicationFailed, r.GetName(), r.GetReasonCode(), r.GetReason())
	}
}
