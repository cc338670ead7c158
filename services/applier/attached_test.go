package applier

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// attachable is a target that takes pushes and has no database: one replication, shop, waits for push berlin of server there.
func attachable(t *testing.T) (*Service, *grpc.ClientConn) {
	t.Helper()
	config := DefaultConfig()
	config.PostgresURL, config.ServerID, config.Log = "postgres://nobody@127.0.0.1:1/none", "here", slog.New(slog.DiscardHandler)
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.runners["shop"] = newRunner(&s.config, s.store, &stored{name: "shop", spec: &applierv1.ReplicationSpec{Source: "push:berlin"}, sourceServerID: "there"})
	close(s.ready)
	server := rpc.NewServer(rpc.WithTable(Errors()), rpc.WithLogger(config.Log), rpc.WithDrain(time.Second))
	s.Register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx, listener) }()
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		<-served
		s.store.pool.Close()
	})
	return s, conn
}

// attach opens a tunnel and returns what ends it, and what it ended with.
func attach(t *testing.T, conn *grpc.ClientConn) (leave func(), ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := tunnelv1.NewTunnelServiceClient(conn).Carry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	open := &tunnelv1.Open{Replication: "shop", Push: "berlin", ServerId: "there"}
	if err := stream.Send(&tunnelv1.CarryRequest{Content: &tunnelv1.CarryRequest_Open{Open: open}}); err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || !first.GetOpened().GetExists() {
		t.Fatal(first, err)
	}
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				done <- err
				return
			}
		}
	}()
	return cancel, done
}

// toldNext waits for the next event of the run log.
func toldNext(t *testing.T, s *Service) eventKind {
	t.Helper()
	select {
	case e := <-s.store.runLog.queue:
		return e.kind
	case <-time.After(time.Minute):
		t.Fatal("nothing is told")
		return ""
	}
}

// TestAttachments: a push that comes again takes its own place, and the run log does not end with its having gone.
func TestAttachments(t *testing.T) {
	s, conn := attachable(t)
	_, first := attach(t, conn)
	if kind := toldNext(t, s); kind != kindPushAttached {
		t.Errorf("told %s", kind)
	}
	before := s.config.pushes.of("shop")
	leave, second := attach(t, conn)
	if err := <-first; rpc.Reason(err) != reasonReplaced {
		t.Errorf("the first ended with %v", err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		return errWhile(s.config.pushes.of("shop") == before || before.conn.GetState().String() != "SHUTDOWN")
	})
	leave()
	if err := <-second; rpc.Code(err).String() != "Canceled" {
		t.Errorf("the second ended with %v", err)
	}
	for _, want := range []eventKind{kindPushAttached, kindPushDetached} {
		if kind := toldNext(t, s); kind != want {
			t.Errorf("told %s instead of %s", kind, want)
		}
	}
	pgtest.Eventually(t, time.Minute, func() error { return errWhile(s.config.pushes.of("shop") != nil) })
	select {
	case e := <-s.store.runLog.queue:
		t.Errorf("told once more: %s", e.kind)
	default:
	}
}

// TestBrokenTunnel: a connection in the tunnel that broke ends it with a word that says so.
func TestBrokenTunnel(t *testing.T) {
	s, conn := attachable(t)
	_, ended := attach(t, conn)
	toldNext(t, s)
	s.config.pushes.of("shop").replace(errTunnelBroke)
	if err := <-ended; rpc.Reason(err) != reasonNotAttached {
		t.Errorf("it ended with %v", err)
	}
}

func errWhile(waiting bool) error {
	if waiting {
		return context.DeadlineExceeded
	}
	return nil
}
