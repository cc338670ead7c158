package logger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

const (
	// statusInterval is the time between two status updates when nothing happens. Each, between transactions, asks for a
	// keepalive, whose end of WAL becomes a mark.
	statusInterval = time.Second
	// confirmInterval is the shortest time between two updates because something became durable.
	confirmInterval = 100 * time.Millisecond
	// finishTimeout bounds the wait at the end for what was appended to become durable.
	finishTimeout = 5 * time.Second
)

// confirmer tells the server what the change log has durably: nothing else is ever confirmed. It has a goroutine of its own,
// so that the server hears of us also while the change log takes nothing.
type confirmer struct {
	ws       *walsender.Conn
	feed     *feed
	appender *changelog.Appender
	status   *status
	wanted   chan struct{} // holds one when the server asked for a reply
}

// reply asks for a status update soon. It never waits.
func (c *confirmer) reply() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

func (c *confirmer) run(ctx context.Context) error {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last time.Time
	for {
		changed := c.appender.DurableChanged() // taken before the position is read, so that no change is missed
		var due <-chan time.Time
		if uint64(c.appender.Durable()) > c.status.confirmed.Load() {
			pause.Reset(confirmInterval - time.Since(last))
			changed, due = nil, pause.C
		}
		ask := false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if err := c.appender.Err(); err != nil {
				return logError{err}
			}
			continue
		case <-tick.C:
			ask = !c.feed.inside.Load()
		case <-c.wanted:
		case <-due:
		}
		if err := c.send(ask); err != nil {
			return err
		}
		last = time.Now()
	}
}

// send confirms what is durable.
func (c *confirmer) send(ask bool) error {
	durable := c.appender.Durable()
	moved := uint64(durable) > c.status.confirmed.Load()
	if moved {
		fault.Point(FaultDurable)
	}
	written := max(durable, change.LSN(c.feed.received.Load()))
	if err := c.ws.SendStatus(written, durable, ask); err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	c.status.confirmed.Store(uint64(durable))
	if moved {
		fault.Point(FaultConfirmed)
	}
	return nil
}

// finish waits a little until all that was appended is durable, and confirms it. What does not make it is sent again
// in the next session.
func (c *confirmer) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if err := c.appender.Flush(ctx); err == nil {
		_ = c.send(false) // the next session confirms it otherwise
	}
}

var (
	// errSilent says that the server was not heard of for too long.
	errSilent = errors.New("the connection is open but the server says nothing")
	// errLogSilent says that the change log has taken nothing for too long. The session ends, for a walsender that waits for
	// us would keep the server from shutting down.
	errLogSilent = errors.New("the change log takes nothing")
)

// blockedAfter is how long one append may take until the state says so.
const blockedAfter = 3 * time.Second

// listen watches over the two ends of a session: it tells in the state when the change log blocks, and ends the session when
// that lasts, or when the connection is dead without saying so. A walsender that decodes a huge transaction of which
// nothing is published may be silent for long: it is told apart by what it waits for.
func (s *Service) listen(ctx context.Context, ws *walsender.Conn, f *feed) error {
	tick := time.NewTicker(min(statusInterval, s.cfg.SilenceLimit/4))
	defer tick.Stop()
	var seen uint64
	since, blocked := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if messages := f.messages.Load(); messages != seen {
			seen, since = messages, time.Now()
			s.status.heard()
			if blocked {
				blocked = false
				s.status.set(PhaseCapturing, "", "")
			}
			continue
		}
		silent := time.Since(since)
		switch {
		case f.appending.Load():
			if silent > s.cfg.SilenceLimit {
				return logError{fmt.Errorf("%w: not for %v", errLogSilent, silent.Round(time.Second))}
			}
			if blocked = blocked || silent > blockedAfter; blocked {
				s.status.set(PhaseBlocked, CodeLogBlocked, "the change log has taken nothing for %v; the primary keeps the WAL meanwhile", silent.Round(time.Second))
			}
		case silent > s.cfg.SilenceLimit:
			if busy, err := s.walsenderBusy(ctx, ws.PID()); err != nil || !busy {
				return errors.Join(fmt.Errorf("%w: not for %v", errSilent, silent.Round(time.Second)), err)
			}
		}
	}
}

// walsenderBusy tells whether the walsender works without waiting for us or for new WAL.
func (s *Service) walsenderBusy(ctx context.Context, pid uint32) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	var waits string
	err := s.pool.QueryRow(ctx, "SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = $1", pid).Scan(&waits)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the walsender: %w", err)
	}
	switch waits {
	case "WalSenderMain", "WalSenderWaitForWAL", "WalSenderWaitWal", "WalSenderWriteData":
		return false, nil
	}
	return true, nil
}
