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
		Short: "Copy all of a replication's tables anew, and go on from there",
		Long: `Forgets the position and copies all tables anew; their rows on the replica are removed, table by table, as the copy begins. That is the
way on when the source's change log does not reach back to the replica any more. With --incremental the rows stay, and only what differs is
shipped. A replication that is stopped copies when it is started. Single tables are copied anew by ` + "`syncline sync`" + `, which keeps the position.`,
		Example: "  syncline replication resync shop\n  syncline replication resync shop --incremental",
		Args:    oneName,
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
	cmd.Flags().BoolVar(&request.Incremental, "incremental", false, "compare the tables and ship only what differs, instead of emptying and filling them")
	cmd.Flags().StringVar(&request.Etag, "etag", "", "do it only if the replication's etag is this one")
	for _, name := range []string{"etag", "incremental"} {
		withoutVariable(cmd.Flags().Lookup(name))
	}
	return cmd
}
