package applier

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	// eventQueue bounds the events that wait to be written: what comes while the database is away for long is lost, and counted.
	eventQueue = 1024
	eventBatch = 256
	// eventPause is the pause after the run log could not be written.
	eventPause = time.Second
	// eventFlush bounds how long a stopping applier writes what waits.
	eventFlush = 2 * time.Second
	// pruneInterval and pruneCount say when old events are removed.
	pruneInterval = time.Hour
	pruneCount    = 1000
	maxEventText  = 4096 // bytes
)

// runLog writes events off the path of those who tell them: nobody waits for it, and nobody fails because it cannot be written.
// What a user decides is written by store.write instead, in the transaction that does it.
type runLog struct {
	pool     *pgxpool.Pool
	log      *slog.Logger
	maxAge   time.Duration
	maxCount int // for each replication

	queue chan *event

	mu      sync.Mutex
	lost    int32
	changed chan struct{} // closed and replaced whenever events were written
}

func newRunLog(pool *pgxpool.Pool, config *Config) *runLog {
	return &runLog{
		pool: pool, log: config.Log, maxAge: config.EventsMaxAge, maxCount: config.EventsMaxCount,
		queue: make(chan *event, eventQueue), changed: make(chan struct{}),
	}
}

// note takes an event to be written; it never waits.
func (l *runLog) note(e *event) {
	e.at = time.Now()
	select {
	case l.queue <- e:
	default:
		l.lose(1)
	}
}

func (l *runLog) lose(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += int32(n)
}

// written returns a channel that is closed when events are written the next time.
func (l *runLog) written() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *runLog) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// run writes what is noted until ctx ends, and removes what is old. What waits then is written by flush.
func (l *runLog) run(ctx context.Context) {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	l.prune(ctx)
	sincePruned := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			sincePruned = 0
			l.prune(ctx)
		case first := <-l.queue:
			batch := l.batch(first)
			for warned := false; ; warned = true {
				err := l.write(ctx, batch)
				if err == nil {
					break
				}
				if !postgres.IsTransient(err) && ctx.Err() == nil {
					l.log.Warn("events could not be written to the run log", "events", len(batch), "error", err)
					l.lose(len(batch))
					break
				}
				if !warned {
					l.log.Warn("the run log cannot be written; it is tried again", "error", err)
				}
				select {
				case <-ctx.Done():
					l.giveBack(batch)
					return
				case <-time.After(eventPause):
				}
			}
			if sincePruned += len(batch); sincePruned >= pruneCount {
				sincePruned = 0
				l.prune(ctx)
			}
		}
	}
}

// batch takes what waits, and tells at its end how many were lost before.
func (l *runLog) batch(first *event) []*event {
	list := []*event{first}
	for len(list) < eventBatch {
		select {
		case e := <-l.queue:
			list = append(list, e)
			continue
		default:
		}
		break
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		list = append(list, &event{kind: kindLost, at: time.Now(), count: l.lost, text: fmt.Sprintf("%d events could not be written in time", l.lost)})
		l.lost = 0
	}
	return list
}

// giveBack puts what could not be written where flush finds it, as far as there is room.
func (l *runLog) giveBack(batch []*event) {
	for _, e := range batch {
		select {
		case l.queue <- e:
		default:
			return
		}
	}
}

// flush writes what waits when all who tell something have ended.
func (l *runLog) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventFlush)
	defer cancel()
	for {
		select {
		case first := <-l.queue:
			if err := l.write(ctx, l.batch(first)); err != nil {
				l.log.Warn("the end of the run log could not be written", "error", err)
				return
			}
			continue
		default:
		}
		return
	}
}

func (l *runLog) write(ctx context.Context, batch []*event) error {
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error { return insertEvents(ctx, tx, batch...) })
	if err == nil {
		l.wake()
	}
	return err
}

// prune removes what is too old, and of each replication what is beyond the number that is kept.
func (l *runLog) prune(ctx context.Context) {
	_, err := l.pool.Exec(ctx, `DELETE FROM syncline.events WHERE at < now() - make_interval(secs => $1)
		OR id IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY replication ORDER BY id DESC) AS nth FROM syncline.events) numbered WHERE nth > $2)`,
		l.maxAge.Seconds(), l.maxCount)
	if err == nil {
		_, err = l.pool.Exec(ctx, pruneRuns, l.maxAge.Seconds(), l.maxCount)
	}
	if err == nil {
		_, err = l.pool.Exec(ctx, pruneEdits, l.maxAge.Seconds(), min(l.maxCount, mostEdits))
	}
	if err != nil && ctx.Err() == nil {
		l.log.Warn("old events, runs and edits could not be removed", "error", err)
	}
}

// cleanText makes a text one that PostgreSQL stores, of bounded length.
func cleanText(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > maxEventText {
		text = strings.ToValidUTF8(text[:maxEventText], "") + "…"
	}
	return text
}

// write carries out what a user decides, and writes the event that tells it in the same transaction; do may clear the event's kind
// where there is nothing to tell. A run log that cannot be written stops nobody.
func (s *store) write(ctx context.Context, e *event, do func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := do(tx); err != nil || e.kind == "" {
			return err
		}
		err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error { return insertEvents(ctx, inner, e) }) // a savepoint
		if err != nil && !tx.Conn().IsClosed() {
			s.runLog.log.Warn("the run log could not be written", "replication", e.replication, "event", e.kind, "error", err)
			return nil
		}
		return err
	})
	if err == nil {
		s.runLog.wake()
	}
	return err //nolint:wrapcheck // it is what do returned, which says what it did
}
