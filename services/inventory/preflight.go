package inventory

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

const preflightQuery = `
SELECT current_setting('wal_level'), pg_is_in_recovery(),
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)`

// checkServer refuses up front what would fail later with a less helpful error: each refusal names its remedy. Whether the
// role may replicate is left to the server, because hosted ones give that by other means than the role's attribute.
func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var walLevel string
	var standby bool
	var slots, senders int64
	err := conn.QueryRow(ctx, preflightQuery).Scan(&walLevel, &standby, &slots, &senders)
	switch {
	case err != nil:
		return fmt.Errorf("check the primary's settings: %w", explain(ctx, err))
	case standby:
		return fmt.Errorf("open snapshot: %w: connect to the primary instead", ErrNotPrimary)
	case walLevel != "logical":
		return fmt.Errorf("open snapshot: %w but %s: run ALTER SYSTEM SET wal_level = logical and restart PostgreSQL", ErrNotLogical, walLevel)
	case slots <= 0:
		return noRoom("max_replication_slots", "drop replication slots that nobody uses (pg_replication_slots), or ")
	case senders <= 0:
		return noRoom("max_wal_senders", "")
	}
	return nil
}

func noReplication(user string) error {
	return fmt.Errorf("open snapshot: %w: role %s may not use replication slots: run ALTER ROLE %s REPLICATION", ErrPermission, user, postgres.Ident(user))
}

func noRoom(setting, other string) error {
	return fmt.Errorf("open snapshot: %w: a snapshot takes one more than %s allows for a moment: %sraise %s (ALTER SYSTEM SET %s = …, and restart PostgreSQL)",
		ErrTooManySlots, setting, other, setting, setting)
}
