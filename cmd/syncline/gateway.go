package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/rest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/telemetry"
)

// gatewayHTTP is where a gateway listens unless told otherwise.
const gatewayHTTP = "127.0.0.1:7680"

// roleServices are the gRPC services of a role.
var roleServices = map[string]string{
	node.RoleLogger:    loggerv1.LoggerService_ServiceDesc.ServiceName,
	node.RoleInventory: inventoryv1.InventoryService_ServiceDesc.ServiceName,
	node.RoleApplier:   applierv1.ApplierService_ServiceDesc.ServiceName,
}

// gatewayFlags are those of the gateway: of a client on one side and of a server on the other.
type gatewayFlags struct {
	server              clientFlags
	http                string
	protect             protectFlags // its connections lead to the server, and only it is asked with a credential of the gateway
	logFormat, logLevel string
}

func newGatewayCommand() *cobra.Command {
	var f gatewayFlags
	cmd := &cobra.Command{
		Use:     "gateway",
		Short:   "Serve REST for a server elsewhere",
		Long:    "Serves over HTTP what the server at --addr serves over gRPC. Every server does that for itself at --http: a gateway is for one whose\nHTTP address cannot be reached, or shall not be.",
		Example: "  syncline gateway --addr db1:7400 --http 127.0.0.1:8080",
		Args:    wrongUse(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&f.server.address, "addr", primaryGRPC, "gRPC address of the server")
	f.protect.registerGateway(cmd.Flags())
	cmd.Flags().StringVar(&f.http, "http", gatewayHTTP, "address to serve REST, metrics and health on")
	cmd.Flags().StringVar(&f.logFormat, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// run serves until ctx ends.
func (f *gatewayFlags) run(ctx context.Context, out io.Writer) error {
	if err := f.protect.encrypted("--http", f.http); err != nil {
		return err
	}
	log, err := telemetry.NewLogger(os.Stderr, f.logFormat, f.logLevel)
	if err != nil {
		return usageError{err}
	}
	provider, err := telemetry.Start(ctx, "gateway", version)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpDrain)
		defer cancel()
		_ = provider.Shutdown(ending) // the process ends
	}()
	listener, err := listen("--http", f.http)
	if err != nil {
		return err
	}
	defer listener.Close()
	// The gateway's own credential asks what there is to serve; requests are passed on with that of their senders, never with it.
	_, encrypted, err := f.protect.serverTLS(true, log)
	if err != nil {
		return err
	}
	own, passing, err := f.protect.gatewayOptions(log)
	if err != nil {
		return err
	}
	asking, err := rpc.Dial(f.server.address, own...)
	if err != nil {
		return usageError{err}
	}
	defer asking.Close()
	services, err := f.services(ctx, asking)
	if err != nil {
		return f.server.explain(err)
	}
	conn, err := rest.Dial(f.server.address, passing...)
	if err != nil {
		return usageError{err}
	}
	defer conn.Close()
	api, err := rest.New(conn, services, version, rest.DefaultLimits())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })() // streams end with a last line, instead of being cut off
	ready := func(ctx context.Context) error { return healthy(ctx, asking) }
	fmt.Fprintf(out, "syncline gateway %s for %s\n  HTTP  %s   (/docs, /v1/, /metrics, /healthz, /readyz)\n", version, f.server.address, listener.Addr())
	return serveHTTP(ctx, listener, encrypted, provider.Handler(ready, false, api), log)
}

// services asks the server what it serves.
func (f *gatewayFlags) services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	answer, err := serverv1.NewServerServiceClient(conn).GetServer(ctx, &serverv1.GetServerRequest{})
	if err != nil {
		return nil, err
	}
	services := []string{serverv1.ServerService_ServiceDesc.ServiceName, accessv1.AccessService_ServiceDesc.ServiceName}
	for _, role := range answer.GetServer().GetRoles() {
		if name, ok := roleServices[role]; ok {
			services = append(services, name)
		}
	}
	if push := pushv1.PushService_ServiceDesc.ServiceName; slices.Contains(answer.GetServer().GetCapabilities(), push+"/ListPushes") {
		services = append(services, push)
	}
	return services, nil
}
