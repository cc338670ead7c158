package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

func newStartCommand() *cobra.Command {
	var f clientFlags
	var from string
	var force bool
	cmd := &cobra.Command{
		Use:   "start NAME",
		Short: "Start a replication that was stopped or has failed, where it left off",
		Long: `Starts a replication where it left off; one that waits until it tries again does so at once. --from has it go on after another position
of the source's change log. That passes over transactions, or applies some twice, so it needs --force, and stays visible in
the run log and among the notes of the replication.`,
		Example: `  syncline replication start shop
  syncline replication start shop --from 5f3c9a01b2d84e67a1c0ffee00112233@16/B374D848 --force`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &applierv1.StartReplicationRequest{Name: args[0], Force: force}
			if from != "" {
				position, err := change.ParsePosition(from)
				if err != nil {
					return usageError{fmt.Errorf("--from: %w, as follow and dump print it", err)}
				}
				request.From = &changev1.Position{LogId: position.LogID.String(), Lsn: uint64(position.LSN)}
			} else if force {
				return usageError{errors.New("--force is for a start --from a position")}
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := client.StartReplication(ctx, request)
				if err != nil {
					return inFlags(err)
				}
				return show(&f, cmd.OutOrStdout(), answer.GetReplication(), renderReplication)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().StringVar(&from, "from", "", "go on after this position LOGID@LSN instead of where it left off")
	cmd.Flags().BoolVar(&force, "force", false, "take --from although transactions are passed over or applied twice")
	for _, name := range []string{"from", "force"} {
		withoutVariable(cmd.Flags().Lookup(name))
	}
	return cmd
}
