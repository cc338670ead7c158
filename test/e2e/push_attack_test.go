package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/tunnel"
)

// thief is a target that does with a push's connection what it likes.
type thief struct {
	tunnelv1.UnimplementedTunnelServiceServer
	applierv1.UnimplementedApplierServiceServer
	conns chan *grpc.ClientConn // through the tunnel
	end   chan struct{}
}

func (h *thief) Carry(stream grpc.BidiStreamingServer[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&tunnelv1.CarryResponse{Content: &tunnelv1.CarryResponse_Opened{Opened: &tunnelv1.Opened{ServerId: "thief", Exists: true}}}); err != nil {
		return err
	}
	mine, pipe := net.Pipe()
	conn, err := rpc.Dial("push.invalid:7400", rpc.WithDialer(func(context.Context, string) (net.Conn, error) { return mine, nil }))
	if err != nil {
		return err
	}
	defer conn.Close()
	select {
	case h.conns <- conn:
	case <-stream.Context().Done():
	}
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

func (h *thief) WatchReplication(_ *applierv1.WatchReplicationRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	select {
	case <-h.end:
	case <-stream.Context().Done():
	}
	return stream.Context().Err()
}

// startThief serves it and returns its address.
func startThief(t *testing.T) (*thief, string) {
	t.Helper()
	h := &thief{conns: make(chan *grpc.ClientConn), end: make(chan struct{})}
	server := rpc.NewServer(rpc.WithDrain(time.Second))
	tunnelv1.RegisterTunnelServiceServer(server, h)
	applierv1.RegisterApplierServiceServer(server, h)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx, listener) })
	t.Cleanup(func() {
		close(h.end)
		stop()
		running.Wait()
	})
	return h, listener.Addr().String()
}

// forTargets are the methods of which a target may have an answer; each other one is refused.
var forTargets = map[string]bool{ // true: only for its set
	"ServerService/GetServer": false, "InventoryService/GetInventory": true, "InventoryService/Dump": true, "InventoryService/Checksum": true, "InventoryService/ReadRows": true,
	"InventoryService/OpenSnapshot": false, "InventoryService/RenewSnapshot": false, "InventoryService/CloseSnapshot": false,
	"LoggerService/Follow": true, "LoggerService/GetState": true, "LoggerService/GetRanges": false, "LoggerService/EmitBarrier": false, "LoggerService/ReportApplied": false,
	"LoggerService/DeleteFollower": false, "LoggerService/ListUpdatedSince": true,
}

// TestPushAttack has the target of a push of one organisation's rows call every method of every service through the push, as itself and as
// others, with and without a set.
func TestPushAttack(t *testing.T) {
	t.Parallel()
	source := newSource(t, pgtest.WithFsync(false)).Database(t)
	db := pgtest.Connect(t, source)
	pgtest.Exec(t, db, "CREATE TABLE orders (id bigint PRIMARY KEY, org int NOT NULL, note text); ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE salaries (id bigint PRIMARY KEY, amount text);"+
		"INSERT INTO orders SELECT n, n % 10, 'row-of-' || n % 10 FROM generate_series(1, 50) n; INSERT INTO salaries VALUES (1, 'row-of-nobody')")
	n := startPrimary(t, source)
	if _, errOut, code := run(t, "set", "create", "by-org", "--table", `public.orders={"org": {"$param": "org"}}`, "--addr", n.grpc); code != 0 {
		t.Fatal(errOut)
	}
	h, address := startThief(t)
	create := func(name, set string, parameters map[string]string) error {
		_, err := n.pusher().CreatePush(t.Context(), &pushv1.CreatePushRequest{Name: name, Spec: &pushv1.PushSpec{Target: address, Set: set, Parameters: parameters}})
		return err
	}
	for name, parameters := range map[string]map[string]string{"no parameter": nil, "another": {"land": "de"}} {
		if err := create("acme", "by-org", parameters); rpc.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := create("acme", "none", nil); rpc.Reason(err) != "SET_UNKNOWN" {
		t.Errorf("a set that there is not: %v", err)
	}
	own := map[string]string{"org": "7"}
	if err := create("acme", "by-org", own); err != nil {
		t.Fatal(err)
	}
	var conn *grpc.ClientConn
	select {
	case conn = <-h.conns:
	case <-time.After(time.Minute):
		t.Fatal("the push does not come")
	}
	others := []map[string]string{nil, {"org": "8"}, {"org": ""}, {"org": "07"}, {"ORG": "7"}}
	seen := map[string]bool{}
	for _, credential := range []metadata.MD{nil, metadata.Pairs("syncline-principal", "ada"), metadata.Pairs("authorization", "Bearer x", "syncline-principal", "(this process)")} {
		as := &asOther{conn, credential}
		eachMethod(t, func(name string, method protoreflect.MethodDescriptor) {
			bySet, some := forTargets[name]
			seen[name] = true
			if name == "InventoryService/OpenSnapshot" {
				return // stealRows does; of each there are few
			}
			for _, set := range []string{"", "by-org", "*", "other"} {
				for _, parameters := range others {
					request := requestFor(t, method, set, parameters)
					err := as.call(t, method, request)
					switch code := rpc.Code(err); {
					case !some && code != codes.PermissionDenied:
						t.Errorf("%s answers a target: %v", name, err)
					case bySet && code != codes.PermissionDenied:
						t.Errorf("%s of set %q with %v answers: %v", name, set, parameters, err)
					case some && !bySet && code == codes.PermissionDenied:
						t.Errorf("%s is refused: %v", name, err)
					}
				}
			}
		})
	}
	for name := range forTargets {
		if !seen[name] {
			t.Errorf("%s is no method", name)
		}
	}
	stealRows(t, conn, own)

	// Another push's follower, and another principal's, cannot be meant.
	ranges, err := n.logger().GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.logger().ReportApplied(t.Context(), report("push:other/x/shop", ranges)); err != nil {
		t.Fatal(err)
	}
	if _, err := loggerv1.NewLoggerServiceClient(conn).ReportApplied(t.Context(), report("push:other/x/shop", ranges)); err != nil {
		t.Fatal(err)
	}
	list, err := n.logger().ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	var names []string
	for _, f := range list.GetFollowers() {
		names = append(names, f.GetName())
	}
	slices.Sort(names)
	if err != nil || !slices.Contains(names, "push:acme/push:other/x/shop") || !slices.Contains(names, "push:other/x/shop") {
		t.Errorf("followers %v, %v", names, err)
	}
}

func report(follower string, r *loggerv1.GetRangesResponse) *loggerv1.ReportAppliedRequest {
	return &loggerv1.ReportAppliedRequest{Follower: follower, Position: &changev1.Position{LogId: r.GetLogId(), Lsn: r.GetLastLsn()}}
}

// eachMethod goes through all methods of all services of Syncline.
func eachMethod(t *testing.T, call func(name string, method protoreflect.MethodDescriptor)) {
	t.Helper()
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if !strings.HasPrefix(string(service.FullName()), "syncline.") {
				continue
			}
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				call(fmt.Sprintf("%s/%s", service.Name(), method.Name()), method)
			}
		}
		return true
	})
}

// requestFor makes a request that would be answered for what it names.
func requestFor(t *testing.T, method protoreflect.MethodDescriptor, set string, parameters map[string]string) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	request := plausible(kind.New().Interface(), map[string]string{"name": "shop", "follower": "x", "schema": "public", "table": "orders", "snapshot_id": strings.Repeat("0", 32)})
	m := request.ProtoReflect()
	if fd := m.Descriptor().Fields().ByName("set"); fd != nil && fd.Kind() == protoreflect.StringKind && set != "" {
		m.Set(fd, protoreflect.ValueOfString(set))
	}
	if fd := m.Descriptor().Fields().ByName("parameters"); fd != nil && fd.IsMap() {
		for name, value := range parameters {
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(value))
		}
	}
	return request
}

// asOther says in each call to be somebody.
type asOther struct {
	conn       *grpc.ClientConn
	credential metadata.MD
}

func (a *asOther) call(t *testing.T, method protoreflect.MethodDescriptor, request proto.Message) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.Context(), a.credential), 30*time.Second)
	defer cancel()
	stream, err := a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()))
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		_ = stream.CloseSend() // RecvMsg says what is wrong
		var frame rpc.Frame
		err = stream.RecvMsg(&frame)
	}
	return err
}

// stealRows takes all that the push has, and finds nobody else's in it.
func stealRows(t *testing.T, conn *grpc.ClientConn, own map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all bytes.Buffer
	inventory := inventoryv1.NewInventoryServiceClient(conn)
	described, err := inventory.GetInventory(ctx, &inventoryv1.GetInventoryRequest{Set: "by-org", Parameters: own})
	if err != nil {
		t.Fatal(err)
	}
	all.Write(described.GetDescriptors())
	opening, err := inventory.OpenSnapshot(ctx, &inventoryv1.OpenSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := ""
	for snapshot == "" {
		answer, err := opening.Recv()
		if err != nil {
			t.Fatal(err)
		}
		snapshot = answer.GetSnapshot().GetSnapshotId()
	}
	dump := func(table string) error {
		stream, err := rpc.OpenFrames(ctx, conn, inventoryv1.InventoryService_Dump_FullMethodName,
			&inventoryv1.DumpRequest{SnapshotId: snapshot, Schema: "public", Table: table, Set: "by-org", Parameters: own})
		for err == nil {
			var frame rpc.Frame
			if err = stream.RecvMsg(&frame); err == nil {
				all.Write(frame.Data)
			}
		}
		return err
	}
	_ = dump("orders")
	if err := dump("salaries"); rpc.Reason(err) == "" {
		t.Errorf("a table that is not in the set: %v", err)
	}
	following, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := rpc.OpenFrames(following, conn, loggerv1.LoggerService_Follow_FullMethodName, &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST, Set: "by-org", Parameters: own, Limit: 1000, Wait: durationpb.New(0)})
	for err == nil {
		var frame rpc.Frame
		if err = stream.RecvMsg(&frame); err == nil {
			all.Write(frame.Data)
		}
	}
	if !bytes.Contains(all.Bytes(), []byte("row-of-7")) {
		t.Errorf("its own rows are not in what it gets (%d bytes), %v", all.Len(), err)
	}
	for _, stolen := range []string{"row-of-8", "row-of-0", "row-of-nobody", "salaries"} {
		if bytes.Contains(all.Bytes(), []byte(stolen)) {
			t.Errorf("it gets %s", stolen)
		}
	}
}
