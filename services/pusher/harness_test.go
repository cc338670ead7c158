package pusher

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/tunnel"
)

// patience is long because a machine may be busy with other things; nothing waits for it to pass.
const patience = 2 * time.Minute

// farSide is a target, and the change log of the source, as a push sees them.
type farSide struct {
	tunnelv1.UnimplementedTunnelServiceServer
	applierv1.UnimplementedApplierServiceServer
	loggerv1.UnimplementedLoggerServiceServer
	address string

	mu        sync.Mutex
	there     map[string]*applierv1.Replication
	hidden    bool  // Carry says that no replication is there
	refuses   error // what Carry answers instead
	attached  int
	created   int
	followers []string
}

func openFarSide(t *testing.T) *farSide {
	t.Helper()
	f := &farSide{there: map[string]*applierv1.Replication{}}
	server := rpc.NewServer(rpc.WithLogger(slog.New(slog.DiscardHandler)), rpc.WithDrain(time.Second))
	tunnelv1.RegisterTunnelServiceServer(server, f)
	applierv1.RegisterApplierServiceServer(server, f)
	loggerv1.RegisterLoggerServiceServer(server, f)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return f
}

// do changes or reads the far side.
func (f *farSide) do(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
}

// Carry attaches as a target does, and asks nothing.
func (f *farSide) Carry(stream grpc.BidiStreamingServer[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.attached++
	refuses, exists := f.refuses, f.there[first.GetOpen().GetReplication()] != nil && !f.hidden
	f.mu.Unlock()
	if refuses != nil {
		return refuses
	}
	if err := stream.Send(&tunnelv1.CarryResponse{Content: &tunnelv1.CarryResponse_Opened{Opened: &tunnelv1.Opened{ServerId: "there", Exists: exists}}}); err != nil {
		return err
	}
	mine, pipe := net.Pipe()
	conn, err := rpc.Dial("push.invalid:7400", rpc.WithDialer(func(context.Context, string) (net.Conn, error) { return mine, nil }))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.Connect()
	return tunnel.Carry(stream.Context(), tunnel.Stream{
		Send: func(piece []byte) error {
			return stream.Send(&tunnelv1.CarryResponse{Content: &tunnelv1.CarryResponse_Data{Data: piece}})
		},
		Recv: func() ([]byte, error) {
			request, err := stream.Recv()
			return request.GetData(), err
		},
	}, pipe, nil)
}

func (f *farSide) CreateReplication(_ context.Context, in *applierv1.CreateReplicationRequest) (*applierv1.CreateReplicationResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.there[in.GetName()] != nil {
		return nil, rpc.Errorf(codes.AlreadyExists, "REPLICATION_EXISTS", "there is one")
	}
	f.created++
	f.there[in.GetName()] = &applierv1.Replication{Name: in.GetName(), Spec: in.GetSpec(), SourceServerId: "here", State: applierv1.State_STATE_RUNNING}
	return &applierv1.CreateReplicationResponse{Replication: f.there[in.GetName()]}, nil
}

func (f *farSide) GetReplication(_ context.Context, in *applierv1.GetReplicationRequest) (*applierv1.GetReplicationResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.there[in.GetName()]
	if one == nil {
		return nil, rpc.Errorf(codes.NotFound, "REPLICATION_NOT_FOUND", "there is none")
	}
	return &applierv1.GetReplicationResponse{Replication: proto.CloneOf(one)}, nil
}

func (f *farSide) WatchReplication(in *applierv1.WatchReplicationRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	for {
		one, err := f.GetReplication(stream.Context(), &applierv1.GetReplicationRequest{Name: in.GetName()})
		if err != nil {
			return err
		}
		if err := stream.Send(&applierv1.WatchReplicationResponse{Replication: one.GetReplication()}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (f *farSide) ListFollowers(context.Context, *loggerv1.ListFollowersRequest) (*loggerv1.ListFollowersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &loggerv1.ListFollowersResponse{}
	for _, name := range f.followers {
		out.Followers = append(out.Followers, &loggerv1.Follower{Name: name})
	}
	return out, nil
}

func (f *farSide) DeleteFollower(_ context.Context, in *loggerv1.DeleteFollowerRequest) (*loggerv1.DeleteFollowerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, name := range f.followers {
		if name == in.GetFollower() {
			f.followers = append(f.followers[:i:i], f.followers[i+1:]...)
			return &loggerv1.DeleteFollowerResponse{}, nil
		}
	}
	return nil, rpc.Errorf(codes.NotFound, "FOLLOWER_UNKNOWN", "there is none")
}

// near is a pusher that runs in the test's process.
type near struct {
	*Service
	t   *testing.T
	end func() // waits until everything has ended; may be called again
}

// openNear starts a pusher on a database. Its log goes to handler.
func openNear(t *testing.T, url string, f *farSide, handler slog.Handler) *near {
	t.Helper()
	s, err := New(Config{
		PostgresURL: url, ServerID: "here", Serve: func(grpc.ServiceRegistrar) {}, LoggerAddress: f.address, Log: slog.New(handler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = s.Run(ctx) }()
	end := func() { cancel(); <-ran }
	t.Cleanup(end)
	return &near{s, t, end}
}

func newPrimary(t *testing.T) (url string) {
	t.Helper()
	url = pgtest.Shared(t).Database(t)
	if _, err := node.Prepare(t.Context(), url, node.Primary); err != nil {
		t.Fatal(err)
	}
	return url
}

// opened starts a pusher and what it pushes to.
func opened(t *testing.T) (*near, *farSide) {
	t.Helper()
	f := openFarSide(t)
	return openNear(t, newPrimary(t), f, slog.DiscardHandler), f
}

// push creates a push to the far side.
func (n *near) push(name, target string, edit ...func(*pushv1.PushSpec)) {
	n.t.Helper()
	spec := &pushv1.PushSpec{Target: target, RetryCap: durationpb.New(50 * time.Millisecond)}
	for _, e := range edit {
		e(spec)
	}
	if _, err := n.CreatePush(n.t.Context(), &pushv1.CreatePushRequest{Name: name, Spec: spec}); err != nil {
		n.t.Fatal(err)
	}
}

// wait waits until a push is in a state, for a reason unless that is empty.
func (n *near) wait(name string, state pushv1.PushState, reason string) (last *pushv1.Push) {
	n.t.Helper()
	pgtest.Eventually(n.t, patience, func() error {
		answer, err := n.GetPush(n.t.Context(), &pushv1.GetPushRequest{Name: name})
		if last = answer.GetPush(); err != nil {
			return err
		}
		if last.GetState() != state || reason != "" && last.GetReasonCode() != reason {
			return fmt.Errorf("push %s is %s: %s: %s", name, last.GetState(), last.GetReasonCode(), last.GetReason())
		}
		return nil
	})
	return last
}

// kinds are those of a push's events, the oldest first.
func (n *near) kinds(name string) (kinds []eventKind) {
	n.t.Helper()
	list, err := n.store.events(n.t.Context(), eventFilter{push: name, limit: 1000})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range list {
		kinds = append(kinds, e.kind)
	}
	return kinds
}
