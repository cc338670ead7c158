package pusher

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// tell has a push events of these kinds, in the end.
func (n *near) tell(name string, want ...eventKind) {
	n.t.Helper()
	pgtest.Eventually(n.t, patience, func() error {
		if kinds := n.kinds(name); !slices.Equal(kinds, want) {
			return fmt.Errorf("events %v, expected %v", kinds, want)
		}
		return nil
	})
}

// TestEvents tells what a push goes through, in its order, with reasons and whose fault it was, and still does when it is gone.
func TestEvents(t *testing.T) {
	n, f := opened(t)
	want := []eventKind{kindCreated}
	n.push("berlin", f.address)
	want = append(want, kindAttached, kindReplication)
	n.tell("berlin", want...)
	f.do(func() {
		one := f.there["berlin"]
		one.State, one.ReasonCode, one.Reason, one.Position = applierv1.State_STATE_FAILED, "ROW_EXISTS", "it is there", &changev1.Position{LogId: "l", Lsn: 0xA0000000B}
	})
	want = append(want, kindReplication)
	n.tell("berlin", want...)
	if _, err := n.StopPush(t.Context(), &pushv1.StopPushRequest{Name: "berlin"}); err != nil {
		t.Fatal(err)
	}
	want = append(want, kindStopped)
	n.tell("berlin", want...)
	f.do(func() { f.refuses = rpc.Errorf(codes.FailedPrecondition, "NOT_PUSHED", "it has another source") })
	if _, err := n.StartPush(t.Context(), &pushv1.StartPushRequest{Name: "berlin"}); err != nil {
		t.Fatal(err)
	}
	want = append(want, kindStarted, kindFailed)
	n.tell("berlin", want...)
	update := &pushv1.UpdatePushRequest{Name: "berlin", Spec: &pushv1.PushSpec{Target: "127.0.0.1:1"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target"}}}
	if _, err := n.UpdatePush(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	want = append(want, kindUpdated, kindRetried, kindRetried, kindRetried)
	pgtest.Eventually(t, patience, func() error { // of 4 failures 3 are told
		if one := n.wait("berlin", pushv1.PushState_PUSH_STATE_RETRYING, ""); one.GetErrorCount() < 6 {
			return fmt.Errorf("%d failures", one.GetErrorCount())
		}
		return nil
	})
	if _, err := n.DeletePush(t.Context(), &pushv1.DeletePushRequest{Name: "berlin"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, patience, func() error {
		kinds := n.kinds("berlin")
		if at := slices.Index(kinds, kindDeleted); at < 0 || !slices.Equal(kinds[:min(at, len(want))], want) {
			return fmt.Errorf("events %v, expected %v", kinds, want)
		}
		return nil
	})

	all, err := n.ListPushEvents(t.Context(), &pushv1.ListPushEventsRequest{Push: "berlin"})
	if err != nil {
		t.Fatal(err)
	}
	replica, failed, retried := all.GetEvents()[3], all.GetEvents()[6], all.GetEvents()[10]
	if replica.GetReplicationState() != applierv1.State_STATE_FAILED || replica.GetCode() != "ROW_EXISTS" || replica.GetText() != "it is there" || replica.GetPosition().GetLsn() != 0xA0000000B || replica.GetPosition().GetLogId() != "l" {
		t.Errorf("the replica: %v", replica)
	}
	if failed.GetCode() != "NOT_PUSHED" || failed.GetSide() != applierv1.FaultSide_FAULT_SIDE_REMOTE || failed.GetCount() != 1 || failed.GetTime().AsTime().After(time.Now()) {
		t.Errorf("failed: %v", failed)
	}
	if retried.GetCode() != reasonNoTarget || retried.GetCount() != 4 {
		t.Errorf("retried: %v", retried)
	}
	next := int32(1)
	for _, e := range all.GetEvents() {
		if e.GetKind() != pushv1.PushEventKind_PUSH_EVENT_KIND_RETRIED {
			continue
		}
		if e.GetCount() != next {
			t.Errorf("fault %d is told, expected the %dth", e.GetCount(), next)
		}
		next *= 2
	}
	n.pages(t, all.GetEvents())
}

// pages reads the same events a few at a time, in both orders.
func (n *near) pages(t *testing.T, all []*pushv1.PushEvent) {
	t.Helper()
	for _, newest := range []bool{false, true} {
		var ids []int64
		in := &pushv1.ListPushEventsRequest{Push: "berlin", PageSize: 2, NewestFirst: newest}
		for pages := 0; pages < len(all); pages++ {
			page, err := n.ListPushEvents(t.Context(), in)
			if err != nil || len(page.GetEvents()) > 2 {
				t.Fatal(page, err)
			}
			for _, e := range page.GetEvents() {
				ids = append(ids, e.GetId())
			}
			if in.PageToken = page.GetNextPageToken(); in.GetPageToken() == "" {
				break
			}
			if _, err := n.ListPushEvents(t.Context(), &pushv1.ListPushEventsRequest{NewestFirst: !newest, PageToken: in.GetPageToken()}); rpc.Code(err) != codes.InvalidArgument {
				t.Errorf("the token of another order: %v", err)
			}
		}
		if newest {
			slices.Reverse(ids)
		}
		if len(ids) != len(all) || !slices.IsSorted(ids) {
			t.Errorf("newest first %v: events %v", newest, ids)
		}
	}
	if later, err := n.ListPushEvents(t.Context(), &pushv1.ListPushEventsRequest{Push: "berlin", Since: timestamppb.New(time.Now().Add(time.Hour))}); err != nil || len(later.GetEvents()) > 0 {
		t.Errorf("%v, %v", later, err)
	}
	if _, err := n.ListPushEvents(t.Context(), &pushv1.ListPushEventsRequest{Push: "paris"}); rpc.Reason(err) != reasonNotFound {
		t.Errorf("of none: %v", err)
	}
	if _, err := n.ListPushEvents(t.Context(), &pushv1.ListPushEventsRequest{PageSize: 1001}); rpc.Code(err) != codes.InvalidArgument {
		t.Errorf("a page that is too large: %v", err)
	}
}

// TestEventsAreBounded keeps the newest of each push for some time, and counts what nobody could write.
func TestEventsAreBounded(t *testing.T) {
	n, _ := opened(t)
	log := newEventLog(n.store.pool, slog.New(slog.DiscardHandler))
	log.maxCount = 5
	batch := []*event{{push: "old", kind: kindRetried, at: time.Now().Add(-EventsMaxAge - time.Hour), text: "text with \x00 and \xff"}}
	for i := range 20 {
		batch = append(batch, &event{push: fmt.Sprint("p", i%2), kind: kindRetried, count: int32(i)})
	}
	if err := log.write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	log.prune(t.Context())
	for name, want := range map[string]int{"old": 0, "p0": 5, "p1": 5} {
		list, err := n.store.events(t.Context(), eventFilter{push: name, limit: 100})
		if err != nil || len(list) != want || want == 5 && list[4].count < 18 {
			t.Errorf("%s: %d events, %v", name, len(list), err)
		}
	}
	for range eventQueue + 3 {
		log.note(&event{push: "many", kind: kindRetried})
	}
	log.flush(t.Context())
	list, err := n.store.events(t.Context(), eventFilter{push: "many", limit: 2 * eventQueue})
	lost, failed := n.store.events(t.Context(), eventFilter{limit: 2 * eventQueue})
	at := slices.IndexFunc(lost, func(e *event) bool { return e.kind == kindLost })
	if err != nil || failed != nil || len(list) != eventQueue || at < 0 || lost[at].count != 3 {
		t.Errorf("%d events, %v, %v, lost %d", len(list), err, failed, at)
	}
}

// watch returns the answers of a watch.
func (n *near) watch(in *pushv1.WatchPushesRequest) <-chan *pushv1.WatchPushesResponse {
	n.t.Helper()
	server := rpc.NewServer(rpc.WithDrain(time.Second))
	n.Register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx, listener) }()
	n.t.Cleanup(func() { cancel(); <-served })
	conn, err := rpc.Dial(listener.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	stream, err := pushv1.NewPushServiceClient(conn).WatchPushes(n.t.Context(), in)
	if err != nil {
		n.t.Fatal(err)
	}
	answers := make(chan *pushv1.WatchPushesResponse, 100)
	go func() {
		defer close(answers)
		for {
			a, err := stream.Recv()
			if err != nil {
				return
			}
			answers <- a
		}
	}()
	return answers
}

func (n *near) next(answers <-chan *pushv1.WatchPushesResponse) *pushv1.WatchPushesResponse {
	n.t.Helper()
	select {
	case a := <-answers:
		if a != nil {
			return a
		}
	case <-time.After(patience):
	}
	n.t.Fatal("nothing is told")
	return nil
}

// TestWatchPushes tells of all pushes in pages, then of those that change, and of those that are gone.
func TestWatchPushes(t *testing.T) {
	n, f := opened(t)
	for i := range watchPage + 1 {
		n.push(fmt.Sprintf("p%03d", i), f.address)
		if _, err := n.StopPush(t.Context(), &pushv1.StopPushRequest{Name: fmt.Sprintf("p%03d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	n.push("other", f.address)
	w := n.watch(&pushv1.WatchPushesRequest{NamePrefix: "p", Interval: durationpb.New(time.Millisecond)})
	if first, second := n.next(w), n.next(w); len(first.GetPushes()) != watchPage || first.GetComplete() || len(second.GetPushes()) != 1 || !second.GetComplete() || first.GetPushes()[0].GetState() != isStopped {
		t.Fatalf("%d and %d pushes, %v", len(first.GetPushes()), len(second.GetPushes()), second)
	}
	if _, err := n.StartPush(t.Context(), &pushv1.StartPushRequest{Name: "p007"}); err != nil {
		t.Fatal(err)
	}
	for state := isStopped; state != isAttached; {
		a := n.next(w)
		if len(a.GetPushes()) != 1 || a.GetPushes()[0].GetName() != "p007" || a.GetComplete() {
			t.Fatalf("told %v", a)
		}
		state = a.GetPushes()[0].GetState()
	}
	f.do(func() { f.there["p007"].LagBytes = 4711 })
	for lag := int64(0); lag != 4711; {
		lag = n.next(w).GetPushes()[0].GetLagBytes()
	}
	if _, err := n.DeletePush(t.Context(), &pushv1.DeletePushRequest{Name: "p007"}); err != nil {
		t.Fatal(err)
	}
	for gone := []string(nil); len(gone) == 0; {
		if gone = n.next(w).GetDeleted(); len(gone) > 0 && gone[0] != "p007" {
			t.Errorf("gone are %v", gone)
		}
	}
	select {
	case a := <-w:
		t.Errorf("nothing has changed, and is told: %v", a)
	case <-time.After(300 * time.Millisecond):
	}
}
