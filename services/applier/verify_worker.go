package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// verifyLockTimeout bounds the wait for a table of the target that is locked. Applying a TRUNCATE locks one for a moment.
const verifyLockTimeout = 10 * time.Second

// cannotCompareError says that one table cannot be compared, which is no reason not to compare others.
type cannotCompareError struct {
	err     error
	passes  bool // it may be compared from a later pair of snapshots
	missing bool // one side does not have it
}

func (e *cannotCompareError) Error() string { return e.err.Error() }
func (e *cannotCompareError) Unwrap() error { return e.err }

// verifyWorker compares one table after the other over a session of its own.
type verifyWorker struct {
	v    *verification
	pair *snapshotPair
	conn *pgx.Conn
}

func (v *verification) newWorker(ctx context.Context, pair *snapshotPair) (*verifyWorker, error) {
	conn, err := v.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &verifyWorker{v, pair, conn}, nil
}

// connect opens a session on the target.
func (v *verification) connect(ctx context.Context) (*pgx.Conn, error) {
	return postgres.Connect(ctx, v.runner.config.PostgresURL, "syncline verify "+v.name)
}

func (w *verifyWorker) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
}

// within runs a comparison in a transaction that sees the target's snapshot, while nobody can change the table's storage. The
// lock is no longer than the comparison: applying a TRUNCATE waits for it.
func (w *verifyWorker) within(ctx context.Context, u *verifyUnit, compare func(ctx context.Context) error) error {
	tx, err := w.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("read the replica: %w", err)
	}
	if err := w.enter(ctx, tx, u); err != nil {
		return errors.Join(err, w.leave(ctx, tx))
	}
	return errors.Join(w.targetError(u, compare(ctx)), w.leave(ctx, tx))
}

// leave ends the transaction. A session that broke with what came before has none.
func (w *verifyWorker) leave(ctx context.Context, tx pgx.Tx) error {
	if w.conn.IsClosed() {
		return nil
	}
	return tx.Rollback(context.WithoutCancel(ctx))
}

func (w *verifyWorker) enter(ctx context.Context, tx pgx.Tx, u *verifyUnit) error {
	// One backend, and no time spent on compiling.
	settings := []string{
		"SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off",
		fmt.Sprintf("SET LOCAL lock_timeout = %d", verifyLockTimeout.Milliseconds()),
	}
	if w.pair.exported != "" { // else the transaction sees the target as it is
		settings = append([]string{"SET TRANSACTION SNAPSHOT " + postgres.Literal(w.pair.exported)}, settings...)
	}
	for _, sql := range settings {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("read the replica: %w", err)
		}
	}
	if u.order == checksum.ByKey {
		if _, err := tx.Exec(ctx, checksum.RangesByIndex); err != nil {
			return fmt.Errorf("read the replica: %w", err)
		}
	}
	only := "ONLY "
	if u.partitioned {
		only = ""
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE "+only+u.target.SQL()+" IN ACCESS SHARE MODE"); err != nil {
		return w.targetError(u, err)
	}
	var same, unchanged bool
	var leaves int
	err := tx.QueryRow(ctx, `SELECT coalesce(pg_catalog.to_regclass($1)::oid = $2, false), count(*),
			coalesce(bool_and(c.relfilenode = coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)), true)
		FROM (SELECT relid::oid FROM pg_catalog.pg_partition_tree($2::oid::regclass) UNION SELECT $2::oid) t (oid)
		JOIN pg_catalog.pg_class c ON c.oid = t.oid WHERE c.relkind = 'r'`, u.target.SQL(), u.oid).Scan(&same, &leaves, &unchanged)
	if err != nil {
		return fmt.Errorf("read the replica: %w", err)
	}
	if !same || !unchanged || leaves != u.leaves {
		return &cannotCompareError{err: fmt.Errorf("table %s of the replica was truncated, rewritten or replaced again and again; try when that has ended", u.target), passes: true}
	}
	return nil
}

// targetError tells failures of one table of the target from those of the whole comparison.
func (w *verifyWorker) targetError(u *verifyUnit, err error) error {
	code := postgres.Code(err)
	switch {
	case err == nil || code == "" || w.conn.IsClosed():
		return err
	case code == "42501":
		role := postgres.Ident(w.conn.Config().User)
		if strings.Contains(err.Error(), "row-level security") {
			return &cannotCompareError{err: fmt.Errorf("%w: run ALTER ROLE %s BYPASSRLS on the replica", err, role)}
		}
		return &cannotCompareError{err: fmt.Errorf("%w: run GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON TABLE %s TO %s on the replica",
			err, postgres.Ident(u.target.Schema), role, u.target.SQL(), role)}
	case code == "55P03":
		return &cannotCompareError{err: fmt.Errorf("table %s of the replica was locked for longer than %v", u.target, verifyLockTimeout), passes: true}
	case code == "42P01" || code == "3F000" || code == "42703": // table, schema or column went after the snapshot
		return &cannotCompareError{err: fmt.Errorf("table %s of the replica was altered meanwhile: %w", u.target, err), passes: true}
	case code == "54000" || code == "XX000": // a row beyond 1 GB of text
		return &cannotCompareError{err: fmt.Errorf("table %s of the replica cannot be read: %w", u.target, err)}
	}
	return err
}

// sourceError does the same for the source.
func sourceError(err error) error {
	switch rpc.Reason(err) {
	case reasonTableRewritten, reasonTableLocked, "INVALID_COLUMN":
		return &cannotCompareError{err: err, passes: true}
	case reasonNoTable:
		return &cannotCompareError{err: err, missing: true}
	case "PERMISSION_DENIED", "ROW_TOO_LARGE", "NOT_A_TABLE", "PARTITIONED_TABLE":
		return &cannotCompareError{err: err}
	}
	return err
}
