package logger

import (
	"context"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// opening is how far the open transaction is in the log. Its beginning waits until the first thing in it is known, for that may be an
// origin, and a transaction with one may be left out: then nothing of it is in the log.
type opening struct {
	waits  bool // the beginning is not in the log yet
	left   bool // changes are left out
	taken  bool // although they are, the transaction is in the log, for an announcement in it
	begin  block.Begin
	origin block.Origin // that by which it is left out
}

// begin begins a transaction. While transactions with an origin are captured it does not wait.
func (f *feed) begin(ctx context.Context) error {
	b := &f.decoder.Begin
	f.inside.Store(true)
	f.xid, f.origin = b.XID, false
	f.open = opening{waits: true, begin: block.Begin{CommitLSN: b.FinalLSN, CommitTime: change.Timestamp(b.CommitTime), XID: b.XID}}
	if f.mayLeaveOut() {
		return nil
	}
	return f.enter(ctx)
}

// mayLeaveOut tells whether the open transaction has to be left out if it has an origin.
//
// What the log holds already is fed as it was: it is compared there. That goes for the transaction inside which the log ends, too.
// Between the two lies only what was left out before, by the setting of then, and could not stand in the log any more.
func (f *feed) mayLeaveOut() bool {
	switch {
	case f.open.begin.CommitLSN < f.logged:
		return false
	case f.unfinished:
		return f.open.begin.XID != f.unfinishedXID
	}
	return !f.remote.Load()
}

// enter puts the beginning into the log.
func (f *feed) enter(ctx context.Context) error {
	f.open.waits = false
	b := &f.open.begin
	return inLog(f.appender.Begin(ctx, b.CommitLSN, b.CommitTime, b.XID))
}

// event comes before everything in a transaction but origins: it tells whether that is left out.
func (f *feed) event(ctx context.Context) (left bool, err error) {
	if f.open.waits {
		return false, f.enter(ctx)
	}
	return f.open.left, nil
}

// takeOrigin takes where the transaction first happened, or leaves the transaction out.
func (f *feed) takeOrigin(ctx context.Context, origin block.Origin) error {
	f.origin = true
	switch {
	case f.open.waits:
		f.open.waits, f.open.left, f.open.origin = false, true, origin
		return nil
	case f.open.left:
		f.open.origin = origin // Syncline's own comes second, and says more
		return nil
	}
	return inLog(f.appender.Origin(ctx, origin))
}

// takeIn takes a transaction into the log although its changes are left out: what it says of the captured tables must not be missing.
func (f *feed) takeIn(ctx context.Context) error {
	left, err := f.event(ctx)
	if !left || f.open.taken || err != nil {
		return err
	}
	f.open.taken = true
	if err := f.enter(ctx); err != nil {
		return err
	}
	return inLog(f.appender.Origin(ctx, f.open.origin))
}

// endLeftOut ends a transaction that was left out. Commits come in order, so nothing before its end is missing: the log may say so,
// and the primary need not keep the WAL for it.
func (f *feed) endLeftOut(ctx context.Context, end change.LSN) error {
	f.inside.Store(false)
	f.open = opening{}
	f.status.leftOut.Add(1)
	return f.keepalive(ctx, end, false)
}
