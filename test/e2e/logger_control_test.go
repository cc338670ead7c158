package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestControlUnderLoad stops and starts capture, leaves tables out and takes them in again, and kills the primary's process in between,
// while it is written to: in the end the replica holds every row, and nothing was copied anew that need not be.
func TestControlUnderLoad(t *testing.T) {
	sourceURL, targetURL := newSource(t, pgtest.WithFsync(false)).Database(t), newTarget(t, pgtest.WithFsync(false)).Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, `CREATE TABLE steady (id bigserial PRIMARY KEY, v int); CREATE TABLE moody (id int PRIMARY KEY, v int);
		INSERT INTO moody SELECT n, 0 FROM generate_series(1, 500) n`)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	replica.mustCreate("shop", primary.grpc)
	replica.waitApplied("shop", time.Minute)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	write := func() {
		t.Helper()
		for range 20 {
			pgtest.Exec(t, conn, fmt.Sprintf("BEGIN; INSERT INTO steady (v) SELECT %[1]d FROM generate_series(1, 10); UPDATE moody SET v = %[1]d WHERE id %% 10 = %[1]d %% 10; COMMIT", r.IntN(1000)))
		}
	}
	tables := func(exclude ...string) {
		t.Helper()
		request := &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{ExcludeTables: exclude}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"exclude_tables"}}}
		if _, err := primary.logger().UpdateConfig(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	restart := func() {
		t.Helper()
		primary.kill9()
		primary.start()
		primary.waitHealthy(time.Minute)
	}
	write()
	if _, err := primary.logger().StopCapture(t.Context(), &loggerv1.StopCaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	write()
	restart()
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && state.GetState() != "stopped" {
			err = fmt.Errorf("%v", state)
		}
		return err
	})
	if _, err := primary.logger().StartCapture(t.Context(), &loggerv1.StartCaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	primary.waitCapturing(time.Minute)
	logID := barrier(t, primary).GetLogId()
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)

	for range 2 {
		tables("public.moody")
		write()
		if r.IntN(2) == 0 {
			restart()
		}
		write()
		tables()
		write()
		primary.waitCapturing(time.Minute)
		replica.waitApplied("shop", time.Minute)
	}
	pgtest.Eventually(t, time.Minute, func() error { // the table that was left out is copied
		replica.waitApplied("shop", time.Minute)
		if n := pgtest.QueryRow[int](t, pgtest.Connect(t, targetURL), "SELECT sum(v) FROM moody"); n != pgtest.QueryRow[int](t, conn, "SELECT sum(v) FROM moody") {
			return fmt.Errorf("the replica's sum is %d", n)
		}
		return nil
	})
	pgtest.RequireEqual(t, sourceURL, targetURL)
	replica.mustVerify("shop").requireEqual(t)
	if barrier(t, primary).GetLogId() != logID {
		t.Error("a new change log was begun")
	}
}

// TestRemoteChangesLeftOutOfAChain has a node pass on what is its own, and not what it takes from its primary, whose traffic holds back
// nothing on it.
func TestRemoteChangesLeftOutOfAChain(t *testing.T) {
	t.Parallel()
	first, last := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, middleURL, endURL := first.Database(t), first.Database(t), last.Database(t)
	primaryConn, middleConn := pgtest.Connect(t, primaryURL), pgtest.Connect(t, middleURL)
	pgtest.Exec(t, primaryConn, "CREATE TABLE brought (id int PRIMARY KEY)")
	pgtest.Exec(t, middleConn, "CREATE TABLE own (id int PRIMARY KEY)")
	primary := startPrimary(t, primaryURL, "--slot", "first")
	middle := newNode(t, "node", "--postgres", middleURL, "--data", t.TempDir(), "--log-remote-changes=false", "--slot", "middle")
	middle.start()
	middle.waitHealthy(time.Minute)
	end := startReplica(t, endURL)
	middle.mustCreate("from_first", primary.grpc)
	middle.waitApplied("from_first", time.Minute)
	middle.waitCapturing(time.Minute)
	middle.waitTable("brought") // a copy would have the rows that are brought before it
	end.mustCreate("from_middle", middle.grpc)
	end.waitApplied("from_middle", time.Minute)

	pgtest.Exec(t, middleConn, "INSERT INTO own VALUES (1)")
	for n := range 50 {
		pgtest.Exec(t, primaryConn, fmt.Sprintf("INSERT INTO brought SELECT n FROM generate_series(%d, %d) n", n*100, n*100+99))
	}
	middle.waitApplied("from_first", time.Minute)
	pgtest.RequireEqualWith(t, primaryURL, middleURL, pgtest.CompareOptions{Except: []string{"public.own"}})
	pgtest.Exec(t, middleConn, "INSERT INTO own VALUES (2)")
	end.waitApplied("from_middle", time.Minute)
	endConn := pgtest.Connect(t, endURL)
	if own, brought := pgtest.QueryRow[int](t, endConn, "SELECT count(*) FROM own"), pgtest.QueryRow[int](t, endConn, "SELECT count(*) FROM brought"); own != 2 || brought != 0 {
		t.Errorf("the end has %d rows of the node's own, and %d that were brought there", own, brought)
	}
	state, err := middle.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
	if err != nil || state.GetRemoteTransactionsLeftOut() == 0 || state.GetLagBytes() > 1<<20 {
		t.Errorf("state %v, %v", state, err)
	}
}
