package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	// barTotal is the number of steps of the bar.
	barTotal = 1000
	// lineInterval is the time between two lines where there is no terminal.
	lineInterval = 5 * time.Second
	// reconnectPause is the time between two attempts to watch a replica that is away.
	reconnectPause = time.Second
	// awayLimit is how long a replica may be away before the watch gives up.
	awayLimit = time.Minute
)

// errWatchEnded says that the user has ended the watch, not the replication.
var errWatchEnded = errors.New("no longer watching")

// errReplicationFailed says that the replication stopped by a fault.
var errReplicationFailed = errors.New("the replication has failed")

// watchSync shows the first copy's progress until the replication runs. It outlives restarts of the replica.
func watchSync(ctx context.Context, client applierv1.ApplierServiceClient, name string, out io.Writer) (*applierv1.Replication, error) {
	view := newSyncView(out)
	defer view.end()
	away := time.Now()
	for {
		final, err := watchOnce(ctx, client, name, view, func() { away = time.Now() })
		if final != nil {
			return final, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: replication %s goes on by itself; `syncline replication show %s` tells how far it is", errWatchEnded, name, name)
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the replica has ended the watch of replication %s; is it being shut down?", name)
			fallthrough
		case rpc.IsTransient(err):
			if time.Since(away) > awayLimit {
				return nil, err
			}
		default:
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectPause):
		}
	}
}

// watchOnce watches over one stream; it returns the replication once that runs.
func watchOnce(ctx context.Context, client applierv1.ApplierServiceClient, name string, view *syncView, heard func()) (*applierv1.Replication, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchReplication(ctx, &applierv1.WatchReplicationRequest{Name: name})
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		heard()
		r := answer.GetReplication()
		view.update(r)
		switch r.GetState() {
		case applierv1.State_STATE_RUNNING:
			if r.GetSpec().GetMode() != applierv1.Mode_MODE_ONCE { // that one is done when it has ended
				return r, nil
			}
		case applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
			return r, nil
		case applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED:
			return nil, fmt.Errorf("%w: %s %s: %s; mend that, then `syncline replication start %s`", errReplicationFailed, stateName(r.GetState()), r.GetReasonCode(), r.GetReason(), name)
		}
	}
}

// syncView is a bar on a terminal, and lines elsewhere.
type syncView struct {
	out      io.Writer
	progress *mpb.Progress
	bar      *mpb.Bar
	shown    atomic.Pointer[syncShown] // read by the bar's own goroutine
	speed    speed
	last     time.Time
	phase    string
}

// syncShown is what stands beside the bar.
type syncShown struct{ percent, text string }

func newSyncView(out io.Writer) *syncView {
	v := &syncView{out: out}
	if file, ok := out.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return v
	}
	v.shown.Store(&syncShown{})
	v.progress = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
	v.bar = v.progress.AddBar(barTotal,
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return v.shown.Load().percent })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return v.shown.Load().text })),
	)
	return v
}

func (v *syncView) update(r *applierv1.Replication) {
	now := time.Now()
	v.speed.add(now, r.GetSync().GetRows(), r.GetSync().GetBytes(), r.GetSync().GetFraction())
	text := syncLine(r, &v.speed)
	percent := fmt.Sprintf("%3.0f %%", 100*r.GetSync().GetFraction())
	if v.bar != nil {
		v.shown.Store(&syncShown{percent, "  " + text})
		steps := int64(r.GetSync().GetFraction() * barTotal)
		if r.GetState() != applierv1.State_STATE_RUNNING {
			steps = min(steps, barTotal-1) // a full bar is drawn no more, and a whole copy still has to catch up
		}
		v.bar.SetCurrent(steps)
		return
	}
	phase := r.GetState().String() + r.GetSync().GetPhase() + r.GetReason()
	if phase == v.phase && now.Sub(v.last) < lineInterval {
		return
	}
	v.phase, v.last = phase, now
	fmt.Fprintf(v.out, "%s  %s\n", percent, text)
}

func (v *syncView) end() {
	if v.progress == nil {
		return
	}
	if !v.bar.Completed() {
		v.bar.Abort(false)
	}
	v.progress.Wait()
}

// syncLine is what is known of a first copy, without the percentage.
func syncLine(r *applierv1.Replication, s *speed) string {
	sync := r.GetSync()
	text := stateName(r.GetState())
	if sync.GetPhase() != "" && r.GetState() == applierv1.State_STATE_SYNCING {
		text = sync.GetPhase()
	}
	text += fmt.Sprintf("  %s rows  %s rows/s  %s/s", count(sync.GetRows()), count(int64(s.rows)), size(int64(s.bytes)))
	if left, ok := s.left(sync.GetFraction()); ok {
		text += "  " + left.Round(time.Second).String() + " left"
	}
	switch {
	case r.GetReason() != "":
		text += "  " + r.GetReason()
	case sync.GetDetail() != "" && r.GetState() == applierv1.State_STATE_SYNCING:
		text += "  " + sync.GetDetail()
	}
	return text
}

// speed is how fast a copy is, over the last seconds.
type speed struct {
	rows, bytes, fraction float64 // for each second
	samples               []speedSample
}

type speedSample struct {
	at          time.Time
	rows, bytes int64
	fraction    float64
}

const speedWindow = 10 * time.Second

func (s *speed) add(now time.Time, rows, bytes int64, fraction float64) {
	s.samples = append(s.samples, speedSample{now, rows, bytes, fraction})
	for len(s.samples) > 2 && now.Sub(s.samples[1].at) > speedWindow {
		s.samples = s.samples[1:]
	}
	first := s.samples[0]
	seconds := now.Sub(first.at).Seconds()
	if seconds <= 0 {
		return
	}
	s.rows = max(0, float64(rows-first.rows)/seconds)
	s.bytes = max(0, float64(bytes-first.bytes)/seconds)
	s.fraction = max(0, (fraction-first.fraction)/seconds)
}

// left estimates the time until the copy is whole.
func (s *speed) left(fraction float64) (time.Duration, bool) {
	if s.fraction <= 0 || fraction >= 1 {
		return 0, false
	}
	return time.Duration((1 - fraction) / s.fraction * float64(time.Second)), true
}
