package logger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// errStopped says that capture was stopped with StopCapture.
var errStopped = errors.New("capture is stopped")

// ReasonStopped is the reason of calls that are of no use while capture is stopped, and the code of that state.
const ReasonStopped = "CAPTURE_STOPPED"

// stopPatience bounds how long StopCapture waits for the end of capture.
const stopPatience = finishTimeout + 5*time.Second

// StartCapture lets capture go on.
func (s *Service) StartCapture(ctx context.Context, _ *loggerv1.StartCaptureRequest) (*loggerv1.StartCaptureResponse, error) {
	if err := s.turn(ctx, false); err != nil {
		return nil, err
	}
	state, err := s.GetState(ctx, nil)
	if state.GetState() == PhaseStopped { // for a moment yet
		state.State, state.Reason, state.ReasonCode = PhaseStarting, "", ""
	}
	return &loggerv1.StartCaptureResponse{State: state}, err
}

// StopCapture ends capture. That it is stopped is durable before anything ends; what was received by then becomes durable and is
// confirmed, so nothing is sent twice, and the slot has the primary keep the rest.
func (s *Service) StopCapture(ctx context.Context, _ *loggerv1.StopCaptureRequest) (*loggerv1.StopCaptureResponse, error) {
	if err := s.turn(ctx, true); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	tick := time.NewTicker(stopPatience / 500)
	defer tick.Stop()
	for s.status.current() != PhaseStopped && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	state, err := s.GetState(ctx, nil)
	if state.GetState() != PhaseStopped {
		state.State = PhaseStopping
	}
	return &loggerv1.StopCaptureResponse{State: state}, err
}

// turn stops or starts capture.
func (s *Service) turn(ctx context.Context, stop bool) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	row, err := s.knownSettings(ctx)
	if err != nil {
		return err
	}
	if stop != row.stopped.IsZero() {
		return nil // it is as it should be
	}
	row.stopped = time.Time{}
	if stop {
		row.stopped = time.Now()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	if err := s.settings.save(ctx, s.pool, row); err != nil {
		return unreachable("stop or start capture", err)
	}
	s.log.Info("capture was turned", "stopped", stop)
	return nil
}

// attempt runs one session, which ends with errStopped when capture is stopped.
func (s *Service) attempt(ctx context.Context) error {
	since, changed := s.settings.stopped()
	if !since.IsZero() {
		return errStopped
	}
	ctx, end := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			var since time.Time
			if since, changed = s.settings.stopped(); !since.IsZero() {
				end(errStopped)
				return
			}
		}
	}()
	err := s.session(ctx)
	stopped := errors.Is(err, errStopped) || errors.Is(context.Cause(ctx), errStopped)
	end(nil)
	<-watched
	if stopped {
		return errStopped
	}
	return err
}

// rest waits until capture is started again, or ctx ends.
func (s *Service) rest(ctx context.Context) {
	since, changed := s.settings.stopped()
	if since.IsZero() {
		return
	}
	s.status.setStopped(since)
	s.log.Warn("capture is stopped; the slot has the primary keep its WAL", "since", since, "position", s.changes.Head().Position)
	select {
	case <-changed:
		s.status.set(PhaseStarting, "", "")
	case <-ctx.Done():
	}
}

// capturing refuses calls that are of no use while capture is stopped.
func (s *Service) capturing() error {
	if since, _ := s.settings.stopped(); !since.IsZero() {
		return rpc.Errorf(codes.FailedPrecondition, ReasonStopped, "capture is stopped since %s: start it with `syncline logger start`", since.UTC().Format(time.RFC3339))
	}
	return nil
}

// stoppedText tells how much WAL is kept while capture is stopped, and how much may be.
func stoppedText(since time.Time, server serverStats) string {
	text := fmt.Sprintf("it was stopped at %s and goes on with `syncline logger start`; the primary keeps %d bytes of WAL for it, ",
		since.UTC().Format(time.RFC3339), server.retained)
	if server.limit == nil {
		return text + "without a limit (max_slot_wal_keep_size is -1) until its disk is full"
	}
	text += fmt.Sprintf("of at most %d (max_slot_wal_keep_size), beyond which the slot is lost and every replica has to be copied anew", *server.limit)
	if server.left != nil {
		text += fmt.Sprintf("; %d are left", *server.left)
	}
	return text
}
