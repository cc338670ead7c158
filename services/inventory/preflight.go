package inventory

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/setup"
)

const preflightQuery = `
SELECT current_setting('wal_level'), pg_is_in_recovery(),
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
       current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`

// SetupProblems are what keeps a primary from opening snapshots as its settings are, once others have taken so many slots and walsenders more.
func SetupProblems(ctx context.Context, q setup.Querier, others int64) (problems []setup.Problem, err error) {
	s, err := readServer(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("check the primary's settings: %w", err)
	}
	for _, limit := range []struct {
		setting   string
		free, all int64
	}{{"max_replication_slots", s.slots - others, s.maxSlots}, {"max_wal_senders", s.senders - others, s.maxSenders}} {
		if limit.free <= 0 {
			more := strconv.FormatInt(limit.all+moreRoom, 10)
			problems = append(problems, setup.Set(codeNoRoom, limit.setting, more, "a snapshot takes one more than %s allows for a moment: run ALTER SYSTEM SET %s = %s, then restart PostgreSQL", limit.setting, limit.setting, more))
		}
	}
	return problems, nil
}

const (
	moreRoom   = 10 // than there is, where all is taken
	codeNoRoom = "NO_ROOM"
)

// serverSettings is what a snapshot needs of its server; slots and senders are those that are free.
type serverSettings struct {
	walLevel                             string
	standby                              bool
	slots, maxSlots, senders, maxSenders int64
}

func readServer(ctx context.Context, q setup.Querier) (s serverSettings, err error) {
	err = q.QueryRow(ctx, preflightQuery).Scan(&s.walLevel, &s.standby, &s.slots, &s.senders, &s.maxSlots, &s.maxSenders)
	return s, err
}

// checkServer refuses up front what would fail later with a less helpful error: each refusal names its remedy. Whether the
// role may replicate is left to the server, because hosted ones give that by other means than the role's attribute.
func checkServer(ctx context.Context, conn *pgx.Conn) error {
	s, err := readServer(ctx, conn)
	switch {
	case err != nil:
		return fmt.Errorf("check the primary's settings: %w", explain(ctx, err))
	case s.standby:
		return fmt.Errorf("open snapshot: %w: connect to the primary instead", ErrNotPrimary)
	case s.walLevel != "logical":
		return fmt.Errorf("open snapshot: %w but %s: run ALTER SYSTEM SET wal_level = logical and restart PostgreSQL", ErrNotLogical, s.walLevel)
	case s.slots <= 0:
		return noRoom("max_replication_slots", "drop replication slots that nobody uses (pg_replication_slots), or ")
	case s.senders <= 0:
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
