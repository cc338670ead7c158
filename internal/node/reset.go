package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// ResetID gives the database a new server id and returns the identity, and the id that it had. Whatever knew the node by its
// old id, such as replications that use it as their source, will refuse the new one until it is told. Followers that were
// registered with the old one are forgotten: they follow the original. It returns ErrRunning while a server is connected,
// which would go on with the old id.
func ResetID(ctx context.Context, url string) (old string, id Identity, err error) {
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return "", Identity{}, err
	}
	defer disconnect(ctx, conn)
	s, err := look(ctx, conn, "")
	if err != nil {
		return "", Identity{}, err
	}
	if err := s.check(); err != nil {
		return "", Identity{}, err
	}
	id = s.identity
	reset := func(tx pgx.Tx) (err error) {
		if err := s.notRunning(ctx, tx); err != nil {
			return err
		}
		old, id.ServerID, err = s.reset(ctx, tx)
		return err
	}
	// PostgreSQL takes a moment to notice that a session that was just closed is over.
	for until := time.Now().Add(closingTime); ; {
		err = pgx.BeginFunc(ctx, conn, reset)
		if !errors.Is(err, ErrRunning) || time.Now().After(until) {
			return old, id, err
		}
		select {
		case <-ctx.Done():
			return "", Identity{}, fmt.Errorf("reset server id: %w", ctx.Err())
		case <-time.After(closingTime / 20):
		}
	}
}

const closingTime = time.Second

// notRunning refuses a database to which servers are connected. An applier without replications may have no connection, so it
// may pass; it has nothing that knows it by its id either.
func (s *state) notRunning(ctx context.Context, tx pgx.Tx) error {
	var running string
	err := tx.QueryRow(ctx, `SELECT coalesce(string_agg(DISTINCT application_name, ', '), '') FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'syncline %' AND pid <> pg_backend_pid()`).Scan(&running)
	if err != nil {
		return fmt.Errorf("look for running servers: %w", err)
	}
	if running != "" {
		return fmt.Errorf("%w: to database %s is connected: %s; stop what runs there first, for it would go on with the old id", ErrRunning, s.identity.Database, running)
	}
	return nil
}

func (s *state) reset(ctx context.Context, tx pgx.Tx) (old, id string, err error) {
	var followers bool
	err = tx.QueryRow(ctx, `UPDATE syncline.server s SET server_id = gen_random_uuid(), system_identifier = $1, database_oid = $2, created_at = now()
		FROM syncline.server o RETURNING o.server_id::text, s.server_id::text, to_regclass('syncline.followers') IS NOT NULL`,
		s.identity.SystemIdentifier, s.databaseOID).Scan(&old, &id, &followers)
	const undefinedTable = "42P01"
	if errors.Is(err, pgx.ErrNoRows) || postgres.Code(err) == undefinedTable {
		return "", "", fmt.Errorf("database %s has no server id yet; start a node on it to make one", s.identity.Database)
	}
	if err != nil {
		return "", "", fmt.Errorf("write server id: %w", s.explain(err))
	}
	if followers {
		if _, err := tx.Exec(ctx, "DELETE FROM syncline.followers"); err != nil {
			return "", "", fmt.Errorf("forget followers: %w", s.explain(err))
		}
	}
	return old, id, nil
}
