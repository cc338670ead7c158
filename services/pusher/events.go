package pusher

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// eventKind is what an event tells, as stored.
type eventKind string

const (
	kindCreated     eventKind = "created"
	kindUpdated     eventKind = "updated"
	kindStarted     eventKind = "started"
	kindStopped     eventKind = "stopped"
	kindDeleted     eventKind = "deleted"
	kindAttached    eventKind = "attached"
	kindRetried     eventKind = "retried"
	kindFailed      eventKind = "failed"
	kindReplication eventKind = "replication"
	kindLost        eventKind = "lost"
)

var eventKinds = map[eventKind]pushv1.PushEventKind{
	kindCreated: pushv1.PushEventKind_PUSH_EVENT_KIND_CREATED, kindUpdated: pushv1.PushEventKind_PUSH_EVENT_KIND_UPDATED,
	kindStarted: pushv1.PushEventKind_PUSH_EVENT_KIND_STARTED, kindStopped: pushv1.PushEventKind_PUSH_EVENT_KIND_STOPPED,
	kindDeleted: pushv1.PushEventKind_PUSH_EVENT_KIND_DELETED, kindAttached: pushv1.PushEventKind_PUSH_EVENT_KIND_ATTACHED,
	kindRetried: pushv1.PushEventKind_PUSH_EVENT_KIND_RETRIED, kindFailed: pushv1.PushEventKind_PUSH_EVENT_KIND_FAILED,
	kindReplication: pushv1.PushEventKind_PUSH_EVENT_KIND_REPLICATION, kindLost: pushv1.PushEventKind_PUSH_EVENT_KIND_LOST,
}

// event is one thing that has happened to a push.
type event struct {
	id         int64 // given when it is stored
	push       string
	at         time.Time
	kind       eventKind
	code, text string
	side       applierv1.FaultSide // unspecified where nothing went wrong
	state      applierv1.State     // of the target's replication; unspecified elsewhere
	position   *changev1.Position  // nil for none
	count      int32
}

// eventsLock is held by whoever writes events until it commits: a reader who has seen an id has seen all before it.
const eventsLock = int64(0x73796e63_70757368)

// insertEvents writes events; it belongs at the end of a transaction.
func insertEvents(ctx context.Context, tx pgx.Tx, events ...*event) error {
	if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", eventsLock); err != nil {
		return fmt.Errorf("write what happened to pushes: %w", err)
	}
	batch := &pgx.Batch{}
	for _, e := range events {
		if e.at.IsZero() {
			e.at = time.Now()
		}
		var logID, lsn *string
		if e.position != nil {
			id, at := bounded(e.position.GetLogId()), change.LSN(e.position.GetLsn()).String()
			logID, lsn = &id, &at
		}
		batch.Queue("INSERT INTO syncline.push_events (push, at, kind, code, message, side, state, log_id, lsn, count) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::pg_lsn, $10)",
			e.push, e.at, string(e.kind), bounded(e.code), bounded(e.text), e.side.String(), e.state.String(), logID, lsn, e.count)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write what happened to pushes: %w", err)
	}
	return nil
}

func scanEvent(row pgx.CollectableRow) (*event, error) {
	var e event
	var side, state, logID, lsn string
	if err := row.Scan(&e.id, &e.push, &e.at, &e.kind, &e.code, &e.text, &side, &state, &logID, &lsn, &e.count); err != nil {
		return nil, err
	}
	e.side, e.state = applierv1.FaultSide(applierv1.FaultSide_value[side]), applierv1.State(applierv1.State_value[state])
	if logID != "" {
		at, err := change.ParseLSN(lsn)
		if err != nil {
			return nil, err
		}
		e.position = &changev1.Position{LogId: logID, Lsn: uint64(at)}
	}
	return &e, nil
}

func (e *event) proto() *pushv1.PushEvent {
	return &pushv1.PushEvent{
		Id: e.id, Push: e.push, Time: timestamppb.New(e.at), Kind: eventKinds[e.kind], Code: e.code, Text: e.text, Side: e.side, ReplicationState: e.state, Position: e.position, Count: e.count,
	}
}

// eventFilter narrows the events.
type eventFilter struct {
	push        string // all when ""
	since       *time.Time
	after       int64 // in the direction of reading; 0 is the beginning
	newestFirst bool
	limit       int
}

func (s *store) events(ctx context.Context, f eventFilter) ([]*event, error) {
	order := "id > $3 ORDER BY id"
	if f.newestFirst {
		order = "($3 = 0 OR id < $3) ORDER BY id DESC"
	}
	rows, err := s.pool.Query(ctx, `SELECT id, push, at, kind, code, message, side, state, coalesce(log_id, ''), coalesce(lsn::text, ''), count FROM syncline.push_events
		WHERE ($1 = '' OR push = $1) AND ($2::timestamptz IS NULL OR at >= $2) AND `+order+" LIMIT $4", f.push, f.since, f.after, f.limit)
	if err != nil {
		return nil, fmt.Errorf("read what happened to pushes: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read what happened to pushes: %w", err)
	}
	return list, nil
}

// worthTelling is true for the 1st, 2nd, 4th, 8th, … of faults that are all the same.
func worthTelling(n int32) bool { return bits.OnesCount32(uint32(n)) == 1 }
