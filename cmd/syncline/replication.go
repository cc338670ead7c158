package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func newReplicationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replication",
		Short: "Create, watch and control replications on a replica",
		Args:  wrongUse(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCreateCommand(), newListCommand(), newShowCommand(), newStartCommand(), newStopCommand(), newDeleteCommand(), newWaitCommand(),
		newUpdateCommand(), newResyncCommand(), newReplicationLogCommand(), newRunCommand(), newUnsyncedCommand(), newRetryCommand(), newDiscardCommand(), newRunsCommand(), newCheckCommand())
	return cmd
}

// applierCall is a call to a replica's applier.
func applierCall(ctx context.Context, f *clientFlags, run func(ctx context.Context, client applierv1.ApplierServiceClient) error) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return run(ctx, applierv1.NewApplierServiceClient(conn))
	})
}

// oneName is the check of a command for one replication.
func oneName(cmd *cobra.Command, args []string) error {
	return wrongUse(func(*cobra.Command, []string) error {
		switch {
		case len(args) == 0:
			return errors.New("the NAME of the replication is missing")
		case len(args) > 1:
			return fmt.Errorf("one NAME of a replication is expected, not %d: %s", len(args), strings.Join(args, ", "))
		}
		return nil
	})(cmd, args)
}

// inFlags makes an error about a field of the API one about the flag that sets it.
func inFlags(err error) error { return flagError(err, specFlags) }

func flagError(err error, flags map[string]string) error {
	if rpc.Code(err) != codes.InvalidArgument {
		return err
	}
	message := rpc.Message(err)
	if field, _, found := strings.Cut(message, ": "); !found || flags[field] == "" {
		return err
	}
	faults := strings.Split(message, "; ") // a text may hold one, too
	for i, fault := range faults {
		if field, text, found := strings.Cut(fault, ": "); found && flags[field] != "" {
			faults[i] = flags[field] + ": " + text
		}
	}
	return usageError{errors.New(strings.Join(faults, "; "))}
}

func newCreateCommand() *cobra.Command {
	var f clientFlags
	var wait, ifMissing, dryRun bool
	var r replicationFlags
	spec := &r.spec
	var initial string
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "create NAME --source HOST:PORT",
		Short: "Copy a primary's tables to this replica, and follow its changes",
		Long: `Checks source and replica, creates the tables that the replica lacks, copies the rows, and follows the changes from there.
The columns of an existing table are compared first, and a difference that matters is named. One that holds rows is refused, unless
--replace removes them, or --initial incremental compares them with the source's and ships only what differs: for a replica that was
restored from a dump, or left by an earlier replication.`,
		Example: `  syncline replication create shop --source db1:7400 --wait
  syncline replication create orders --source db1:7400 --table 'public.orders' --table 'sales.*'
  syncline replication create shop --source db1.example:7400 --source-tls-ca ca.pem --source-token-file replica1.token
  syncline replication create acme --source db1:7400 --set by-org --param org=acme
  syncline replication create nightly --source db1:7400 --mode once --wait
  syncline replication create acme --source db1:7400 --set by-org --param org=acme --rename 'public.*=acme.*'
  syncline replication create acme --source db1:7400 --set by-org --param org=acme --shared
  syncline replication create nightly --source db1:7400 --cron '0 2 * * *' --timezone Europe/Berlin --jitter 5m
  syncline replication create shop --source db1:7400 --dry-run
  syncline replication create shop --source db1:7400 --from-restore
  syncline replication create shop --source db1:7400 --initial incremental --wait`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if spec.GetSource() == "" {
				return usageError{errors.New("--source (SYNCLINE_SOURCE) is needed: the gRPC address of a primary, such as db1:7400")}
			}
			spec.Set, spec.Parameters = only.set, only.parameters
			if err := r.finish(); err != nil {
				return err
			}
			if err := setInitial(spec, initial); err != nil {
				return err
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				if dryRun {
					return wouldCreate(ctx, cmd, &f, client, args[0], spec)
				}
				return create(ctx, cmd, &f, client, args[0], spec, wait, ifMissing)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	r.register(flags)
	only.register(flags)
	flags.BoolVar(&spec.FromRestore, "from-restore", false, "begin with the tables that a backup of the source was restored into, and follow on from there; others are copied")
	flags.StringVar(&initial, "initial", "copy", "what is done with tables that hold rows: copy refuses or replaces them, incremental mends what differs")
	r.registerNames(flags)
	flags.BoolVar(&ifMissing, "if-missing", false, "leave a replication alone that is there already under this name, with this source and these tables")
	flags.BoolVar(&wait, "wait", false, "show the progress of the first copy and return when the replica is up to date")
	flags.BoolVar(&dryRun, "dry-run", false, "check both sides, tell what would happen, and change nothing")
	return cmd
}

func setInitial(spec *applierv1.ReplicationSpec, name string) error {
	switch name {
	case "copy":
		spec.Initial = applierv1.Initial_INITIAL_UNSPECIFIED
	case "incremental":
		spec.Initial = applierv1.Initial_INITIAL_INCREMENTAL
	default:
		return usageError{fmt.Errorf("--initial %q is unknown: use copy or incremental", name)}
	}
	return nil
}

// wouldCreate tells what a create would do.
func wouldCreate(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, name string, spec *applierv1.ReplicationSpec) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	answer, err := client.CreateReplication(ctx, &applierv1.CreateReplicationRequest{Name: name, Spec: spec, ValidateOnly: true})
	if err != nil {
		return inFlags(err)
	}
	return show(f, cmd.OutOrStdout(), answer, func(out io.Writer, answer *applierv1.CreateReplicationResponse) {
		plan := answer.GetPlan()
		fmt.Fprintf(out, "replication %s would be created: %d tables, about %s rows, %s\n", name, len(plan.GetTables()), count(plan.GetEstimatedRows()), size(plan.GetEstimatedBytes()))
		renderPlan(out, plan)
	})
}

func create(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, name string, spec *applierv1.ReplicationSpec, wait, ifMissing bool) error {
	calling, cancel := context.WithTimeout(ctx, 2*callTimeout)
	if spec.GetFromRestore() {
		cancel()
		calling, cancel = context.WithCancel(ctx) // every restored row is looked at before the answer
	}
	defer cancel()
	answer, err := client.CreateReplication(calling, &applierv1.CreateReplicationRequest{Name: name, Spec: spec})
	replication, done := answer.GetReplication(), "is created"
	if ifMissing && rpc.Code(err) == codes.AlreadyExists {
		done = "is there already"
		replication, err = existing(calling, client, name, spec, err)
	}
	if err != nil {
		return inFlags(err)
	}
	out := cmd.OutOrStdout()
	if !wait {
		if f.json {
			return printJSON(out, replication, true)
		}
		fmt.Fprintf(out, "replication %s %s\nnext: syncline replication show %s --addr %s\n", name, done, name, f.address)
		return nil
	}
	final, err := watchSync(ctx, client, name, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(out, final, true)
	}
	fmt.Fprintf(out, "replication %s is %s: %s rows in %d tables copied\nnext: syncline status --addr %s\n",
		name, stateName(final.GetState()), count(final.GetSync().GetRows()), final.GetSync().GetTables(), f.address)
	return nil
}

// newNamedCommand makes a command that does something with one replication and shows it.
func newNamedCommand(use, about string, run func(ctx context.Context, client applierv1.ApplierServiceClient, name string) (*applierv1.Replication, error)) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: use + " NAME", Short: about, Args: oneName, Example: "  syncline replication " + use + " shop",
		RunE: func(cmd *cobra.Command, args []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				replication, err := run(ctx, client, args[0])
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), replication, renderReplication)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	return cmd
}

func newShowCommand() *cobra.Command {
	return newNamedCommand("show", "Show one replication with its tables", func(ctx context.Context, client applierv1.ApplierServiceClient, name string) (*applierv1.Replication, error) {
		answer, err := client.GetReplication(ctx, &applierv1.GetReplicationRequest{Name: name})
		return answer.GetReplication(), err
	})
}

func newStopCommand() *cobra.Command {
	return newNamedCommand("stop", "Stop a replication; it stays stopped over restarts", func(ctx context.Context, client applierv1.ApplierServiceClient, name string) (*applierv1.Replication, error) {
		answer, err := client.StopReplication(ctx, &applierv1.StopReplicationRequest{Name: name})
		return answer.GetReplication(), err
	})
}

func newDeleteCommand() *cobra.Command {
	var f clientFlags
	var etag string
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop and forget a replication; the tables and their rows stay", Args: oneName,
		Example: "  syncline replication delete shop",
		RunE: func(cmd *cobra.Command, args []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := client.DeleteReplication(ctx, &applierv1.DeleteReplicationRequest{Name: args[0], Etag: etag})
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), answer, true)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "replication %s is deleted; its tables and their rows stay\n", args[0])
				return nil
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().StringVar(&etag, "etag", "", "delete it only if its etag is this one")
	withoutVariable(cmd.Flags().Lookup("etag"))
	return cmd
}

func newWaitCommand() *cobra.Command {
	var f clientFlags
	timeout := time.Minute
	cmd := &cobra.Command{
		Use:   "wait NAME",
		Short: "Return once everything committed on the source before this call is applied here",
		Long:  "Has the source commit a message and returns when that is applied; for one of mode once, when its run has ended. Exit code 3 when it is not within --timeout.",
		Example: `  syncline replication wait shop
  syncline replication wait shop --timeout 10s || echo "exit code $?"`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				answer, err := client.WaitReplication(ctx, &applierv1.WaitReplicationRequest{Name: args[0], Timeout: durationpb.New(timeout)})
				if rpc.Code(err) == codes.DeadlineExceeded {
					return fmt.Errorf("%w: %s", errNotReached, rpc.Message(err))
				}
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), answer, true)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "replication %s has applied everything up to %s\n", args[0], lsn(answer.GetPosition().GetLsn()))
				return nil
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return cmd
}
