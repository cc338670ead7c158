package main

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/rpc"
)

var (
	logID    = change.LogID{0xab, 0xcd}
	longAgo  = time.Date(2026, 3, 1, 12, 30, 15, 0, time.UTC)
	somebody = node.Identity{ServerID: "6f2c51fd-1c2e-4d3a-9f3b-3a3c4d5e6f70", SystemIdentifier: "7300000000000000001", PostgresVersion: 150018, Database: "shop"}
)

func at(lsn change.LSN) *changev1.Position {
	return &changev1.Position{LogId: logID.String(), Lsn: uint64(lsn)}
}

// serveFake serves services on a port of its own and returns its address.
func serveFake(t *testing.T, services ...interface{ Register(grpc.ServiceRegistrar) }) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.WithDrain(time.Second))
	for _, s := range services {
		s.Register(server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func identify(roles ...string) *node.Service {
	return node.NewService(node.Description{Identity: somebody, Roles: roles, Version: "v1", Start: longAgo, Advertise: "shop.example:7400"})
}

// fakeApplier has one replication.
type fakeApplier struct {
	applierv1.UnimplementedApplierServiceServer
	replication *applierv1.Replication
	created     *applierv1.CreateReplicationRequest
	refusal     error                                    // of whatever is to be created
	watch       []func() (*applierv1.Replication, error) // what each watch answers; then it ends
	verified    []*applierv1.VerifyReplicationResponse   // what a verification answers
	asked       *applierv1.VerifyReplicationRequest
	fakeControl
	runs     []*applierv1.Run                       // of nightly
	repaired []*applierv1.RepairReplicationResponse // what a repair answers
	toRepair *applierv1.RepairReplicationRequest
	syncs    []*applierv1.Sync // all jobs; the last one is what is begun
	toSync   *applierv1.SyncReplicationRequest
}

func (f *fakeApplier) Register(r grpc.ServiceRegistrar) { applierv1.RegisterApplierServiceServer(r, f) }

func (f *fakeApplier) find(name string) (*applierv1.Replication, error) {
	if f.replication == nil || f.replication.GetName() != name {
		return nil, rpc.Errorf(codes.NotFound, "REPLICATION_NOT_FOUND", "there is no replication %q", name)
	}
	return f.replication, nil
}

func (f *fakeApplier) CreateReplication(_ context.Context, in *applierv1.CreateReplicationRequest) (*applierv1.CreateReplicationResponse, error) {
	f.created = in
	if f.refusal != nil {
		return nil, f.refusal
	}
	if in.GetValidateOnly() {
		return &applierv1.CreateReplicationResponse{Plan: f.plan}, nil
	}
	if f.replication != nil {
		return nil, rpc.Errorf(codes.AlreadyExists, "REPLICATION_EXISTS", "there is a replication %q already", in.GetName())
	}
	f.replication = &applierv1.Replication{Name: in.GetName(), Spec: in.GetSpec(), State: applierv1.State_STATE_INITIALIZING}
	return &applierv1.CreateReplicationResponse{Replication: f.replication}, nil
}

func (f *fakeApplier) GetReplication(_ context.Context, in *applierv1.GetReplicationRequest) (*applierv1.GetReplicationResponse, error) {
	r, err := f.find(in.GetName())
	return &applierv1.GetReplicationResponse{Replication: r}, err
}

func (f *fakeApplier) ListReplications(_ context.Context, in *applierv1.ListReplicationsRequest) (*applierv1.ListReplicationsResponse, error) {
	answer := &applierv1.ListReplicationsResponse{}
	if f.replication != nil {
		answer.Replications = matching([]*applierv1.Replication{f.replication}, in)
	}
	return answer, nil
}

func (f *fakeApplier) StartReplication(_ context.Context, in *applierv1.StartReplicationRequest) (*applierv1.StartReplicationResponse, error) {
	f.started = in
	r, err := f.find(in.GetName())
	return &applierv1.StartReplicationResponse{Replication: r}, err
}

func (f *fakeApplier) StopReplication(_ context.Context, in *applierv1.StopReplicationRequest) (*applierv1.StopReplicationResponse, error) {
	r, err := f.find(in.GetName())
	return &applierv1.StopReplicationResponse{Replication: r}, err
}

func (f *fakeApplier) DeleteReplication(_ context.Context, in *applierv1.DeleteReplicationRequest) (*applierv1.DeleteReplicationResponse, error) {
	_, err := f.find(in.GetName())
	return &applierv1.DeleteReplicationResponse{}, err
}

func (f *fakeApplier) WaitReplication(_ context.Context, in *applierv1.WaitReplicationRequest) (*applierv1.WaitReplicationResponse, error) {
	r, err := f.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if in.GetTimeout().AsDuration() < time.Second {
		return nil, rpc.Errorf(codes.DeadlineExceeded, "NOT_REACHED", "%s is at 0/10 and 0/20 was waited for", in.GetName())
	}
	return &applierv1.WaitReplicationResponse{Position: at(0x20), Replication: r}, nil
}

func (f *fakeApplier) WatchReplication(_ *applierv1.WatchReplicationRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	for len(f.watch) > 0 {
		next := f.watch[0]
		f.watch = f.watch[1:]
		r, err := next()
		if err != nil || r == nil {
			return err
		}
		if err := stream.Send(&applierv1.WatchReplicationResponse{Replication: r}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (f *fakeApplier) VerifyReplication(in *applierv1.VerifyReplicationRequest, stream grpc.ServerStreamingServer[applierv1.VerifyReplicationResponse]) error {
	f.asked = in
	if _, err := f.find(in.GetName()); err != nil {
		return err
	}
	if in.GetMaxDifferences() < 0 {
		return rpc.Invalid("max_differences", "%d is not from 0 to 10000", in.GetMaxDifferences())
	}
	for _, answer := range f.verified {
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

// fakeLogger has a state, two followers and what it serves to them.
type fakeLogger struct {
	loggerv1.UnimplementedLoggerServiceServer
	asked   *loggerv1.FollowRequest
	answers []*rpc.Frame
	end     error
	fresh   bool // it has no change log yet
	set     *loggerv1.UpdateConfigRequest
	stopped bool
	listed  []*loggerv1.ListUpdatedSinceRequest
}

func (f *fakeLogger) Register(r grpc.ServiceRegistrar) { loggerv1.RegisterLoggerServiceServer(r, f) }

func (f *fakeLogger) GetState(context.Context, *loggerv1.GetStateRequest) (*loggerv1.GetStateResponse, error) {
	return f.state(), nil
}

func loggerState() *loggerv1.GetStateResponse {
	return &loggerv1.GetStateResponse{
		State: "blocked", Reason: "the disk of the change log is full", ReasonCode: "DISK_FULL", ServerId: somebody.ServerID,
		Position: at(0x16B374D848), ConfirmedLsn: 0x16B374D000, CurrentWalLsn: 0x16B3800000, LagBytes: 731_064, RetainedWalBytes: 5 << 30,
		Transactions: 1_234_567, Changes: 9_876_543_210, LogBytes: 3 << 40, Slot: "syncline", Publications: []string{"syncline"},
		Tables: []string{"public.a", "public.b"}, Followers: 1,
		FirstPosition: at(0x1000000), StoredBytes: 12 << 30, FreeBytes: proto.Int64(200 << 30), WalLimitBytes: proto.Int64(50 << 30),
		TransactionsPerSecond: 812.4, ChangesPerSecond: 12_345.6, LogBytesPerSecond: 3 << 20, LagSeconds: proto.Float64(0.42),
		UncapturedTables: []*loggerv1.UncapturedTable{{Schema: "public", Name: "log"}}, RemoteTransactionsLeftOut: 17,
		Warnings: []string{`table public.log has no key: ALTER TABLE "public"."log" REPLICA IDENTITY FULL`},
	}
}

func (f *fakeLogger) ListFollowers(context.Context, *loggerv1.ListFollowersRequest) (*loggerv1.ListFollowersResponse, error) {
	if f.fresh {
		return nil, rpc.Errorf(codes.Unavailable, "NOT_READY", "the change log has not been begun yet")
	}
	return followers(), nil
}

func followers() *loggerv1.ListFollowersResponse {
	return &loggerv1.ListFollowersResponse{Followers: []*loggerv1.Follower{
		{Connected: true, Address: "10.0.0.9:40000", Sent: at(0x16B374D848), State: "following", LagSeconds: proto.Float64(0), BytesPerSecond: 1 << 20},
		{Name: "replica-1/shop", State: "away", Reason: "changes are kept for it beyond their time", LagSeconds: proto.Float64(86400), Sent: at(0x16B374D000), Applied: at(0x16B3000000), LagBytes: 7_657_544, LastContactTime: timestamppb.New(longAgo)},
	}}
}

func (f *fakeLogger) Follow(in *loggerv1.FollowRequest, stream grpc.ServerStreamingServer[loggerv1.FollowResponse]) error {
	f.asked = in
	for _, frame := range f.answers {
		if err := stream.SendMsg(frame); err != nil {
			return err
		}
	}
	return f.end
}

// fakeInventory has one table and one snapshot.
type fakeInventory struct {
	inventoryv1.UnimplementedInventoryServiceServer
	asked     *inventoryv1.GetInventoryRequest
	dumped    *inventoryv1.DumpRequest
	breakOff  error
	openLeft  int // snapshots that were not closed
	withoutIt bool
	closed    string
}

func (f *fakeInventory) Register(r grpc.ServiceRegistrar) {
	inventoryv1.RegisterInventoryServiceServer(r, f)
}

func (f *fakeInventory) GetInventory(_ context.Context, in *inventoryv1.GetInventoryRequest) (*inventoryv1.GetInventoryResponse, error) {
	f.asked = in
	return inventoryAnswer(), nil
}

func inventoryAnswer() *inventoryv1.GetInventoryResponse {
	return &inventoryv1.GetInventoryResponse{
		ServerId: somebody.ServerID, PostgresVersion: 150018, Position: at(0x10), Descriptors: []byte("{}"), TotalRows: 12_345_678, TotalBytes: 3<<30 + 8192,
		Sequences: []*inventoryv1.Sequence{
			{Schema: "public", Name: "orders_id_seq", Type: "bigint", OwnerTable: `"public"."orders"`, OwnerColumn: "id", LastValue: proto.Int64(12_400_000)},
			{Schema: "public", Name: "tickets", Type: "integer"},
		},
		Types: []*inventoryv1.Type{{Schema: "public", Name: "mood", Kind: "enum", Definition: "sad, ok"}},
		Tables: []*inventoryv1.Table{
			{Schema: "public", Name: "orders", Kind: "table", IdentityColumns: []string{"region", "id"}, ReplicaIdentity: "d", EstimatedRows: 12_345_678, Bytes: 3 << 30, Indexes: 3, Captured: "yes",
				Columns: []*inventoryv1.Column{{Name: "region", Type: "text", NotNull: true}, {Name: "id", Type: "bigint", NotNull: true}, {Name: "total", Type: "numeric", Generated: true}},
				IndexList: []*inventoryv1.Index{
					{Name: "orders_pkey", Definition: "CREATE UNIQUE INDEX orders_pkey ON public.orders USING btree (region, id)", Unique: true, Primary: true, Constraint: "orders_pkey"},
					{Name: "orders_total", Definition: "CREATE INDEX orders_total ON public.orders USING btree (total)"},
				},
				ConstraintList: []*inventoryv1.Constraint{{Name: "orders_pkey", Kind: "primary key", Definition: "PRIMARY KEY (region, id)"}}},
			{Schema: "public", Name: "My \"Table\"", Kind: "table", ReplicaIdentity: "f", EstimatedRows: -1, Bytes: 8192},
			{Schema: "public", Name: "tab\tand\nline", Kind: "partition", ReplicaIdentity: "n", Captured: "no",
				NotCapturedReason: "it has REPLICA IDENTITY NOTHING", Mend: "one way, or another", MendSql: `ALTER TABLE "public"."t" REPLICA IDENTITY FULL`},
			{Schema: "public", Name: "events", Kind: "partitioned", ReplicaIdentity: "d", IdentityColumns: []string{"id"}, TotalRows: 99, TotalBytes: 4096, Captured: "partly", NotCapturedReason: "see its partitions"},
		},
		NotReplicated: []*inventoryv1.NotReplicated{{Kind: "unlogged table", Name: "public.cache", Reason: "its changes are not in the WAL"}},
	}
}

func (f *fakeInventory) OpenSnapshot(_ *inventoryv1.OpenSnapshotRequest, stream grpc.ServerStreamingServer[inventoryv1.OpenSnapshotResponse]) error {
	for range 2 { // the same reason twice is printed once
		waiting := &inventoryv1.SnapshotWait{Reason: "transaction 815 of pgbench is still writing"}
		if err := stream.Send(&inventoryv1.OpenSnapshotResponse{Event: &inventoryv1.OpenSnapshotResponse_Waiting{Waiting: waiting}}); err != nil {
			return err
		}
	}
	f.openLeft++
	snapshot := &inventoryv1.Snapshot{SnapshotId: "s1", Position: at(0x20)}
	return stream.Send(&inventoryv1.OpenSnapshotResponse{Event: &inventoryv1.OpenSnapshotResponse_Snapshot{Snapshot: snapshot}})
}

func (f *fakeInventory) CloseSnapshot(_ context.Context, in *inventoryv1.CloseSnapshotRequest) (*inventoryv1.CloseSnapshotResponse, error) {
	f.closed = in.GetSnapshotId()
	f.openLeft--
	return &inventoryv1.CloseSnapshotResponse{}, nil
}

func (f *fakeInventory) Dump(in *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) error {
	f.dumped = in
	if err := stream.Send(&inventoryv1.DumpResponse{Data: []byte("1\ta\n2")}); err != nil {
		return err
	}
	if f.breakOff != nil || f.withoutIt {
		return f.breakOff
	}
	return stream.Send(&inventoryv1.DumpResponse{Data: []byte("\tb\n"), End: &inventoryv1.DumpEnd{Rows: 2, Bytes: 8}})
}
