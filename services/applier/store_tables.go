package applier

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

func listTables(ctx context.Context, q querier, replication string) ([]*storedTable, error) {
	rows, err := q.Query(ctx, `SELECT t.schema_name, t.table_name, t.state, coalesce(t.log_id, ''), coalesce(t.copy_lsn::text, ''),
		coalesce(t.snapshot_id, ''), t.estimated_rows, t.bytes_expected, t.pages, t.target_schema, t.target_table, t.source_oid, t.selector, t.incremental, t.columns, t.own, t.shared, coalesce(sum(c.rows), 0)::bigint, coalesce(sum(c.bytes), 0)::bigint
		FROM syncline.tables t LEFT JOIN syncline.chunks c USING (replication, schema_name, table_name)
		WHERE t.replication = $1
		GROUP BY t.replication, t.schema_name, t.table_name ORDER BY t.schema_name, t.table_name`, replication)
	if err != nil {
		return nil, fmt.Errorf("read tables of replication %s: %w", replication, err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*storedTable, error) {
		var t storedTable
		var log, lsn string
		if err := row.Scan(&t.name.Schema, &t.name.Name, &t.state, &log, &lsn, &t.snapshotID, &t.estimatedRows, &t.bytesExpected, &t.pages,
			&t.target.Schema, &t.target.Name, &t.oid, &t.selector, &t.incremental, &t.columns, &t.own, &t.shared, &t.rows, &t.bytes); err != nil {
			return nil, err
		}
		if lsn == "" {
			return &t, nil
		}
		var err error
		t.position, err = change.ParsePosition(log + "@" + lsn)
		return &t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of replication %s: %w", replication, err)
	}
	return tables, nil
}

// addTable makes a table part of a replication, waiting for its copy; one that is part already is copied anew.
func addTable(ctx context.Context, q querier, replication string, t *storedTable) error {
	_, err := q.Exec(ctx, `INSERT INTO syncline.tables (replication, schema_name, table_name, state, estimated_rows, bytes_expected, pages, target_schema, target_table, source_oid, selector, incremental, own, shared)
		VALUES ($1, $2, $3, 'waiting', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (replication, schema_name, table_name) DO UPDATE
		SET state = 'waiting', estimated_rows = excluded.estimated_rows, bytes_expected = excluded.bytes_expected, pages = excluded.pages,
			target_schema = excluded.target_schema, target_table = excluded.target_table, source_oid = excluded.source_oid, selector = excluded.selector,
			incremental = excluded.incremental, own = excluded.own, shared = excluded.shared`,
		replication, t.name.Schema, t.name.Name, t.estimatedRows, t.bytesExpected, t.pages, t.target.Schema, t.target.Name, t.oid, t.selector, t.incremental, t.own, t.shared)
	if err != nil {
		return fmt.Errorf("store table %s of replication %s: %w", t.name, replication, err)
	}
	return nil
}

// beginTable makes a table 'copying' from a snapshot, forgetting what an earlier copy had finished. It stands before the
// statement that empties the target table, in one transaction with it: so it waits for a chunk that a former session is
// committing, or makes that chunk's finishChunk fail.
func beginTable(ctx context.Context, tx pgx.Tx, replication string, name schema.Name, snapshot copySnapshot, gone *drops) error {
	_, err := tx.Exec(ctx, `UPDATE syncline.tables SET state = 'copying', snapshot_id = $4, log_id = $5, copy_lsn = $6::text::pg_lsn
		WHERE replication = $1 AND schema_name = $2 AND table_name = $3`,
		replication, name.Schema, name.Name, snapshot.id, snapshot.position.LogID.String(), snapshot.position.LSN.String())
	if err != nil {
		return fmt.Errorf("store begin of the copy of table %s: %w", name, err)
	}
	if err := gone.forget(ctx, tx, &name, whyCopied); err != nil {
		return err
	}
	return forgetChunks(ctx, tx, replication, name)
}

// forgetChunks keeps the count of what they had copied.
func forgetChunks(ctx context.Context, q querier, replication string, name schema.Name) error {
	_, err := q.Exec(ctx, `WITH gone AS (DELETE FROM syncline.chunks WHERE replication = $1 AND schema_name = $2 AND table_name = $3 RETURNING rows, bytes)
		UPDATE syncline.replications SET copied_rows = copied_rows + (SELECT sum(rows) FROM gone), copied_bytes = copied_bytes + (SELECT sum(bytes) FROM gone)
		WHERE name = $1 AND EXISTS (SELECT FROM gone)`, replication, name.Schema, name.Name)
	if err != nil {
		return fmt.Errorf("forget finished chunks of table %s: %w", name, err)
	}
	return nil
}

// finishChunk records a page range. It belongs into the transaction that writes the range's rows, and fails with
// errSuperseded when the table's copy was begun anew meanwhile.
func finishChunk(ctx context.Context, q querier, replication string, name schema.Name, snapshotID string, fromPage, rows, bytes int64) error {
	tag, err := q.Exec(ctx, `INSERT INTO syncline.chunks (replication, schema_name, table_name, from_page, rows, bytes)
		SELECT replication, schema_name, table_name, $5, $6, $7 FROM syncline.tables
		WHERE replication = $1 AND schema_name = $2 AND table_name = $3 AND snapshot_id = $4 AND state = 'copying' FOR SHARE`,
		replication, name.Schema, name.Name, snapshotID, fromPage, rows, bytes)
	if err != nil {
		return fmt.Errorf("store finished chunk of table %s: %w", name, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("table %s: %w", name, errSuperseded)
	}
	return nil
}

func finishedChunks(ctx context.Context, q querier, replication string, name schema.Name) (map[int64]bool, error) {
	rows, err := q.Query(ctx, "SELECT from_page FROM syncline.chunks WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
		replication, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read finished chunks of table %s: %w", name, err)
	}
	pages, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read finished chunks of table %s: %w", name, err)
	}
	done := make(map[int64]bool, len(pages))
	for _, page := range pages {
		done[page] = true
	}
	return done, nil
}

func setTableState(ctx context.Context, q querier, replication string, name schema.Name, state string) error {
	_, err := q.Exec(ctx, "UPDATE syncline.tables SET state = $4 WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
		replication, name.Schema, name.Name, state)
	if err != nil {
		return fmt.Errorf("store state of table %s: %w", name, err)
	}
	return nil
}

// setFirstPosition stores the position that following begins at, after every table was copied. A replication that has
// a position keeps it.
func setFirstPosition(ctx context.Context, q querier, replication string, position change.Position) error {
	_, err := q.Exec(ctx, "INSERT INTO syncline.positions (replication, log_id, lsn) VALUES ($1, $2, $3::text::pg_lsn) ON CONFLICT DO NOTHING",
		replication, position.LogID.String(), position.LSN.String())
	if err != nil {
		return fmt.Errorf("store first position of replication %s: %w", replication, err)
	}
	return nil
}
