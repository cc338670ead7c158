package main

import (
	"context"

	"github.com/spf13/cobra"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newResyncCommand() *cobra.Command {
	var f clientFlags
	request := &applierv1.ResyncReplicationRequest{}
	cmd := &cobra.Command{
		Use:   "resync NAME",
		Short: "Copy a replication's tables anew, and go on from there",
		Long: `Copies all tables anew, or those of --table; their rows on the replica are removed, table by table, as the copy begins. That is also the
way on when the source's change log does not reach back to the replica any more. A replication that is stopped copies when it is
started.`,
		Example: `  syncline replication resync shop
  syncline replication resync shop --table public.orders`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := client.ResyncReplication(ctx, request)
				if err != nil {
					return inFlags(err)
				}
				return show(&f, cmd.OutOrStdout(), answer.GetReplication(), renderReplication)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	patternsFlag(cmd.Flags(), &request.IncludeTables, "table", "copy only these tables anew: schema.table, schema.*; may be repeated")
	cmd.Flags().StringVar(&request.Etag, "etag", "", "do it only if the replication's etag is this one")
	for _, name := range []string{"table", "etag"} {
		withoutVariable(cmd.Flags().Lookup(name))
	}
	return cmd
}
