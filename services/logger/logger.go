// Package logger captures a primary's committed transactions into a durable, ordered change log and serves it. Every
// transaction that commits after the log's start is in it exactly once and whole, in commit order; followers are shown
// only what is durable in it; and PostgreSQL is told to forget WAL only once the log has it.
//
// One walsender decodes for all followers. What cannot be continued without a hole becomes a new log with a new id, of
// which followers learn, never a silent gap.
package logger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/logger/publish"
	"github.com/seed0419d559/syncline/services/logger/spool"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

// Service is a logger. New builds it and Run runs it.
type Service struct {
	loggerv1.UnimplementedLoggerServiceServer

	cfg       Config
	settings  *settings
	pub       atomic.Pointer[publish.Config] // of the settings
	remote    atomic.Bool                    // transactions with an origin are captured, by the settings
	log       *slog.Logger
	pooled    *pgxpool.Config
	status    status
	followers *followers
	sets      setList
	families  families
	sharing   sharing
	meters    *meters
	speeds    speeds
	heads     timeline // of the log's durable end
	wal       timeline // of the primary's WAL

	opened  atomic.Bool   // pool and changes are set
	pool    *pgxpool.Pool // for the service's own short statements
	changes *changelog.Log

	configuring sync.Mutex      // held while settings are read or changed
	publishing  sync.Mutex      // held while the publications are changed
	partitions  map[uint32]bool // by OID, those that followers were told of since the process began; guarded by publishing
	lookNow     chan struct{}   // holds one when the publications may have to change
	running     atomic.Pointer[running]
	spool       atomic.Pointer[spool.Spool] // of the last session; nil before the first

	// Used by the capture loop only.
	walsender uint32 // process id of the last session's walsender
	forgeries forgeries
	diverged  *discontinuity // the histories diverged: the next session begins a new log
	// wholeThrough is how far the log has to get until transactions are sent in pieces again, since when there was one that could not be;
	// 0 when there was none.
	wholeThrough change.LSN
	wholeSince   time.Time
}

// running is what others need of the session that captures now.
type running struct {
	publications [2]uint32 // OIDs
	end          context.CancelCauseFunc
}

// New builds a logger. It returns ErrConfig, or an error about the URL; it connects to nothing yet.
func New(cfg Config) (*Service, error) {
	pub, err := cfg.check()
	if err != nil {
		return nil, err
	}
	connection, err := postgres.Config(cfg.PostgresURL, applicationService)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong with the URL
	}
	pooled, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("configure connections: %w", err)
	}
	pooled.ConnConfig = connection
	pooled.MaxConns = 4
	pooled.MaxConnIdleTime = time.Minute
	// A barrier has to reach the WAL on disk, for only then is it sent; it need not wait for standbys.
	connection.RuntimeParams["synchronous_commit"] = "local"
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	s := &Service{
		cfg: cfg, settings: newSettings(cfg), log: log.With("service", "logger"), pooled: pooled, followers: newFollowers(cfg.MaxFollowers),
		lookNow: make(chan struct{}, 1),
	}
	s.pub.Store(&pub)
	s.remote.Store(cfg.LogRemoteChanges)
	s.forgeries.log, s.forgeries.status = s.log, &s.status
	s.status.set(PhaseStarting, "", "")
	if s.meters, err = newMeters(s); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	return s, nil
}

// Check looks whether capture can start, and returns a *SetupError with everything that a person has to mend. It changes
// nothing. With a change log in Dir, tables that cannot be captured are no error.
func (s *Service) Check(ctx context.Context) error {
	conn, err := postgres.Connect(ctx, s.cfg.PostgresURL, applicationCapture)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	defer disconnect(ctx, conn)
	known, err := readLineage(s.cfg.Dir)
	if err != nil {
		return err
	}
	var closed *SetupError // everything that is missing is told together
	if err := s.loadSettings(ctx, conn); err != nil && !errors.As(err, &closed) {
		return err
	}
	_, _, err = inspect(ctx, conn, s.cfg, *s.pub.Load(), known == nil)
	var setup *SetupError
	switch {
	case closed == nil:
		return err
	case errors.As(err, &setup):
		return &SetupError{Problems: append(closed.Problems, setup.Problems...)}
	case err != nil:
		return err
	}
	return closed
}

// Register adds the service to a server. Its calls are answered with UNAVAILABLE until Run has opened the change log.
func (s *Service) Register(r grpc.ServiceRegistrar) { loggerv1.RegisterLoggerServiceServer(r, s) }

// Run opens the change log, captures, and returns nil when ctx ends. It returns an error only when the change log cannot be
// opened: everything else is told by the state and tried again. At the end capture stops first; then what was appended
// becomes durable, is confirmed, and the change log is closed. The gRPC server has to be stopped before that.
func (s *Service) Run(ctx context.Context) error {
	pool, err := pgxpool.NewWithConfig(ctx, s.pooled) // it connects when it is first used
	if err != nil {
		return fmt.Errorf("configure connections: %w", err)
	}
	defer pool.Close()
	changes, err := changelog.Open(changelog.Options{
		Dir: s.cfg.Dir, Logger: s.log, // nothing is purged before the settings are known
		Stored: func(bytes int) {
			s.status.logBytes.Add(int64(bytes))
			s.meters.written(ctx, bytes)
		},
	})
	if err != nil {
		return fmt.Errorf("open change log in %s: %w", s.cfg.Dir, err)
	}
	s.pool, s.changes = pool, changes
	s.opened.Store(true)
	g, work := errgroup.WithContext(ctx)
	g.Go(func() error { return s.capture(work) })
	g.Go(func() error { return s.keepPublications(work) })
	g.Go(func() error { return s.watchServer(work) })
	g.Go(func() error { return s.saveFollowers(work) })
	g.Go(func() error { return s.sample(work) })
	err = g.Wait()
	if closing := changes.Close(); closing != nil {
		err = errors.Join(err, fmt.Errorf("close change log: %w", closing))
	}
	return err
}

// ready refuses calls before the change log is open.
func (s *Service) ready() error {
	if s.opened.Load() {
		if _, begun := s.changes.Meta(); begun {
			return nil
		}
	}
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	return rpc.Errorf(codes.Unavailable, ReasonNotReady, "the change log has not been begun yet: capture is %s %s", s.status.phase, s.status.reason)
}

// healthyAfter is how long a session has to last for the next failure to be retried at once again.
const healthyAfter = 30 * time.Second

// firstRetry is the time until the first new attempt; it doubles from one failure to the next.
const firstRetry = 100 * time.Millisecond

// capture runs one session after the other until ctx ends.
func (s *Service) capture(ctx context.Context) error {
	wait := firstRetry
	for {
		began := time.Now()
		err := s.attempt(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if errors.Is(err, errStopped) {
			s.rest(ctx)
			wait = firstRetry
			continue
		}
		if errors.Is(err, errWhole) || errors.Is(err, errPieces) {
			s.log.Info("capture begins anew", "reason", err)
			continue
		}
		v := s.judge(ctx, err)
		if time.Since(began) > healthyAfter {
			wait = firstRetry
		}
		pause := wait/2 + rand.N(wait)
		if v.slow {
			pause = s.cfg.FailedRetry
		}
		wait = min(2*wait, s.cfg.RetryMax)
		s.status.set(v.phase, v.code, "%s", v.reason)
		s.log.Warn("capture interrupted", "state", v.phase, "code", v.code, "reason", v.reason, "retry_in", pause)
		timer := time.NewTimer(pause)
		_, turned := s.settings.stopped()
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-turned:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Codes of what interrupts capture, besides those of SetupError.
const (
	CodeConnectionLost = "CONNECTION_LOST"
	CodeRefused        = "CONNECTION_REFUSED"
	CodeSlotInUse      = "SLOT_IN_USE"
	CodeLogBlocked     = "CHANGE_LOG_BLOCKED"
	CodeFenced         = "CHANGE_LOG_FENCED"
	CodeDiverged       = "HISTORY_DIVERGED"
	CodeRowTooLarge    = "ROW_TOO_LARGE"
	CodeProtocol       = "PROTOCOL"
	CodeFailed         = "FAILED"
)

// verdict is what an interruption means.
type verdict struct {
	phase, code, reason string
	slow                bool // only a person can mend it
}

func (s *Service) judge(ctx context.Context, err error) verdict {
	var setup *SetupError
	var large *RowTooLargeError
	var inLog logError
	switch {
	case errors.As(err, &setup):
		return verdict{PhaseFailed, setup.Code(), err.Error(), true}
	case errors.As(err, &large):
		return verdict{PhaseFailed, CodeRowTooLarge, err.Error(), true}
	case errors.Is(err, changelog.ErrDiverged):
		s.diverged = &discontinuity{code: newLogDiverged, text: err.Error()}
		return verdict{PhaseReconnecting, CodeDiverged, err.Error(), false}
	case errors.Is(err, changelog.ErrCorrupt):
		s.diverged = &discontinuity{code: newLogCorrupt, text: err.Error()}
		return verdict{PhaseReconnecting, newLogCorrupt, err.Error(), false}
	case errors.Is(err, changelog.ErrFenced):
		return verdict{PhaseReconnecting, CodeFenced, err.Error(), false}
	case errors.As(err, &inLog):
		return verdict{PhaseBlocked, CodeLogBlocked, fmt.Sprintf("the change log takes nothing: %v; the primary keeps the WAL meanwhile", err), false}
	case errors.Is(err, errReplaced), isPublicationMissing(err):
		s.diverged = &discontinuity{code: newLogPublications, text: "the publications were dropped and made again: changes in between were not captured"}
		return verdict{PhaseReconnecting, newLogPublications, err.Error(), false}
	case errors.Is(err, pgoutput.ErrUnknownMessage), errors.Is(err, errUnknownRelation):
		return verdict{PhaseFailed, CodeProtocol, err.Error(), true}
	case errors.Is(err, pgoutput.ErrMalformed), errors.Is(err, spool.ErrOrder), errors.Is(err, walsender.ErrStreamEnded), errors.Is(err, errSilent):
		return verdict{PhaseReconnecting, CodeConnectionLost, err.Error(), false}
	case postgres.Code(err) == "55006": // object in use
		return verdict{PhaseReconnecting, CodeSlotInUse, s.whoHolds(ctx, err), false}
	case postgres.IsTransient(err):
		return verdict{PhaseReconnecting, CodeConnectionLost, err.Error(), false}
	case postgres.Code(err) != "" && (postgres.Code(err)[:2] == "28" || postgres.Code(err) == "3D000"): // authorization, no such database
		return verdict{PhaseFailed, CodeRefused, err.Error(), true}
	}
	return verdict{PhaseFailed, CodeFailed, err.Error(), true}
}

// isPublicationMissing tells whether decoding met a time at which a publication did not exist.
func isPublicationMissing(err error) bool {
	const undefinedObject = "42704"
	return postgres.Code(err) == undefinedObject
}

// whoHolds adds to "slot is active" who the other one is.
func (s *Service) whoHolds(ctx context.Context, err error) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var who string
	query := `SELECT format('%s from %s, connected since %s', coalesce(nullif(a.application_name, ''), 'an unnamed client'),
			coalesce(host(a.client_addr), 'this host'), a.backend_start::timestamptz(0))
		FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1`
	if s.pool.QueryRow(ctx, query, s.cfg.Slot).Scan(&who) != nil {
		return err.Error()
	}
	return fmt.Sprintf("%v: it is held by %s; stop that one, or choose another slot with --slot", err, who)
}
