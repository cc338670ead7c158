package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// eventKind is what an event of the run log tells, as stored.
type eventKind string

const (
	kindCreated        eventKind = "created"
	kindUpdated        eventKind = "updated"
	kindStarted        eventKind = "started"
	kindStopped        eventKind = "stopped"
	kindDeleted        eventKind = "deleted"
	kindState          eventKind = "state"
	kindRetried        eventKind = "retried"
	kindFailed         eventKind = "failed"
	kindCopied         eventKind = "copied"
	kindResync         eventKind = "resync"
	kindPositionForced eventKind = "position_forced"
	kindSourceAccepted eventKind = "source_accepted"
	kindLost           eventKind = "lost"
	kindCompleted      eventKind = "completed"
	kindInterrupted    eventKind = "interrupted"
	kindQuarantined    eventKind = "quarantined"
	kindRetriedRows    eventKind = "unsynced_retried"
	kindDiscarded      eventKind = "unsynced_discarded"
	kindMendedRows     eventKind = "unsynced_mended"
	kindDropped        eventKind = "unsynced_dropped"
	kindPushAttached   eventKind = "push_attached"
	kindPushDetached   eventKind = "push_detached"
	kindScheduled      eventKind = "scheduled"
	kindMissed         eventKind = "missed"
	kindSkipped        eventKind = "skipped"
	kindTakenOver      eventKind = "taken_over"
)

var eventKinds = map[eventKind]applierv1.EventKind{
	kindCreated: applierv1.EventKind_EVENT_KIND_CREATED, kindUpdated: applierv1.EventKind_EVENT_KIND_UPDATED,
	kindStarted: applierv1.EventKind_EVENT_KIND_STARTED, kindStopped: applierv1.EventKind_EVENT_KIND_STOPPED,
	kindDeleted: applierv1.EventKind_EVENT_KIND_DELETED, kindState: applierv1.EventKind_EVENT_KIND_STATE,
	kindRetried: applierv1.EventKind_EVENT_KIND_RETRIED, kindFailed: applierv1.EventKind_EVENT_KIND_FAILED,
	kindCopied: applierv1.EventKind_EVENT_KIND_COPIED, kindResync: applierv1.EventKind_EVENT_KIND_RESYNC,
	kindPositionForced: applierv1.EventKind_EVENT_KIND_POSITION_FORCED, kindSourceAccepted: applierv1.EventKind_EVENT_KIND_SOURCE_ACCEPTED,
	kindLost: applierv1.EventKind_EVENT_KIND_LOST, kindCompleted: applierv1.EventKind_EVENT_KIND_COMPLETED,
	kindInterrupted: applierv1.EventKind_EVENT_KIND_INTERRUPTED, kindQuarantined: applierv1.EventKind_EVENT_KIND_QUARANTINED,
	kindRetriedRows: applierv1.EventKind_EVENT_KIND_UNSYNCED_RETRIED, kindDiscarded: applierv1.EventKind_EVENT_KIND_UNSYNCED_DISCARDED,
	kindMendedRows: applierv1.EventKind_EVENT_KIND_UNSYNCED_MENDED, kindDropped: applierv1.EventKind_EVENT_KIND_UNSYNCED_DROPPED,
	kindPushAttached: applierv1.EventKind_EVENT_KIND_PUSH_ATTACHED, kindPushDetached: applierv1.EventKind_EVENT_KIND_PUSH_DETACHED,
	kindScheduled: applierv1.EventKind_EVENT_KIND_SCHEDULED, kindMissed: applierv1.EventKind_EVENT_KIND_MISSED,
	kindSkipped: applierv1.EventKind_EVENT_KIND_SKIPPED, kindTakenOver: applierv1.EventKind_EVENT_KIND_TAKEN_OVER,
}

// The sides on which a fault can have its cause, as stored.
const (
	sideLocal  = "local"
	sideRemote = "remote"
)

var faultSides = map[string]applierv1.FaultSide{
	sideLocal: applierv1.FaultSide_FAULT_SIDE_LOCAL, sideRemote: applierv1.FaultSide_FAULT_SIDE_REMOTE,
}

// event is one entry of the run log.
type event struct {
	id          int64 // given when it is stored
	replication string
	at          time.Time
	kind        eventKind
	state       applierv1.State
	code, text  string
	side        string // "" where nothing went wrong
	position    change.Position
	hasPosition bool
	rows        int64
	tables      int32
	count       int32
}

// eventsLock is held by whoever writes to the run log until it commits: a reader who has seen an id has seen all before it.
const eventsLock = int64(0x73796e63_6576656e)

// insertEvents writes events; it belongs at the end of a transaction.
func insertEvents(ctx context.Context, tx eventWriter, events ...*event) error {
	if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", eventsLock); err != nil {
		return fmt.Errorf("write to the run log: %w", err)
	}
	batch := &pgx.Batch{}
	for _, e := range events {
		if e.at.IsZero() {
			e.at = time.Now()
		}
		var log, lsn *string
		if e.hasPosition {
			id, at := e.position.LogID.String(), e.position.LSN.String()
			log, lsn = &id, &at
		}
		state := ""
		if e.state != applierv1.State_STATE_UNSPECIFIED {
			state = e.state.String()
		}
		batch.Queue(`INSERT INTO syncline.events (replication, at, kind, state, code, message, side, log_id, lsn, rows, tables, count)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::pg_lsn, $10, $11, $12)`,
			e.replication, e.at, string(e.kind), state, e.code, cleanText(e.text), e.side, log, lsn, e.rows, e.tables, e.count)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write to the run log: %w", err)
	}
	return nil
}

const eventColumns = `id, replication, at, kind, state, code, message, side, coalesce(log_id || '@' || lsn::text, ''), rows, tables, count`

func scanEvent(row pgx.CollectableRow) (*event, error) {
	var e event
	var state, position string
	if err := row.Scan(&e.id, &e.replication, &e.at, &e.kind, &state, &e.code, &e.text, &e.side, &position, &e.rows, &e.tables, &e.count); err != nil {
		return nil, err
	}
	e.state = applierv1.State(applierv1.State_value[state])
	if e.hasPosition = position != ""; e.hasPosition {
		var err error
		if e.position, err = change.ParsePosition(position); err != nil {
			return nil, err
		}
	}
	return &e, nil
}

func (e *event) proto() *applierv1.Event {
	out := &applierv1.Event{
		Id: e.id, Replication: e.replication, Time: timestamppb.New(e.at), Kind: eventKinds[e.kind], State: e.state, Code: e.code, Text: e.text,
		Side: faultSides[e.side], Rows: e.rows, Tables: e.tables, Count: e.count,
	}
	if e.hasPosition {
		out.Position = positionProto(e.position)
	}
	return out
}

// eventFilter narrows the run log.
type eventFilter struct {
	replication string // all when ""
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
	rows, err := s.pool.Query(ctx, "SELECT "+eventColumns+` FROM syncline.events
		WHERE ($1 = '' OR replication = $1) AND ($2::timestamptz IS NULL OR at >= $2) AND `+order+" LIMIT $4", f.replication, f.since, f.after, f.limit)
	if err != nil {
		return nil, fmt.Errorf("read the run log: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read the run log: %w", err)
	}
	return list, nil
}

// recent returns the newest events of each kind and replication that a status is made of, the oldest first.
func (s *store) recent(ctx context.Context) (map[string][]*event, error) {
	rows, err := s.pool.Query(ctx, "SELECT "+eventColumns+` FROM (
		SELECT e.*, row_number() OVER (PARTITION BY e.replication, e.kind = 'state' ORDER BY e.id DESC) AS nth
		FROM syncline.events e JOIN syncline.replications r ON r.name = e.replication AND e.at >= r.created_at
		WHERE e.kind IN ('state', 'retried', 'failed')) newest WHERE nth <= $1 ORDER BY id`, keptStates)
	if err != nil {
		return nil, fmt.Errorf("read the run log: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read the run log: %w", err)
	}
	of := map[string][]*event{}
	for _, e := range list {
		of[e.replication] = append(of[e.replication], e)
	}
	return of, nil
}
