package logger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/services/logger/spool"
)

// A transaction that is too large for the primary's logical_decoding_work_mem is sent in pieces while it runs. They wait in the spool
// until its commit comes, in the order of commits; then it is fed as one that comes whole. So the primary does not write it to its disk,
// and most of it has been sent when it commits. docs/adr/0027-streamed-transactions.md tells more.

// spoolDirectory is where in the directory of the change log open transactions are kept.
const spoolDirectory = "open"

var (
	// errWhole says that open transactions are not to be sent in pieces for now.
	errWhole = errors.New("an open transaction cannot be taken in pieces; it is taken whole when it has committed")
	// errPieces says that they can be sent in pieces again.
	errPieces = errors.New("open transactions are taken in pieces again")
)

// wholeAtLeast is how long they are not sent in pieces at least, once one was met that cannot be taken so: to change that, the server has to
// begin with the WAL of the oldest open transaction anew.
const wholeAtLeast = 10 * time.Minute

// streamed takes a message that concerns a transaction which is sent in pieces, and tells whether it is one.
func (f *feed) streamed(ctx context.Context, message []byte, at change.LSN) (bool, error) {
	frame, isFrame, err := pgoutput.DecodeFrame(message)
	switch {
	case err != nil:
		return true, err //nolint:wrapcheck // it says what it decoded
	case !isFrame && !f.spool.Inside():
		return false, nil
	case !isFrame:
		err = f.spool.Add(message, at)
		fault.Point(FaultSpooled)
		return true, f.spoolError(err, at)
	}
	switch frame.Kind {
	case pgoutput.FrameStart:
		f.inside.Store(true)
		err = f.spool.Start(frame.XID, frame.First)
	case pgoutput.FrameStop:
		f.inside.Store(false)
		err = f.spool.Stop()
	case pgoutput.FrameAbort:
		err = f.spool.Abort(frame.XID, frame.SubXID)
	case pgoutput.FrameCommit:
		return true, f.replay(ctx, frame)
	}
	return true, f.spoolError(err, at)
}

// spoolError says whose failure one of the spool is: what the server sent, or the disk of the change log.
func (f *feed) spoolError(err error, at change.LSN) error {
	switch {
	case errors.Is(err, spool.ErrWhole):
		return &wholeError{at, err.Error()}
	case err == nil, errors.Is(err, spool.ErrOrder), errors.Is(err, pgoutput.ErrMalformed):
		return err
	}
	return logError{err}
}

// wholeError is errWhole, with the place of the message that could not be kept.
type wholeError struct {
	at  change.LSN
	why string
}

func (e *wholeError) Error() string { return fmt.Sprintf("%v: %s", errWhole, e.why) }
func (e *wholeError) Unwrap() error { return errWhole }

// refused tells whether the server cannot decode an open transaction, which it may well be able to when that has ended: see spool.ErrWhole.
func refused(err error) bool {
	const internalErrors = "XX" // a class of SQLSTATE
	return strings.HasPrefix(postgres.Code(err), internalErrors)
}

// replay feeds a transaction that has committed.
func (f *feed) replay(ctx context.Context, frame pgoutput.Frame) error {
	t, err := f.spool.Commit(frame.XID)
	if err != nil {
		return f.spoolError(err, frame.Commit.CommitLSN)
	}
	defer t.Close()
	if t.Empty() {
		return f.keepalive(ctx, frame.Commit.EndLSN, false) // commits come in order, so nothing before its end is missing
	}
	f.decoder.Begin = pgoutput.Begin{FinalLSN: frame.Commit.CommitLSN, CommitTime: frame.Commit.CommitTime, XID: frame.XID}
	if err := f.begin(ctx); err != nil {
		return err
	}
	failed := false
	err = t.Replay(func(message []byte, at change.LSN) error {
		f.messages.Add(1)
		fault.Point(FaultReplayed)
		err := f.record(ctx, message, at)
		failed = err != nil
		return err
	})
	if failed {
		return err //nolint:wrapcheck // our own
	}
	if err != nil {
		return logError{err}
	}
	f.decoder.Commit = frame.Commit
	return f.commit(ctx)
}
