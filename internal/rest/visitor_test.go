package rest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/principals"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// recorder notes what credentials calls have.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) Admit(ctx context.Context, _ string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, strings.Join(md.Get("authorization"), "+")+"/"+strings.Join(md.Get(principals.HeaderPrincipal), "+"))
	return ctx, nil
}
func (r *recorder) Check(context.Context, string, any) error { return nil }
func (r *recorder) Revoked(context.Context) <-chan struct{}  { return nil }
func (r *recorder) Answer(_ context.Context, answer any) any { return answer }
func (r *recorder) Done(context.Context, string, any, error) {}
func (r *recorder) last() string                             { r.mu.Lock(); defer r.mu.Unlock(); return r.seen[len(r.seen)-1] }

type gate struct{ visitor principals.Visitor }

func (g gate) AdmitHTTP(*http.Request, access.Role) (principals.Visitor, error) {
	return g.visitor, nil
}

// TestCredentialsPassAsTheyAre gives a call the credential of its request, whichever handler makes it, and nothing that a header says.
func TestCredentialsPassAsTheyAre(t *testing.T) {
	seen := &recorder{}
	server := rpc.NewServer(rpc.WithDrain(time.Second), rpc.WithGuard(seen))
	loggerv1.RegisterLoggerServiceServer(server, loggerv1.UnimplementedLoggerServiceServer{})
	inventoryv1.RegisterInventoryServiceServer(server, inventoryv1.UnimplementedInventoryServiceServer{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, listener) }()
	defer func() { cancel(); <-ended }()
	conn, err := Dial("127.0.0.1:1", rpc.WithDialer(server.DialLocal))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	services := []string{loggerv1.LoggerService_ServiceDesc.ServiceName, inventoryv1.InventoryService_ServiceDesc.ServiceName}
	h, err := New(conn, services, "test", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	defer web.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for _, path := range []string{"/v1/logger/state", "/v1/logger:follow?start=START_NOW", "/v1/snapshots/x:dump?table=x"} {
		for _, test := range []struct {
			gate Gate
			sent []string
			want string // "" for a refusal
		}{
			{nil, nil, "/"}, {nil, []string{"Bearer x"}, "Bearer x/"}, {nil, []string{"Bearer x", "Bearer y"}, ""},
			{gate{principals.Visitor{Authorization: "Bearer x"}}, []string{"Bearer x"}, "Bearer x/"},
			{gate{principals.Visitor{Principal: "ruth"}}, nil, "/ruth"},
			{gate{}, []string{"Bearer x"}, "/"},
		} {
			h.SetGate(test.gate)
			request, err := http.NewRequest(http.MethodGet, web.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header["Authorization"] = test.sent
			for _, name := range []string{"Syncline-Principal", "Grpc-Metadata-Syncline-Principal", "Grpc-Metadata-Authorization"} {
				request.Header.Set(name, "ada")
			}
			before := len(seen.seen)
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			switch {
			case test.want == "" && (answer.StatusCode != http.StatusBadRequest || len(seen.seen) != before):
				t.Errorf("%s with %v: %d", path, test.sent, answer.StatusCode)
			case test.want != "" && seen.last() != test.want:
				t.Errorf("%s with %v passes %q on, expected %q", path, test.sent, seen.last(), test.want)
			}
		}
	}
}

var _ rpc.Guard = (*recorder)(nil)
