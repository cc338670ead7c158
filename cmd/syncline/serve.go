package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/principals"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/telemetry"
)

// serve runs a server command until ctx ends: first the checks, then the listeners, then the services. At the end the gRPC
// server stops before the services that it calls.
func serve(ctx context.Context, r *role, f *serverFlags, out io.Writer) error {
	if err := f.check(r); err != nil {
		return err
	}
	boundMemory()
	log, err := telemetry.NewLogger(os.Stderr, f.logFormat, f.logLevel)
	if err != nil {
		return usageError{err}
	}
	provider, err := telemetry.Start(ctx, r.name, version)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpDrain)
		defer cancel()
		if err := provider.Shutdown(ending); err != nil {
			log.Debug("telemetry could not be sent", "error", err)
		}
	}()
	grpcListener, err := listen("--grpc", f.grpc)
	if err != nil {
		return err
	}
	defer grpcListener.Close()
	f.grpc = grpcListener.Addr().String() // the port, where 0 let the system choose
	var httpListener net.Listener
	if f.http != "" {
		if httpListener, err = listen("--http", f.http); err != nil {
			return err
		}
		defer httpListener.Close()
		f.http = httpListener.Addr().String()
	}
	id, err := f.prepare(ctx, r)
	if err != nil {
		return err
	}
	required := f.protect.required(f.grpc, f.http)
	registry, err := principals.New(principals.Config{PostgresURL: f.postgres, Required: required, Log: log})
	if err != nil {
		return err
	}
	forGRPC, forHTTP, err := f.protect.serverTLS(required, log)
	if err != nil {
		return err
	}
	if err := registry.Load(ctx); err != nil {
		return err
	}
	var server *rpc.Server // it is made with the errors of the services that are made with it
	local := func(ctx context.Context, address string) (net.Conn, error) { return server.DialLocal(ctx, address) }
	options, err := f.protect.dialOptions(log)
	if err != nil {
		return err
	}
	own := []rpc.DialOption{rpc.WithDialer(local), rpc.WithToken(registry.OwnToken)}
	services, table, err := f.build(r, id, options, own, log)
	if err != nil {
		return err
	}
	for _, s := range services {
		if c, ok := s.(checker); ok {
			if err := c.Check(ctx); err != nil {
				return err
			}
		}
	}
	protection := []rpc.Option{rpc.WithTable(table), rpc.WithTable(principals.Errors()), rpc.WithLogger(log), rpc.WithGuard(registry)}
	if forGRPC != nil {
		protection = append(protection, rpc.WithServerTLS(forGRPC))
	}
	server = rpc.NewServer(protection...)
	node.NewService(f.describe(r, id)).Register(server)
	for _, s := range services {
		s.Register(server)
	}
	registry.Service().Register(server)
	api, disconnect, err := newREST(ownAddress(f.grpc), server, registry)
	if err != nil {
		return err
	}
	defer disconnect()
	p := newProcess(ctx)
	p.work(registry.Run)
	for _, s := range services {
		p.work(s.Run)
	}
	p.serve(func(ctx context.Context) error { return server.Run(ctx, grpcListener) })
	if httpListener != nil {
		inside, err := rpc.Dial(ownAddress(f.grpc), rpc.WithDialer(server.DialLocal))
		if err != nil {
			return err
		}
		defer inside.Close()
		handler := admitPages(registry, provider.Handler(func(ctx context.Context) error { return healthy(ctx, inside) }, f.pprof, api))
		p.serve(func(ctx context.Context) error { return serveHTTP(ctx, httpListener, forHTTP, handler, log) })
	}
	banner(out, r, f, required)
	return p.wait(stopLimit)
}

// process runs servers and, for longer, the workers whose calls they answer.
type process struct {
	asked            context.Context //nolint:containedctx // the end of the process, as the user asks for it
	serving, working context.Context //nolint:containedctx // as long as the process
	stopServing      context.CancelFunc
	stopWorking      context.CancelFunc
	servers, workers sync.WaitGroup
	ended            chan error
}

// stopLimit bounds how long services may take to stop. Whatever is cut off then is as if the process had been killed, which
// costs nothing but the time to do some work again.
const stopLimit = 30 * time.Second

// errStopLimit says that the end of the process did not wait for every service.
var errStopLimit = fmt.Errorf("services did not stop within %s and were cut off; nothing is lost", stopLimit)

// mostParts is more than the number of servers and workers in one process.
const mostParts = 16

func newProcess(ctx context.Context) *process {
	p := &process{asked: ctx, ended: make(chan error, mostParts)}
	p.serving, p.stopServing = context.WithCancel(context.WithoutCancel(ctx))
	p.working, p.stopWorking = context.WithCancel(context.WithoutCancel(ctx))
	return p
}

func (p *process) serve(run func(context.Context) error) {
	p.servers.Go(func() { p.ended <- run(p.serving) })
}

func (p *process) work(run func(context.Context) error) {
	p.workers.Go(func() { p.ended <- run(p.working) })
}

// wait returns when the end is asked for or a part fails, after every part has ended: servers first, then workers. It returns
// the first failure, or errStopLimit when a part does not end within the limit.
func (p *process) wait(limit time.Duration) error {
	var first error
	select {
	case <-p.asked.Done():
	case first = <-p.ended:
		if first == nil {
			first = errors.New("a service ended by itself")
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stopServing()
		p.servers.Wait()
		p.stopWorking()
		p.workers.Wait()
	}()
	cut := time.NewTimer(limit)
	defer cut.Stop()
	select {
	case <-stopped:
	case <-cut.C:
		return errors.Join(first, errStopLimit)
	}
	close(p.ended)
	for err := range p.ended {
		if first == nil && err != nil && !errors.Is(err, context.Canceled) {
			first = err
		}
	}
	return first
}

// listen opens a listener, or says which flag chooses another address.
func listen(flag, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s is in use by another process; stop that one, or choose another address with %s", address, flag)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("listen on %s (%s): %w", address, flag, err)}
	}
	return listener, nil
}

// banner says what is served and what to do next.
func banner(out io.Writer, r *role, f *serverFlags, required bool) {
	fmt.Fprintf(out, "syncline %s %s for %s\n", r.name, version, postgres.Redact(f.postgres))
	fmt.Fprintf(out, "  gRPC  %s\n", f.grpc)
	if f.http != "" {
		fmt.Fprintf(out, "  HTTP  %s   (/docs, /v1/, /metrics, /healthz, /readyz)\n", f.http)
	}
	switch encrypted := f.protect.connect.files.Certificate != ""; {
	case required && encrypted:
		fmt.Fprintln(out, "  every call needs a principal; connections are encrypted")
	case required:
		fmt.Fprintln(out, "  every call needs a principal; connections are not encrypted")
	case encrypted:
		fmt.Fprintln(out, "  every call is taken, whoever makes it; connections are encrypted")
	default:
		fmt.Fprintln(out, "  every call is taken, whoever makes it; connections are not encrypted")
	}
	own := ownAddress(f.grpc)
	if r.has(node.RoleApplier) {
		fmt.Fprintf(out, "next: syncline replication create NAME --addr %s%s --source HOST:PORT --wait\n", own, f.shown("--", required))
		return
	}
	fmt.Fprintf(out, "next: on a replica, syncline replication create NAME --source %s%s --wait;  here, syncline status --addr %s%s\n",
		f.reachedAt(own), f.shown("--source-", required), own, f.shown("--", required))
}

// shown are the flags without which a client does not get in, each after a space; they begin with prefix.
func (f *serverFlags) shown(prefix string, required bool) (flags string) {
	if f.protect.connect.files.Certificate != "" {
		flags = " " + prefix + "tls-ca FILE"
	}
	if required {
		flags += " " + prefix + "token-file FILE"
	}
	return flags
}

// reachedAt is the address for others: that which was set, or this machine's, whose name they have to know.
func (f *serverFlags) reachedAt(own string) string {
	if f.advertise != "" {
		return f.advertise
	}
	if _, port, err := net.SplitHostPort(f.grpc); err == nil && own != f.grpc {
		return "THIS-HOST:" + port
	}
	return own
}
