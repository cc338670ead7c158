package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/node"
)

func newServerGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "server", Short: "Show who a server is, or give a copied database an id of its own", Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newServerShowCommand(), newResetIDCommand())
	return cmd
}

func newServerShowCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "show", Short: "Show who a server is and what it serves", Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := serverv1.NewServerServiceClient(conn).GetServer(ctx, &serverv1.GetServerRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer.GetServer(), renderServer)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newResetIDCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "reset-id",
		Short: "Give a database that was copied from another node's a server id of its own",
		Args:  wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return usageError{errors.New("--postgres (SYNCLINE_POSTGRES) is needed: the URL of the database")}
			}
			ctx, cancel := short(cmd.Context())
			defer cancel()
			old, id, err := node.ResetID(ctx, url)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "server id %s is now %s; whoever replicated from the old one has to be created again\n", old, id.ServerID)
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "postgres", "", "URL of the database (needed)")
	return cmd
}
