package pgtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Connect opens a connection that is closed at the test's end.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Exec runs SQL, which may be several statements when there are no args, and fails the test on an error.
func Exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%v\n  in %.500s", err, sql)
	}
}

// QueryRow scans the only row and column of a query.
func QueryRow[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%v\n  in %s", err, sql)
	}
	return value
}

// slotTimeout is for a server that has to notice that a client is gone.
const slotTimeout = 3 * time.Minute

// WaitSlotsIdle waits until no session holds a replication slot of the database any more: one whose client has ended does so until the
// server notices.
func WaitSlotsIdle(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	Eventually(t, slotTimeout, func() error {
		var held *string
		err := conn.QueryRow(t.Context(), `SELECT string_agg(slot_name || ' by ' || active_pid, ', ') FROM pg_replication_slots
			WHERE database = current_database() AND active_pid IS NOT NULL`).Scan(&held)
		if err == nil && held != nil {
			err = fmt.Errorf("slots are held: %s", *held)
		}
		return err
	})
}

// Eventually calls check until it returns nil, and fails the test with its last error when that takes too long.
func Eventually(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := retry(ctx, check); err != nil {
		t.Fatalf("not within %v: %v", timeout, err)
	}
}

// retry calls f until it succeeds or ctx ends; then it returns f's last error.
func retry(ctx context.Context, f func() error) error {
	const first, slowest = 2 * time.Millisecond, 100 * time.Millisecond
	wait := first
	for {
		err := f()
		if err == nil {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, fmt.Errorf("gave up: %w", ctx.Err()))
		case <-timer.C:
		}
		wait = min(2*wait, slowest)
	}
}
