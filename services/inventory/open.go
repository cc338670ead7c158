package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	// reportEvery is how often the client is told what is being waited for.
	reportEvery = 500 * time.Millisecond
	// askTimeout bounds one question of the observing session.
	askTimeout = 5 * time.Second
	// slotAttempts is how often a slot is made when its snapshot is too large: more transactions between the oldest running
	// and the newest one than PostgreSQL can hold in a snapshot. The next attempt meets others.
	slotAttempts = 10
	// settlePoll is the shortest pause between two looks at transactions that are committing; it doubles up to settleSlow.
	settlePoll, settleSlow = time.Millisecond, 50 * time.Millisecond
)

// errNotInTime is the cause with which the context of an opening ends.
var errNotInTime = errors.New("not ready in time")

// errSilent is the cause with which the context of a question ends.
var errSilent = fmt.Errorf("%w: it has not answered for %v", ErrUnavailable, askTimeout)

// opening makes one snapshot.
type opening struct {
	url      string
	serverID string
	logger   loggerClient
	// report tells the client what is being waited for; it never blocks.
	report func(reason string, writers []writer)

	observer *pgx.Conn // looks at what is running; never imports the snapshot
	reported time.Time
}

// opened is a snapshot that may be read.
type opened struct {
	keeper   *pgconn.PgConn // a transaction that sees the snapshot; as long as it lives others can import it
	seen     string         // pg_current_snapshot() in the keeper
	exported string
	position change.Position
}

// run makes a snapshot and finds its position. Nobody reads a row by the snapshot before run has returned. When it fails, or
// ctx ends, nothing is left behind.
func (o *opening) run(ctx context.Context) (opened, error) {
	before, err := logPosition(ctx, o.logger, o.serverID)
	if err != nil {
		return opened{}, o.failure(ctx, "the logger to answer", err)
	}
	if err := fault.Error(FaultPositionTaken); err != nil {
		return opened{}, err
	}
	if o.observer, err = connect(ctx, o.url); err != nil {
		return opened{}, o.failure(ctx, "PostgreSQL to answer", err)
	}
	defer func() { closeSession(o.observer.PgConn()) }()
	if err := checkServer(ctx, o.observer); err != nil {
		return opened{}, o.failure(ctx, "PostgreSQL to answer", err)
	}
	s, err := o.makeSlot(ctx)
	if err != nil {
		return opened{}, err
	}
	result, err := o.keep(ctx, s)
	s.drop(ctx)
	if err != nil {
		return opened{}, err
	}
	if err := o.follow(ctx, before, s.point); err != nil {
		closeSession(result.keeper)
		return opened{}, err
	}
	result.position = change.Position{LogID: before.LogID, LSN: s.point}
	return result, nil
}

// follow waits until the change log can be followed from point.
func (o *opening) follow(ctx context.Context, before change.Position, point change.LSN) error {
	if err := fault.Error(FaultSlotDropped); err != nil {
		return err
	}
	err := awaitLog(ctx, o.logger, before, point, func(at change.LSN, trouble string) {
		reason := fmt.Sprintf("the change log to reach %s; it is at %s", point, at)
		if trouble != "" {
			reason = "the logger to answer: " + trouble
		}
		if o.due() {
			o.report(reason, nil)
		}
	})
	if err != nil {
		return o.failure(ctx, fmt.Sprintf("the change log to reach %s", point), fmt.Errorf("open snapshot: %w", err))
	}
	return fault.Error(FaultLogReached)
}

// makeSlot creates the temporary slot and reports the writers that it waits for.
func (o *opening) makeSlot(ctx context.Context) (slot, error) {
	for attempt := 1; ; attempt++ {
		s, err := o.trySlot(ctx)
		if err == nil || attempt == slotAttempts || postgres.Code(err) != codeSerialization {
			return s, err
		}
	}
}

func (o *opening) trySlot(ctx context.Context) (slot, error) {
	conn, err := connectWalsender(ctx, o.url, o.observer.Config().User)
	if err != nil {
		return slot{}, o.failure(ctx, "PostgreSQL to answer", err)
	}
	type answer struct {
		slot slot
		err  error
	}
	// The creation does not end with ctx by itself: what holds it up is asked for first.
	creating, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	created := make(chan answer, 1)
	go func() {
		s, err := createSlot(creating, conn)
		created <- answer{s, err}
	}()
	abandon := func() {
		cancel()
		<-created
		closeSession(conn)
	}

	var waiting waitList
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case a := <-created:
			if a.err != nil {
				closeSession(conn)
				return slot{}, slotError(ctx, a.err, o.observer.Config().User)
			}
			return a.slot, nil
		case <-tick.C:
			writers, err := o.slotWaitsFor(ctx, &waiting, conn.PID())
			if err != nil {
				abandon()
				return slot{}, fmt.Errorf("open snapshot: %w", err)
			}
			o.report("transactions that were writing when the snapshot began", writers)
		case <-ctx.Done():
			cause := ended(ctx)
			if errors.Is(cause, errNotInTime) {
				writers, _ := o.slotWaitsFor(ctx, &waiting, conn.PID()) // without their names it is still an answer
				cause = blocked("PostgreSQL waits for transactions that were writing when the snapshot began", writers)
			}
			abandon()
			return slot{}, cause
		}
	}
}

// keep imports the slot's snapshot into a session of its own and waits until it may be read.
func (o *opening) keep(ctx context.Context, s slot) (_ opened, err error) {
	if err := fault.Error(FaultSlotMade); err != nil {
		return opened{}, err
	}
	conn, err := connect(ctx, o.url)
	if err != nil {
		return opened{}, o.failure(ctx, "PostgreSQL to answer", err)
	}
	keeper := conn.PgConn()
	defer func() {
		if err != nil {
			closeSession(keeper)
		}
	}()
	seen, err := importSnapshot(ctx, keeper, s.exported)
	if err != nil {
		return opened{}, o.failure(ctx, "PostgreSQL to answer", fmt.Errorf("open snapshot: %w", explain(ctx, err)))
	}
	if err := fault.Error(FaultSnapshotImported); err != nil {
		return opened{}, err
	}
	v, err := parseView(seen)
	if err != nil {
		return opened{}, fmt.Errorf("open snapshot: %w", err)
	}
	if err := o.settle(ctx, v); err != nil {
		return opened{}, err
	}
	if err := fault.Error(FaultSettled); err != nil {
		return opened{}, err
	}
	exported, err := value(ctx, keeper, "SELECT pg_export_snapshot()")
	if err != nil {
		return opened{}, o.failure(ctx, "PostgreSQL to answer", fmt.Errorf("open snapshot: export it: %w", explain(ctx, err)))
	}
	if err := fault.Error(FaultExported); err != nil {
		return opened{}, err
	}
	return opened{keeper: keeper, seen: seen, exported: exported}, nil
}

// settle waits until every transaction that has ended for the snapshot is in the commit log; see view.unsettled for why.
func (o *opening) settle(ctx context.Context, snapshot view) error {
	for pause := settlePoll; ; pause = min(2*pause, settleSlow) {
		now, err := o.currentView(ctx)
		if err != nil {
			return fmt.Errorf("open snapshot: %w", err)
		}
		xids := snapshot.unsettled(now)
		if len(xids) == 0 {
			return nil
		}
		if o.due() {
			o.report("transactions that are committing", o.named(ctx, xids))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if cause := ended(ctx); !errors.Is(cause, errNotInTime) {
				return cause
			}
			return blocked("transactions have written their commit but have not finished it (they may be waiting for a synchronous standby)", o.named(ctx, xids))
		}
	}
}

// due tells, once every reportEvery, that it is time to report. The first time is reportEvery after the first call.
func (o *opening) due() bool {
	if o.reported.IsZero() {
		o.reported = time.Now()
		return false
	}
	if time.Since(o.reported) < reportEvery {
		return false
	}
	o.reported = time.Now()
	return true
}

// asking is for the questions of the observing session: they outlive ctx, for when it ends they are asked once more.
func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), askTimeout, errSilent)
}

func (o *opening) slotWaitsFor(ctx context.Context, waiting *waitList, pid uint32) ([]writer, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	writers, waitedFor, err := readWriters(ctx, o.observer, pid)
	if err != nil {
		return nil, explain(ctx, err)
	}
	return waiting.update(writers, waitedFor), nil
}

// named finds out who the transactions are; bare ids when that cannot be found out.
func (o *opening) named(ctx context.Context, xids []uint64) []writer {
	ctx, cancel := asking(ctx)
	defer cancel()
	writers, _, err := readWriters(ctx, o.observer, 0)
	if err != nil {
		writers = nil
	}
	return named(xids, writers)
}

func (o *opening) currentView(ctx context.Context) (view, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	var text string
	if err := o.observer.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
		return view{}, fmt.Errorf("look for committing transactions: %w", explain(ctx, err))
	}
	return parseView(text)
}

// failure is err, or that the time was over while something was waited for.
func (o *opening) failure(ctx context.Context, what string, err error) error {
	if errors.Is(context.Cause(ctx), errNotInTime) {
		return blocked("waited for "+what, nil)
	}
	return err
}
