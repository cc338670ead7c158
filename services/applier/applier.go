// Package applier keeps this replica's copies of a primary's tables up to date. Each source transaction is applied exactly
// once and in commit order, or, with a reason that is shown, not at all; nothing after it is applied then. A first copy
// is exact as of a known position, and following begins there.
package applier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// statePoolSize bounds the connections for reading and writing replications' state; each running replication has one more, and
// its workers during the first copy.
const statePoolSize = 4

// Config is what the service needs. DefaultConfig fills in what is not said.
type Config struct {
	PostgresURL string // of the replica
	ServerID    string // of this node
	// SystemIdentifier and Database tell this database from a source that is the same one.
	SystemIdentifier string
	Database         string
	Version          string           // of Syncline, to be compared with the source's
	Dial             []rpc.DialOption // how sources are reached
	Log              *slog.Logger
	Apply            apply.Options
	// RetryBase is the pause before the first retry; it doubles up to RetryCap. The count begins anew after a replication has done its
	// work for HealthyAfter without a fault.
	RetryBase    time.Duration
	RetryCap     time.Duration
	HealthyAfter time.Duration
	pushes       *pushes // that are attached; made by New
	links        *links  // to sources; made by New
	// EventsMaxAge and EventsMaxCount bound the run log: events are kept for so long, and so many of each replication.
	EventsMaxAge   time.Duration
	EventsMaxCount int
	// MaxRunning is how many replications run at a time; the others wait for their turn. One that is behind gives up its place after
	// MaxTurn when others wait, one that is not at once.
	MaxRunning int
	MaxTurn    time.Duration
	// Instance names this process among the appliers of its database; host, process id and a random number when empty.
	Instance string

	turns *turns
}

// DefaultConfig returns a configuration that lacks only PostgresURL and the node's identity.
func DefaultConfig() Config {
	return Config{
		Log: slog.Default(), Apply: apply.DefaultOptions(),
		RetryBase: DefaultRetryBase, RetryCap: DefaultRetryCap, HealthyAfter: DefaultHealthyAfter,
		EventsMaxAge: 30 * 24 * time.Hour, EventsMaxCount: 10_000,
		MaxRunning: DefaultMaxRunning, MaxTurn: DefaultMaxTurn,
	}
}

// Service is the applier. New builds it, Run owns all that it does.
type Service struct {
	applierv1.UnimplementedApplierServiceServer
	tunnelv1.UnimplementedTunnelServiceServer
	config Config
	store  *store

	mu      sync.Mutex
	runCtx  context.Context //nolint:containedctx // replications live as long as Run, not as long as the call that creates them
	runners map[string]*runner
	ready   chan struct{} // closed when the stored replications are loaded

	syncs   syncJobs
	runs    sync.WaitGroup // what ends transient runs
	results results
}

// New checks the configuration. It connects to nothing.
func New(config Config) (*Service, error) {
	if config.PostgresURL == "" || config.ServerID == "" {
		return nil, errors.New("applier: PostgresURL and ServerID are needed")
	}
	if config.EventsMaxAge <= 0 || config.EventsMaxCount <= 0 {
		return nil, errors.New("applier: the run log needs an age and a number of events that are more than 0")
	}
	if config.MaxRunning < 1 || config.MaxTurn <= 0 {
		return nil, errors.New("applier: at least one replication has to run at a time, and a turn has to last")
	}
	config.turns = newTurns(config.MaxRunning)
	if config.Instance == "" {
		config.Instance = newInstance()
	}
	poolConfig, err := pgxpool.ParseConfig(config.PostgresURL)
	if err != nil {
		return nil, fmt.Errorf("parse connection URL %s: not a PostgreSQL URL", postgres.Redact(config.PostgresURL))
	}
	connConfig, err := postgres.Config(config.PostgresURL, "syncline applier")
	if err != nil {
		return nil, err
	}
	connConfig.RuntimeParams["jit"] = "off" // compiling the queries of catalogs takes longer than running them
	poolConfig.ConnConfig, poolConfig.MaxConns, poolConfig.MinConns = connConfig, statePoolSize, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig)
	if err != nil {
		return nil, fmt.Errorf("open connection pool: %w", err)
	}
	config.links, config.pushes = newLinks(), &pushes{attached: map[string]*attachment{}}
	return &Service{
		config: config, store: &store{pool, newRunLog(pool, &config)}, runners: map[string]*runner{}, ready: make(chan struct{}), syncs: syncJobs{running: map[string]*syncJob{}},
	}, nil
}

// Register adds the service to a gRPC server. Calls before Run has loaded the replications wait for it.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	applierv1.RegisterApplierServiceServer(r, s)
	tunnelv1.RegisterTunnelServiceServer(r, s)
}

// Errors is the service's table from sentinels to statuses.
func Errors() rpc.Table { return errorTable }

// Run starts the stored replications and runs until ctx is done; then it stops all of them, each between two target
// transactions.
func (s *Service) Run(ctx context.Context) error {
	defer s.store.pool.Close()
	list, err := s.load(ctx)
	if err != nil {
		return err
	}
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorded sync.WaitGroup
	recorded.Go(func() { s.store.runLog.run(recording) })
	defer s.store.runLog.flush(ctx)
	defer recorded.Wait()
	defer stopRecording()
	history, err := s.store.recent(ctx)
	if err != nil {
		s.config.Log.Warn("what replications have been through cannot be shown", "error", err)
	}
	coordinator := &coordinator{service: s}
	if err := coordinator.connect(ctx); err != nil {
		s.config.Log.Warn("other appliers do not see this one yet", "error", err)
	}
	seen, err := glimpses(ctx, s.store.pool)
	if err != nil {
		s.config.Log.Warn("it is not known yet whether other appliers run something", "error", err)
	}
	s.mu.Lock()
	s.runCtx = ctx
	for _, r := range list {
		one := newRunner(&s.config, s.store, r)
		one.status.remember(history[r.name])
		if err := one.showTables(ctx, s.store.pool); err != nil {
			s.config.Log.Warn("tables cannot be shown yet", "replication", r.name, "error", err)
		}
		s.runners[r.name] = one
		if g := seen[r.name]; g != nil {
			one.seen.Store(g)
		}
		one.spread = startSpread(len(list))
		one.begin(ctx, r)
	}
	close(s.ready)
	s.mu.Unlock()
	unobserve, err := s.observe()
	if err != nil {
		s.config.Log.Warn("metrics of the quarantine are missing", "error", err)
	} else {
		defer unobserve()
	}
	coordinator.run(ctx)
	s.syncs.wait()
	s.mu.Lock()
	runners := make([]*runner, 0, len(s.runners))
	for _, r := range s.runners {
		runners = append(runners, r)
	}
	s.mu.Unlock()
	for _, r := range runners {
		r.stop()
	}
	s.runs.Wait()
	return ctx.Err()
}

// newInstance makes a name that tells people where the process is.
func newInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	id := make([]byte, 3)
	_, _ = rand.Read(id) // it never fails
	return fmt.Sprintf("%s/%d-%x", host, os.Getpid(), id)
}

// load reads the stored replications, trying again while PostgreSQL cannot be reached.
func (s *Service) load(ctx context.Context) ([]*stored, error) {
	pause := s.config.RetryBase
	for {
		list, err := s.store.list(ctx)
		if err == nil {
			err = s.store.interruptSyncs(ctx)
		}
		if err == nil {
			list, err = s.withoutTransient(ctx, list)
		}
		if err == nil {
			err = s.readResults(ctx)
		}
		if err == nil || !postgres.IsTransient(err) || ctx.Err() != nil {
			return list, err
		}
		s.config.Log.Warn("replications cannot be read yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, s.config.RetryCap)
	}
}

// runner returns a replication's runner, or errNotFound.
func (s *Service) runner(ctx context.Context, name string) (*runner, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runners[name]
	if r == nil {
		return nil, fmt.Errorf("%w: %q; `syncline replication list` shows those that there are", errNotFound, name)
	}
	return r, nil
}

func (s *Service) waitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
