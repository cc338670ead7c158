package pusher

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// How much is kept of what has happened to pushes.
const (
	EventsMaxAge   = 30 * 24 * time.Hour
	EventsMaxCount = 1000 // of each push
)

const (
	// eventQueue bounds the events that wait to be written: what comes while the database is away for long is lost, and counted.
	eventQueue = 1024
	eventBatch = 256
	// eventPause is the pause after events could not be written, and eventFlush bounds how long a stopping service writes what waits.
	eventPause = time.Second
	eventFlush = 2 * time.Second
	// pruneInterval and pruneCount say when old events are removed.
	pruneInterval = time.Hour
	pruneCount    = 1000
	maxTextBytes  = 4096
)

// eventLog writes what happens to pushes off the path of those who tell it: nobody waits for it, and nobody fails because it cannot be
// written. What a user decides is written by store.write instead, in the transaction that does it.
type eventLog struct {
	pool     *pgxpool.Pool
	log      *slog.Logger
	maxAge   time.Duration
	maxCount int

	queue chan *event
	lost  atomic.Int32
}

func newEventLog(pool *pgxpool.Pool, log *slog.Logger) *eventLog {
	return &eventLog{pool: pool, log: log, maxAge: EventsMaxAge, maxCount: EventsMaxCount, queue: make(chan *event, eventQueue)}
}

// note takes an event to be written; it never waits.
func (l *eventLog) note(e *event) {
	e.at = time.Now()
	select {
	case l.queue <- e:
	default:
		l.lost.Add(1)
	}
}

// run writes what is noted until ctx ends, and removes what is old. What waits then is written by flush.
func (l *eventLog) run(ctx context.Context) {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	l.prune(ctx)
	for written := 0; ; {
		if written >= pruneCount {
			written = 0
			l.prune(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.prune(ctx)
		case first := <-l.queue:
			batch := l.batch(first)
			if !l.persist(ctx, batch) {
				l.giveBack(batch)
				return
			}
			written += len(batch)
		}
	}
}

// persist writes a batch, however long the database is away; false when ctx ends before.
func (l *eventLog) persist(ctx context.Context, batch []*event) bool {
	for warned := false; ; warned = true {
		err := l.write(ctx, batch)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		case !postgres.IsTransient(err):
			l.log.Warn("what happened to pushes could not be written", "events", len(batch), "error", err)
			l.lost.Add(int32(len(batch)))
			return true
		case !warned:
			l.log.Warn("what happened to pushes cannot be written; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(eventPause):
		}
	}
}

// batch takes what waits, and tells at its end how many were lost before.
func (l *eventLog) batch(first *event) []*event {
	list := []*event{first}
	for more := true; more && len(list) < eventBatch; {
		select {
		case e := <-l.queue:
			list = append(list, e)
		default:
			more = false
		}
	}
	if n := l.lost.Swap(0); n > 0 {
		list = append(list, &event{kind: kindLost, at: time.Now(), count: n, text: fmt.Sprintf("%d events could not be written in time", n)})
	}
	return list
}

// giveBack puts what could not be written where flush finds it, as far as there is room.
func (l *eventLog) giveBack(batch []*event) {
	for _, e := range batch {
		select {
		case l.queue <- e:
		default:
			return
		}
	}
}

// flush writes what waits when all who tell something have ended.
func (l *eventLog) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventFlush)
	defer cancel()
	for {
		select {
		case first := <-l.queue:
			if err := l.write(ctx, l.batch(first)); err != nil {
				l.log.Warn("the end of what happened to pushes could not be written", "error", err)
				return
			}
		default:
			return
		}
	}
}

func (l *eventLog) write(ctx context.Context, batch []*event) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error { return insertEvents(ctx, tx, batch...) })
}

// prune removes what is too old, and of each push what is beyond the number that is kept.
func (l *eventLog) prune(ctx context.Context) {
	_, err := l.pool.Exec(ctx, `DELETE FROM syncline.push_events WHERE at < now() - make_interval(secs => $1)
		OR id IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY push ORDER BY id DESC) AS nth FROM syncline.push_events) numbered WHERE nth > $2)`, l.maxAge.Seconds(), l.maxCount)
	if err != nil && ctx.Err() == nil {
		l.log.Warn("old events of pushes could not be removed", "error", err)
	}
}

// bounded makes a text, which may be another server's, one that is kept and stored: of bounded length, and without what PostgreSQL
// does not take.
func bounded(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > maxTextBytes {
		text = strings.ToValidUTF8(text[:maxTextBytes], "") + "…"
	}
	return text
}
