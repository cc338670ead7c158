package e2e

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// sourceRefuses gives addresses at which there is no primary.
func (s *servers) sourceRefuses(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	other := startReplica(t, s.target.Database(t))
	conn := pgtest.Connect(t, targetURL)
	before := objects(t, conn)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct {
		name, address, inventory string
		code                     codes.Code
		reason                   string
		words                    []string
	}{
		{"closed port", "127.0.0.1:1", "", codes.Unavailable, "SOURCE_UNREACHABLE", []string{"127.0.0.1:1", "no Syncline server answers", "7400"}},
		{"HTTP port", primary.http, "", codes.Unavailable, "SOURCE_UNREACHABLE", []string{primary.http, "no Syncline server answers", "HTTP"}},
		{"PostgreSQL's port", s.source.Addr(), "", codes.Unavailable, "SOURCE_UNREACHABLE", []string{s.source.Addr(), "no Syncline server answers"}},
		{"nobody speaks", silent.Addr().String(), "", codes.Unavailable, "SOURCE_UNREACHABLE", []string{silent.Addr().String(), "no Syncline server answers"}},
		{"unknown host", "no-such-host.invalid:7400", "", codes.FailedPrecondition, "SOURCE_UNREACHABLE", []string{"no-such-host.invalid", "--plaintext"}},
		{"a replica", other.grpc, "", codes.FailedPrecondition, "NOT_A_SOURCE", []string{other.grpc, "is no primary", "applier"}},
		{"no port", "127.0.0.1", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "HOST:PORT"}},
		{"no host", ":7400", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "HOST:PORT"}},
		{"port 0", "127.0.0.1:0", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "1 to 65535"}},
		{"port too high", "127.0.0.1:70000", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "1 to 65535"}},
		{"a URL", "http://127.0.0.1:7400", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "HOST:PORT"}},
		{"nothing", "", "", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.source", "HOST:PORT"}},
		{"bad inventory", primary.grpc, "127.0.0.1", codes.InvalidArgument, "INVALID_FIELD", []string{"spec.inventory", "HOST:PORT"}},
		{"closed inventory", primary.grpc, "127.0.0.1:1", codes.Unavailable, "SOURCE_UNREACHABLE", []string{"inventory"}},
		{"no inventory there", primary.grpc, other.grpc, codes.FailedPrecondition, "NOT_A_SOURCE", []string{"inventory"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := replica.create("all", test.address, func(s *applierv1.ReplicationSpec) { s.Inventory = test.inventory })
			requireRefused(t, err, test.code, test.reason, test.words...)
			requireNoReplication(t, replica)
			requireUnchanged(t, before, objects(t, conn))
		})
	}
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// twice refuses a second replication of one name, of the same tables, and of some of the same tables.
func (s *servers) twice(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	replica.mustCreate("items", primary.grpc, include("public.*"))
	replica.waitApplied("items", time.Minute)
	_, err := replica.create("items", primary.grpc, include("sales.*"))
	requireRefused(t, err, codes.AlreadyExists, "REPLICATION_EXISTS", "items", "already")
	_, err = replica.create("same", primary.grpc, include("public.*"))
	requireRefused(t, err, codes.AlreadyExists, "REPLICATION_EXISTS", "items", "same tables")
	_, err = replica.create("more", primary.grpc, replace)
	requireRefused(t, err, codes.AlreadyExists, "REPLICATION_EXISTS", "public.items (by items)", "--exclude-table")
	// Two of one name at the same moment: one wins.
	errs := make(chan error, 2)
	for range cap(errs) {
		go func() {
			_, err := replica.create("orders", primary.grpc, include("sales.*"))
			errs <- err
		}()
	}
	first, second := <-errs, <-errs
	if first != nil {
		first, second = second, first
	}
	if first != nil {
		t.Fatalf("neither was made: %s", rpc.Message(first))
	}
	if rpc.Reason(second) == "IN_USE" { // the first one was still being checked
		requireRefused(t, second, codes.Unavailable, "IN_USE", "orders")
	} else {
		requireRefused(t, second, codes.AlreadyExists, "REPLICATION_EXISTS", "orders")
	}
	for _, name := range []string{"items", "orders"} {
		replica.waitApplied(name, time.Minute)
	}
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// sourceIsItself refuses a database as its own source, in one process and in two.
func (s *servers) sourceIsItself(t *testing.T) {
	url := s.source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, shop)
	both := newNode(t, "node", "--postgres", url, "--data", t.TempDir())
	both.start()
	both.waitHealthy(time.Minute)
	replica := startReplica(t, url)
	for _, from := range []*node{both, replica} {
		_, err := from.create("all", both.grpc, replace)
		requireRefused(t, err, codes.FailedPrecondition, "SOURCE_IS_TARGET", databaseOf(t, url), "needs two")
		requireNoReplication(t, from)
	}
	if n := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM items"); n != 100 {
		t.Errorf("%d of 100 rows are left", n)
	}
}

// malformed sends requests that no client of ours would send.
func (s *servers) malformed(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	position := func(id string, lsn uint64) *changev1.Position { return &changev1.Position{LogId: id, Lsn: lsn} }
	future := []byte{0xf8, 0x7f, 0x01} // field 2047
	extend := func(m proto.Message) { m.ProtoReflect().SetUnknown(future) }
	create := func(name string, edit ...editSpec) func(context.Context) error {
		return func(context.Context) error {
			_, err := replica.create(name, primary.grpc, edit...)
			return err
		}
	}
	follow := func(request *loggerv1.FollowRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := primary.logger().Follow(ctx, request)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	report := func(follower string, p *changev1.Position) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := primary.logger().ReportApplied(ctx, &loggerv1.ReportAppliedRequest{Follower: follower, Position: p})
			return err
		}
	}
	inventory := inventoryv1.NewInventoryServiceClient(primary.dial())
	dump := func(request *inventoryv1.DumpRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := inventory.Dump(ctx, request)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	snapshot := func(request *inventoryv1.OpenSnapshotRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := inventory.OpenSnapshot(ctx, request)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	long := string(make([]byte, 5<<20))
	for _, test := range []struct {
		name   string
		call   func(context.Context) error
		code   codes.Code
		reason string
		words  []string
	}{
		{"unknown field", func(ctx context.Context) error {
			request := &applierv1.ListReplicationsRequest{}
			extend(request)
			_, err := replica.applier().ListReplications(ctx, request)
			return err
		}, codes.InvalidArgument, "UNKNOWN_FIELD", []string{"2047"}},
		{"unknown field within", create("all", func(s *applierv1.ReplicationSpec) { extend(s) }), codes.InvalidArgument, "UNKNOWN_FIELD", []string{"2047", "ReplicationSpec"}},
		{"unknown field of a stream", follow(func() *loggerv1.FollowRequest {
			request := &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW}
			extend(request)
			return request
		}()), codes.InvalidArgument, "UNKNOWN_FIELD", []string{"2047"}},
		{"unknown value", follow(&loggerv1.FollowRequest{Start: 77}), codes.InvalidArgument, "UNKNOWN_VALUE", []string{"77"}},
		{"unknown method", func(ctx context.Context) error {
			return replica.dial().Invoke(ctx, "/syncline.applier.v1.ApplierService/Explode", &applierv1.ListReplicationsRequest{}, &applierv1.ListReplicationsResponse{})
		}, codes.Unimplemented, "", []string{"Explode"}},
		{"no name", create(""), codes.InvalidArgument, "INVALID_FIELD", []string{"name"}},
		{"name with capitals", create("All"), codes.InvalidArgument, "INVALID_FIELD", []string{"name", "a-z"}},
		{"name begins with a digit", create("1all"), codes.InvalidArgument, "INVALID_FIELD", []string{"begins with a letter"}},
		{"name with SQL", create(`a'; DROP TABLE items; --`), codes.InvalidArgument, "INVALID_FIELD", []string{"name"}},
		{"name too long", create("a123456789012345678901234567890123456789012345678901234567890123"), codes.InvalidArgument, "INVALID_FIELD", []string{"63"}},
		{"oversize", create("all", include(long)), codes.ResourceExhausted, "", []string{"larger than max"}},
		{"too many patterns", create("all", include(make([]string, 2000)...)), codes.InvalidArgument, "INVALID_FIELD", []string{"1000"}},
		{"negative workers", create("all", func(s *applierv1.ReplicationSpec) { s.CopyWorkers = -1 }), codes.InvalidArgument, "INVALID_FIELD", []string{"copy_workers"}},
		{"too many workers", create("all", func(s *applierv1.ReplicationSpec) { s.CopyWorkers = 1000 }), codes.InvalidArgument, "INVALID_FIELD", []string{"copy_workers", "64"}},
		{"unknown compression", create("all", func(s *applierv1.ReplicationSpec) { s.Compression = 9 }), codes.InvalidArgument, "UNKNOWN_VALUE", []string{"9", "Compression"}},
		{"unknown replication", func(ctx context.Context) error {
			_, err := replica.applier().StartReplication(ctx, &applierv1.StartReplicationRequest{Name: "nobody"})
			return err
		}, codes.NotFound, "REPLICATION_NOT_FOUND", []string{"nobody", "replication list"}},
		{"negative timeout", func(ctx context.Context) error {
			_, err := replica.applier().WaitReplication(ctx, &applierv1.WaitReplicationRequest{Name: "nobody", Timeout: durationpb.New(-time.Second)})
			return err
		}, codes.NotFound, "REPLICATION_NOT_FOUND", nil},
		{"no position and no start", follow(&loggerv1.FollowRequest{}), codes.InvalidArgument, "INVALID_FIELD", []string{"position"}},
		{"position and start", follow(&loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Position: state.GetPosition()}), codes.InvalidArgument, "INVALID_FIELD", []string{"position"}},
		{"log id not hexadecimal", follow(&loggerv1.FollowRequest{Position: position("zz", 1)}), codes.InvalidArgument, "INVALID_FIELD", []string{"position.log_id"}},
		{"position 0", follow(&loggerv1.FollowRequest{Position: position(state.GetPosition().GetLogId(), 0)}), codes.InvalidArgument, "INVALID_FIELD", []string{"position.lsn"}},
		{"heartbeat too short", follow(&loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Heartbeat: durationpb.New(1)}), codes.InvalidArgument, "INVALID_FIELD", []string{"heartbeat"}},
		{"follower's name too long", follow(&loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Follower: long[:1000]}), codes.InvalidArgument, "INVALID_FIELD", []string{"follower"}},
		{"report without name", report("", state.GetPosition()), codes.InvalidArgument, "INVALID_FIELD", []string{"follower"}},
		{"report of another log", report("me", position("00112233445566778899aabbccddeeff", 1)), codes.OutOfRange, "LOG_ID_MISMATCH", nil},
		{"report ahead", report("me", position(state.GetPosition().GetLogId(), state.GetPosition().GetLsn()+1<<40)), codes.OutOfRange, "POSITION_AHEAD", nil},
		{"unknown snapshot", dump(&inventoryv1.DumpRequest{SnapshotId: "none", Schema: "public", Table: "items"}), codes.NotFound, "SNAPSHOT_GONE", nil},
		{"dump of nothing", dump(&inventoryv1.DumpRequest{SnapshotId: "none"}), codes.InvalidArgument, "INVALID_FIELD", []string{"schema"}},
		{"dump of negative pages", dump(&inventoryv1.DumpRequest{SnapshotId: "none", Schema: "public", Table: "items", FromPage: -1}), codes.InvalidArgument, "INVALID_FIELD", []string{"page"}},
		{"snapshot that lives too long", snapshot(&inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(100 * time.Hour)}), codes.InvalidArgument, "INVALID_FIELD", []string{"ttl"}},
		{"snapshot with a negative wait", snapshot(&inventoryv1.OpenSnapshotRequest{Wait: durationpb.New(-1)}), codes.InvalidArgument, "INVALID_FIELD", []string{"wait"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			requireRefused(t, test.call(ctx), test.code, test.reason, test.words...)
			requireNoReplication(t, replica)
		})
	}
	if slots := pgtest.QueryRow[int](t, pgtest.Connect(t, sourceURL), "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); slots != 1 {
		t.Errorf("%d slots instead of the logger's own", slots)
	}
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// notReady has a primary whose slot waits for a transaction of somebody else. A replication is refused and not made without the
// tables that the logger does not name yet.
func (s *servers) notReady(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, shop)
	pgtest.Exec(t, conn, "BEGIN; INSERT INTO items VALUES (0)")
	primary, replica := newNode(t, "primary", "--postgres", sourceURL, "--data", t.TempDir()), startReplica(t, targetURL)
	primary.start()
	primary.waitHealthy(time.Minute)
	_, err := replica.create("all", primary.grpc)
	requireRefused(t, err, codes.Unavailable, "NOT_READY", "starting", "WAITS_FOR_TRANSACTIONS", fmt.Sprint(conn.PgConn().PID()))
	requireNoReplication(t, replica)
	pgtest.Exec(t, conn, "COMMIT")
	replica.mustCreate("all", primary.grpc) // it waits until the logger is there
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}
