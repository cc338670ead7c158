package publish

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Excluded tells whether the configuration leaves a table out, by its own name or that of a partitioned table above it. A
// table that no longer exists is not excluded: nobody has said so.
func Excluded(ctx context.Context, q querier, cfg Config, oid uint32) (bool, error) {
	rows, err := q.Query(ctx, `
		SELECT n.nspname::text, c.relname::text
		FROM (SELECT $1::oid AS relid, 0 AS level UNION SELECT relid, 1 FROM pg_partition_ancestors($1::oid) WHERE relid <> $1::oid) a
		JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace
		ORDER BY a.level`, oid)
	if err != nil {
		return false, fmt.Errorf("read the names of table %d: %w", oid, err)
	}
	family, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n schema.Name, err error) {
		return n, row.Scan(&n.Schema, &n.Name)
	})
	if err != nil {
		return false, fmt.Errorf("read the names of table %d: %w", oid, err)
	}
	return len(family) > 0 && cfg.target(family[0], family[1:]) == nowhere, nil
}
