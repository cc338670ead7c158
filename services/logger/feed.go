package logger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/services/logger/publish"
	"github.com/seed0419d559/syncline/services/logger/spool"
)

const (
	// OriginPrefix marks the logical message with which an applier tells where a transaction first happened.
	OriginPrefix = "syncline.origin"
	// BarrierPrefix marks the logical message of EmitBarrier.
	BarrierPrefix = "syncline.barrier"
)

// markInterval is the shortest time between two marks. One that the server waits for may come sooner.
const (
	markInterval       = time.Second
	markWantedInterval = 100 * time.Millisecond
)

// feed turns the messages of one stream into records of the change log.
type feed struct {
	log         *changelog.Log
	appender    *changelog.Appender
	status      *status
	publication string // name of the first one
	forgeries   *forgeries
	remote      *atomic.Bool // transactions with an origin are captured

	spool     *spool.Spool // of transactions that have not ended
	decoder   pgoutput.Decoder
	relations map[uint32]relation
	// announcements are not among the relations.
	announcements announcements
	at            change.LSN // where the message that is fed stands in the WAL
	xid           uint32
	origin        bool // the open transaction has an origin
	open          opening
	// unfinished says that the log ends inside a transaction which the server has not sent again yet: a mark could not
	// stand there. Its xid is that of unfinishedXID, and it lies after logged, the end of what the log had when it was opened.
	unfinished    bool
	unfinishedXID uint32
	logged        change.LSN
	through       change.LSN // end of what was fed: a commit or a mark, or what the log had before
	marked        time.Time

	// inside says that the stream is between a Begin and its Commit, or in a piece of an open transaction. It is read by other goroutines.
	inside atomic.Bool
	// received is the furthest LSN that the server has shown, for its statistics only. It is read by other goroutines.
	received atomic.Uint64
	// messages counts what was received, and appending is set while a message is on its way into the log: that is how
	// a watcher tells a silent server from a log that blocks.
	messages  atomic.Uint64
	appending atomic.Bool
}

// relation is a version of a table's shape and its name in the log.
type relation struct {
	hash  change.RelationHash
	shape *change.Relation
}

// errUnknownRelation says that a change came for a table that was not described: the stream cannot be trusted.
var errUnknownRelation = errors.New("change of a table that the server has not described")

// logError is a failure of the change log, not of the primary.
type logError struct{ error }

func (e logError) Unwrap() error { return e.error }

// data takes one message of the output plugin, which stands at an LSN.
func (f *feed) data(ctx context.Context, message []byte, at change.LSN) error {
	if taken, err := f.streamed(ctx, message, at); taken || err != nil {
		return err
	}
	return f.record(ctx, message, at)
}

// record feeds one message of a transaction, or of none, that comes in its place in the order of commits.
func (f *feed) record(ctx context.Context, message []byte, at change.LSN) error {
	f.at = at
	kind, err := f.decoder.Decode(message)
	if err != nil {
		return err //nolint:wrapcheck // it says what it decoded
	}
	switch d := &f.decoder; kind {
	case pgoutput.KindInsert:
		return f.change(ctx, block.Insert, d.Insert.RelationOID, pgoutput.OldNone, pgoutput.Tuple{}, d.Insert.New)
	case pgoutput.KindUpdate:
		return f.change(ctx, block.Update, d.Update.RelationOID, d.Update.OldKind, d.Update.Old, d.Update.New)
	case pgoutput.KindDelete:
		return f.change(ctx, block.Delete, d.Delete.RelationOID, d.Delete.OldKind, d.Delete.Old, pgoutput.Tuple{})
	case pgoutput.KindBegin:
		return f.begin(ctx)
	case pgoutput.KindCommit:
		return f.commit(ctx)
	case pgoutput.KindRelation:
		return f.relation(ctx)
	case pgoutput.KindTruncate:
		return f.truncate(ctx)
	case pgoutput.KindMessage:
		return f.message(ctx)
	case pgoutput.KindOrigin:
		// A transaction that Syncline applied names its origin itself, and more exactly.
		return f.takeOrigin(ctx, block.Origin{Name: d.Origin.Name})
	case pgoutput.KindType, pgoutput.KindIgnored:
		return nil
	}
	return fmt.Errorf("feed change log: unexpected %v message", kind)
}

func inLog(err error) error {
	if err == nil {
		return nil
	}
	return logError{err}
}

func (f *feed) change(ctx context.Context, operation block.Operation, oid uint32, oldKind byte, old, row pgoutput.Tuple) error {
	if f.announcements.is(oid) {
		return f.announce(ctx, operation, row)
	}
	if left, err := f.event(ctx); left || err != nil {
		return err
	}
	r, ok := f.relations[oid]
	if !ok {
		return fmt.Errorf("feed change log: %w: OID %d", errUnknownRelation, oid)
	}
	if err := f.appender.Change(ctx, operation, r.hash, oldKind, old, row); err != nil {
		return inLog(err)
	}
	f.status.changes.Add(1)
	return nil
}

func (f *feed) truncate(ctx context.Context) error {
	if left, err := f.event(ctx); left || err != nil {
		return err
	}
	truncate := &f.decoder.Truncate
	hashes := make([]change.RelationHash, 0, len(truncate.RelationOIDs))
	for _, oid := range truncate.RelationOIDs {
		if f.announcements.is(oid) {
			continue
		}
		r, ok := f.relations[oid]
		if !ok {
			return fmt.Errorf("feed change log: %w: OID %d", errUnknownRelation, oid)
		}
		hashes = append(hashes, r.hash)
	}
	if len(hashes) == 0 {
		return nil
	}
	return inLog(f.appender.Truncate(ctx, hashes, truncate.Cascade, truncate.RestartIdentity))
}

// relation makes a table's new shape durable before its first use.
func (f *feed) relation(ctx context.Context) error {
	shape := f.decoder.Relation // the decoder makes a new list of columns each time
	if f.announcements.describe(&shape) {
		return nil
	}
	hash, err := f.log.PutRelation(&shape)
	if err != nil {
		return inLog(err)
	}
	f.relations[shape.OID] = relation{hash: hash, shape: &shape}
	return nil
}

func (f *feed) commit(ctx context.Context) error {
	c := &f.decoder.Commit
	if left, err := f.event(ctx); err != nil {
		return err
	} else if left && !f.open.taken {
		return f.endLeftOut(ctx, c.EndLSN)
	}
	if err := f.appender.Commit(ctx, c.CommitLSN, c.EndLSN, change.Timestamp(c.CommitTime), f.xid); err != nil {
		return inLog(err)
	}
	f.inside.Store(false)
	if c.EndLSN > f.through { // else the log had it already
		f.through, f.unfinished = c.EndLSN, false
	}
	f.status.transactions.Add(1)
	return nil
}

// message records a transactional message. One that is not transactional is delivered even when its transaction is rolled
// back, and stands in no order with commits: it is dropped. So is one that would be taken for the logger's own.
func (f *feed) message(ctx context.Context) error {
	m := &f.decoder.Message
	if !m.Transactional {
		return nil
	}
	if m.Prefix == publish.MessagePrefix {
		f.forgeries.dropped(f.xid, m.LSN, time.Now())
		return nil
	}
	if m.Prefix == OriginPrefix {
		if origin, err := parseOrigin(m.Content); err == nil {
			return f.takeOrigin(ctx, origin)
		}
		f.status.warn("a message with prefix " + OriginPrefix + " could not be read; it is passed on as an ordinary message")
	}
	if left, err := f.event(ctx); left || err != nil {
		return err
	}
	return inLog(f.appender.Message(ctx, m.Prefix, m.Content, m.LSN))
}

// parseOrigin reads what an applier wrote: where the transaction first happened. LSN and time are decimal strings, because
// JSON's numbers are not exact above 2^53.
func parseOrigin(content []byte) (block.Origin, error) {
	var raw struct {
		ServerID   string `json:"server_id"`
		LogID      string `json:"log_id"`
		LSN        string `json:"lsn"`
		CommitTime string `json:"commit_time"`
	}
	if err := json.Unmarshal(content, &raw); err != nil {
		return block.Origin{}, fmt.Errorf("read origin: %w", err)
	}
	id, err := change.ParseLogID(raw.LogID)
	if err != nil {
		return block.Origin{}, fmt.Errorf("read origin: %w", err)
	}
	lsn, errLSN := strconv.ParseUint(raw.LSN, 10, 64)
	commitTime, errTime := strconv.ParseInt(raw.CommitTime, 10, 64)
	if err := errors.Join(errLSN, errTime); err != nil || raw.ServerID == "" {
		return block.Origin{}, fmt.Errorf("read origin: server id %q: %w", raw.ServerID, err)
	}
	return block.Origin{
		ServerID:   raw.ServerID,
		Position:   change.Position{LogID: id, LSN: change.LSN(lsn)},
		CommitTime: change.Timestamp(commitTime),
	}, nil
}

// keepalive takes the end of WAL in a keepalive for a mark: everything that committed up to there and that is published
// has been fed. docs/adr/0002-keepalive-marks.md tells why that is so.
func (f *feed) keepalive(ctx context.Context, walEnd change.LSN, wanted bool) error {
	interval := markInterval
	if wanted {
		interval = markWantedInterval
	}
	if f.inside.Load() || f.unfinished || walEnd <= f.through || time.Since(f.marked) < interval {
		return nil
	}
	if err := f.appender.Mark(ctx, walEnd); err != nil {
		return inLog(err)
	}
	f.through, f.marked = walEnd, time.Now()
	return nil
}
