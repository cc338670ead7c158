package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const healthTimeout = 3 * time.Second

func newHealthCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Tell whether a server serves: exit code 0 or 1",
		Example: `  syncline health
  syncline health --addr db2:7500 && echo well`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
				if err := healthy(ctx, conn); err != nil {
					return err
				}
				if f.json {
					return printValue(cmd.OutOrStdout(), map[string]string{"status": healthv1.HealthCheckResponse_SERVING.String()})
				}
				fmt.Fprintln(cmd.OutOrStdout(), "serving")
				return nil
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

// healthy asks a server's health service.
func healthy(ctx context.Context, conn grpc.ClientConnInterface) error {
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return err //nolint:wrapcheck // the caller explains it
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return errors.New("the server is there, and does not serve yet, or is about to end")
	}
	return nil
}
