package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

const application = "syncline restore"

// Advisory locks, beside those of the applier: "sync" in ASCII and small numbers. One session holds the first for the whole of a
// restore; those that load and build share the second.
const (
	lockSpace   = 0x73796e63 + 2
	loaderSpace = 0x73796e63 + 3
	lockObject  = 0
)

// endTimeout bounds the wait for sessions that were told to end.
const endTimeout = 10 * time.Second

// oldestVersion is the oldest server_version_num that is restored into.
const oldestVersion = 150000

// target is the database that is restored into, and the session that holds the lock.
type target struct {
	url  string
	conn *pgx.Conn
	// unguarded is set when the role may not set session_replication_role.
	unguarded bool
}

func openTarget(ctx context.Context, url string) (*target, error) {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return nil, err
	}
	t := &target{url: url, conn: conn}
	if err := t.prepare(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) close() { disconnect(t.conn) }

func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func (t *target) prepare(ctx context.Context) error {
	var version int
	if err := t.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("read PostgreSQL version: %w", err)
	}
	if version < oldestVersion {
		return fmt.Errorf("%w: it runs PostgreSQL %d and 15 is needed; upgrade it", ErrVersion, version/10000)
	}
	var recovery bool
	if err := t.conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&recovery); err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	if recovery {
		return fmt.Errorf("%w: restore into the server that it follows", ErrStandby)
	}
	if err := t.lock(ctx); err != nil {
		return err
	}
	if err := setReplicaRole(ctx, t.conn); errors.Is(err, errReplicaRole) {
		t.unguarded = true
	} else if err != nil {
		return err
	}
	return nil
}

// lockWait is how long the lock is waited for: the session of a restore that was just killed holds it until the server notices.
const lockWait = 2 * time.Second

func (t *target) lock(ctx context.Context) error {
	if _, err := t.conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockWait.Milliseconds())); err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	_, err := t.conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_lock($1::int, $2::int)", lockSpace, lockObject)
	if postgres.Code(err) == codeLockNotAvailable {
		return fmt.Errorf("%w; wait for its end, or for the server to notice that it is gone", ErrInUse)
	}
	if err == nil {
		_, err = t.conn.Exec(ctx, "SET lock_timeout = 0")
	}
	if err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	return nil
}

const codeLockNotAvailable = "55P03"

var errReplicaRole = errors.New("session_replication_role cannot be set")

// setReplicaRole turns off ordinary triggers and foreign keys for the session.
func setReplicaRole(ctx context.Context, conn *pgx.Conn) error {
	const insufficientPrivilege = "42501"
	_, err := conn.Exec(ctx, "SET session_replication_role = replica")
	if postgres.Code(err) == insufficientPrivilege {
		return errReplicaRole
	}
	if err != nil {
		return fmt.Errorf("set session_replication_role: %w", err)
	}
	return nil
}

// connect opens a session that loads or builds.
func (t *target) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := postgres.Connect(ctx, t.url, application)
	if err != nil {
		return nil, err
	}
	if err := setReplicaRole(ctx, conn); err != nil && !errors.Is(err, errReplicaRole) {
		disconnect(conn)
		return nil, err
	}
	// Rows and the record that they are there are lost together, or not at all. The last transaction flushes all of them.
	_, err = conn.Exec(ctx, "SET synchronous_commit = off")
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_lock_shared($1::int, $2::int)", loaderSpace, lockObject)
	}
	if err != nil {
		disconnect(conn)
		return nil, fmt.Errorf("set up session: %w", err)
	}
	return conn, nil
}

// endLoaders ends the sessions of a restore that was killed. The server goes on with a statement whose client is gone: a CREATE
// INDEX may take hours more.
func (t *target) endLoaders(ctx context.Context) error {
	_, err := t.conn.Exec(ctx, `SELECT pg_catalog.pg_terminate_backend(pid, $3) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted
		AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
		AND classid = $1::int::oid AND objid = $2::int::oid AND objsubid = 2`, loaderSpace, lockObject, endTimeout.Milliseconds())
	if err != nil {
		return fmt.Errorf("end sessions of a former restore: %w", err)
	}
	var alone bool
	err = t.conn.QueryRow(ctx, `SELECT CASE WHEN pg_catalog.pg_try_advisory_lock($1::int, $2::int) THEN pg_catalog.pg_advisory_unlock($1::int, $2::int) ELSE false END`,
		loaderSpace, lockObject).Scan(&alone)
	if err != nil {
		return fmt.Errorf("end sessions of a former restore: %w", err)
	}
	if !alone {
		return fmt.Errorf("%w: sessions of a former restore do not end", ErrInUse)
	}
	return nil
}
