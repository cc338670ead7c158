package applier

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
)

// primaryStub says who it is.
type primaryStub struct {
	serverv1.UnimplementedServerServiceServer
	server *serverv1.Server
}

func (p *primaryStub) GetServer(context.Context, *serverv1.GetServerRequest) (*serverv1.GetServerResponse, error) {
	return &serverv1.GetServerResponse{Server: p.server}, nil
}

func startStub(t *testing.T, address string, p *primaryStub) (at string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	serverv1.RegisterServerServiceServer(server, p)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server.Stop
}

// TestLinks: those who reach a source in the same way share a connection up to a number of them, one that does not answer any more is taken by nobody, and the
// last one closes it.
func TestLinks(t *testing.T) {
	stub := &primaryStub{server: &serverv1.Server{ServerId: "one", Roles: []string{"logger", "inventory"}}}
	at, stop := startStub(t, "127.0.0.1:0", stub)
	stub.server.LoggerAddress, stub.server.InventoryAddress = at, at
	spec := &applierv1.ReplicationSpec{Source: at}
	links := newLinks()
	take := func(spec *applierv1.ReplicationSpec) *link {
		t.Helper()
		one, server, err := links.take(t.Context(), spec, nil)
		if err != nil || server.GetServerId() != "one" {
			t.Fatal(server, err)
		}
		return one
	}
	first := take(spec)
	if first.logger != first.first || first.inventory != first.first {
		t.Error("one address has several connections")
	}
	all := []*link{first}
	for range mostOnLink - 1 {
		all = append(all, take(spec))
	}
	for _, one := range all {
		if one != first {
			t.Fatal("a connection is not shared")
		}
	}
	if full := take(spec); full == first {
		t.Errorf("%d share a connection", mostOnLink+1)
	} else {
		links.release(full)
	}
	if other := take(&applierv1.ReplicationSpec{Source: at, Token: "another"}); other == first {
		t.Error("a connection is shared by those with other credentials")
	} else {
		links.release(other)
	}
	for _, one := range all {
		links.release(one)
	}
	if _, err := whoIs(t.Context(), first.first, at); err == nil || len(links.open) != 0 {
		t.Errorf("after the last release: %v, %d links", err, len(links.open))
	}
	before := take(spec)
	stop()
	if _, _, err := links.take(t.Context(), spec, nil); err == nil || len(links.open) != 0 {
		t.Errorf("a source that is gone: %v, %d links", err, len(links.open))
	}
	startStub(t, at, stub)
	after := take(spec) // at once, however long the connection of before waits until it tries again
	if after == before {
		t.Error("a connection that failed is taken again")
	}
	stub.server = &serverv1.Server{ServerId: "one", Roles: stub.server.GetRoles(), LoggerAddress: "127.0.0.1:1", InventoryAddress: at}
	if moved := take(spec); moved == after {
		t.Error("the logger's address has changed, and the connection to the former one is taken")
	}
}
