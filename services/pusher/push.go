package pusher

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
)

// push runs one push until it is stopped, and tries again after faults that pass.
type push struct {
	name    string
	service *Service
	log     *slog.Logger
	sent    atomic.Int64
	wake    chan struct{} // holds one when the next attempt shall not wait
	storing sync.Mutex    // held while what is stored changes, here and there
	turn    turn          // held while what a user decides about it is carried out

	mu     sync.Mutex // of what stands below
	stored *stored
	cancel context.CancelFunc // nil while it does not run
	done   chan struct{}

	version    uint64 // grows with each change that is worth telling
	state      pushv1.PushState
	since      time.Time
	failure    failure // zero for none
	errors     int32   // in a row
	same       int32   // of these, for the last one's reason
	faults     int64   // since the process began
	nextRetry  time.Time
	heard      *heard // at last, nil for never
	lastHeard  time.Time
	targetSeen string // server id of who answered last
}

// heard is what is kept of what the target tells of its replication: the rest may be large.
type heard struct {
	state      applierv1.State
	code, text string
	position   *changev1.Position
	lagBytes   int64
	lagSeconds *float64
}

// equal tells whether there is nothing new to tell. That time passes is not.
func (h *heard) equal(other *heard) bool {
	return h.state == other.state && h.code == other.code && h.text == other.text && h.lagBytes == other.lagBytes && proto.Equal(h.position, other.position)
}

func (s *Service) newPush(one *stored) *push {
	return &push{
		name: one.name, service: s, log: s.config.Log.With("push", one.name), wake: make(chan struct{}, 1), turn: newTurn(), stored: one, version: 1,
		state: pushv1.PushState_PUSH_STATE_STOPPED, since: time.Now(),
	}
}

func (p *push) snapshot() *stored {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored
}

// write changes what is stored, and then what is known of it here; one after the other.
func (p *push) write(change func() (*stored, error)) (*stored, error) {
	p.storing.Lock()
	defer p.storing.Unlock()
	fresh, err := change()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored = fresh
	p.version++
	return fresh, nil
}

// start runs it in a goroutine that ends with stop or with ctx. One that runs is left alone, but it tries again at once if it waits.
// When ctx is done nothing is started: the service is stopping.
func (p *push) start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if p.cancel != nil {
		if p.state == pushv1.PushState_PUSH_STATE_FAILED {
			<-p.done // it ends without another lock
		}
		select {
		case p.wake <- struct{}{}:
		default:
		}
		select {
		case <-p.done: // it failed
		default:
			return
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	p.cancel, p.done = cancel, done
	p.enter(pushv1.PushState_PUSH_STATE_CONNECTING)
	p.failure, p.errors = failure{}, 0
	go func() {
		defer close(done)
		defer cancel() // one that failed leaves nothing behind
		p.run(ctx)
	}()
}

// stop ends it and waits for that.
func (p *push) stop() {
	p.mu.Lock()
	cancel, done := p.cancel, p.done
	p.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel, p.failure, p.nextRetry = nil, failure{}, time.Time{}
	p.enter(pushv1.PushState_PUSH_STATE_STOPPED)
}

// enter notes a state. The caller holds the lock.
func (p *push) enter(state pushv1.PushState) {
	p.version++
	if p.state != state {
		p.state, p.since = state, time.Now()
	}
}

// run tries until it is stopped or something fails that does not pass by itself.
func (p *push) run(ctx context.Context) {
	for attempt := 0; ; attempt++ {
		select {
		case <-p.wake: // this is the attempt
		default:
		}
		began := time.Now()
		spec := p.snapshot().spec
		err := p.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > DefaultHealthyAfter {
			attempt = 0
		}
		f := classify(err, spec.GetTarget())
		base, most := retries(spec)
		wait := pause(base, most, attempt)
		p.failed(f, wait)
		if !f.passes {
			p.log.Error("push stopped", "reason", f.reason, "error", f.text)
			return
		}
		p.log.Warn("push is tried again", "reason", f.reason, "error", f.text, "pause", wait)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-time.After(wait):
		}
		p.mu.Lock()
		p.nextRetry = time.Time{}
		p.mu.Unlock()
	}
}

func (p *push) failed(f failure, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.reason != p.failure.reason {
		p.same = 0
	}
	p.failure, p.nextRetry = f, time.Time{}
	p.errors++
	p.same++
	p.faults++
	e := &event{push: p.name, kind: kindFailed, code: f.reason, text: f.text, side: f.side(), count: p.errors}
	if f.passes {
		p.enter(pushv1.PushState_PUSH_STATE_RETRYING)
		p.nextRetry = time.Now().Add(wait)
		e.kind = kindRetried
	} else {
		p.enter(pushv1.PushState_PUSH_STATE_FAILED)
	}
	if !f.passes || worthTelling(p.same) {
		p.service.events.note(e)
	}
}

// pause is that before the next attempt: exponential, with jitter, capped.
func pause(base, most time.Duration, attempt int) time.Duration {
	d := base << min(attempt, 20)
	if d <= 0 || d > most {
		d = most
	}
	return d/2 + rand.N(d/2+1)
}

// heardOf takes over what the target says of its replication.
func (p *push) heardOf(r *applierv1.Replication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, now := p.heard, &heard{state: r.GetState(), code: bounded(r.GetReasonCode()), text: bounded(r.GetReason()), lagBytes: r.GetLagBytes(), lagSeconds: r.LagSeconds}
	if at := r.GetPosition(); at != nil {
		now.position = &changev1.Position{LogId: bounded(at.GetLogId()), Lsn: at.GetLsn()}
	}
	p.heard, p.lastHeard = now, time.Now()
	if p.state != pushv1.PushState_PUSH_STATE_ATTACHED {
		target := p.stored.spec.GetTarget()
		p.log.Info("push is attached", "target", target, "server", p.targetSeen)
		p.enter(pushv1.PushState_PUSH_STATE_ATTACHED)
		p.failure, p.nextRetry, p.errors = failure{}, time.Time{}, 0
		p.service.events.note(&event{push: p.name, kind: kindAttached, text: "server " + p.targetSeen + " at " + target + " reads through it"})
	}
	if before == nil || !now.equal(before) {
		p.version++
	}
	if before == nil || before.state != now.state || before.code != now.code {
		p.service.events.note(&event{push: p.name, kind: kindReplication, state: now.state, code: now.code, text: now.text, position: now.position})
	}
}

// proto is the push as the API shows it.
func (p *push) proto() *pushv1.Push {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.stored
	out := &pushv1.Push{
		Name: r.name, Spec: withoutSecrets(r.spec), State: p.state, Reason: p.failure.text, ReasonCode: p.failure.reason, ErrorCount: p.errors,
		NextRetryTime: timeProto(p.nextRetry), StateTime: timeProto(p.since), TargetServerId: r.targetServerID, LastContactTime: timeProto(p.lastHeard),
		SentBytes: p.sent.Load(), CreateTime: timestamppb.New(r.createdAt), Etag: r.etag(),
	}
	if out.GetTargetServerId() == "" {
		out.TargetServerId = p.targetSeen
	}
	out.Side = p.failure.side()
	if h := p.heard; h != nil {
		out.ReplicationState, out.Position, out.LagBytes, out.LagSeconds = h.state, h.position, h.lagBytes, h.lagSeconds
		if h.code != "" {
			out.ReplicationReason = h.code + ": " + h.text
		}
	}
	return out
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
