package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// hostile are texts that have broken other programs.
var hostile = []string{
	`'; DROP TABLE orders; --`, `"; DROP TABLE public.orders; --`, `public.orders; DELETE FROM orders`, `$$; SELECT pg_sleep(60); $$`, `orders' OR '1'='1`,
	`"public"."orders"") x; DROP SCHEMA public CASCADE; --`, `\'; DROP TABLE orders; --`, "\x00", "a\x00b", "%s%n%d", "../../../etc/passwd", "{{.}}${jndi:x}`id`",
	"\u202e\ufeff\u2028\n\r\t", strings.Repeat("x", 100_000), strings.Repeat("(", 5000), "*", "public.*", `"`, ".", "-", "@", "127.0.0.1:1", "0", "𝔘",
}

// site is a string in a request: how to set it.
type site struct {
	path string
	set  func(m protoreflect.Message, text string)
}

// sites finds every string in a message, at any depth.
func sites(d protoreflect.MessageDescriptor, path string, depth int) (list []site) {
	fields := d.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + string(fd.Name())
		switch {
		case fd.IsMap():
			if fd.MapValue().Kind() == protoreflect.StringKind {
				list = append(list, site{at, func(m protoreflect.Message, text string) {
					m.Mutable(fd).Map().Set(protoreflect.ValueOfString(text).MapKey(), protoreflect.ValueOfString(text))
				}})
			}
		case fd.Kind() == protoreflect.StringKind && fd.IsList():
			list = append(list, site{at, func(m protoreflect.Message, text string) {
				m.Mutable(fd).List().Append(protoreflect.ValueOfString(text))
			}})
		case fd.Kind() == protoreflect.StringKind:
			list = append(list, site{at, func(m protoreflect.Message, text string) { m.Set(fd, protoreflect.ValueOfString(text)) }})
		case fd.Message() != nil && depth < 4 && strings.HasPrefix(string(fd.Message().FullName()), "syncline."):
			for _, inner := range sites(fd.Message(), at+".", depth+1) {
				list = append(list, site{inner.path, func(m protoreflect.Message, text string) {
					if fd.IsList() {
						inner.set(m.Mutable(fd).List().AppendMutable().Message(), text)
						return
					}
					inner.set(m.Mutable(fd).Message(), text)
				}})
			}
		}
	}
	return list
}

// plausible fills in what lets a request get as far as its other fields.
func plausible(m proto.Message, values map[string]string) proto.Message {
	r := m.ProtoReflect()
	for name, value := range values {
		if fd := r.Descriptor().Fields().ByName(protoreflect.Name(name)); fd != nil && fd.Kind() == protoreflect.StringKind && !fd.IsList() {
			r.Set(fd, protoreflect.ValueOfString(value))
		}
	}
	switch in := m.(type) {
	case *applierv1.CreateReplicationRequest:
		in.Name, in.Spec = "other", &applierv1.ReplicationSpec{Source: values["source"]}
	case *pushv1.CreatePushRequest:
		in.Name, in.Spec = "other", &pushv1.PushSpec{Target: "127.0.0.1:1"}
	case *accessv1.CreatePrincipalRequest:
		in.Name, in.Role = "principal", accessv1.Role_ROLE_REPLICATOR
	case *loggerv1.FollowRequest:
		in.Start = loggerv1.Start_START_EARLIEST
	case *inventoryv1.ChecksumRequest:
		in.Key, in.Ranges = []string{"id"}, []*inventoryv1.KeyRange{}
	}
	return m
}

// outcome calls a method and reads a little of its answer.
func outcome(conn *grpc.ClientConn, method protoreflect.MethodDescriptor, request proto.Message) error {
	patience, watches := 20*time.Second, strings.HasPrefix(string(method.Name()), "Watch")
	if watches {
		patience = time.Second / 2 // one that has nothing to tell is silent
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answerType, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return err
	}
	full := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		return conn.Invoke(ctx, full, request, answerType.New().Interface())
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: string(method.Name()), ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for range 3 {
		if err := stream.RecvMsg(answerType.New().Interface()); err != nil {
			if errors.Is(err, io.EOF) || watches && rpc.Code(err) == codes.DeadlineExceeded {
				return nil
			}
			return err
		}
	}
	return nil
}

// TestHostileStrings puts what has broken other programs into every string of every request. Nothing may change in the databases beside
// what the call says, nothing may be a fault of the server, and everything goes on.
func TestHostileStrings(t *testing.T) {
	t.Parallel()
	source, target := newSource(t).Database(t), newTarget(t).Database(t)
	conn := pgtest.Connect(t, source)
	pgtest.Exec(t, conn, "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 500) n")
	primary, replica := startPrimary(t, source), startReplica(t, target)
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)

	// A snapshot to dump from, which stays open.
	opening, err := inventoryv1.NewInventoryServiceClient(primary.dial()).OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"name": "shop", "follower": "somebody/else", "schema": "public", "table": "orders", "source": primary.grpc, "replication": "shop"}
	for values["snapshot_id"] == "" {
		answer, err := opening.Recv()
		if err != nil {
			t.Fatal(err)
		}
		values["snapshot_id"] = answer.GetSnapshot().GetSnapshotId()
	}

	calls, accepted, spent := 0, map[string]bool{}, map[string]time.Duration{}
	for _, n := range []*node{primary, replica} {
		for _, name := range servedBy(t, n) {
			found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
			if err != nil {
				t.Fatal(err)
			}
			service := found.(protoreflect.ServiceDescriptor)
			for i := range service.Methods().Len() {
				method := service.Methods().Get(i)
				requestType, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range sites(method.Input(), "", 0) {
					for _, text := range hostile {
						request := plausible(requestType.New().Interface(), values)
						s.set(request.ProtoReflect(), text)
						began := time.Now()
						err := outcome(n.dial(), method, request)
						calls++
						switch code := rpc.Code(err); code {
						case codes.OK:
							accepted[string(method.Name())+"."+s.path] = true
						case codes.Internal, codes.Unknown, codes.DataLoss:
							t.Errorf("%s with %s = %.60q: %v", method.Name(), s.path, text, err)
						}
						if message := rpc.Message(err); len(message) > 20<<10 {
							t.Errorf("%s with %s = %.60q answers %d bytes", method.Name(), s.path, text, len(message))
						}
						spent[string(method.Name())] += time.Since(began)
						if took := time.Since(began); took > 15*time.Second {
							t.Errorf("%s with %s = %.60q takes %s", method.Name(), s.path, text, took)
						}
						if made, ok := request.(*accessv1.CreatePrincipalRequest); ok && err == nil {
							if _, err := accessv1.NewAccessServiceClient(n.dial()).DeletePrincipal(t.Context(), &accessv1.DeletePrincipalRequest{Name: made.GetName()}); err != nil {
								t.Error(err)
							}
						}
						if made, ok := request.(*pushv1.CreatePushRequest); ok && err == nil {
							if _, err := primary.pusher().DeletePush(t.Context(), &pushv1.DeletePushRequest{Name: made.GetName()}); err != nil {
								t.Error(err)
							}
						}
						if method.Name() == "CreateReplication" && err == nil {
							if _, err := replica.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: request.(*applierv1.CreateReplicationRequest).GetName()}); err != nil {
								t.Error(err)
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d calls, %v; taken somewhere: %s", calls, spent, strings.Join(slices.Sorted(maps.Keys(accepted)), " "))
	var tables, rows int
	for _, database := range []string{source, target} {
		if err := pgtest.Connect(t, database).QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'),
			(SELECT count(*) FROM orders WHERE note = 'order ' || id)`).Scan(&tables, &rows); err != nil || tables != 2 || rows != 500 {
			t.Errorf("%d relations in schema public, %d rows, %v", tables, rows, err)
		}
	}
	pgtest.Exec(t, conn, "INSERT INTO orders VALUES (1000, 'still here')")
	if _, err := replica.applier().StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqual(t, source, target)
}

// servedBy returns the services of Syncline that a server has.
func servedBy(t *testing.T, n *node) (list []string) {
	t.Helper()
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			name := file.Services().Get(i).FullName()
			if strings.HasPrefix(string(name), "syncline.") && n.serves(t, string(name)) {
				list = append(list, string(name))
			}
		}
		return true
	})
	if len(list) < 3 {
		t.Errorf("%s serves only %v", n.name, list)
	}
	return list
}

func (n *node) serves(t *testing.T, service string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := healthv1.NewHealthClient(n.dial()).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil && rpc.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	return err == nil
}
