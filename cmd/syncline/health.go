package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/seed0419d559/syncline/internal/rpc"
)

const healthTimeout = 3 * time.Second

func newHealthCommand() *cobra.Command {
	address := primaryGRPC
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
			if err := healthy(ctx, address); err != nil {
				return err
			}
			if asJSON {
				return printValue(cmd.OutOrStdout(), map[string]string{"status": healthv1.HealthCheckResponse_SERVING.String()})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "serving")
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "addr", address, "gRPC address of the server")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// healthy asks a server's health service.
func healthy(ctx context.Context, address string) error {
	conn, err := rpc.Dial(address, rpc.WithPlaintext(true))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("ask %s for its health: %w", address, err)
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s is not serving", address)
	}
	return nil
}
