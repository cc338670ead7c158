package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
)

func newSnapshotsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshots",
		Short: "List a primary's open snapshots, or close one",
		Long: `A snapshot is what first copies, dumps and verifications read from. While it is open it holds a session in PostgreSQL and holds back
vacuum; it ends by itself when nobody renews it.`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotsListCommand(), newSnapshotsCloseCommand())
	return cmd
}

// inventoryCall is a short call to a primary's inventory.
func inventoryCall(ctx context.Context, f *clientFlags, run func(ctx context.Context, client inventoryv1.InventoryServiceClient) error) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := short(ctx)
		defer cancel()
		return run(ctx, inventoryv1.NewInventoryServiceClient(conn))
	})
}

func newSnapshotsListCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the open snapshots, oldest first", Args: wrongUse(cobra.NoArgs),
		Example: "  syncline snapshots list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inventoryCall(cmd.Context(), &f, func(ctx context.Context, client inventoryv1.InventoryServiceClient) error {
				answer, err := client.ListSnapshots(ctx, &inventoryv1.ListSnapshotsRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderSnapshots)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newSnapshotsCloseCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "close ID", Short: "Close a snapshot; what reads from it is broken off",
		Long:    "Closes a snapshot and frees everything that it held. A copy that reads from it is broken off, and goes on with a new one.",
		Example: "  syncline snapshots close 7a93bda9ef12d4517198cba54bfa0f2a",
		Args: wrongUse(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("the ID of one snapshot is expected, see `syncline snapshots list`")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inventoryCall(cmd.Context(), &f, func(ctx context.Context, client inventoryv1.InventoryServiceClient) error {
				answer, err := client.CloseSnapshot(ctx, &inventoryv1.CloseSnapshotRequest{SnapshotId: args[0]})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, func(out io.Writer, _ *inventoryv1.CloseSnapshotResponse) {
					fmt.Fprintf(out, "snapshot %s is closed\n", args[0])
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func renderSnapshots(out io.Writer, answer *inventoryv1.ListSnapshotsResponse) {
	if len(answer.GetSnapshots()) == 0 {
		fmt.Fprintln(out, "no open snapshots")
		return
	}
	const clock = "2006-01-02 15:04:05 MST"
	rows := [][]string{{"SNAPSHOT", "POSITION", "OPENED", "EXPIRES", "BY", "READS", "NOW", "SESSION"}}
	for _, s := range answer.GetSnapshots() {
		rows = append(rows, []string{
			s.GetSnapshotId(), lsn(s.GetPosition().GetLsn()), s.GetCreateTime().AsTime().Format(clock), s.GetExpireTime().AsTime().Format(clock),
			s.GetClient(), count(s.GetReads()), fmt.Sprint(s.GetActiveDumps()), fmt.Sprintf("pid %d", s.GetSessionPid()),
		})
	}
	table(out, rows)
}
