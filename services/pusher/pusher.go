// Package pusher brings what this primary has to targets that cannot reach it. It dials the target's applier and lets it read back through
// that connection: so a target applies what it would apply had it dialled, each transaction exactly once, and reads nothing beyond the
// push's set. What a push shall do is durable before anybody is told.
package pusher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// What holds where a push says nothing.
const (
	DefaultRetryBase = 250 * time.Millisecond
	DefaultRetryCap  = 30 * time.Second
	// DefaultHealthyAfter is how long a push has to be attached before what went wrong in a row is forgotten.
	DefaultHealthyAfter = 2 * time.Minute
)

// poolSize is enough for what users decide and what pushes find out.
const poolSize = 2

// Config is what the service needs.
type Config struct {
	PostgresURL string // of the primary
	ServerID    string // of this node
	Dial        []rpc.DialOption
	// Serve registers what targets may reach, as far as a push lets them, and Table has its errors.
	Serve func(grpc.ServiceRegistrar)
	Table rpc.Table
	// LoggerAddress and LoggerOptions lead to this primary's logger, for what users ask of pushes.
	LoggerAddress string
	LoggerOptions []rpc.DialOption
	Log           *slog.Logger
}

// Service keeps the pushes. New builds it, Run owns all that it does.
type Service struct {
	pushv1.UnimplementedPushServiceServer
	config Config
	store  *store
	logger *grpc.ClientConn

	events *eventLog

	naming turn // held while a push is created, or deleted with all that goes by its name
	mu     sync.Mutex
	runCtx context.Context //nolint:containedctx // pushes live as long as Run, not as long as the call that creates them
	pushes map[string]*push
	ready  chan struct{} // closed when the stored pushes are loaded
}

// New checks the configuration. It connects to nothing.
func New(config Config) (*Service, error) {
	if config.PostgresURL == "" || config.ServerID == "" || config.Serve == nil {
		return nil, errors.New("pusher: PostgresURL, ServerID and Serve are needed")
	}
	connConfig, err := postgres.Config(config.PostgresURL, "syncline pusher")
	if err != nil {
		return nil, err
	}
	poolConfig, err := pgxpool.ParseConfig(config.PostgresURL)
	if err != nil {
		return nil, fmt.Errorf("parse connection URL %s: not a PostgreSQL URL", postgres.Redact(config.PostgresURL))
	}
	poolConfig.ConnConfig, poolConfig.MaxConns, poolConfig.MinConns = connConfig, poolSize, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig)
	if err != nil {
		return nil, fmt.Errorf("open connection pool: %w", err)
	}
	logger, err := rpc.Dial(config.LoggerAddress, config.LoggerOptions...)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Service{
		config: config, store: &store{pool}, logger: logger, events: newEventLog(pool, config.Log), naming: newTurn(), pushes: map[string]*push{}, ready: make(chan struct{}),
	}, nil
}

// Register adds the service to a gRPC server. Calls before Run has loaded the pushes wait for it.
func (s *Service) Register(r grpc.ServiceRegistrar) { pushv1.RegisterPushServiceServer(r, s) }

func (s *Service) loggerClient() loggerv1.LoggerServiceClient {
	return loggerv1.NewLoggerServiceClient(s.logger)
}

// Run starts the stored pushes and runs until ctx is done; then it ends all of them.
func (s *Service) Run(ctx context.Context) error {
	defer s.store.pool.Close()
	defer s.logger.Close()
	list, err := s.load(ctx)
	if err != nil {
		return err
	}
	if unobserve, err := s.observe(); err != nil {
		s.config.Log.Warn("metrics of pushes are missing", "error", err)
	} else {
		defer unobserve()
	}
	s.mu.Lock()
	s.runCtx = ctx
	for _, one := range list {
		p := s.newPush(one)
		s.pushes[one.name] = p
		if one.wanted == wantedRunning {
			p.start(ctx)
		}
	}
	close(s.ready)
	s.mu.Unlock()
	var beside sync.WaitGroup
	beside.Go(func() { s.events.run(ctx) })
	beside.Go(func() { s.forgetGone(ctx) })
	<-ctx.Done()
	for _, p := range s.all() { // none is started any more
		p.stop()
	}
	beside.Wait()
	s.events.flush(ctx)
	return ctx.Err()
}

// all returns the pushes as they are now.
func (s *Service) all() []*push {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.pushes))
}

// load reads the stored pushes, trying again while PostgreSQL cannot be reached.
func (s *Service) load(ctx context.Context) ([]*stored, error) {
	for attempt := 0; ; attempt++ {
		list, err := s.store.list(ctx)
		if err == nil || !postgres.IsTransient(err) || ctx.Err() != nil {
			return list, err
		}
		s.config.Log.Warn("pushes cannot be read yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause(DefaultRetryBase, DefaultRetryCap, attempt)):
		}
	}
}

// find returns a push, or an error that says that there is none.
func (s *Service) find(ctx context.Context, name string) (*push, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pushes[name]
	if p == nil {
		return nil, notFound(name)
	}
	return p, nil
}

func (s *Service) waitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
