package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	tunnelv1 "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// carry opens a tunnel to a replica and returns it after the first answer, or the error instead.
func carry(t *testing.T, n *node, open *tunnelv1.Open) (grpc.BidiStreamingClient[tunnelv1.CarryRequest, tunnelv1.CarryResponse], error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	stream, err := tunnelv1.NewTunnelServiceClient(n.dial()).Carry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&tunnelv1.CarryRequest{Content: &tunnelv1.CarryRequest_Open{Open: open}}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	return stream, err
}

// ended reads a tunnel to its end.
func ended(stream grpc.BidiStreamingClient[tunnelv1.CarryRequest, tunnelv1.CarryResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// oddPushers come to a replica with pushes that it does not take, while the right one is attached.
func (p *pushing) oddPushers(t *testing.T, name string) {
	t.Helper()
	there, err := p.replica.get(name)
	if err != nil {
		t.Fatal(err)
	}
	push := strings.TrimPrefix(there.GetSpec().GetSource(), "push:")
	for reason, open := range map[string]*tunnelv1.Open{
		"PUSH_ATTACHED": {Replication: name, Push: push, ServerId: "11111111-1111-1111-1111-111111111111"},
		"INVALID_FIELD": {Replication: "Shop", Push: "7400", ServerId: ""},
	} {
		if _, err := carry(t, p.replica, open); rpc.Reason(err) != reason {
			t.Errorf("%v: %v, expected %s", open, err, reason)
		}
	}
	if _, err := carry(t, p.replica, &tunnelv1.Open{Replication: name, Push: "other", ServerId: there.GetSourceServerId()}); rpc.Reason(err) != "PUSH_ATTACHED" {
		t.Errorf("another push of the same source: %v", err)
	}

	// Of a replication that is not there yet, the same push takes its own place, and another one does not.
	mine := &tunnelv1.Open{Replication: "new", Push: "mine", ServerId: "a"}
	first, err := carry(t, p.replica, mine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := carry(t, p.replica, &tunnelv1.Open{Replication: "new", Push: "theirs", ServerId: "b"}); rpc.Reason(err) != "PUSH_ATTACHED" {
		t.Errorf("another one: %v", err)
	}
	second, err := carry(t, p.replica, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := ended(first); rpc.Reason(err) != "PUSH_REPLACED" {
		t.Errorf("the first: %v", err)
	}
	if err := second.Send(&tunnelv1.CarryRequest{Content: &tunnelv1.CarryRequest_Data{Data: []byte("this is no HTTP/2")}}); err != nil {
		t.Fatal(err)
	}
	if err := ended(second); rpc.Reason(err) != "PUSH_NOT_ATTACHED" {
		t.Errorf("what is no connection: %v", err)
	}
	third, err := carry(t, p.replica, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Send(&tunnelv1.CarryRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := ended(third); rpc.Reason(err) != "INVALID_FIELD" {
		t.Errorf("nothing as a piece: %v", err)
	}
	if _, err := p.replica.create("new", "push:mine"); rpc.Reason(err) != "PUSH_NOT_ATTACHED" {
		t.Errorf("a replication of a push that is gone: %v", err)
	}
	if _, err := p.replica.create("new", "push:mine", func(s *applierv1.ReplicationSpec) { s.Token, s.Inventory = "x", "db1:7400" }); rpc.Reason(err) != "INVALID_FIELD" {
		t.Errorf("a push with a token: %v", err)
	}
}

// otherPushers are refused once nothing is attached: a server that is another one, and a push of another name.
func (p *pushing) otherPushers(t *testing.T, name string) {
	t.Helper()
	there, err := p.replica.get(name)
	if err != nil {
		t.Fatal(err)
	}
	for reason, open := range map[string]*tunnelv1.Open{
		"SOURCE_CHANGED": {Replication: name, Push: "berlin", ServerId: "11111111-1111-1111-1111-111111111111"},
		"NOT_PUSHED":     {Replication: name, Push: "other", ServerId: there.GetSourceServerId()},
	} {
		if _, err := carry(t, p.replica, open); rpc.Reason(err) != reason {
			t.Errorf("%v: %v, expected %s", open, err, reason)
		}
	}
}

// resident is the memory of a process, in bytes.
func (n *node) resident() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid()))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return kib << 10
}

// slowTarget stops the replica's session with a lock while the primary writes: what is sent, and what the primary holds, stays bounded, and
// everything arrives afterwards.
func (p *pushing) slowTarget(t *testing.T, push, replication string) {
	t.Helper()
	const volume = 80 << 20
	before, err := p.primary.getPush(push)
	if err != nil {
		t.Fatal(err)
	}
	resident := p.primary.resident()
	lock := pgtest.Connect(t, p.target)
	pgtest.Exec(t, lock, "BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE")
	p.write("INSERT INTO big SELECT n, repeat(md5(n::text), 60) FROM generate_series(1, 44000) n")
	barrier, err := p.primary.logger().EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var stood int64
	pgtest.Eventually(t, time.Minute, func() error { // everything is captured, and nothing more is sent
		ranges, err := p.primary.logger().GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
		if err != nil {
			return err
		}
		now, err := p.primary.getPush(push)
		if err != nil {
			return err
		}
		last := stood
		stood = now.GetSentBytes() - before.GetSentBytes()
		if ranges.GetLastLsn() < barrier.GetPosition().GetLsn() || stood-last > 1<<20 || last == 0 {
			return fmt.Errorf("the log ends at %d of %d, %d bytes are sent", ranges.GetLastLsn(), barrier.GetPosition().GetLsn(), stood)
		}
		return nil
	})
	if stood > volume*3/4 {
		t.Errorf("%d of %d bytes were sent to a replica that takes none", stood, volume)
	}
	if grown := p.primary.resident() - resident; grown > 128<<20 {
		t.Errorf("the primary holds %d bytes more", grown)
	}
	if now := p.primary.waitPush(push, pushv1.PushState_PUSH_STATE_ATTACHED, ""); now.GetErrorCount() > 0 {
		t.Errorf("a slow replica counts as a fault: %v", now)
	}
	pgtest.Exec(t, lock, "ROLLBACK")
	p.equal(replication)
	p.write("TRUNCATE big")
}
