package rest

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// fakeApplier answers by functions; without one of them it returns what was asked for.
type fakeApplier struct {
	applierv1.UnimplementedApplierServiceServer
	create func(ctx context.Context, in *applierv1.CreateReplicationRequest) error
	wait   func(ctx context.Context, in *applierv1.WaitReplicationRequest) error
	watch  func(stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error
}

func (f *fakeApplier) CreateReplication(ctx context.Context, in *applierv1.CreateReplicationRequest) (*applierv1.CreateReplicationResponse, error) {
	if f.create != nil {
		if err := f.create(ctx, in); err != nil {
			return nil, err
		}
	}
	return &applierv1.CreateReplicationResponse{Replication: &applierv1.Replication{Name: in.GetName(), Spec: in.GetSpec(), LagBytes: 1 << 60}}, nil
}

func (f *fakeApplier) GetReplication(_ context.Context, in *applierv1.GetReplicationRequest) (*applierv1.GetReplicationResponse, error) {
	return nil, rpc.Errorf(codes.NotFound, "REPLICATION_UNKNOWN", "there is no replication %q", in.GetName()).With("replication", in.GetName())
}

func (f *fakeApplier) StartReplication(_ context.Context, in *applierv1.StartReplicationRequest) (*applierv1.StartReplicationResponse, error) {
	return &applierv1.StartReplicationResponse{Replication: &applierv1.Replication{Name: in.GetName()}}, nil
}

func (f *fakeApplier) WaitReplication(ctx context.Context, in *applierv1.WaitReplicationRequest) (*applierv1.WaitReplicationResponse, error) {
	return &applierv1.WaitReplicationResponse{}, f.wait(ctx, in)
}

func (f *fakeApplier) WatchReplication(_ *applierv1.WatchReplicationRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	return f.watch(stream)
}

type fakeInventory struct {
	inventoryv1.UnimplementedInventoryServiceServer
	dump func(in *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error
}

func (f *fakeInventory) GetInventory(context.Context, *inventoryv1.GetInventoryRequest) (*inventoryv1.GetInventoryResponse, error) {
	return &inventoryv1.GetInventoryResponse{Descriptors: make([]byte, 2*rpc.MaxMessageBytes)}, nil
}

func (f *fakeInventory) Dump(in *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error {
	return f.dump(in, stream)
}

// fakeLogger serves frames.
type fakeLogger struct {
	loggerv1.UnimplementedLoggerServiceServer
	frames  []*rpc.Frame
	end     error
	deleted string
}

func (f *fakeLogger) Follow(_ *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
	for _, frame := range f.frames {
		if err := stream.SendMsg(frame); err != nil {
			return err
		}
	}
	return f.end
}

func (f *fakeLogger) DeleteFollower(_ context.Context, in *loggerv1.DeleteFollowerRequest) (*loggerv1.DeleteFollowerResponse, error) {
	f.deleted = in.GetFollower()
	return &loggerv1.DeleteFollowerResponse{}, nil
}

func (f *fakeLogger) ReportApplied(_ context.Context, in *loggerv1.ReportAppliedRequest) (*loggerv1.ReportAppliedResponse, error) {
	return nil, rpc.Errorf(codes.OutOfRange, "POSITION_AHEAD", "%s has applied %d", in.GetFollower(), in.GetPosition().GetLsn())
}

// fakes are the services of one server.
type fakes struct {
	applier   *fakeApplier
	inventory *fakeInventory
	logger    *fakeLogger
}

// fake is a server of fake services with its REST.
type fake struct {
	fakes
	handler *Handler
	url     string
	address string
}

// allServices are all that have HTTP rules.
func allServices() []string {
	return []string{
		applierv1.ApplierService_ServiceDesc.ServiceName, inventoryv1.InventoryService_ServiceDesc.ServiceName,
		loggerv1.LoggerService_ServiceDesc.ServiceName, serverv1.ServerService_ServiceDesc.ServiceName,
		accessv1.AccessService_ServiceDesc.ServiceName, pushv1.PushService_ServiceDesc.ServiceName,
	}
}

func start(t *testing.T, limits Limits) *fake {
	t.Helper()
	f := &fake{fakes: fakes{applier: &fakeApplier{}, inventory: &fakeInventory{}, logger: &fakeLogger{}}}
	server := rpc.NewServer(rpc.WithDrain(time.Second))
	applierv1.RegisterApplierServiceServer(server, f.applier)
	inventoryv1.RegisterInventoryServiceServer(server, f.inventory)
	loggerv1.RegisterLoggerServiceServer(server, f.logger)
	accessv1.RegisterAccessServiceServer(server, accessv1.UnimplementedAccessServiceServer{})
	pushv1.RegisterPushServiceServer(server, pushv1.UnimplementedPushServiceServer{})
	serverv1.RegisterServerServiceServer(server, serverv1.UnimplementedServerServiceServer{})
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	grpcListener, httpListener := listen(), listen()
	conn, err := Dial(grpcListener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	services := append(allServices(), "grpc.health.v1.Health")
	if f.handler, err = New(conn, services, "test", limits); err != nil {
		t.Fatal(err)
	}
	f.address = httpListener.Addr().String()
	f.url = "http://" + f.address
	web := telemetry.NewHTTPServer(f.handler, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx, grpcListener) })
	running.Go(func() { _ = web.Serve(httpListener) })
	t.Cleanup(func() {
		cancel()
		_ = web.Close()
		running.Wait()
		conn.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

// reply is the head of an answer.
type reply struct {
	StatusCode int
	Header     http.Header
}

// call sends a request and returns its answer with the whole body.
func (f *fake) call(t *testing.T, method, path, body string, edit ...func(*http.Request)) (reply, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", typeJSON)
	}
	for _, e := range edit {
		e(request)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header}, string(text)
}

// requireProblem checks that an answer is the error with a status and a reason, in the one form that errors have.
func requireProblem(t *testing.T, answer reply, body string, code int, reason string) problem {
	t.Helper()
	var got failure
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	if answer.StatusCode != code || got.Error.Code != code || got.Error.Reason != reason || got.Error.Message == "" || got.Error.Status == "" || got.Error.Metadata == nil {
		t.Errorf("%d %s, expected %d %s", answer.StatusCode, body, code, reason)
	}
	if kind := answer.Header.Get("Content-Type"); kind != typeJSON {
		t.Errorf("an error of type %s", kind)
	}
	return got.Error
}
