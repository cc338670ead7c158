package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed0419d559/syncline/internal/rpc"
)

const healthTimeout = 3 * time.Second

func newHealthCommand() *cobra.Command {
	address := primaryGRPC
	var connect connectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Tell whether a server serves: exit code 0 or 1",
		Example: `  syncline health
  syncline health --addr db2:7500 && echo well`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			options, err := connect.options()
			if err != nil {
				return err
			}
			conn, err := rpc.Dial(address, options...)
			if err != nil {
				return usageError{err}
			}
			defer conn.Close()
			if err := healthy(ctx, conn); err != nil {
				return fmt.Errorf("ask %s for its health: %w", address, err)
			}
			if asJSON {
				return printValue(cmd.OutOrStdout(), map[string]string{"status": healthv1.HealthCheckResponse_SERVING.String()})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "serving")
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "addr", address, "gRPC address of the server")
	connect.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// healthy asks a server's health service.
func healthy(ctx context.Context, conn grpc.ClientConnInterface) error {
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return err //nolint:wrapcheck // the caller says whom it asked
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return errors.New("it is not serving")
	}
	return nil
}
