package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/schema"
)

// querier is what connection and transaction have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// record is a restore that is not done, as the database has it.
type record struct {
	id, backupID string
	created      []schema.Name // tables that it creates
	targets      []schema.Name // tables that it fills
}

func hasTable(ctx context.Context, q querier, name string) (bool, error) {
	var exists bool
	if err := q.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", name).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for table %s: %w", name, err)
	}
	return exists, nil
}

// unfinished returns the restore that was broken off in this database, nil for none. There is at most one.
func unfinished(ctx context.Context, q querier) (*record, error) {
	exists, err := hasTable(ctx, q, "syncline.restores")
	if err != nil || !exists {
		return nil, err
	}
	var r record
	err = q.QueryRow(ctx, "SELECT restore_id::text, backup_id::text, created_tables FROM syncline.restores WHERE state = 'restoring'").Scan(&r.id, &r.backupID, &r.created)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read former restores: %w", err)
	}
	rows, err := q.Query(ctx, "SELECT DISTINCT target_schema, target_table FROM syncline.restored_tables WHERE restore_id = $1", r.id)
	if err != nil {
		return nil, fmt.Errorf("read former restores: %w", err)
	}
	if r.targets, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schema.Name]); err != nil {
		return nil, fmt.Errorf("read former restores: %w", err)
	}
	return &r, nil
}

// sameTables tells whether the tables that a restore began to fill are still those of their names.
func (r *record) sameTables(ctx context.Context, q querier) (bool, error) {
	var others int
	err := q.QueryRow(ctx, `SELECT count(*) FROM syncline.restored_tables
		WHERE restore_id = $1 AND target_oid IS DISTINCT FROM pg_catalog.to_regclass(pg_catalog.format('%I.%I', target_schema, target_table))::oid`, r.id).Scan(&others)
	if err != nil {
		return false, fmt.Errorf("read former restores: %w", err)
	}
	return others == 0, nil
}

// forget removes a restore that broke off from the record, within the transaction that begins another one.
func (r *record) forget(ctx context.Context, q querier) error {
	for _, table := range []string{"restored_files", "restored_tables", "restores"} {
		if _, err := q.Exec(ctx, "DELETE FROM syncline."+table+" WHERE restore_id = $1", r.id); err != nil {
			return fmt.Errorf("forget a former restore: %w", err)
		}
	}
	return nil
}

// begin creates the tables, removes the rows that they hold, and records that the restore is under way: all or nothing.
func (r *restorer) begin(ctx context.Context) error {
	r.options.Progress.Begin("creating tables", 0)
	if r.plan.resumed {
		r.id = r.plan.before.id
		r.options.Say("a restore of this backup broke off; it goes on where it was")
		return r.beginAgain(ctx)
	}
	if r.plan.before != nil {
		r.options.Say("a restore broke off here; it begins anew")
	}
	err := pgx.BeginFunc(ctx, r.target.conn, func(tx pgx.Tx) error {
		if r.plan.before != nil {
			if err := r.plan.before.forget(ctx, tx); err != nil {
				return err
			}
		}
		for _, s := range r.plan.statements.Before {
			if _, err := tx.Exec(ctx, s.SQL); err != nil {
				return fmt.Errorf("create %s %s: %w", s.Kind, s.Name, err)
			}
		}
		for _, name := range r.plan.existing() {
			if err := r.empty(ctx, tx, name); err != nil {
				return fmt.Errorf("empty table %s: %w", name, err)
			}
		}
		return r.record(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("begin the restore: %w", err)
	}
	return nil
}

// beginAgain creates what a user has dropped meanwhile of what holds no rows, such as a type. Tables are as they were.
func (r *restorer) beginAgain(ctx context.Context) error {
	for _, s := range r.plan.statements.Before {
		if _, err := r.target.conn.Exec(ctx, s.SQL); err != nil {
			return fmt.Errorf("create %s %s: %w", s.Kind, s.Name, err)
		}
	}
	return nil
}

// empty removes a table's rows, by TRUNCATE where no other table refers to it. Without --replace there may be rows only of a restore
// that broke off.
func (r *restorer) empty(ctx context.Context, tx pgx.Tx, name schema.Name) error {
	if _, err := tx.Exec(ctx, "LOCK TABLE "+r.plan.only(name)+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return err
	}
	var rows, referenced bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+r.plan.only(name)+")").Scan(&rows); err != nil {
		return err
	}
	if !rows {
		return nil
	}
	if before := r.plan.before; !r.options.Replace && (before == nil || !contains(before.targets, name)) {
		return ErrNotEmpty // since it was checked
	}
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1::text::regclass AND conrelid <> confrelid)",
		name.SQL()).Scan(&referenced); err != nil {
		return err
	}
	command := "TRUNCATE "
	if referenced {
		command = "DELETE FROM "
	}
	_, err := tx.Exec(ctx, command+r.plan.only(name))
	return err
}

func contains(names []schema.Name, name schema.Name) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// record stores that the restore is under way. What former restores said of the same tables does not hold any more.
func (r *restorer) record(ctx context.Context, tx pgx.Tx) error {
	m := r.backup.Manifest
	err := tx.QueryRow(ctx, `INSERT INTO syncline.restores (backup_id, source_server_id, log_id, lsn, state, created_tables)
		VALUES ($1, $2, $3, $4::text::pg_lsn, 'restoring', $5) RETURNING restore_id::text`, m.ID, m.SourceServerID, m.LogID, m.LSN, r.plan.create).Scan(&r.id)
	if err != nil {
		return fmt.Errorf("record the restore: %w", err)
	}
	for _, t := range m.Tables {
		target := r.plan.targets[t.FullName()]
		if _, err := tx.Exec(ctx, `DELETE FROM syncline.restored_tables WHERE target_schema = $1 AND target_table = $2 AND restore_id <> $3`, target.Schema, target.Name, r.id); err != nil {
			return fmt.Errorf("record the restore: %w", err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO syncline.restored_tables (restore_id, schema_name, table_name, source_oid, target_schema, target_table, target_oid, rows)
			VALUES ($1, $2, $3, $4, $5, $6, $7::text::regclass, $8)`, r.id, t.Schema, t.Name, t.OID, target.Schema, target.Name, target.SQL(), t.Rows); err != nil {
			return fmt.Errorf("record table %s: %w", t.FullName(), err)
		}
	}
	return nil
}
