package inventory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// application is what PostgreSQL shows as the application_name of this service's sessions.
const application = "syncline inventory"

// closeTimeout bounds how long the end of a session is waited for.
const closeTimeout = 5 * time.Second

// connect opens an ordinary session. Each call of the service has its own, so an idle service has none.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	return conn, nil
}

// connectWalsender opens a session that takes replication commands.
func connectWalsender(ctx context.Context, url, user string) (*pgconn.PgConn, error) {
	conn, err := postgres.ConnectReplication(ctx, url, application)
	if err != nil {
		switch {
		case strings.Contains(serverText(err), "max_wal_senders"):
			return nil, noRoom("max_wal_senders", "")
		case postgres.Code(err) == codeNoPrivilege:
			return nil, noReplication(user)
		}
		return nil, connectError(ctx, err)
	}
	return conn, nil
}

func connectError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ended(ctx)
	case postgres.Code(err) == codeNoPrivilege:
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// closeSession ends a session, cancelling what it is doing, and waits for that.
func closeSession(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the session ends with its connection, whether or not the goodbye arrives
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}

// value runs one statement by the simple protocol and returns the first column of its first row, "" when there is none.
func value(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) == 0 || len(results[0].Rows) == 0 || len(results[0].Rows[0]) == 0 {
		return "", nil
	}
	return string(results[0].Rows[0][0]), nil
}

// importSnapshot begins a read-only transaction that sees what the exported snapshot sees, and returns what
// pg_current_snapshot() says in it. It reads no table: its catalog look-ups use the catalogs' own, newest snapshot.
func importSnapshot(ctx context.Context, conn *pgconn.PgConn, exported string) (string, error) {
	var text string
	for _, sql := range []string{
		// From version 17 on a server may end transactions after a time; the lease bounds this one.
		"SELECT set_config('transaction_timeout', '0', false) WHERE current_setting('transaction_timeout', true) IS NOT NULL",
		"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"SET TRANSACTION SNAPSHOT " + postgres.Literal(exported),
		"SELECT pg_current_snapshot()::text",
	} {
		var err error
		if text, err = value(ctx, conn, sql); err != nil {
			return "", fmt.Errorf("import snapshot: %w", err)
		}
	}
	return text, nil
}

// isServerError tells whether the server answered with an error, as against a broken or cancelled connection.
func isServerError(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && !postgres.IsTransient(err)
}
