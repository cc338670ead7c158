package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = 20 * time.Second

// fakeLogger is a logger that has captured whatever the server has flushed.
type fakeLogger struct {
	loggerv1.UnimplementedLoggerServiceServer

	mu       sync.Mutex
	url      string
	conn     *pgx.Conn
	logID    string
	state    string
	serverID string
	first    change.LSN
	last     change.LSN // stays there when not 0
	err      error      // every call fails with it
	ranges   int        // calls of GetRanges
	barriers int
	onRanges func(*fakeLogger) // called in each GetRanges, with mu held

	tables, insertOnly []string
	uncaptured         []*loggerv1.UncapturedTable
	stopped            bool
}

func (f *fakeLogger) set(edit func(*fakeLogger)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(f)
}

func (f *fakeLogger) flushed(ctx context.Context) (uint64, error) {
	if f.err != nil {
		return 0, f.err
	}
	if f.last != 0 {
		return uint64(f.last), nil
	}
	var text string
	var err error
	for range 2 { // the server may have restarted
		if f.conn == nil || f.conn.IsClosed() {
			if f.conn, err = pgx.Connect(ctx, f.url); err != nil {
				return 0, err
			}
		}
		if err = f.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&text); err == nil {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	lsn, err := change.ParseLSN(text)
	return uint64(lsn), err
}

func (f *fakeLogger) GetState(ctx context.Context, _ *loggerv1.GetStateRequest) (*loggerv1.GetStateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lsn, err := f.flushed(ctx)
	if err != nil {
		return nil, err
	}
	answer := &loggerv1.GetStateResponse{
		State: f.state, ServerId: f.serverID, Position: &changev1.Position{LogId: f.logID, Lsn: lsn},
		Tables: f.tables, InsertOnlyTables: f.insertOnly, UncapturedTables: f.uncaptured,
	}
	if f.stopped {
		answer.StopTime = timestamppb.Now()
	}
	return answer, nil
}

func (f *fakeLogger) GetRanges(ctx context.Context, _ *loggerv1.GetRangesRequest) (*loggerv1.GetRangesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges++
	if f.onRanges != nil {
		f.onRanges(f)
	}
	lsn, err := f.flushed(ctx)
	if err != nil {
		return nil, err
	}
	return &loggerv1.GetRangesResponse{LogId: f.logID, FirstLsn: uint64(f.first), LastLsn: lsn}, nil
}

func (f *fakeLogger) EmitBarrier(context.Context, *loggerv1.EmitBarrierRequest) (*loggerv1.EmitBarrierResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.barriers++
	return &loggerv1.EmitBarrierResponse{}, nil
}

// bench is a running service and a client of it.
type bench struct {
	inventoryv1.InventoryServiceClient
	url    string
	conn   *grpc.ClientConn
	admin  *pgx.Conn // a session of the superuser in the same database
	leases *leases
	logger *fakeLogger
	stop   func() // stops the service and waits; called at the end in any case
}

// serve runs a service on a database through a real gRPC server. At the test's end nothing of it may be left: no goroutine, no
// session, no slot.
func serve(t *testing.T, url string, edits ...func(*Config)) *bench {
	t.Helper()
	admin := pgtest.Connect(t, url)
	before := goleak.IgnoreCurrent()
	logger := &fakeLogger{url: url, logID: change.LogID{1, 2, 3}.String(), state: "capturing", serverID: "primary-1"}
	listener := bufconn.Listen(1 << 20)
	server := rpc.NewServer(rpc.WithTable(Errors()), rpc.WithDrain(time.Second), rpc.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	loggerv1.RegisterLoggerServiceServer(server, logger)
	conn, err := rpc.Dial("127.0.0.1:1", rpc.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.PostgresURL, config.ServerID, config.LoggerConn = url, "primary-1", conn
	config.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, edit := range edits {
		edit(&config)
	}
	service, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	service.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { _ = server.Serve(listener) })
	b := &bench{InventoryServiceClient: inventoryv1.NewInventoryServiceClient(conn), conn: conn, url: url, admin: admin, leases: service.leases, logger: logger}
	b.stop = sync.OnceFunc(func() {
		cancel()
		server.Shutdown()
		running.Wait()
	})
	t.Cleanup(func() {
		b.stop()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if logger.conn != nil {
			logger.conn.Close(context.Background())
		}
		b.requireFreed(t)
		goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/seed0419d559/syncline/internal/pgserver.run.func1")) // a restarted server
	})
	pgtest.Eventually(t, patience, func() error { // Run has begun
		service.leases.mu.Lock()
		defer service.leases.mu.Unlock()
		if !service.leases.running {
			return errors.New("not running")
		}
		return nil
	})
	return b
}

// requireFreed fails unless the service has no session and no slot.
func (b *bench) requireFreed(t *testing.T) {
	t.Helper()
	b.requireSessions(t, 0)
}

// requireSessions waits until the service has n sessions and no slot.
func (b *bench) requireSessions(t *testing.T, n int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	pgtest.Eventually(t, patience, func() error {
		var sessions, slots int
		err := conn.QueryRow(ctx, `SELECT
			(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline inventory' AND datname = current_database()),
			(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'syncline\_snapshot\_%' AND database = current_database())`).Scan(&sessions, &slots)
		if err == nil && (sessions != n || slots != 0) {
			err = fmt.Errorf("%d sessions and %d slots, want %d and 0", sessions, slots, n)
		}
		return err
	})
}

// open opens a snapshot and returns it with what was reported before.
func (b *bench) open(ctx context.Context, ttl, wait time.Duration) (*inventoryv1.Snapshot, []*inventoryv1.SnapshotWait, error) {
	request := &inventoryv1.OpenSnapshotRequest{}
	if ttl != 0 {
		request.Ttl = durationpb.New(ttl)
	}
	if wait != 0 {
		request.Wait = durationpb.New(wait)
	}
	stream, err := b.OpenSnapshot(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	var snapshot *inventoryv1.Snapshot
	var waits []*inventoryv1.SnapshotWait
	for {
		event, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && snapshot != nil:
			return snapshot, waits, nil
		case err != nil:
			return nil, waits, err
		case event.GetWaiting() != nil:
			waits = append(waits, event.GetWaiting())
		default:
			snapshot = event.GetSnapshot()
		}
	}
}

func (b *bench) mustOpen(t *testing.T) *inventoryv1.Snapshot {
	t.Helper()
	snapshot, _, err := b.open(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// dump returns all data of a dump.
func (b *bench) dump(ctx context.Context, request *inventoryv1.DumpRequest) ([]byte, *inventoryv1.DumpEnd, error) {
	stream, err := b.Dump(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	var data []byte
	var end *inventoryv1.DumpEnd
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && end != nil:
			if end.GetBytes() != int64(len(data)) {
				return nil, nil, fmt.Errorf("the end says %d bytes, but there were %d", end.GetBytes(), len(data))
			}
			return data, end, nil
		case errors.Is(err, io.EOF):
			return nil, nil, errors.New("stream ended without an end")
		case err != nil:
			return data, nil, err
		case end != nil:
			return nil, nil, errors.New("more after the end")
		}
		data = append(data, answer.GetData()...)
		end = answer.GetEnd()
	}
}

func (b *bench) mustDump(t *testing.T, request *inventoryv1.DumpRequest) string {
	t.Helper()
	data, _, err := b.dump(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// requireStatus fails unless err has this code and reason.
func requireStatus(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	if rpc.Code(err) != code || rpc.Reason(err) != reason {
		t.Fatalf("got %v %s (%v), want %v %s", rpc.Code(err), rpc.Reason(err), err, code, reason)
	}
}
