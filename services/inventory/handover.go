package inventory

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// loggerClient is what this service asks of the logger.
type loggerClient interface {
	GetState(ctx context.Context, in *loggerv1.GetStateRequest, opts ...grpc.CallOption) (*loggerv1.GetStateResponse, error)
	GetRanges(ctx context.Context, in *loggerv1.GetRangesRequest, opts ...grpc.CallOption) (*loggerv1.GetRangesResponse, error)
	GetSet(ctx context.Context, in *loggerv1.GetSetRequest, opts ...grpc.CallOption) (*loggerv1.GetSetResponse, error)
	EmitBarrier(ctx context.Context, in *loggerv1.EmitBarrierRequest, opts ...grpc.CallOption) (*loggerv1.EmitBarrierResponse, error)
}

const (
	// loggerPoll is how often the logger is asked whether it has reached a point.
	loggerPoll = 20 * time.Millisecond
	// barrierAfter is how long a log may stand still below the point until something is committed for it to capture. A
	// primary where nobody writes gives a log no reason to move.
	barrierAfter = 40 * time.Millisecond
	// loggerCallTimeout bounds one call to the logger, so that a stalled one is noticed.
	loggerCallTimeout = 10 * time.Second
)

// logPosition is where the change log stands. It refuses a logger that captures another database, or nothing at all: a
// snapshot's position would mean nothing there.
func logPosition(ctx context.Context, logger loggerClient, serverID string) (change.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, loggerCallTimeout)
	defer cancel()
	state, err := logger.GetState(ctx, &loggerv1.GetStateRequest{})
	if err != nil {
		return change.Position{}, fmt.Errorf("%w: ask for its position: %s", ErrLoggerUnavailable, rpc.Message(err))
	}
	switch {
	case state.GetState() == "failed":
		return change.Position{}, fmt.Errorf("%w: capture has failed: %s", ErrLoggerUnavailable, state.GetReason())
	case state.GetStopTime() != nil:
		return change.Position{}, fmt.Errorf("%w: capture is stopped, and a snapshot could not be followed: start it with `syncline logger start`", ErrLoggerUnavailable)
	}
	return positionOf(state, serverID)
}

// positionOf is where the change log of a state stands, if it is that of the server.
func positionOf(state *loggerv1.GetStateResponse, serverID string) (change.Position, error) {
	switch {
	case serverID != "" && state.GetServerId() != "" && state.GetServerId() != serverID:
		return change.Position{}, fmt.Errorf("%w: the logger captures server %s, but this inventory service reads server %s: give both the same PostgreSQL",
			ErrLogChanged, state.GetServerId(), serverID)
	case state.GetPosition().GetLsn() == 0:
		return change.Position{}, fmt.Errorf("%w: it has no position yet (state %s): try again when it captures", ErrLoggerUnavailable, state.GetState())
	}
	logID, err := change.ParseLogID(state.GetPosition().GetLogId())
	if err != nil {
		return change.Position{}, fmt.Errorf("%w: its position: %w", ErrLoggerUnavailable, err)
	}
	return change.Position{LogID: logID, LSN: change.LSN(state.GetPosition().GetLsn())}, nil
}

// fits tells whether the log holds point, that is whether following from it gives every transaction after it and misses
// none. before is where the log stood before the snapshot was begun. False without an error means: not yet.
func fits(ranges *loggerv1.GetRangesResponse, before change.Position, point change.LSN) (bool, error) {
	first, last := change.LSN(ranges.GetFirstLsn()), change.LSN(ranges.GetLastLsn())
	switch {
	case ranges.GetLogId() != before.LogID.String():
		return false, fmt.Errorf("%w: it was begun anew meanwhile (log id %s, before %s): open another one", ErrLogChanged, ranges.GetLogId(), before.LogID)
	case point < before.LSN:
		return false, fmt.Errorf("%w: the log stood at %s already, and the snapshot is at %s: the logger captures another server", ErrLogChanged, before.LSN, point)
	case first > point:
		return false, fmt.Errorf("%w: the log begins at %s, after the snapshot's %s: open another one", ErrLogChanged, first, point)
	}
	return last >= point, nil
}

// awaitLog waits until the change log has reached point, so that a follower can begin there. slow is called now and
// then while it has not. The returned error is that of fits, or why ctx has ended.
func awaitLog(ctx context.Context, logger loggerClient, before change.Position, point change.LSN, slow func(at change.LSN, trouble string)) error {
	began, moved := time.Now(), false
	tick := time.NewTicker(loggerPoll)
	defer tick.Stop()
	for {
		ranges, err := askRanges(ctx, logger)
		trouble := ""
		if err != nil {
			trouble = rpc.Message(err) // it may come back before the deadline
		} else if reached, err := fits(ranges, before, point); reached || err != nil {
			return err
		}
		if waited := time.Since(began); waited > barrierAfter {
			if !moved {
				moved = true
				emitBarrier(ctx, logger)
			}
			slow(change.LSN(ranges.GetLastLsn()), trouble)
		}
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-tick.C:
		}
	}
}

func askRanges(ctx context.Context, logger loggerClient) (*loggerv1.GetRangesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, loggerCallTimeout)
	defer cancel()
	return logger.GetRanges(ctx, &loggerv1.GetRangesRequest{})
}

// emitBarrier is a help, not a condition: whether the log moves is seen by its position.
func emitBarrier(ctx context.Context, logger loggerClient) {
	ctx, cancel := context.WithTimeout(ctx, loggerCallTimeout)
	defer cancel()
	_, _ = logger.EmitBarrier(ctx, &loggerv1.EmitBarrierRequest{})
}
