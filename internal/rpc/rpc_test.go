package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTooOld = errors.New("position too old")

type fakeApplier struct {
	applierv1.UnimplementedApplierServiceServer
	create func(context.Context, *applierv1.CreateReplicationRequest) error
}

func (f *fakeApplier) CreateReplication(ctx context.Context, in *applierv1.CreateReplicationRequest) (*applierv1.CreateReplicationResponse, error) {
	return &applierv1.CreateReplicationResponse{Replication: &applierv1.Replication{Name: in.GetName()}}, f.create(ctx, in)
}

type fakeLogger struct {
	loggerv1.UnimplementedLoggerServiceServer
	follow func(*loggerv1.FollowRequest, grpc.ServerStreamingServer[loggerv1.FollowResponse]) error
}

func (f *fakeLogger) Follow(in *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
	return f.follow(in, stream)
}

type service struct {
	server  *Server
	conn    *grpc.ClientConn
	applier *fakeApplier
	logger  *fakeLogger
	listen  *bufconn.Listener
	stop    func() // waits until Run has returned
}

func start(t testing.TB, opts ...Option) *service {
	t.Helper()
	s := &service{
		server:  NewServer(append([]Option{WithLogger(textLogger(io.Discard)), WithTable(Table{{errTooOld, codes.OutOfRange, "POSITION_TOO_OLD"}})}, opts...)...),
		applier: &fakeApplier{create: func(context.Context, *applierv1.CreateReplicationRequest) error { return nil }},
		logger:  &fakeLogger{},
	}
	applierv1.RegisterApplierServiceServer(s.server, s.applier)
	loggerv1.RegisterLoggerServiceServer(s.server, s.logger)
	listener := bufconn.Listen(1 << 20)
	s.listen = listener
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Run(ctx, listener) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	conn, err := Dial("bufconn:1", WithDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() { conn.Close(); s.stop() })
	return s
}

func (s *service) create(t testing.TB, in *applierv1.CreateReplicationRequest, handle func() error) error {
	t.Helper()
	s.applier.create = func(context.Context, *applierv1.CreateReplicationRequest) error { return handle() }
	_, err := applierv1.NewApplierServiceClient(s.conn).CreateReplication(t.Context(), in)
	return err
}

func TestErrorsBecomeStatuses(t *testing.T) {
	s := start(t)
	upstream := status.New(codes.Unavailable, "connection refused").Err()
	for name, test := range map[string]struct {
		err           error
		code          codes.Code
		reason, wants string
	}{
		"sentinel":      {fmt.Errorf("find block: %w", errTooOld), codes.OutOfRange, "POSITION_TOO_OLD", "find block: position too old"},
		"error":         {Errorf(codes.AlreadyExists, "DUPLICATE", "replication %q exists", "a"), codes.AlreadyExists, "DUPLICATE", `replication "a" exists`},
		"wrapped error": {fmt.Errorf("create: %w", Errorf(codes.NotFound, "GONE", "no table")), codes.NotFound, "GONE", "create: no table"},
		"error first":   {Errorf(codes.NotFound, "GONE", "x: %w", errTooOld), codes.NotFound, "GONE", "x: position too old"},
		"upstream":      {fmt.Errorf("ask source: %w", upstream), codes.Unavailable, "UNAVAILABLE", "ask source: connection refused"},
		"ours upstream": {fmt.Errorf("ask source: %w", Errorf(codes.Aborted, "LOG_ID_MISMATCH", "other log").GRPCStatus().Err()), codes.Aborted, "LOG_ID_MISMATCH", "ask source: other log"},
		"unknown":       {errors.New("disk on fire"), codes.Internal, ReasonInternal, "disk on fire"},
		"canceled":      {fmt.Errorf("read: %w", context.Canceled), codes.Canceled, "CANCELED", "read: context canceled"},
		"deadline":      {context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "context deadline exceeded"},
		"bad bytes":     {errors.New("a\xffb"), codes.Internal, ReasonInternal, "a\uFFFDb"},
		"long":          {errors.New(strings.Repeat("ü", maxMessageBytes)), codes.Internal, ReasonInternal, strings.Repeat("ü", maxMessageBytes/2) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.create(t, &applierv1.CreateReplicationRequest{}, func() error { return test.err })
			if Code(err) != test.code || Reason(err) != test.reason || Message(err) != test.wants {
				t.Errorf("got %v, reason %q, message %q", Code(err), Reason(err), Message(err))
			}
		})
	}
}

func TestUnimplementedHasAReason(t *testing.T) {
	s := start(t)
	_, err := applierv1.NewApplierServiceClient(s.conn).ListReplications(t.Context(), &applierv1.ListReplicationsRequest{})
	if Code(err) != codes.Unimplemented || Reason(err) != "UNIMPLEMENTED" {
		t.Errorf("got %v, reason %q", err, Reason(err))
	}
}

func TestMetadataAndFields(t *testing.T) {
	s := start(t)
	err := s.create(t, &applierv1.CreateReplicationRequest{}, func() error {
		return Invalid("name", "must begin with a letter").Field("spec.source", "expected HOST:PORT").With("name", "1\xff")
	})
	if Code(err) != codes.InvalidArgument || Reason(err) != ReasonInvalid || Metadata(err)["name"] != "1\uFFFD" {
		t.Errorf("got %v, reason %q, metadata %v", Code(err), Reason(err), Metadata(err))
	}
	if want := "name: must begin with a letter; spec.source: expected HOST:PORT"; Message(err) != want {
		t.Errorf("message %q", Message(err))
	}
	fields := Fields(err)
	if len(fields) != 2 || fields[0].GetField() != "name" || fields[1].GetDescription() != "expected HOST:PORT" {
		t.Errorf("fields %v", fields)
	}
	if Reason(nil) != "" || Metadata(nil) != nil || Fields(nil) != nil || Message(nil) != "" || Code(nil) != codes.OK {
		t.Error("nil is not no error")
	}
}

func TestPanicIsAnError(t *testing.T) {
	var log bytes.Buffer
	s := start(t, WithLogger(textLogger(&log)))
	err := s.create(t, &applierv1.CreateReplicationRequest{}, func() error { panic("kaboom") })
	if Code(err) != codes.Internal || strings.Contains(err.Error(), "kaboom") {
		t.Errorf("got %v", err)
	}
	if err := s.create(t, &applierv1.CreateReplicationRequest{}, func() error { return nil }); err != nil {
		t.Errorf("the next call: %v", err)
	}
	s.stop()
	if !strings.Contains(log.String(), "kaboom") || !strings.Contains(log.String(), "rpc_test.go") {
		t.Errorf("the log lacks the panic: %s", &log)
	}
}

func unknownField() []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
}

func TestUnknownIsRefused(t *testing.T) {
	s := start(t)
	top := &applierv1.CreateReplicationRequest{Name: "a"}
	top.ProtoReflect().SetUnknown(unknownField())
	deep := &applierv1.CreateReplicationRequest{Spec: &applierv1.ReplicationSpec{Source: "a:1"}}
	deep.Spec.ProtoReflect().SetUnknown(unknownField())
	for field, request := range map[string]*applierv1.CreateReplicationRequest{"#99": top, "spec.#99": deep} {
		err := s.create(t, request, func() error { t.Error("the handler was reached"); return nil })
		if Code(err) != codes.InvalidArgument || Reason(err) != ReasonUnknownField || Metadata(err)["field"] != field {
			t.Errorf("%s: got %v, reason %q, metadata %v", field, err, Reason(err), Metadata(err))
		}
		if fields := Fields(err); len(fields) != 1 || fields[0].GetField() != field {
			t.Errorf("fields %v", fields)
		}
	}
	s.logger.follow = func(*loggerv1.FollowRequest, grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		t.Error("the handler was reached")
		return nil
	}
	follow := func(in *loggerv1.FollowRequest) error {
		stream, err := loggerv1.NewLoggerServiceClient(s.conn).Follow(t.Context(), in)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	nested := &loggerv1.FollowRequest{Position: &changev1.Position{LogId: "x"}}
	nested.Position.ProtoReflect().SetUnknown(unknownField())
	if err := follow(nested); Reason(err) != ReasonUnknownField || Metadata(err)["field"] != "position.#99" {
		t.Errorf("stream: got %v", err)
	}
	if err := follow(&loggerv1.FollowRequest{Start: 77}); Reason(err) != ReasonUnknownValue || Metadata(err)["field"] != "start" {
		t.Errorf("enum: got %v", err)
	}
}

func TestUnknownInListsAndMaps(t *testing.T) {
	bad := &inventoryv1.Column{Name: "c"}
	bad.ProtoReflect().SetUnknown(unknownField())
	err := refuseUnknown(&inventoryv1.Table{Columns: []*inventoryv1.Column{{Name: "a"}, bad}})
	if Metadata(err)["field"] != "columns[1].#99" {
		t.Errorf("list: %v", err)
	}
	if err := refuseUnknown(&inventoryv1.Table{Columns: []*inventoryv1.Column{{Name: "a"}}}); err != nil {
		t.Errorf("known: %v", err)
	}
	file := protodesc.ToFileDescriptorProto(emptypb.File_google_protobuf_empty_proto)
	file.ProtoReflect().SetUnknown(unknownField())
	if err := refuseUnknown(file); err == nil {
		t.Error("top level: no error")
	}
}

func TestFrames(t *testing.T) {
	s := start(t)
	block := &loggerv1.FollowResponse{Event: &loggerv1.FollowResponse_Block{Block: &changev1.Block{Number: 7, LogId: bytes.Repeat([]byte{1}, 16)}}}
	bytesOf := func(m proto.Message) []byte {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole := bytesOf(block)
	s.logger.follow = func(in *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		if in.GetFollower() != "f" {
			return Invalid("follower", "got %q", in.GetFollower())
		}
		if err := stream.Send(block); err != nil {
			return err
		}
		if err := stream.SendMsg(&Frame{Data: whole}); err != nil {
			return err
		}
		return stream.SendMsg(&Frame{Prefix: whole[:3], Data: whole[3:]})
	}
	const answers = 3
	request := &loggerv1.FollowRequest{Follower: "f", Heartbeat: durationpb.New(time.Second)}

	typed, err := loggerv1.NewLoggerServiceClient(s.conn).Follow(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for range answers {
		got, err := typed.Recv()
		if err != nil || !proto.Equal(got, block) {
			t.Fatalf("typed: got %v, %v", got, err)
		}
	}
	raw, err := OpenFrames(t.Context(), s.conn, loggerv1.LoggerService_Follow_FullMethodName, request)
	if err != nil {
		t.Fatal(err)
	}
	var frame Frame
	for i := range answers {
		before := cap(frame.Data)
		if err := raw.RecvMsg(&frame); err != nil || !bytes.Equal(frame.Data, whole) {
			t.Fatalf("frame %d: got %x, %v", i, frame.Data, err)
		}
		if i > 0 && cap(frame.Data) != before {
			t.Error("the capacity was not used again")
		}
	}
	if err := raw.RecvMsg(&frame); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestFrameRequest(t *testing.T) {
	s := start(t)
	s.logger.follow = func(in *loggerv1.FollowRequest, _ grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		return Errorf(codes.NotFound, "SEEN", "%s", in.GetFollower())
	}
	data, err := proto.Marshal(&loggerv1.FollowRequest{Follower: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, loggerv1.LoggerService_Follow_FullMethodName, Frames())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(&Frame{Data: data}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&Frame{}); Reason(err) != "SEEN" || Message(err) != "raw" {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	s := start(t)
	size := MaxFrameBytes - 1<<10
	s.logger.follow = func(_ *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		return stream.SendMsg(&Frame{Data: make([]byte, size)})
	}
	receive := func(opts ...grpc.CallOption) error {
		stream, err := OpenFrames(t.Context(), s.conn, loggerv1.LoggerService_Follow_FullMethodName, &loggerv1.FollowRequest{}, opts...)
		if err != nil {
			return err
		}
		return stream.RecvMsg(&Frame{})
	}
	if err := receive(); err != nil {
		t.Errorf("below the limit: %v", err)
	}
	size = MaxFrameBytes + 1
	if err := receive(); Code(err) != codes.ResourceExhausted {
		t.Errorf("above the limit: %v", err)
	}
	if err := receive(LargeAnswer()); err != nil {
		t.Errorf("with its own limit: %v", err)
	}
	big := &applierv1.CreateReplicationRequest{Name: strings.Repeat("x", MaxMessageBytes)}
	if err := s.create(t, big, func() error { return nil }); Code(err) != codes.ResourceExhausted {
		t.Errorf("request above the limit: %v", err)
	}
}

func TestHealth(t *testing.T) {
	s := start(t)
	client := healthv1.NewHealthClient(s.conn)
	check := func(name string) healthv1.HealthCheckResponse_ServingStatus {
		answer, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStatus()
	}
	const name = "syncline.logger.v1.LoggerService"
	if check("") != healthv1.HealthCheckResponse_SERVING || check(name) != healthv1.HealthCheckResponse_SERVING {
		t.Error("not serving")
	}
	s.server.SetHealthy(name, false)
	if check(name) != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Error("still serving")
	}
}

func TestShutdownTellsStreams(t *testing.T) {
	s := start(t)
	s.logger.follow = func(_ *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
		if err := stream.Send(&loggerv1.FollowResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return fmt.Errorf("read block: %w", stream.Context().Err())
	}
	stream, err := loggerv1.NewLoggerServiceClient(s.conn).Follow(t.Context(), &loggerv1.FollowRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := stream.Recv(); Code(err) != codes.Unavailable || Reason(err) != ReasonStopping || !IsTransient(err) {
		t.Errorf("got %v, reason %q", err, Reason(err))
	}
}

func TestShutdownWaitsForCalls(t *testing.T) {
	s := start(t)
	entered, proceed := make(chan struct{}), make(chan struct{})
	answered := make(chan error, 1)
	s.applier.create = func(context.Context, *applierv1.CreateReplicationRequest) error {
		close(entered)
		<-proceed
		return nil
	}
	go func() {
		_, err := applierv1.NewApplierServiceClient(s.conn).CreateReplication(context.Background(), &applierv1.CreateReplicationRequest{})
		answered <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	<-s.server.interruptedForTest()
	close(proceed)
	if err := <-answered; err != nil {
		t.Errorf("the running call: %v", err)
	}
	<-stopped
}

func TestShutdownCutsAtTheDeadline(t *testing.T) {
	s := start(t, WithDrain(20*time.Millisecond))
	entered := make(chan struct{})
	s.applier.create = func(ctx context.Context, _ *applierv1.CreateReplicationRequest) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}
	answered := make(chan error, 1)
	go func() {
		_, err := applierv1.NewApplierServiceClient(s.conn).CreateReplication(context.Background(), &applierv1.CreateReplicationRequest{})
		answered <- err
	}()
	<-entered
	s.stop()
	if err := <-answered; err == nil {
		t.Error("the call ended well")
	}
}

func TestDialAddress(t *testing.T) {
	for _, address := range []string{"", "7400", "localhost", ":7400", "h:0", "h:65536", "h:x", "http://h:1", "a b:1", "h:1:2"} {
		if _, err := Dial(address); !errors.Is(err, ErrAddress) {
			t.Errorf("Dial(%q): %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.9.1:1"} {
		conn, err := Dial(address)
		if err != nil {
			t.Errorf("Dial(%q): %v", address, err)
			continue
		}
		conn.Close()
	}
	for _, address := range []string{"10.0.0.1:1", "db.example:1", "[fe80::1]:1", "127.0.0.1.example:1"} {
		if _, err := Dial(address); !errors.Is(err, ErrPlaintext) {
			t.Errorf("Dial(%q): %v", address, err)
		}
		conn, err := Dial(address, WithPlaintext(true))
		if err != nil {
			t.Errorf("Dial(%q) with leave: %v", address, err)
			continue
		}
		conn.Close()
	}
}

func TestIsTransient(t *testing.T) {
	for _, err := range []error{status.Error(codes.Unavailable, ""), status.Error(codes.Internal, "stream terminated by RST_STREAM"), Errorf(codes.Aborted, "X", "")} {
		if !IsTransient(fmt.Errorf("follow: %w", err)) {
			t.Errorf("%v is not transient", err)
		}
	}
	for _, err := range []error{nil, context.Canceled, status.Error(codes.Canceled, ""), Errorf(codes.Internal, ReasonInternal, ""), Errorf(codes.OutOfRange, "X", ""), io.EOF} {
		if IsTransient(err) {
			t.Errorf("%v is transient", err)
		}
	}
}
