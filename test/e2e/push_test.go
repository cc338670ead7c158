package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// pushing is a primary that pushes to a replica through a proxy.
type pushing struct {
	t                *testing.T
	source, target   string
	conn             *pgx.Conn // to the source
	primary, replica *node
	proxy            *pgtest.Proxy
}

func (n *node) pusher() pushv1.PushServiceClient { return pushv1.NewPushServiceClient(n.dial()) }

// openPushing starts both sides. A replica that cannot be reached but by the proxy has no way to the primary, for nobody tells it one.
func openPushing(t *testing.T, primaryFlags ...string) *pushing {
	t.Helper()
	p := &pushing{t: t, source: newSource(t, pgtest.WithFsync(false)).Database(t), target: newTarget(t, pgtest.WithFsync(false)).Database(t)}
	p.conn = pgtest.Connect(t, p.source)
	pgtest.Exec(t, p.conn, "CREATE TABLE orders (id bigint PRIMARY KEY, org int NOT NULL, note text); ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE big (id int PRIMARY KEY, note text); INSERT INTO orders SELECT n, n % 10, 'order ' || n FROM generate_series(1, 2000) n")
	p.primary = startPrimary(t, p.source, primaryFlags...)
	p.replica = startReplica(t, p.target, "--retry-max", "500ms")
	p.proxy = pgtest.NewProxy(t, p.replica.grpc)
	return p
}

func (p *pushing) create(name string, edit ...func(*pushv1.PushSpec)) {
	p.t.Helper()
	spec := &pushv1.PushSpec{Target: p.proxy.Addr(), RetryCap: durationpb.New(500 * time.Millisecond)}
	for _, e := range edit {
		e(spec)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if _, err := p.primary.pusher().CreatePush(ctx, &pushv1.CreatePushRequest{Name: name, Spec: spec}); err != nil {
		p.t.Fatalf("create push: %s", rpc.Message(err))
	}
}

func (n *node) getPush(name string) (*pushv1.Push, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := n.pusher().GetPush(ctx, &pushv1.GetPushRequest{Name: name}, grpc.WaitForReady(true))
	return answer.GetPush(), err
}

// waitPush waits until a push is in a state, for a reason unless that is empty.
func (n *node) waitPush(name string, state pushv1.PushState, reason string) (last *pushv1.Push) {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, func() (err error) {
		if last, err = n.getPush(name); err != nil {
			return err
		}
		if last.GetState() != state || reason != "" && last.GetReasonCode() != reason {
			return fmt.Errorf("push %s is %s: %s: %s", name, last.GetState(), last.GetReasonCode(), last.GetReason())
		}
		return nil
	})
	return last
}

// waitThere waits until the replica has the replication, and it runs. Failures that pass may come before.
func (p *pushing) waitThere(name string) {
	p.t.Helper()
	p.replica.waitThere(name)
}

// waitWaiting waits until the replication says that it waits for its push.
func (p *pushing) waitWaiting(name string) {
	p.t.Helper()
	pgtest.Eventually(p.t, time.Minute, func() error {
		r, err := p.replica.get(name)
		if err != nil {
			return err
		}
		if r.GetState() != applierv1.State_STATE_RETRYING || r.GetReasonCode() != "PUSH_NOT_ATTACHED" {
			return fmt.Errorf("it is %s: %s: %s", r.GetState(), r.GetReasonCode(), r.GetReason())
		}
		return nil
	})
}

func (p *pushing) equal(name string) {
	p.t.Helper()
	p.replica.waitApplied(name, time.Minute)
	pgtest.RequireEqual(p.t, p.source, p.target)
}

func (p *pushing) write(sql string) {
	p.t.Helper()
	pgtest.Exec(p.t, p.conn, sql)
}

// TestPush copies and follows through a push, cuts its connection, stops it, verifies and repairs through it, and deletes it.
func TestPush(t *testing.T) {
	t.Parallel()
	p := openPushing(t)
	p.create("berlin", func(s *pushv1.PushSpec) { s.Replication = "shop" })
	p.waitThere("shop")
	p.equal("shop")
	push := p.primary.waitPush("berlin", pushv1.PushState_PUSH_STATE_ATTACHED, "")
	if r, err := p.replica.get("shop"); err != nil || r.GetSpec().GetSource() != "push:berlin" || r.GetSourceServerId() == "" || push.GetTargetServerId() == "" {
		t.Errorf("replication %v, push %v, %v", r, push, err)
	}
	for range 5 {
		p.write("INSERT INTO orders SELECT (SELECT max(id) FROM orders) + n, n % 10, repeat('x', 500) FROM generate_series(1, 2000) n")
		p.write("UPDATE orders SET note = note || '!' WHERE id % 7 = 0")
		p.proxy.Cut()
	}
	p.proxy.CutAfter(pgtest.ToServer, 300_000)
	p.write("INSERT INTO orders SELECT (SELECT max(id) FROM orders) + n, n % 10, repeat('y', 500) FROM generate_series(1, 2000) n")
	p.equal("shop")
	if out, errOut, code := run(t, "verify", "shop", "--addr", p.replica.grpc); code != 0 {
		t.Errorf("verify: exit code %d, %s%s", code, out, errOut)
	}
	pgtest.Exec(t, pgtest.Connect(t, p.target), "UPDATE orders SET note = 'spoilt' WHERE id < 20")
	if out, errOut, code := run(t, "repair", "shop", "--addr", p.replica.grpc); code != 0 {
		t.Errorf("repair: exit code %d, %s%s", code, out, errOut)
	}
	p.oddPushers(t, "shop")
	p.slowTarget(t, "berlin", "shop")
	p.equal("shop")

	if out, errOut, code := run(t, "push", "stop", "berlin", "--addr", p.primary.grpc); code != 0 {
		t.Fatalf("stop: %s%s", out, errOut)
	}
	p.waitWaiting("shop")
	p.otherPushers(t, "shop")
	p.write("DELETE FROM orders WHERE id % 3 = 0")
	p.primary.kill9()
	p.primary.start()
	p.primary.waitHealthy(time.Minute)
	p.primary.waitPush("berlin", pushv1.PushState_PUSH_STATE_STOPPED, "")
	if out, errOut, code := run(t, "push", "start", "berlin", "--addr", p.primary.grpc); code != 0 {
		t.Fatalf("start: %s%s", out, errOut)
	}
	p.equal("shop")
	pgtest.Eventually(t, time.Minute, func() error { // the acknowledged position comes back
		one, err := p.primary.getPush("berlin")
		if err != nil {
			return err
		}
		if one.GetPosition().GetLsn() == 0 || one.GetReplicationState() != applierv1.State_STATE_RUNNING || one.LagSeconds == nil {
			return fmt.Errorf("push %v", one)
		}
		return nil
	})
	followers := func() (names []string) {
		list, err := p.primary.logger().ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list.GetFollowers() {
			names = append(names, f.GetName())
		}
		return names
	}
	if names := followers(); len(names) != 1 || names[0] != "push:berlin/"+push.GetTargetServerId()+"/shop" {
		t.Errorf("followers %v", names)
	}

	// Who deletes the replication at the target is asked before it is made again.
	if _, err := p.replica.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	p.primary.waitPush("berlin", pushv1.PushState_PUSH_STATE_FAILED, "REPLICATION_GONE")
	pgtest.Exec(t, pgtest.Connect(t, p.target), "TRUNCATE orders")
	if _, err := p.primary.pusher().StartPush(t.Context(), &pushv1.StartPushRequest{Name: "berlin"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		_, err := p.replica.get("shop")
		return err
	})
	p.waitThere("shop")
	p.equal("shop")
	if out, errOut, code := run(t, "push", "delete", "berlin", "--replication", "--addr", p.primary.grpc); code != 0 {
		t.Fatalf("delete: %s%s", out, errOut)
	}
	if _, err := p.replica.get("shop"); rpc.Reason(err) != "REPLICATION_NOT_FOUND" {
		t.Errorf("the replication is there: %v", err)
	}
	if names := followers(); len(names) != 0 {
		t.Errorf("followers %v", names)
	}
	if _, err := p.primary.getPush("berlin"); rpc.Reason(err) != "PUSH_NOT_FOUND" {
		t.Errorf("the push is there: %v", err)
	}
}
