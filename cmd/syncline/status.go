package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/logger"
)

func newStatusCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how a primary or a replica is: is it well, how far behind, and why is it stuck",
		Long:  "Asks a server who it is and how its services are. With --json one object is printed for each answer: the server, then the\nlogger's state and its followers, or the replications.",
		Example: `  syncline status
  syncline status --addr db1:7400 --json`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				ctx, cancel := short(ctx)
				defer cancel()
				return status(ctx, cmd, &f, conn)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	return cmd
}

// status asks who the server is, and then each of its services. As JSON it prints one object for each answer.
func status(ctx context.Context, cmd *cobra.Command, f *clientFlags, conn *grpc.ClientConn) error {
	out := cmd.OutOrStdout()
	who, err := serverv1.NewServerServiceClient(conn).GetServer(ctx, &serverv1.GetServerRequest{})
	if err != nil {
		return err
	}
	if err := show(f, out, who.GetServer(), renderServer); err != nil {
		return err
	}
	roles := who.GetServer().GetRoles()
	if slices.Contains(roles, node.RoleLogger) {
		client := loggerv1.NewLoggerServiceClient(conn)
		state, err := client.GetState(ctx, &loggerv1.GetStateRequest{})
		if err != nil {
			return err
		}
		if err := apart(f, cmd, state); err != nil {
			return err
		}
		renderIf(f, func() { renderLogger(out, state) })
		if err := showFollowers(ctx, cmd, f, client); err != nil {
			return err
		}
	}
	if slices.Contains(roles, node.RoleApplier) {
		list, err := listReplications(ctx, applierv1.NewApplierServiceClient(conn), &applierv1.ListReplicationsRequest{})
		if err != nil {
			return err
		}
		if err := apart(f, cmd, list); err != nil {
			return err
		}
		renderIf(f, func() {
			renderReplications(out, list)
			renderHealth(out, list)
		})
	}
	return nil
}

// showFollowers shows nothing of a logger that has no change log yet: its state says why.
func showFollowers(ctx context.Context, cmd *cobra.Command, f *clientFlags, client loggerv1.LoggerServiceClient) error {
	followers, err := client.ListFollowers(ctx, &loggerv1.ListFollowersRequest{})
	if rpc.Reason(err) == logger.ReasonNotReady {
		return nil
	}
	if err != nil {
		return err
	}
	if err := apart(f, cmd, followers); err != nil {
		return err
	}
	renderIf(f, func() { renderFollowers(cmd.OutOrStdout(), followers) })
	return nil
}

// apart prints an answer as JSON, or an empty line before what follows.
func apart(f *clientFlags, cmd *cobra.Command, answer proto.Message) error {
	if f.json {
		return printJSON(cmd.OutOrStdout(), answer, true)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout())
	return err
}

func renderIf(f *clientFlags, render func()) {
	if !f.json {
		render()
	}
}
