// Package rpc is the plumbing of every gRPC server and client of Syncline. Every error that leaves a server carries a code,
// a stable reason and a text that tells the way out; what a server does not know in a request is refused, never ignored;
// stored bytes go out and come in as they are.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// Limits, the same on both sides.
const (
	MaxMessageBytes = 4 << 20  // a received message of a call without streams
	MaxFrameBytes   = 2 << 20  // a received message of a stream: blocks and pieces of dumps stay below it
	MaxAnswerBytes  = 64 << 20 // an answer that is asked for with LargeAnswer

	maxStreams      = 4096 // on one connection
	bufferBytes     = 128 << 10
	handshakeTime   = 10 * time.Second
	pingAfter       = 20 * time.Second
	pingTimeout     = 10 * time.Second
	minPingInterval = 5 * time.Second // of clients: more often is abuse
)

// Server is a gRPC server with everything that each of Syncline's has.
type Server struct {
	*grpc.Server
	local    localListener
	health   *health.Server
	drain    time.Duration
	stopping context.Context    //nolint:containedctx // the server's own life, not a request's
	begin    context.CancelFunc // ends stopping, and with it the streams
}

type settings struct {
	interceptors
	drain     time.Duration
	options   []grpc.ServerOption
	transport credentials.TransportCredentials
}

// Option changes how NewServer makes a server.
type Option func(*settings)

// WithTable adds the error table of a service. Tables of several services are asked in the order in which they were added.
func WithTable(table Table) Option {
	return func(s *settings) { s.table = append(s.table, table...) }
}

// WithLogger sets where calls (at debug level) and faults of the server are logged; slog.Default() otherwise.
func WithLogger(log *slog.Logger) Option { return func(s *settings) { s.log = log } }

// DefaultDrain is how long calls may take to end when a server stops.
const DefaultDrain = 10 * time.Second

// WithDrain sets how long running calls may take to end when the server stops; DefaultDrain otherwise.
func WithDrain(d time.Duration) Option { return func(s *settings) { s.drain = d } }

// WithServerTLS encrypts the connections; without it they are plain.
func WithServerTLS(config *tls.Config) Option {
	return func(s *settings) { s.transport = credentials.NewTLS(config) }
}

// WithServerOptions adds options of gRPC itself.
func WithServerOptions(options ...grpc.ServerOption) Option {
	return func(s *settings) { s.options = append(s.options, options...) }
}

// NewServer makes a server with health and reflection registered. Services are registered with it before it serves.
func NewServer(opts ...Option) *Server {
	stopping, begin := context.WithCancel(context.Background())
	s := settings{interceptors: interceptors{log: slog.Default(), stopping: stopping}, drain: DefaultDrain, transport: insecure.NewCredentials()}
	for _, opt := range opts {
		opt(&s)
	}
	options := append([]grpc.ServerOption{
		grpc.Creds(exceptLocal{s.transport}),
		grpc.ForceServerCodecV2(codec),
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(math.MaxInt32), // answers are bounded where they are made
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // a handler never outlives the server it belongs to
	}, append(s.guardOptions(), s.options...)...)
	server := &Server{Server: grpc.NewServer(options...), local: newLocalListener(), health: health.NewServer(), drain: s.drain, stopping: stopping, begin: begin}
	healthv1.RegisterHealthServer(server.Server, server.health)
	reflection.Register(server.Server)
	return server
}

// RegisterService registers a service and reports it healthy while the server serves.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.Server.RegisterService(desc, impl)
	s.health.SetServingStatus(desc.ServiceName, healthv1.HealthCheckResponse_SERVING)
}

// SetHealthy reports a service, by its full name, as serving or not; "" is the whole server.
func (s *Server) SetHealthy(service string, healthy bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if healthy {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, state)
}

// Run serves on the listener, and within the process, until ctx ends, and then stops as Shutdown does. It returns nil after that, and
// the failure when the listener fails by itself.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	failed, local := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(local)
		_ = s.Serve(s.local) // it ends with the server, by nothing else
	}()
	defer func() { <-local }()
	go func() { failed <- s.Serve(listener) }()
	var err error
	select {
	case err = <-failed:
		s.Shutdown()
	case <-ctx.Done():
		s.Shutdown()
		err = <-failed
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	}
	return nil
}

// Shutdown stops in order: health says not serving, no call is taken any more, streams are told that the server stops
// (their context ends, and the client gets UNAVAILABLE with reason SERVER_STOPPING), running calls have the drain time to
// end, and what is left is then cut off. It returns when every handler has ended.
func (s *Server) Shutdown() {
	s.health.Shutdown()
	s.begin()
	cut := time.AfterFunc(s.drain, s.Stop)
	defer cut.Stop()
	s.GracefulStop()
}
