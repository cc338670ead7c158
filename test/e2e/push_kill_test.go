package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/pusher"
)

const (
	whilePushed  stage = 100 // while a push is made, and while it is attached
	whenUnpushed stage = 101 // when it is deleted
)

// pushFaultPoints are those of pushes, in the order in which they are passed.
var pushFaultPoints = []faultPoint{
	{pusher.FaultStored, "primary", whilePushed, []int{1}},
	{pusher.FaultAttached, "primary", whilePushed, []int{1}},
	{pusher.FaultCreated, "primary", whilePushed, []int{1}},
	{pusher.FaultServing, "primary", whilePushed, []int{1, 3}},
	{applier.FaultPushAttached, "replica", whilePushed, []int{1}},
	{pusher.FaultRemoved, "primary", whenUnpushed, []int{1}},
}

// TestPushKills kills both sides at each point between two steps of a push, then at any moment while changes come in, and breaks the
// connection between them. Every row is compared at last.
func TestPushKills(t *testing.T) {
	t.Parallel()
	p := openPushing(t)
	bank := pgtest.NewBank(t, p.source, pgtest.BankOptions{Accounts: 50, Pause: 20 * time.Millisecond})
	bank.Start(t, p.source, 2, 1)
	log := filepath.Join(t.TempDir(), "faults")
	nodes := map[string]*node{"primary": p.primary, "replica": p.replica}
	for i, point := range pushFaultPoints {
		if point.stage != whilePushed {
			continue
		}
		n := nodes[point.process]
		for _, count := range point.counts {
			n.kill9()
			n.start(faultEnv(point.name, count, log)...)
			if i == 0 { // the call that stores it does not live to tell
				n.waitHealthy(time.Minute)
				if _, err := n.pusher().CreatePush(t.Context(), &pushv1.CreatePushRequest{Name: "berlin", Spec: &pushv1.PushSpec{Target: p.proxy.Addr()}}); err == nil {
					t.Errorf("%s was passed", point.name)
				}
			}
			n.wait(time.Minute)
			if hits := faultsHit(t, log); hits[point.name] == 0 {
				t.Fatalf("%s ended and not by %s: %v", n.name, point.name, hits)
			}
			p.write("INSERT INTO orders SELECT (SELECT max(id) FROM orders) + n, n % 10, 'more' FROM generate_series(1, 100) n")
		}
		// Without a fault it would go on to the next point before it can be killed there.
		if i+1 == len(pushFaultPoints) || pushFaultPoints[i+1].process != point.process || pushFaultPoints[i+1].stage != whilePushed {
			n.start()
			n.waitHealthy(time.Minute)
		}
	}
	for round := range 4 {
		p.waitThere("berlin")
		p.write("UPDATE orders SET note = note || 'x' WHERE id % 5 = 1")
		switch round {
		case 0:
			p.primary.kill9()
			p.primary.start()
		case 1:
			p.replica.kill9()
			p.replica.start()
		case 2:
			p.proxy.CutAfter(pgtest.ToServer, 20_000)
		case 3: // half open: the replica is not told, and a new connection has to take the place of the old one
			p.proxy.Stall()
			p.primary.kill9()
			p.primary.start()
			p.primary.waitHealthy(time.Minute)
			_, err := p.primary.pusher().UpdatePush(t.Context(), &pushv1.UpdatePushRequest{
				Name: "berlin", Spec: &pushv1.PushSpec{Target: p.replica.grpc}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target"}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		p.primary.waitHealthy(time.Minute)
		p.replica.waitHealthy(time.Minute)
		p.primary.waitPush("berlin", pushv1.PushState_PUSH_STATE_ATTACHED, "")
	}
	p.waitThere("berlin")
	bank.Stop(t)
	p.equal("berlin")
	for _, url := range []string{p.source, p.target} {
		if err := bank.Check(t.Context(), pgtest.Connect(t, url)); err != nil {
			t.Error(err)
		}
	}
	p.killDeleting("berlin", log)
}

// killDeleting kills the primary between a push's end and that of its follower: the change log keeps nothing for it any more after the next
// start, and another push of the name goes on with the replication that is there.
func (p *pushing) killDeleting(name, log string) {
	p.t.Helper()
	p.primary.kill9()
	p.primary.start(faultEnv(pusher.FaultRemoved, 1, log)...)
	p.primary.waitHealthy(time.Minute)
	p.primary.waitPush(name, pushv1.PushState_PUSH_STATE_ATTACHED, "")
	if _, err := p.primary.pusher().DeletePush(p.t.Context(), &pushv1.DeletePushRequest{Name: name}); err == nil {
		p.t.Errorf("%s was passed", pusher.FaultRemoved)
	}
	p.primary.wait(time.Minute)
	if faultsHit(p.t, log)[pusher.FaultRemoved] == 0 {
		p.t.Fatalf("the primary ended, and not by %s", pusher.FaultRemoved)
	}
	p.primary.start()
	p.primary.waitHealthy(time.Minute)
	pgtest.Eventually(p.t, time.Minute, func() error {
		list, err := p.primary.logger().ListFollowers(p.t.Context(), &loggerv1.ListFollowersRequest{})
		if err == nil && len(list.GetFollowers()) > 0 {
			err = fmt.Errorf("followers %v", list.GetFollowers())
		}
		return err
	})
	if _, err := p.primary.getPush(name); rpc.Reason(err) != "PUSH_NOT_FOUND" {
		p.t.Errorf("the push is there: %v", err)
	}
	p.write("UPDATE orders SET note = note || 'y' WHERE id % 5 = 2")
	p.create(name, func(s *pushv1.PushSpec) { s.Target = p.replica.grpc }) // the proxy stands still
	p.waitThere(name)
	p.equal(name)
}
