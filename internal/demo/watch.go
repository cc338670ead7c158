package demo

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// replicationName is what the demonstration calls its replications.
const replicationName = "company"

const (
	watchInterval = 250 * time.Millisecond
	retryPause    = 200 * time.Millisecond
)

// watcher knows how one replication is now. It goes on when the applier is killed and comes back.
type watcher struct {
	node *node

	mu   sync.Mutex
	last *applierv1.Replication // nil before the first answer
	err  error                  // why nothing is heard now
}

// replication is the last that was heard, and why there is nothing newer.
func (w *watcher) replication() (*applierv1.Replication, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.err
}

func (w *watcher) set(r *applierv1.Replication, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r != nil {
		w.last = r
	}
	w.err = err
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	client := applierv1.NewApplierServiceClient(w.node.conn)
	for ctx.Err() == nil {
		err := w.stream(ctx, client)
		if ctx.Err() == nil {
			w.set(nil, err)
			pause(ctx, retryPause)
			w.node.conn.ResetConnectBackoff()
		}
	}
}

func (w *watcher) stream(ctx context.Context, client applierv1.ApplierServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchReplication(ctx, &applierv1.WatchReplicationRequest{Name: replicationName, Interval: durationpb.New(watchInterval)})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		w.set(answer.GetReplication(), nil)
	}
}

// source knows how the primary's logger is now.
type source struct {
	node *node

	mu    sync.Mutex
	state *loggerv1.GetStateResponse // nil while nothing is heard
	rate  pace                       // row changes
}

func (s *source) now() (*loggerv1.GetStateResponse, float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.rate.perSecond()
}

// run asks until ctx ends.
func (s *source) run(ctx context.Context) {
	client := loggerv1.NewLoggerServiceClient(s.node.conn)
	for {
		state, err := client.GetState(ctx, &loggerv1.GetStateRequest{})
		s.mu.Lock()
		if s.state = state; err == nil {
			s.rate.add(time.Now(), state.GetChanges())
		}
		s.mu.Unlock()
		if !pause(ctx, watchInterval) {
			return
		}
	}
}

// pace is how fast a counter has grown over the last seconds.
type pace struct{ samples []sample }

type sample struct {
	at time.Time
	n  int64
}

const paceWindow = 4 * time.Second

func (p *pace) add(at time.Time, n int64) {
	if len(p.samples) > 0 && n < p.samples[len(p.samples)-1].n {
		p.samples = nil // counted from the start again
	}
	p.samples = append(p.samples, sample{at, n})
	for len(p.samples) > 2 && at.Sub(p.samples[0].at) > paceWindow {
		p.samples = p.samples[1:]
	}
}

func (p *pace) perSecond() float64 {
	if len(p.samples) < 2 {
		return 0
	}
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	if seconds := last.at.Sub(first.at).Seconds(); seconds > 0 {
		return float64(last.n-first.n) / seconds
	}
	return 0
}

// why is an error's text as the user should read it.
func why(err error) string { return rpc.Message(err) }
