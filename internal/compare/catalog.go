package compare

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// table is what the comparison must know of one side's table.
type table struct {
	schema, name string
	partitioned  bool
	columns      []column // sorted by name
	key          []string // columns of the primary key, else of the replica identity index; empty: a multiset
}

type column struct {
	name, typ string
}

// from is the FROM item. Children of plain inheritance are tables of their own, partitions are not.
func (t table) from() string {
	if t.partitioned {
		return postgres.Ident(t.schema, t.name)
	}
	return "ONLY " + postgres.Ident(t.schema, t.name)
}

const tablesQuery = `
SELECT n.nspname::text, c.relname::text, c.relkind = 'p',
	coalesce((SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")
		FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
	coalesce((SELECT array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attname::text COLLATE "C")
		FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
	coalesce((SELECT array_agg(a.attname::text ORDER BY k.place)
		FROM (SELECT i.indkey, i.indnkeyatts FROM pg_catalog.pg_index i
			WHERE i.indrelid = c.oid AND i.indisvalid AND (i.indisprimary OR i.indisreplident)
			ORDER BY i.indisprimary DESC LIMIT 1) i
		CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
		WHERE k.place <= i.indnkeyatts), '{}')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'syncline') AND n.nspname NOT LIKE 'pg\_%'`

// readTables reads all permanent tables but leaf partitions, by schema.name.
func readTables(ctx context.Context, conn *pgx.Conn) (map[string]table, error) {
	rows, err := conn.Query(ctx, tablesQuery)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	tables := map[string]table{}
	var t table
	var names, types []string
	_, err = pgx.ForEachRow(rows, []any{&t.schema, &t.name, &t.partitioned, &names, &types, &t.key}, func() error {
		t.columns = nil
		for i := range names {
			t.columns = append(t.columns, column{names[i], types[i]})
		}
		tables[t.schema+"."+t.name] = t
		t = table{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return tables, nil
}

// readSequences reads the state of all permanent sequences as text, by schema.name.
func readSequences(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND n.nspname <> 'syncline'`)
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	names, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (name [2]string, err error) {
		return name, row.Scan(&name[0], &name[1])
	})
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	states := map[string]string{}
	for _, name := range names {
		var state string
		sql := "SELECT s::text FROM (SELECT last_value, is_called FROM " + postgres.Ident(name[0], name[1]) + ") s"
		if err := conn.QueryRow(ctx, sql).Scan(&state); err != nil {
			return nil, fmt.Errorf("read sequence %s.%s: %w", name[0], name[1], err)
		}
		states[name[0]+"."+name[1]] = state
	}
	return states, nil
}
