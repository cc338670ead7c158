package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
)

// sendGrace is how long a reading that was cancelled may take to end by itself before its stream is cut: its client may have
// stopped reading.
const sendGrace = time.Second

// reading runs a call that reads from a snapshot, in its turn. The snapshot stays until it has ended; when the snapshot ends by
// itself, run's context does so with the reason.
func (s *Service) reading(ctx context.Context, snapshotID string, run func(ctx context.Context, l *lease) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, done, err := s.leases.use(snapshotID, cancel)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer done()
		select {
		case s.dumpPlaces <- struct{}{}:
			defer func() { <-s.dumpPlaces }()
			result <- run(ctx, l)
		case <-ctx.Done():
			result <- ended(ctx)
		}
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(sendGrace)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return ended(ctx) // returning ends the stream, and with it the blocked sending
	}
}

// openTable opens a session that sees the snapshot and keeps others from changing the storage of a table of the set, if there is one. The caller closes it.
func (s *Service) openTable(ctx context.Context, l *lease, name schema.Name, only *set) (_ *pgx.Conn, t table, err error) {
	conn, err := connect(ctx, s.config.PostgresURL)
	if err != nil {
		return nil, table{}, err
	}
	defer func() {
		if err != nil {
			closeSession(conn.PgConn())
		}
	}()
	if err := l.enter(ctx, conn); err != nil {
		return nil, table{}, err
	}
	if err := fault.Error(FaultDumpImported); err != nil {
		return nil, table{}, err
	}
	if t, err = lockTable(ctx, conn, name, only, s.config.LockTimeout); err != nil {
		return nil, table{}, err
	}
	return conn, t, fault.Error(FaultDumpLocked)
}

// enter makes the session's transaction see the snapshot, and plan its reading predictably.
func (l *lease) enter(ctx context.Context, conn *pgx.Conn) error {
	seen, err := importSnapshot(ctx, conn.PgConn(), l.exported)
	switch {
	case err != nil && isServerError(err):
		return fmt.Errorf("%w: %w", ErrSnapshotGone, err)
	case err != nil:
		return explain(ctx, err)
	case seen != l.seen:
		// Names of exported snapshots come back after a restart of the server, and then mean another one.
		return fmt.Errorf("%w: PostgreSQL has restarted", ErrSnapshotGone)
	}
	// One backend, from the first page to the last.
	_, err = conn.Exec(ctx, "SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_tidscan = on")
	return explain(ctx, err)
}
