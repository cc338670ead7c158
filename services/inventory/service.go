// Package inventory serves what a first full copy of a primary is made from: what there is to replicate, leased snapshots
// whose position in the change log is exact, and dumps of tables from them. A transaction is in a snapshot if and only if its
// commit ends at or before the snapshot's position; following the log from there gives all others, each once. Reading
// never harms the primary: no row is read by a snapshot before every transaction in it is in PostgreSQL's commit log.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Defaults and limits of requests and configuration.
const (
	DefaultTTL          = time.Minute
	MinTTL              = 100 * time.Millisecond
	MaxTTL              = time.Hour
	DefaultWait         = 10 * time.Minute
	MaxWait             = 24 * time.Hour
	DefaultChunkBytes   = 256 << 10
	MaxChunkBytes       = 1 << 20
	DefaultMaxSnapshots = 8
	DefaultMaxDumps     = 16
	DefaultLockTimeout  = 10 * time.Second
)

// Config says what the service serves. Zero numbers stand for the defaults of DefaultConfig.
type Config struct {
	// PostgresURL leads to the primary. The role needs REPLICATION, and SELECT on the tables.
	PostgresURL string
	// ServerID is the primary's server id. A logger that names another one is refused.
	ServerID string
	// LoggerAddress is the HOST:PORT of the logger that captures the same primary.
	LoggerAddress string
	// LoggerOptions are used to connect to it.
	LoggerOptions []rpc.DialOption
	// LoggerConn is used instead of LoggerAddress when it is set, as in one process. It is not closed.
	LoggerConn grpc.ClientConnInterface
	// MaxSnapshots bounds the open snapshots together with those being opened. Each holds one session and holds back vacuum.
	MaxSnapshots int
	// MaxDumps bounds the sessions that dump. More dumps wait for their turn.
	MaxDumps int
	// LockTimeout bounds how long a dump waits for a table that is locked.
	LockTimeout time.Duration
	// Log takes what operators should know; slog.Default() when nil.
	Log *slog.Logger
}

// DefaultConfig is a Config with every default and no addresses.
func DefaultConfig() Config {
	return Config{MaxSnapshots: DefaultMaxSnapshots, MaxDumps: DefaultMaxDumps, LockTimeout: DefaultLockTimeout}
}

// complete fills in defaults and refuses what cannot work.
func (c *Config) complete() error {
	if c.MaxSnapshots == 0 {
		c.MaxSnapshots = DefaultMaxSnapshots
	}
	if c.MaxDumps == 0 {
		c.MaxDumps = DefaultMaxDumps
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = DefaultLockTimeout
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case c.MaxSnapshots < 0 || c.MaxDumps < 0 || c.LockTimeout < time.Millisecond:
		return errors.New("configure inventory service: limits and timeouts must be positive")
	case c.LoggerAddress == "" && c.LoggerConn == nil:
		return errors.New("configure inventory service: the address of the logger is missing (HOST:PORT)")
	}
	if _, err := postgres.Config(c.PostgresURL, application); err != nil {
		return fmt.Errorf("configure inventory service: %w", err)
	}
	return nil
}

// Service is the inventory service of one primary.
type Service struct {
	inventoryv1.UnimplementedInventoryServiceServer

	config     Config
	logger     loggerClient
	loggerConn *grpc.ClientConn // nil when it is not ours
	metrics    *metrics
	leases     *leases
	dumpPlaces chan struct{} // one element for each running dump
}

// New builds the service. It connects to nothing yet.
func New(config Config) (*Service, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	m, err := newMetrics()
	if err != nil {
		return nil, fmt.Errorf("make metrics of the inventory service: %w", err)
	}
	s := &Service{
		config: config, metrics: m, leases: newLeases(config.MaxSnapshots, config.Log, m),
		dumpPlaces: make(chan struct{}, config.MaxDumps),
	}
	conn := config.LoggerConn
	if conn == nil {
		if s.loggerConn, err = rpc.Dial(config.LoggerAddress, config.LoggerOptions...); err != nil {
			return nil, fmt.Errorf("configure inventory service: logger: %w", err)
		}
		conn = s.loggerConn
	}
	s.logger = loggerv1.NewLoggerServiceClient(conn)
	return s, nil
}

// Register adds the service to a gRPC server, which should have the table Errors.
func (s *Service) Register(registrar grpc.ServiceRegistrar) {
	inventoryv1.RegisterInventoryServiceServer(registrar, s)
}

// Run lets snapshots be opened until ctx ends. Then it refuses new ones, ends those being opened, and closes all others
// with their dumps; when it returns, the service holds nothing in PostgreSQL any more. It runs once.
func (s *Service) Run(ctx context.Context) error {
	s.leases.start()
	<-ctx.Done()
	s.leases.stop()
	if s.loggerConn != nil {
		_ = s.loggerConn.Close() // nothing is under way on it
	}
	return nil
}

// OpenSnapshot implements the method of that name.
func (s *Service) OpenSnapshot(request *inventoryv1.OpenSnapshotRequest, stream grpc.ServerStreamingServer[inventoryv1.OpenSnapshotResponse]) (err error) {
	ttl, err := durationIn("ttl", request.GetTtl(), DefaultTTL, MinTTL, MaxTTL)
	if err != nil {
		return err
	}
	wait, err := durationIn("wait", request.GetWait(), DefaultWait, time.Millisecond, MaxWait)
	if err != nil {
		return err
	}
	ctx, end := span(stream.Context(), "open snapshot")
	defer end(&err)
	ctx, stopTimer := context.WithTimeoutCause(ctx, wait, errNotInTime)
	defer stopTimer()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done, err := s.leases.begin(cancel)
	if err != nil {
		return err
	}

	// Sending may block for as long as the client likes. The opening never waits for that, so it always ends in time.
	news := make(chan *inventoryv1.SnapshotWait, 1)
	type answer struct {
		lease *lease
		err   error
	}
	result := make(chan answer, 1)
	began := time.Now()
	go func() {
		l, err := s.open(ctx, ttl, news)
		done(err == nil)
		s.metrics.opening.Record(context.WithoutCancel(ctx), time.Since(began).Seconds(), outcome(err))
		result <- answer{l, err}
	}()
	for {
		select {
		case w := <-news:
			if err := stream.Send(&inventoryv1.OpenSnapshotResponse{Event: &inventoryv1.OpenSnapshotResponse_Waiting{Waiting: w}}); err != nil {
				cancel(err)
				if a := <-result; a.err == nil {
					s.abandon(a.lease)
				}
				return err
			}
		case a := <-result:
			if a.err != nil {
				return a.err
			}
			snapshot := &inventoryv1.OpenSnapshotResponse_Snapshot{Snapshot: s.leases.snapshot(a.lease)}
			if err := stream.Send(&inventoryv1.OpenSnapshotResponse{Event: snapshot}); err != nil {
				s.abandon(a.lease)
				return err
			}
			s.config.Log.Info("snapshot opened", "snapshot", a.lease.id, "position", a.lease.position.String(), "seconds", time.Since(began).Seconds())
			return nil
		}
	}
}

// open makes a snapshot and leases it.
func (s *Service) open(ctx context.Context, ttl time.Duration, news chan *inventoryv1.SnapshotWait) (*lease, error) {
	o := &opening{url: s.config.PostgresURL, serverID: s.config.ServerID, logger: s.logger, report: func(reason string, writers []writer) {
		w := &inventoryv1.SnapshotWait{Reason: reason}
		for _, x := range writers {
			w.Transactions = append(w.Transactions, x.proto())
		}
		select { // the client is shown the newest
		case <-news:
		default:
		}
		news <- w
	}}
	made, err := o.run(ctx)
	if err != nil {
		return nil, err
	}
	l := &lease{
		id: randomHex(16), position: made.position, exported: made.exported, seen: made.seen, ttl: ttl, client: clientOf(ctx), pid: made.keeper.PID(),
		wake: make(chan struct{}, 1), gone: make(chan struct{}), dumps: make(map[*context.CancelCauseFunc]struct{}),
	}
	s.leases.add(l, made.keeper)
	fault.Point(FaultLeased)
	return l, nil
}

// clientOf is the address that a call came from.
func clientOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// abandon closes a snapshot that its client has not heard of.
func (s *Service) abandon(l *lease) {
	_ = s.leases.close(context.Background(), l.id) // gone already is as good
}

// RenewSnapshot implements the method of that name.
func (s *Service) RenewSnapshot(_ context.Context, request *inventoryv1.RenewSnapshotRequest) (*inventoryv1.RenewSnapshotResponse, error) {
	ttl, err := durationIn("ttl", request.GetTtl(), 0, MinTTL, MaxTTL)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.leases.renew(request.GetSnapshotId(), ttl)
	if err != nil {
		return nil, fmt.Errorf("renew snapshot: %w", err)
	}
	return &inventoryv1.RenewSnapshotResponse{Snapshot: snapshot}, nil
}

// CloseSnapshot implements the method of that name.
func (s *Service) CloseSnapshot(ctx context.Context, request *inventoryv1.CloseSnapshotRequest) (*inventoryv1.CloseSnapshotResponse, error) {
	if err := s.leases.close(ctx, request.GetSnapshotId()); err != nil {
		return nil, fmt.Errorf("close snapshot: %w", err)
	}
	return &inventoryv1.CloseSnapshotResponse{}, nil
}

// ListSnapshots implements the method of that name.
func (s *Service) ListSnapshots(context.Context, *inventoryv1.ListSnapshotsRequest) (*inventoryv1.ListSnapshotsResponse, error) {
	return &inventoryv1.ListSnapshotsResponse{Snapshots: s.leases.list()}, nil
}

// durationIn reads a duration of a request: unset stands for missing.
func durationIn(field string, d *durationpb.Duration, missing, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return missing, nil
	}
	if v := d.AsDuration(); d.IsValid() && v >= least && v <= most {
		return v, nil
	}
	return 0, rpc.Invalid(field, "must be between %v and %v", least, most)
}
