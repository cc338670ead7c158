package main

import (
	"context"
	"errors"
	"fmt"
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
	cmd.AddCommand(newCreateCommand(), newListCommand(), newShowCommand(), newStartCommand(), newStopCommand(), newDeleteCommand(), newWaitCommand())
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

// specFlags are the flags that set what the API calls otherwise.
var specFlags = map[string]string{ //nolint:gosec // they are names
	"spec.source": "--source", "spec.inventory": "--inventory", "spec.copy_workers": "--copy-workers",
	"spec.token": "--source-token-file", "spec.proxy": "--source-proxy", "spec.tls.ca": "--source-tls-ca", "spec.tls.server_name": "--source-tls-server-name",
	"spec.tls.certificate": "--source-tls-cert", "spec.tls.key": "--source-tls-key",
	"spec.include_tables": "--table", "spec.exclude_tables": "--exclude-table", "name": "NAME",
}

// inFlags makes an error about a field of the API one about the flag that sets it.
func inFlags(err error) error { return flagError(err, specFlags) }

func flagError(err error, flags map[string]string) error {
	if rpc.Code(err) != codes.InvalidArgument {
		return err
	}
	if field, text, found := strings.Cut(rpc.Message(err), ": "); found && flags[field] != "" {
		return usageError{fmt.Errorf("%s: %s", flags[field], text)}
	}
	return err
}

func newCreateCommand() *cobra.Command {
	var f clientFlags
	var wait, ifMissing bool
	var compression string
	var source sourceFlags
	spec := &applierv1.ReplicationSpec{}
	cmd := &cobra.Command{
		Use:   "create NAME --source HOST:PORT",
		Short: "Copy a primary's tables to this replica, and follow its changes",
		Long: `Checks source and replica, creates the tables that the replica lacks, copies the rows, and follows the changes from there.
An existing table is compared first, and a difference that matters is named; one that holds rows is refused without --replace.`,
		Example: `  syncline replication create shop --source db1:7400 --wait
  syncline replication create orders --source db1:7400 --table 'public.orders' --table 'sales.*'
  syncline replication create shop --source db1.example:7400 --source-tls-ca ca.pem --source-token-file replica1.token`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if spec.GetSource() == "" {
				return usageError{errors.New("--source (SYNCLINE_SOURCE) is needed: the gRPC address of a primary, such as db1:7400")}
			}
			if err := setCompression(spec, compression); err != nil {
				return err
			}
			if err := source.set(spec); err != nil {
				return err
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				return create(ctx, cmd, &f, client, args[0], spec, wait, ifMissing)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	flags.StringVar(&spec.Source, "source", "", "HOST:PORT of any service of the primary (needed)")
	flags.StringVar(&spec.Inventory, "inventory", "", "HOST:PORT of the primary's inventory; asked of the source when empty")
	patternsFlag(flags, &spec.IncludeTables, "table", "take only these tables: schema.table, schema.*; may be repeated")
	patternsFlag(flags, &spec.ExcludeTables, "exclude-table", "leave these tables out")
	flags.BoolVar(&spec.Replace, "replace", false, "remove the rows that the replica's tables hold before the copy")
	flags.Int32Var(&spec.CopyWorkers, "copy-workers", 0, "sessions that copy and build indexes at the same time; 0 for the default of 4")
	source.register(flags)
	flags.StringVar(&compression, "compress", "none", "how changes and rows are compressed on their way from the source: none, or zstd for a slow network")
	flags.BoolVar(&ifMissing, "if-missing", false, "leave a replication alone that is there already under this name, with this source and these tables")
	flags.BoolVar(&wait, "wait", false, "show the progress of the first copy and return when the replica is up to date")
	return cmd
}

func setCompression(spec *applierv1.ReplicationSpec, name string) error {
	switch name {
	case "none":
		spec.Compression = applierv1.Compression_COMPRESSION_UNSPECIFIED
	case "zstd":
		spec.Compression = applierv1.Compression_COMPRESSION_ZSTD
	default:
		return usageError{fmt.Errorf("--compress %q is unknown: use none or zstd", name)}
	}
	return nil
}

func create(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, name string, spec *applierv1.ReplicationSpec, wait, ifMissing bool) error {
	calling, cancel := context.WithTimeout(ctx, 2*callTimeout)
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
	fmt.Fprintf(out, "replication %s is running: %s rows in %d tables copied\nnext: syncline status --addr %s\n",
		name, count(final.GetSync().GetRows()), final.GetSync().GetTables(), f.address)
	return nil
}

func newListCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the replications", Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := client.ListReplications(ctx, &applierv1.ListReplicationsRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderReplications)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	return cmd
}

// newNamedCommand makes a command that does something with one replication and shows it.
func newNamedCommand(use, about string, run func(ctx context.Context, client applierv1.ApplierServiceClient, name string) (*applierv1.Replication, error)) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: use + " NAME", Short: about, Args: oneName,
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

func newStartCommand() *cobra.Command {
	return newNamedCommand("start", "Start a replication that was stopped or has failed, where it left off", func(ctx context.Context, client applierv1.ApplierServiceClient, name string) (*applierv1.Replication, error) {
		answer, err := client.StartReplication(ctx, &applierv1.StartReplicationRequest{Name: name})
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
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop and forget a replication; the tables and their rows stay", Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := client.DeleteReplication(ctx, &applierv1.DeleteReplicationRequest{Name: args[0]})
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
	return cmd
}

func newWaitCommand() *cobra.Command {
	var f clientFlags
	timeout := time.Minute
	cmd := &cobra.Command{
		Use:   "wait NAME",
		Short: "Return once everything committed on the source before this call is applied here",
		Long:  "Has the source commit a message and returns when that is applied. Exit code 3 when it is not within --timeout.",
		Args:  oneName,
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
