package pusher

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	isAttached = pushv1.PushState_PUSH_STATE_ATTACHED
	isFailed   = pushv1.PushState_PUSH_STATE_FAILED
	isStopped  = pushv1.PushState_PUSH_STATE_STOPPED
)

// TestCreateIsAnsweredLate: the target has created the replication, and the answer did not come through. The push takes it for its own; one
// that is another's it leaves alone.
func TestCreateIsAnsweredLate(t *testing.T) {
	n, f := opened(t)
	f.do(func() {
		f.hidden = true
		f.there["mine"] = &applierv1.Replication{Spec: &applierv1.ReplicationSpec{Source: "push:mine"}, SourceServerId: "here"}
		f.there["theirs"] = &applierv1.Replication{Spec: &applierv1.ReplicationSpec{Source: "push:theirs"}, SourceServerId: "elsewhere"}
	})
	n.push("mine", f.address)
	n.push("theirs", f.address)
	n.wait("mine", isAttached, "")
	n.wait("theirs", isFailed, "REPLICATION_EXISTS")
}

// TestOtherChoice: a replication that was made for a former push of the same name takes something else. That is told, not passed over.
func TestOtherChoice(t *testing.T) {
	n, f := opened(t)
	former := &applierv1.ReplicationSpec{Source: "push:berlin", Set: "by-org", Parameters: map[string]string{"org": "7"}}
	f.do(func() { f.there["berlin"] = &applierv1.Replication{Spec: former, SourceServerId: "here"} })
	n.push("berlin", f.address)
	one := n.wait("berlin", isFailed, reasonDiffers)
	if !strings.Contains(one.GetReason(), "set by-org org=7") || one.GetSide() != applierv1.FaultSide_FAULT_SIDE_LOCAL {
		t.Errorf("%v", one)
	}
	f.do(func() { delete(f.there, "berlin") }) // as it says
	if _, err := n.StartPush(t.Context(), &pushv1.StartPushRequest{Name: "berlin"}); err != nil {
		t.Fatal(err)
	}
	n.wait("berlin", isAttached, "")
	f.do(func() {
		if f.created != 1 || f.there["berlin"].GetSpec().GetSet() != "" {
			t.Errorf("%d were created: %v", f.created, f.there["berlin"])
		}
	})
}

// holding is a log that is held at a message until it is let go.
type holding struct {
	slog.Handler
	at             string
	reached, letGo chan struct{}
}

func (h *holding) Enabled(context.Context, slog.Level) bool { return true }
func (h *holding) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *holding) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.at {
		h.reached <- struct{}{}
		<-h.letGo
	}
	return nil
}

// TestStartWhileItEnds: whoever sees that a push has failed, and starts it at once, has it started.
func TestStartWhileItEnds(t *testing.T) {
	f := openFarSide(t)
	log := &holding{slog.DiscardHandler, "push stopped", make(chan struct{}), make(chan struct{})}
	n := openNear(t, newPrimary(t), f, log)
	f.do(func() { f.refuses = rpc.Errorf(codes.FailedPrecondition, "NOT_PUSHED", "it has another source") })
	n.push("berlin", f.address)
	<-log.reached
	n.wait("berlin", isFailed, "NOT_PUSHED")
	f.do(func() { f.refuses = nil })
	started := make(chan error)
	go func() {
		_, err := n.StartPush(t.Context(), &pushv1.StartPushRequest{Name: "berlin"})
		started <- err
	}()
	pgtest.Eventually(t, patience, func() error { // it is stored; what is left to do is to start it
		if !slices.Contains(n.kinds("berlin"), kindStarted) {
			return fmt.Errorf("events %v", n.kinds("berlin"))
		}
		return nil
	})
	select {
	case err := <-started:
		t.Errorf("it is not started, and StartPush returns %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(log.letGo)
	n.wait("berlin", isAttached, "")
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// TestDecisionsOutliveTheirCaller: what is stored and what runs agree, also when whoever asked goes away while it is stored.
func TestDecisionsOutliveTheirCaller(t *testing.T) {
	n, f := opened(t)
	n.push("berlin", f.address)
	n.wait("berlin", isAttached, "")
	conn := pgtest.Connect(t, n.config.PostgresURL)
	pgtest.Exec(t, conn, "BEGIN; LOCK TABLE syncline.pushes IN SHARE MODE")
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		_, err := n.StopPush(ctx, &pushv1.StopPushRequest{Name: "berlin"})
		stopped <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		var waiting int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'syncline.pushes'::regclass").Scan(&waiting); err != nil || waiting == 0 {
			return fmt.Errorf("%d wait, %w", waiting, err)
		}
		return nil
	})
	cancel()
	pgtest.Exec(t, conn, "COMMIT")
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	n.wait("berlin", isStopped, "")
	if one, err := n.store.get(t.Context(), "berlin"); err != nil || one.wanted != wantedStopped {
		t.Errorf("%+v, %v", one, err)
	}
}

// TestLostCreate takes up a push that is stored although nobody was told so.
func TestLostCreate(t *testing.T) {
	n, f := opened(t)
	spec := &pushv1.PushSpec{Target: f.address}
	if err := n.waitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.insert(t.Context(), "berlin", spec); err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreatePush(t.Context(), &pushv1.CreatePushRequest{Name: "berlin", Spec: spec}); rpc.Reason(err) != reasonExists {
		t.Errorf("got %v", err)
	}
	n.wait("berlin", isAttached, "")
}

// TestOthersDoNotWait: a decision that asks a target which does not answer keeps nobody from deciding about another push, and ends
// with its caller.
func TestOthersDoNotWait(t *testing.T) {
	n, f := opened(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n.push("silent", silent.Addr().String())
	n.push("berlin", f.address)
	n.wait("berlin", isAttached, "")
	ctx, cancel := context.WithCancel(t.Context())
	deleted := make(chan error, 1)
	go func() {
		_, err := n.DeletePush(ctx, &pushv1.DeletePushRequest{Name: "silent", DeleteReplication: true})
		deleted <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		if p, err := n.find(t.Context(), "silent"); err != nil || len(p.turn) == 0 {
			return fmt.Errorf("nothing is decided, %w", err)
		}
		return nil
	})
	if _, err := n.StopPush(t.Context(), &pushv1.StopPushRequest{Name: "berlin"}); err != nil {
		t.Error(err)
	}
	n.push("paris", f.address)
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := n.StopPush(short, &pushv1.StopPushRequest{Name: "silent"}); rpc.Code(err) != codes.DeadlineExceeded && err == nil {
		t.Errorf("a decision about the same one: %v", err)
	}
	select {
	case err := <-deleted:
		t.Errorf("the target does not answer, and the push is deleted: %v", err)
	default:
	}
	cancel()
	if err := <-deleted; err == nil {
		t.Error("it is deleted")
	}
}

// TestFollowersOfDeletedPushes: the process ended after a push was deleted, and before the change log knew.
func TestFollowersOfDeletedPushes(t *testing.T) {
	f := openFarSide(t)
	url := newPrimary(t)
	first := openNear(t, url, f, slog.DiscardHandler)
	first.push("kept", f.address)
	first.end()
	f.do(func() {
		f.followers = []string{"push:gone/x/shop", "push:kept/x/shop", "replica-1", "push:goner/x/a", "pushed/gone"}
	})
	n := openNear(t, url, f, slog.DiscardHandler)
	pgtest.Eventually(t, patience, func() (err error) {
		f.do(func() {
			if want := []string{"push:kept/x/shop", "replica-1", "pushed/gone"}; !slices.Equal(f.followers, want) {
				err = fmt.Errorf("followers %v", f.followers)
			}
		})
		return err
	})
	f.do(func() { f.followers = append(f.followers, "push:keptlonger/x/shop") })
	if _, err := n.DeletePush(t.Context(), &pushv1.DeletePushRequest{Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	f.do(func() {
		if want := []string{"replica-1", "pushed/gone", "push:keptlonger/x/shop"}; !slices.Equal(f.followers, want) {
			t.Errorf("followers %v", f.followers)
		}
	})
}

// TestHugeWords keeps no more of what a target says than a page of text.
func TestHugeWords(t *testing.T) {
	n, f := opened(t)
	n.push("berlin", f.address)
	n.wait("berlin", isAttached, "")
	huge := strings.Repeat("x", 300<<10) // what fits into an answer
	f.do(func() {
		f.there["berlin"].Reason, f.there["berlin"].ReasonCode = huge+"\x00", huge
		f.there["berlin"].Position = &changev1.Position{LogId: huge, Lsn: 7}
		f.there["berlin"].State = applierv1.State_STATE_FAILED
	})
	pgtest.Eventually(t, patience, func() error {
		list, err := n.store.events(t.Context(), eventFilter{push: "berlin", newestFirst: true, limit: 1})
		if err != nil || len(list) == 0 || list[0].state != applierv1.State_STATE_FAILED {
			return fmt.Errorf("%v, %w", list, err)
		}
		return nil
	})
	one := n.wait("berlin", isAttached, "")
	if size := len(one.GetReplicationReason()) + len(one.GetPosition().GetLogId()); size < maxTextBytes || size > 4*maxTextBytes {
		t.Errorf("%d bytes are kept", size)
	}
	if f := classify(failed(huge, "%s", huge), "db2:7500"); len(f.text)+len(f.reason) > 3*maxTextBytes {
		t.Errorf("%d bytes of a failure are kept", len(f.text)+len(f.reason))
	}
}

// TestNothingStartsAtTheEnd: what is decided while the service ends starts nothing that nobody would wait for.
func TestNothingStartsAtTheEnd(t *testing.T) {
	n, f := opened(t)
	n.push("berlin", f.address)
	n.wait("berlin", isAttached, "")
	n.end()
	p := n.pushes["berlin"]
	n.start(p)
	if p.cancel != nil || p.state != isStopped {
		t.Errorf("it is %s", p.state)
	}
}

// TestMetrics reads what is measured of pushes, also of one whose target is away.
func TestMetrics(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	defer otel.SetMeterProvider(before)
	n, f := opened(t)
	n.push("berlin", f.address)
	n.push("nobody", "127.0.0.1:1")
	n.wait("berlin", isAttached, "")
	f.do(func() { f.there["berlin"].LagBytes = 4711 })
	read := func() map[string]int64 {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		values := map[string]int64{}
		add := func(name string, points []metricdata.DataPoint[int64]) {
			for _, p := range points {
				push, _ := p.Attributes.Value("push")
				values[name+" "+push.AsString()] = p.Value
			}
		}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					add(m.Name, data.DataPoints)
				case metricdata.Sum[int64]:
					add(m.Name, data.DataPoints)
				}
			}
		}
		return values
	}
	pgtest.Eventually(t, patience, func() error {
		v := read()
		_, heard := v["syncline.push.contact_age nobody"]
		if v["syncline.push.attached berlin"] != 1 || v["syncline.push.attached nobody"] != 0 || v["syncline.push.faults nobody"] < 2 || v["syncline.push.sent berlin"] == 0 ||
			v["syncline.push.lag berlin"] != 4711 || heard {
			return fmt.Errorf("measured %v", v)
		}
		return nil
	})
	f.do(func() { delete(f.there, "berlin") })
	n.wait("berlin", isFailed, reasonGone)
	last := read()["syncline.push.contact_age berlin"]
	pgtest.Eventually(t, patience, func() error {
		v := read()
		if v["syncline.push.failed berlin"] != 1 || v["syncline.push.attached berlin"] != 0 || v["syncline.push.contact_age berlin"] <= last {
			return fmt.Errorf("measured %v, %d before", v, last)
		}
		return nil
	})
	n.end()
	if v := read(); len(v) > 0 {
		t.Errorf("after its end it measures %v", v)
	}
}
