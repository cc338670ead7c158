package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
)

// build makes indexes, keys, checks and foreign keys: those that are not there yet.
func (r *restorer) build(ctx context.Context) error {
	r.options.Progress.Begin("building indexes", 0)
	target, err := schema.Read(ctx, r.target.conn, schema.Selection{})
	if err != nil {
		return fmt.Errorf("read the database's tables: %w", err)
	}
	if err := target.ReadAvailable(ctx, r.target.conn, r.backup.Database); err != nil {
		return err
	}
	steps, err := schema.CreateStatements(r.backup.Database, target, r.plan.create)
	if err != nil {
		return err
	}
	statements := slices.Concat(steps.After, steps.ForeignKeys)
	for len(statements) > 0 {
		n := 1
		for statements[0].Parallel && n < len(statements) && statements[n].Parallel {
			n++
		}
		if err := r.buildAll(ctx, statements[:n]); err != nil {
			return err
		}
		statements = statements[n:]
	}
	return nil
}

// buildAll runs statements that do not depend on one another.
func (r *restorer) buildAll(ctx context.Context, statements []schema.Statement) error {
	todo := make(chan schema.Statement, len(statements))
	for _, s := range statements {
		todo <- s
	}
	close(todo)
	group, ctx := errgroup.WithContext(ctx)
	for range min(len(statements), max(r.options.Workers, 1)) {
		group.Go(func() error {
			conn, err := r.target.connect(ctx)
			if err != nil {
				return err
			}
			defer disconnect(conn)
			for s := range todo {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fault.Point(FaultBuilding)
				if _, err := conn.Exec(ctx, s.SQL); err != nil {
					return fmt.Errorf("create %s %s on table %s: %w", s.Kind, s.Name, s.Table, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// complete makes sure that every row of every table was written by the restore and that none is missing, and records in the same
// transaction that the restore is done. Nobody writes to the tables meanwhile.
func (r *restorer) complete(ctx context.Context) error {
	r.options.Progress.Begin("comparing row counts", 0)
	if err := r.setSequences(ctx); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, r.target.conn, func(tx pgx.Tx) error {
		want := map[schema.Name]int64{}
		for _, t := range r.backup.Manifest.Tables {
			want[r.plan.targets[t.FullName()]] += t.Rows
		}
		var wrong []string
		for _, name := range r.plan.targetTables() {
			if _, err := tx.Exec(ctx, "LOCK TABLE "+r.plan.only(name)+" IN SHARE MODE"); err != nil {
				return fmt.Errorf("lock table %s: %w", name, err)
			}
			var rows, foreign int64
			err := tx.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE xmin NOT IN (SELECT xid::xid FROM syncline.restored_files WHERE restore_id = $1)) FROM "+
				r.plan.only(name), r.id).Scan(&rows, &foreign)
			if err != nil {
				return fmt.Errorf("count the rows of table %s: %w", name, err)
			}
			switch {
			case foreign > 0:
				wrong = append(wrong, fmt.Sprintf("%s has %d rows that the restore did not write", name, foreign))
			case rows != want[name]:
				wrong = append(wrong, fmt.Sprintf("%s has %d rows and the backup %d", name, rows, want[name]))
			}
		}
		if wrong != nil {
			return fmt.Errorf("%w: %s; something else writes to this database: end that, and restore again with --replace", ErrRows, strings.Join(wrong, "; "))
		}
		if _, err := tx.Exec(ctx, "DELETE FROM syncline.restored_files WHERE restore_id = $1", r.id); err != nil {
			return fmt.Errorf("complete the restore: %w", err)
		}
		tag, err := tx.Exec(ctx, `UPDATE syncline.restores SET state = 'done', done_at = now(), done_xid = pg_catalog.pg_current_xact_id(), created_tables = '[]'
			WHERE restore_id = $1 AND state = 'restoring'`, r.id)
		if err != nil {
			return fmt.Errorf("complete the restore: %w", err)
		}
		if tag.RowsAffected() != 1 {
			return errSuperseded
		}
		return nil
	})
}

// setSequences gives the sequences the values that they had when the backup was made.
func (r *restorer) setSequences(ctx context.Context) error {
	target, err := schema.Read(ctx, r.target.conn, schema.Selection{})
	if err != nil {
		return fmt.Errorf("read the database's sequences: %w", err)
	}
	statements, err := schema.SequenceStatements(r.backup.Database, target)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err := r.target.conn.Exec(ctx, s.SQL); err != nil {
			return fmt.Errorf("set sequence %s: %w", s.Name, err)
		}
	}
	return nil
}
