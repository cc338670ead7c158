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
		Example: "  syncline server show --addr db1:7400",
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reset-id",
		Short: "Give a database that was copied from another node's a server id of its own",
		Long: `Each node has a server id, which is kept in its database together with the identity of the PostgreSQL server. In a database that
was dumped and restored, made from a template, or upgraded with pg_upgrade, the two do not fit: no server starts on it until
this command has given it an id of its own.

A copy of all files of a PostgreSQL server (pg_basebackup, a snapshot of its disk) keeps that identity, so it cannot be told from the
original. When both are to be used, stop Syncline on the copy and run this command there, before anything follows it. A standby that is
promoted because its primary is gone takes its place: let it keep the id.

Replications on other servers that have this one as their source refuse the new id: delete them there and create them again. Replications
that run on this server go on where they are.`,
		Example: "  syncline server reset-id --postgres postgres://localhost/shop_copy",
		Args:    wrongUse(cobra.NoArgs),
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
			if asJSON {
				return printValue(cmd.OutOrStdout(), map[string]string{"database": id.Database, "oldServerId": old, "serverId": id.ServerID})
			}
			fmt.Fprintf(cmd.OutOrStdout(), `database %s
  old server id  %s
  new server id  %s
Replications on other servers that have this one as their source have to be deleted and created again.
Replications that run on this server go on where they are.
`, id.Database, old, id.ServerID)
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "postgres", "", "URL of the database (needed)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
