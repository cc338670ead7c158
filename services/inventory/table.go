package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// table is a table as the snapshot shows it.
type table struct {
	name     schema.Name
	oid      uint32
	filenode uint32
	pages    int64 // by now; there may be more than in the snapshot
	columns  []column
	rows     string // a condition for the rows of the set, "" for all
}

type column struct {
	name      string
	number    int16
	typeOID   uint32
	modifier  int32
	domain    bool
	generated bool
}

// Names are compared as text: as a name, one that is too long would be cut and could match another.
const tableQuery = `
SELECT c.oid, c.relkind::text, c.relpersistence::text, c.relfilenode
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2::text`

const columnsQuery = `
SELECT attname::text, attnum, atttypid, atttypmod, coalesce(typtype = 'd', false), attgenerated <> ''
FROM pg_attribute LEFT JOIN pg_type t ON t.oid = atttypid WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`

// lockTable finds a table in the snapshot and keeps others from changing it until the transaction ends. It returns
// ErrTableRewritten when its storage is not the one that the snapshot shows: TRUNCATE, CLUSTER, VACUUM FULL and rewriting
// ALTERs move the rows into new storage in which the snapshot does not find them, or not in the same pages.
//
// Queries of the transaction see the catalogs by the snapshot, whereas LOCK, the functions pg_relation_filenode and
// to_regclass, and the parser see them as they are now. That is what is compared here.
//
// A table that is not in the set, if there is one, is left alone and as good as not there.
func lockTable(ctx context.Context, conn *pgx.Conn, name schema.Name, only *set, lockTimeout time.Duration) (table, error) {
	t, err := readTable(ctx, conn, name)
	if err == nil {
		err = only.choose(ctx, conn, &t)
	}
	if err != nil {
		return table{}, only.hide(name, err)
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", lockTimeout.Milliseconds())); err != nil {
		return table{}, explain(ctx, err)
	}
	if _, err := conn.Exec(ctx, "LOCK TABLE ONLY "+name.SQL()+" IN ACCESS SHARE MODE"); err != nil {
		return table{}, lockError(ctx, conn, t, lockTimeout, err)
	}
	if _, err := conn.Exec(ctx, "SET LOCAL lock_timeout = 0"); err != nil {
		return table{}, explain(ctx, err)
	}
	var oid, filenode uint32
	err = conn.QueryRow(ctx, "SELECT coalesce(to_regclass($1)::oid, 0), coalesce(pg_relation_filenode($2), 0), "+
		"coalesce(pg_relation_size($2), 0) / current_setting('block_size')::int", name.SQL(), t.oid).Scan(&oid, &filenode, &t.pages)
	switch {
	case err != nil:
		return table{}, explain(ctx, err)
	case oid != t.oid:
		return table{}, fmt.Errorf("%w: another table has its name now: take it from a new snapshot", ErrTableRewritten)
	case filenode != t.filenode:
		return table{}, fmt.Errorf("%w: it was truncated or rewritten: take it from a new snapshot", ErrTableRewritten)
	}
	return t, nil
}

func readTable(ctx context.Context, conn *pgx.Conn, name schema.Name) (table, error) {
	t := table{name: name}
	var kind, persistence string
	err := conn.QueryRow(ctx, tableQuery, name.Schema, name.Name).Scan(&t.oid, &kind, &persistence, &t.filenode)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return table{}, fmt.Errorf("%w: the snapshot has no such table; names are taken exactly as they are written, and one made after the snapshot needs a new snapshot", ErrNoSuchTable)
	case err != nil:
		return table{}, explain(ctx, err)
	case kind == "p":
		return table{}, fmt.Errorf("%w: it has no rows of its own: dump its partitions", ErrPartitioned)
	case kind != "r":
		return table{}, fmt.Errorf("%w: it is %s", ErrNotATable, relationKind(kind))
	case persistence != "p":
		return table{}, fmt.Errorf("%w: it is not a permanent table, so its changes are not in the log", ErrNotATable)
	}
	rows, err := conn.Query(ctx, columnsQuery, t.oid)
	if err != nil {
		return table{}, explain(ctx, err)
	}
	var c column
	if _, err := pgx.ForEachRow(rows, []any{&c.name, &c.number, &c.typeOID, &c.modifier, &c.domain, &c.generated}, func() error {
		t.columns = append(t.columns, c)
		return nil
	}); err != nil {
		return table{}, explain(ctx, err)
	}
	return t, nil
}

func relationKind(kind string) string {
	switch kind {
	case "v":
		return "a view"
	case "m":
		return "a materialized view"
	case "f":
		return "a foreign table"
	case "S":
		return "a sequence: its value is in the inventory"
	case "i", "I":
		return "an index"
	}
	return "no table"
}

// lockError explains why a table could not be locked. The session's transaction has failed.
func lockError(ctx context.Context, conn *pgx.Conn, t table, lockTimeout time.Duration, err error) error {
	switch postgres.Code(err) {
	case codeUndefinedTable, codeUndefinedSchema, codeWrongKind:
		return fmt.Errorf("%w: it was dropped or renamed: open a new snapshot", ErrTableRewritten)
	case codeNoPrivilege:
		return noSelect(t.name, conn.Config().User, err)
	case codeLockTimeout:
		return fmt.Errorf("%w%s for longer than %v: try again when that has ended", ErrTableLocked, holders(ctx, conn, t.oid), lockTimeout)
	}
	return explain(ctx, err)
}

// holders names the sessions that keep a table locked, "" when that cannot be found out.
func holders(ctx context.Context, conn *pgx.Conn, oid uint32) string {
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		return ""
	}
	rows, err := conn.Query(ctx, `SELECT coalesce('pid ' || pid, 'a prepared transaction') FROM pg_locks
		WHERE locktype = 'relation' AND relation = $1 AND mode = 'AccessExclusiveLock'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY granted DESC, pid`, oid)
	if err != nil {
		return ""
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(found) == 0 {
		return ""
	}
	return " by " + strings.Join(found, ", ")
}

// choose returns the named columns, or all that are not generated.
func (t table) choose(names []string) ([]column, error) {
	if len(names) == 0 {
		return slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return c.generated }), nil
	}
	chosen := make([]column, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("%w %q: the table has no such column", ErrColumn, name)
		case t.columns[i].generated:
			return nil, fmt.Errorf("%w %q: it is generated, so it is computed anew wherever the row is loaded", ErrColumn, name)
		}
		chosen = append(chosen, t.columns[i])
	}
	return chosen, nil
}

// checkTypes compares the columns' types in the snapshot with those that the client expects; none are expected when there are none.
func checkTypes(columns []column, expected []uint32) error {
	for i, typeOID := range expected {
		if c := columns[i]; c.typeOID != typeOID {
			return fmt.Errorf("%w: column %q is of the type with OID %d, and %d was expected", ErrTableRewritten, c.name, c.typeOID, typeOID)
		}
	}
	return nil
}

// checkBinary refuses the binary format for columns whose types are not known to have the same bytes everywhere.
func checkBinary(columns []column) error {
	for _, c := range columns {
		if !schema.BinaryCopy(c.typeOID) {
			return fmt.Errorf("%w %q: its type cannot be dumped in the binary format: ask for COPY text", ErrColumn, c.name)
		}
	}
	return nil
}

// checkColumns compares the columns, as the snapshot shows them, with what the parser makes of their names now. A dropped,
// renamed or retyped column is ErrTableRewritten. The table is locked.
func checkColumns(ctx context.Context, conn *pgx.Conn, name schema.Name, columns []column) error {
	described, err := conn.PgConn().Prepare(ctx, "", selectColumns(name, columns), nil)
	switch {
	case err != nil && postgres.Code(err) == codeUndefinedColumn:
		return fmt.Errorf("%w: %s: open a new snapshot", ErrTableRewritten, serverText(err))
	case err != nil && postgres.Code(err) == codeNoPrivilege:
		return noSelect(name, conn.Config().User, err)
	case err != nil:
		return explain(ctx, err)
	}
	for i, c := range columns {
		f := described.Fields[i]
		retyped := !c.domain && (f.DataTypeOID != c.typeOID || f.TypeModifier != c.modifier) // a domain is described as its base type
		if retyped || f.TableAttributeNumber != uint16(c.number) {
			return fmt.Errorf("%w: column %q was altered: open a new snapshot", ErrTableRewritten, c.name)
		}
	}
	return nil
}

func noSelect(name schema.Name, user string, err error) error {
	role := postgres.Ident(user)
	if strings.Contains(serverText(err), "row-level security") {
		return fmt.Errorf("%w: row-level security hides rows of table %s from role %s: run ALTER ROLE %s BYPASSRLS", ErrPermission, name, user, role)
	}
	return fmt.Errorf("%w: %s: run GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON TABLE %s TO %s",
		ErrPermission, serverText(err), postgres.Ident(name.Schema), role, name.SQL(), role)
}
