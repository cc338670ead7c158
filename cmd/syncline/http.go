package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/netutil"

	"github.com/seed0419d559/syncline/internal/rest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/telemetry"
)

// httpDrain bounds how long HTTP requests may take to end at shutdown.
const httpDrain = 2 * time.Second

// maxHTTPConnections bounds the connections of HTTP; more wait until one of them ends.
const maxHTTPConnections = 1024

// newREST serves a server's own services over HTTP, as a client of them. The function ends its connection.
func newREST(address string, server *rpc.Server, gate rest.Gate) (http.Handler, func(), error) {
	conn, err := rest.Dial(address, rpc.WithDialer(server.DialLocal))
	if err != nil {
		return nil, nil, err
	}
	handler, err := rest.New(conn, slices.Collect(maps.Keys(server.GetServiceInfo())), version, rest.DefaultLimits())
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	handler.SetGate(gate)
	return handler, func() { conn.Close() }, nil
}

// serveHTTP serves until ctx ends; encrypted, if there is a configuration for that.
func serveHTTP(ctx context.Context, listener net.Listener, encrypted *tls.Config, handler http.Handler, log *slog.Logger) error {
	server := telemetry.NewHTTPServer(handler, log)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpDrain)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			_ = server.Close() // what did not end in time is cut off
		}
	})
	bounded := netutil.LimitListener(listener, maxHTTPConnections)
	if encrypted != nil {
		bounded = tls.NewListener(bounded, encrypted)
	}
	err := server.Serve(bounded)
	if !stop() {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
}
