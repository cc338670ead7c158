package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

func newFollowersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "followers",
		Short: "List who follows a primary, or forget one that comes no more",
		Args:  wrongUse(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newFollowersListCommand(), newFollowersForgetCommand())
	return cmd
}

func newFollowersListCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List followers with what they have applied, and how far they are behind", Args: wrongUse(cobra.NoArgs),
		Example: "  syncline followers list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.ListFollowers(ctx, &loggerv1.ListFollowersRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderFollowers)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newFollowersForgetCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "forget NAME", Short: "Forget a follower that is not connected, so that nothing is kept for it",
		Long:    "Forgets a follower, such as a replication that was deleted while its primary was away. One that comes back is known again.",
		Example: "  syncline followers forget 6f2c51fd-1c2e-4d3a-9f3b-3a3c4d5e6f70/shop",
		Args: wrongUse(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("the NAME of one follower is expected, see `syncline followers list`")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.DeleteFollower(ctx, &loggerv1.DeleteFollowerRequest{Follower: args[0]})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, func(out io.Writer, _ *loggerv1.DeleteFollowerResponse) {
					fmt.Fprintf(out, "follower %s is forgotten\n", args[0])
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}
