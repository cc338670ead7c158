package node

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestGetServer(t *testing.T) {
	identity := Identity{ServerID: "a", SystemIdentifier: "7", PostgresVersion: 150018, Database: "d"}
	began := time.Unix(1, 0)
	for name, test := range map[string]struct {
		give              Description
		logger, inventory string
	}{
		"as reached": {Description{Roles: []string{RoleLogger, RoleInventory}, Listen: "0.0.0.0:7400"}, "db.example:7400", "db.example:7400"},
		"advertised": {Description{Roles: []string{RoleLogger}, Advertise: "out.example:1", Inventory: "other:2"}, "out.example:1", "other:2"},
		"elsewhere":  {Description{Roles: []string{RoleInventory}, Logger: "log.example:3"}, "log.example:3", "db.example:7400"},
		"replica":    {Description{Roles: []string{RoleApplier}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := test.give
			d.Identity, d.Version, d.Start = identity, "v1", began
			got := ask(t, NewService(d))
			if got.GetLoggerAddress() != test.logger || got.GetInventoryAddress() != test.inventory {
				t.Errorf("logger %q, inventory %q", got.GetLoggerAddress(), got.GetInventoryAddress())
			}
			if got.GetServerId() != "a" || got.GetVersion() != "v1" || got.GetPostgresVersion() != 150018 || !got.GetStartTime().AsTime().Equal(began) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func ask(t *testing.T, service *Service) *serverv1.Server {
	t.Helper()
	server := rpc.NewServer()
	service.Register(server)
	listener := bufconn.Listen(1 << 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn, err := rpc.Dial("db.example:7400", rpc.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := serverv1.NewServerServiceClient(conn).GetServer(t.Context(), &serverv1.GetServerRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return proto.CloneOf(answer.GetServer())
}
