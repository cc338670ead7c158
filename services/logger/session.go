package logger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/services/logger/publish"
	"github.com/seed0419d559/syncline/services/logger/spool"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

// Names under which the sessions show in pg_stat_activity.
const (
	applicationCapture = "syncline logger"
	applicationCatalog = "syncline logger catalog"
	applicationService = "syncline logger service"
)

// Fault points, each between two durable steps. FaultReceived to FaultReplayed are passed with every message.
const (
	FaultPublished = "logger/published" // the publications are made, the slot is not
	FaultSlotMade  = "logger/slot-made" // the slot is made, the change log is not reset
	FaultLogReset  = "logger/log-reset" // the change log is reset, where its content will come from is not recorded
	FaultReceived  = "logger/received"  // a message was received, nothing is appended
	FaultAppended  = "logger/appended"  // a message was appended, nothing needs to be durable yet
	FaultSpooled   = "logger/spooled"   // a message of an open transaction was kept
	FaultReplayed  = "logger/replayed"  // a message of a transaction that was kept is about to be appended; some may be, and may be durable
	FaultDurable   = "logger/durable"   // something new is durable, it is not confirmed to the slot
	FaultConfirmed = "logger/confirmed" // it is confirmed
)

// session connects to the primary, makes sure that what it delivers continues the change log, and captures until
// something fails or ctx ends. The session's steps are durable in this order: publications, slot, log, lineage, blocks,
// the slot's confirmed position; a crash between any two of them leaves what the next session continues from.
func (s *Service) session(ctx context.Context) error {
	ctx, span := tracer.Start(ctx, "logger.session", trace.WithNewRoot())
	defer span.End()
	conn, err := s.connect(ctx, applicationCapture)
	if err != nil {
		return err
	}
	defer disconnect(ctx, conn)
	if err := s.within(ctx, func(ctx context.Context) error { return s.readSettings(ctx, conn) }); err != nil {
		return err
	}
	if since, _ := s.settings.stopped(); !since.IsZero() {
		return errStopped
	}
	meta, hasLog := s.changes.Meta()
	var server server
	err = s.within(ctx, func(ctx context.Context) error {
		if server, _, err = inspect(ctx, conn, s.cfg, *s.pub.Load(), !hasLog); err != nil {
			return err
		}
		return s.freeSlot(ctx, conn, server.slot)
	})
	if err != nil {
		return err
	}
	tables, err := s.publications(ctx, conn)
	if err != nil {
		return err
	}
	fault.Point(FaultPublished)

	ws, now, broken, err := s.compare(ctx, meta, hasLog, server.slot, tables.OIDs)
	if err != nil {
		return err
	}
	defer ws.Close() //nolint:errcheck // the session is over, whatever it says
	if broken != nil {
		if err := s.newLog(ctx, conn, ws, server.slot, now, broken); err != nil {
			return err
		}
	}
	appender, err := s.changes.Appender(ctx)
	if err != nil {
		return logError{err}
	}
	defer appender.Close()
	span.SetAttributes(attribute.String("syncline.log_id", s.changes.Head().Position.LogID.String()))
	pieces := s.inPieces(appender.Tail().Through)
	err = s.within(ctx, func(ctx context.Context) error {
		return ws.Start(ctx, s.cfg.Slot, s.pub.Load().Names(), server.version, pieces)
	})
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.running.Store(&running{publications: tables.OIDs, end: end})
	defer s.running.Store(nil)
	err = s.stream(ctx, ws, appender, pieces)
	if cause := context.Cause(ctx); errors.Is(cause, errReplaced) {
		return cause //nolint:wrapcheck // our own
	}
	return err
}

// compare opens the walsender session and tells whether what the slot delivers continues the log; if not, why. When it
// does, the lineage is up to date on return.
func (s *Service) compare(ctx context.Context, meta changelog.Meta, hasLog bool, slot slot, publications [2]uint32) (ws *walsender.Conn, now lineage, broken *discontinuity, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	if ws, err = walsender.Open(ctx, s.cfg.PostgresURL, applicationCapture, int(s.cfg.MaxRowBytes)+messageOverhead); err != nil {
		return nil, now, nil, err //nolint:wrapcheck // it says what failed
	}
	defer func() {
		if err != nil {
			_ = ws.Close()
		}
	}()
	if err = ws.UseMemory(ctx, s.cfg.DecodingMemory); err != nil {
		return nil, now, nil, err //nolint:wrapcheck // it says what failed
	}
	system, err := ws.Identify(ctx)
	if err != nil {
		return nil, now, nil, err //nolint:wrapcheck // it says what failed
	}
	now = lineage{LogID: meta.LogID.String(), System: system.Identifier, Database: system.Database, Timeline: system.Timeline, Publications: publications}
	c := continuation{
		empty: !hasLog, logID: now.LogID, through: s.changes.Head().Position.LSN, now: now, flushed: system.Flushed, slot: slot,
	}
	if c.history, err = ws.History(ctx, system.Timeline); err != nil {
		return nil, now, nil, err //nolint:wrapcheck // it says what failed
	}
	if c.known, err = readLineage(s.cfg.Dir); err != nil {
		return nil, now, nil, logError{err}
	}
	if broken = c.broken(); s.diverged != nil {
		broken = s.diverged
	}
	if broken == nil && *c.known != now {
		if err = writeLineage(s.cfg.Dir, now); err != nil {
			return nil, now, nil, logError{err}
		}
	}
	return ws, now, broken, nil
}

// within bounds a step in which the server only has to answer: a network that has gone silent must not stop us for ever.
func (s *Service) within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	return step(ctx)
}

// publicationTimeout bounds one look at the catalog with the changes that follow from it. Each change is committed by itself,
// so what is broken off has got further than the time before.
func (s *Service) publicationTimeout() time.Duration { return s.cfg.SilenceLimit + 5*s.cfg.LockTimeout }

func (s *Service) connect(ctx context.Context, application string) (conn *pgx.Conn, err error) {
	err = s.within(ctx, func(ctx context.Context) error {
		conn, err = postgres.Connect(ctx, s.cfg.PostgresURL, application)
		return err //nolint:wrapcheck // it says what failed
	})
	return conn, err
}

// disconnect closes a connection, also when ctx has ended. Nothing depends on how that goes.
func disconnect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// freeSlot ends the walsender of this logger's last session if it still holds the slot: after a network break the server
// may notice only after wal_sender_timeout that nobody listens.
func (s *Service) freeSlot(ctx context.Context, conn *pgx.Conn, slot slot) error {
	if !slot.active || s.walsender == 0 || slot.pid != s.walsender {
		return nil
	}
	if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1, 5000)", slot.pid); err != nil {
		return fmt.Errorf("end the walsender of the last session: %w", err)
	}
	return nil
}

// publications creates what is missing and brings the publications in line.
func (s *Service) publications(ctx context.Context, conn *pgx.Conn) (publish.State, error) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.publicationTimeout())
	defer cancel()
	if err := publish.Prepare(ctx, conn, *s.pub.Load()); err != nil {
		return publish.State{}, err
	}
	tables, err := publish.Reconcile(ctx, conn, *s.pub.Load())
	if err != nil {
		return publish.State{}, err
	}
	s.announcePartitions(ctx, conn, tables)
	s.status.setTables(tables)
	guarded, err := publish.Guard(ctx, conn, *s.pub.Load())
	switch {
	case err != nil:
		s.log.Warn("no event trigger guards the published tables", "error", err)
	case !guarded:
		s.log.Info("a table that loses its identity is noticed within "+s.cfg.CatalogInterval.String()+"; until then PostgreSQL refuses UPDATE and DELETE on it. "+
			"A superuser as the logger's role closes that gap with an event trigger", "role", conn.Config().User)
	}
	return tables, nil
}

// newLog begins a new incarnation of the change log at a new slot. The old slot goes: what it would deliver proves nothing
// for a log whose followers have to begin anew in any case.
func (s *Service) newLog(ctx context.Context, conn *pgx.Conn, ws *walsender.Conn, old slot, now lineage, why *discontinuity) error {
	if old.exists {
		if err := s.within(ctx, func(ctx context.Context) error { return ws.DropSlot(ctx, s.cfg.Slot) }); err != nil {
			return err
		}
	}
	start, err := s.createSlot(ctx, conn, ws)
	if err != nil {
		return err
	}
	fault.Point(FaultSlotMade)
	var id change.LogID
	rand.Read(id[:])
	meta := changelog.Meta{
		LogID: id, Start: start, SystemIdentifier: now.System, Timeline: now.Timeline, Database: now.Database, Slot: s.cfg.Slot,
	}
	if err := s.changes.Reset(ctx, meta); err != nil {
		return logError{err}
	}
	fault.Point(FaultLogReset)
	now.LogID = id.String()
	if err := writeLineage(s.cfg.Dir, now); err != nil {
		return logError{err}
	}
	s.diverged = nil
	first := why.code == newLogFirst && !old.exists
	level := slog.LevelWarn
	if first {
		level = slog.LevelInfo
	}
	s.log.Log(ctx, level, "began a new change log", "log_id", id, "start", start, "code", why.code, "reason", why.text)
	if !first {
		s.status.warn(fmt.Sprintf("%s: change log %s was begun at %s because %s; every replica has to be copied anew",
			why.code, id, time.Now().UTC().Format(time.RFC3339), why.text))
	}
	return nil
}

// createSlot waits as long as the server does; the state tells meanwhile for which transactions that is.
func (s *Service) createSlot(ctx context.Context, conn *pgx.Conn, ws *walsender.Conn) (change.LSN, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := s.watchCreation(watch, conn); err != nil {
			cancel(err) // the server does not answer any more
		}
	})
	start, err := ws.CreateSlot(ctx, s.cfg.Slot)
	stop()
	watching.Wait()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return 0, cause //nolint:wrapcheck // it says what failed
	}
	return start, err //nolint:wrapcheck // it says what failed
}

// watchCreation tells in the state for which transactions the creation of the slot waits, until ctx ends.
func (s *Service) watchCreation(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.status.set(PhaseStarting, "", "")
			return nil
		case <-tick.C:
		}
		writers, err := s.writers(ctx, conn)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return err
		case len(writers) > 0:
			s.status.set(PhaseStarting, "WAITS_FOR_TRANSACTIONS", "the slot is made when the transactions that write now have ended: %s", strings.Join(writers, ", "))
		}
	}
}

// writers names some transactions that write.
func (s *Service) writers(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	rows, err := conn.Query(ctx, `
		SELECT 'pid ' || pid || ' (' || usename || ', ' || application_name || ', since ' || xact_start::timestamptz(0) || ')'
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		UNION ALL SELECT 'prepared transaction ' || gid || ' (' || owner || ', since ' || prepared::timestamptz(0) || ')' FROM pg_prepared_xacts
		LIMIT 5`)
	if err != nil {
		return nil, fmt.Errorf("look for running transactions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for running transactions: %w", err)
	}
	return list, nil
}

// errReplaced says that the publications are no longer those with which the session began.
var errReplaced = errors.New("the publications were dropped and made again")

// stream receives until something fails or ctx ends. At the end of ctx it waits a little for what was appended to become
// durable, and confirms it.
func (s *Service) stream(ctx context.Context, ws *walsender.Conn, appender *changelog.Appender, pieces bool) error {
	s.walsender = ws.PID()
	tail := appender.Tail()
	open, err := spool.New(filepath.Join(s.cfg.Dir, spoolDirectory))
	if err != nil {
		return logError{err}
	}
	s.spool.Store(open)
	defer open.Close()
	f := &feed{
		log: s.changes, spool: open, appender: appender, status: &s.status, relations: make(map[uint32]relation),
		publication: s.pub.Load().Name, forgeries: &s.forgeries, remote: &s.remote,
		through: tail.Through, logged: tail.Through, unfinished: tail.Open, unfinishedXID: tail.XID,
	}
	c := &confirmer{ws: ws, feed: f, appender: appender, status: &s.status, wanted: make(chan struct{}, 1)}
	s.status.heard()
	s.status.confirmed.Store(0) // what the last session confirmed says nothing about this slot
	s.status.set(PhaseCapturing, "", "")
	s.log.Info("capturing", "slot", s.cfg.Slot, "position", s.changes.Head().Position, "walsender", ws.PID())

	g, work := errgroup.WithContext(ctx)
	interrupt := context.AfterFunc(work, ws.Interrupt)
	defer interrupt()
	g.Go(func() error { return s.receive(work, ws, f, c, pieces) })
	g.Go(func() error { return c.run(work) })
	g.Go(func() error { return s.listen(work, ws, f) })
	err = g.Wait()
	if whole := (*wholeError)(nil); errors.As(err, &whole) {
		s.wholeThrough, s.wholeSince = max(whole.at, change.LSN(f.received.Load()), appender.Durable())+1, time.Now()
	}
	if ctx.Err() != nil {
		c.finish(context.WithoutCancel(ctx))
	}
	return err
}

// receive feeds the change log with what the server sends; pieces says how it sends large transactions.
func (s *Service) receive(ctx context.Context, ws *walsender.Conn, f *feed, c *confirmer, pieces bool) error {
	for {
		message, err := ws.Receive()
		if ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the end was asked for
		}
		f.messages.Add(1)
		var large *walsender.TooLargeError
		switch {
		case errors.As(err, &large):
			if err := s.tooLarge(ctx, f, large); err != nil {
				return err
			}
			continue
		case err != nil && pieces && refused(err):
			return &wholeError{change.LSN(f.received.Load()), err.Error()}
		case err != nil:
			return err //nolint:wrapcheck // it says what failed
		case message.Data == nil && !pieces && !f.inside.Load() && s.inPieces(f.through):
			return errPieces
		}
		f.received.Store(max(f.received.Load(), uint64(message.WALEnd)))
		f.appending.Store(true)
		if message.Data != nil {
			fault.Point(FaultReceived)
			err = f.data(ctx, message.Data, message.WALStart)
			fault.Point(FaultAppended)
		} else {
			err = f.keepalive(ctx, message.WALEnd, message.ReplyRequested)
		}
		f.appending.Store(false)
		if err != nil {
			return err
		}
		if message.ReplyRequested {
			c.reply()
		}
	}
}

// inPieces tells whether large transactions are to be sent in pieces, when the log has got so far: not while there may be one ahead that
// could not be taken so.
func (s *Service) inPieces(through change.LSN) bool {
	return through >= s.wholeThrough && (s.wholeThrough == 0 || time.Since(s.wholeSince) >= wholeAtLeast)
}

// tooLarge fails, naming the row, unless its table is left out by the configuration: the WAL from before the table was taken
// out of the publication still holds it. Only the message that would not fit is passed over then, in plain sight.
func (s *Service) tooLarge(ctx context.Context, f *feed, large *walsender.TooLargeError) error {
	if f.spool.Inside() {
		return &wholeError{large.WALStart, "a row in it is too large"} // it may be rolled back yet, or its table left out
	}
	if f.open.left {
		if _, err := io.Copy(io.Discard, large.Body); err != nil {
			return fmt.Errorf("pass over a row: %w", err)
		}
		return nil
	}
	row, oid := f.describe(large.Body)
	if oid != 0 {
		excluded, err := publish.Excluded(ctx, s.pool, *s.pub.Load(), oid)
		if err != nil {
			return err //nolint:wrapcheck // it says what failed
		}
		if excluded {
			if _, err := io.Copy(io.Discard, large.Body); err != nil {
				return fmt.Errorf("pass over a row: %w", err)
			}
			s.status.warn(fmt.Sprintf("not captured, because its table is excluded and it is larger than --max-row-bytes: %s", row))
			return nil
		}
	}
	return &RowTooLargeError{Row: row, Bytes: large.Bytes, Limit: s.cfg.MaxRowBytes}
}

// RowTooLargeError says that a row event is larger than the configured limit. Nothing of its transaction is in the log.
type RowTooLargeError struct {
	Row          string // what happened, table and key
	Bytes, Limit int64
}

func (e *RowTooLargeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, more than the limit of %d: raise --max-row-bytes, or leave the table out with --exclude-table",
		e.Row, e.Bytes, e.Limit)
}
