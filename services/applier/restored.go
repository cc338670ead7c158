package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Reasons why a replication cannot begin with what was restored.
const (
	reasonNoRestore       = "NO_RESTORE"
	reasonRestoreTooOld   = "RESTORE_TOO_OLD"
	reasonRestoredChanged = "RESTORED_TABLE_CHANGED"
)

// restoredSnapshot stands for the id of the snapshot that a restored table was copied from: its rows came from the source.
const restoredSnapshot = "restored"

// mostXIDs is how many transactions back it can be told which of two came first: half of PostgreSQL's circle of ids.
const mostXIDs = 1 << 31

// copyInstead is the way out when tables cannot be followed on.
const copyInstead = "restore a newer backup, or leave out --from-restore and have the tables copied with --replace"

// restoredTables are tables that backups of a source were restored into. A nil one has none.
type restoredTables struct{ list []restoredTable }

// restoredTable is one of them. The rows are as of the position.
type restoredTable struct {
	storedTable

	targetOID uint32
	rows      int64
	doneXID   uint64 // the transaction that completed the restore
}

// findRestored returns the tables of the target that were restored from backups of a source, unless the replication does not begin
// with them. It refuses when there are none, or when the source's change log does not reach from their position to now.
func findRestored(ctx context.Context, q querier, src *source, spec *applierv1.ReplicationSpec) (*restoredTables, error) {
	if !spec.GetFromRestore() {
		return nil, nil
	}
	rows, err := q.Query(ctx, `SELECT t.schema_name, t.table_name, t.source_oid, t.target_schema, t.target_table, t.target_oid, t.rows,
		r.log_id || '@' || r.lsn::text, r.done_xid::text::numeric
		FROM syncline.restored_tables t JOIN syncline.restores r USING (restore_id)
		WHERE r.state = 'done' AND r.source_server_id = $1 ORDER BY 1, 2, r.done_at DESC`, src.server.GetServerId())
	if err != nil {
		return nil, fmt.Errorf("read what was restored: %w", err)
	}
	found := &restoredTables{}
	found.list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t restoredTable, err error) {
		var position string
		err = row.Scan(&t.name.Schema, &t.name.Name, &t.oid, &t.target.Schema, &t.target.Name, &t.targetOID, &t.rows, &position, &t.doneXID)
		t.own = t.name == t.target
		if err == nil {
			t.position, err = change.ParsePosition(position)
		}
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read what was restored: %w", err)
	}
	// The same table of the source may have been restored into two of ours; the last one counts.
	found.list = slices.CompactFunc(found.list, func(a, b restoredTable) bool { return a.name == b.name })
	if len(found.list) == 0 {
		return nil, nothingRestored(ctx, q, src)
	}
	return found, nil
}

// nothingRestored says why there is nothing to begin with.
func nothingRestored(ctx context.Context, q querier, src *source) error {
	rows, err := q.Query(ctx, "SELECT DISTINCT state, source_server_id FROM syncline.restores ORDER BY 1 DESC, 2")
	if err != nil {
		return fmt.Errorf("read what was restored: %w", err)
	}
	var state, server string
	why := "no backup was restored into this replica; `syncline restore` does that"
	_, err = pgx.ForEachRow(rows, []any{&state, &server}, func() error {
		if state == "restoring" {
			why = "the restore of a backup into this replica is not complete; run `syncline restore` again"
		} else {
			why = fmt.Sprintf("what was restored into this replica is a backup of another server (%s), and the source at this address is %s; give the address of that server, or restore a backup of this one", server, src.server.GetServerId())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what was restored: %w", err)
	}
	return failed(reasonNoRestore, "%s", why)
}

// followable refuses tables whose changes since the backup are not all in the source's change log.
func (r *restoredTables) followable(ctx context.Context, src *source) error {
	ranges, err := src.loggerClient().GetRanges(ctx, &loggerv1.GetRangesRequest{})
	if err != nil {
		return fmt.Errorf("ask the source's logger what its change log holds: %w", err)
	}
	for _, t := range r.list {
		position, lsn := t.position, uint64(t.position.LSN)
		switch {
		case position.LogID.String() != ranges.GetLogId():
			return failed(reasonRestoreTooOld, "table %s was restored from a backup as of change log %s, and the source has begun another one since (%s), so what changed in between is not known; %s", t.name, position.LogID, ranges.GetLogId(), copyInstead)
		case lsn < ranges.GetFirstLsn():
			return failed(reasonRestoreTooOld, "table %s was restored from a backup as of %s, and the source's change log begins at %s by now; %s (--log-max-age of the primary says how long changes are kept)", t.name, position.LSN, change.LSN(ranges.GetFirstLsn()), copyInstead)
		case lsn > ranges.GetLastLsn():
			return failed(reasonRestoreTooOld, "table %s was restored from a backup as of %s, and the source's change log ends at %s: the source has lost what the backup has; %s", t.name, position.LSN, change.LSN(ranges.GetLastLsn()), copyInstead)
		}
	}
	return nil
}

// chosen are the tables that belong to the replication. It refuses those that another replication writes, and those that the source has
// dropped and made anew.
func (r *restoredTables) chosen(ctx context.Context, src *source, database schema.Database, others map[schema.Name][]targetHolder) (*restoredTables, error) {
	out := &restoredTables{}
	for _, t := range r.list {
		described, found := database.Table(t.name)
		if !found {
			continue
		}
		if other := others[t.target]; len(other) > 0 {
			return nil, rpc.Errorf(codes.AlreadyExists, reasonExists, "table %s of the replica is written by replication %s already; leave it out with --exclude-table", t.target, other[0].replication)
		}
		if described.OID != t.oid {
			return nil, failed(reasonRestoredChanged, "the source has dropped table %s since the backup, and has another one of that name; leave it out with --exclude-table, or %s", t.name, copyInstead)
		}
		out.list = append(out.list, t)
	}
	return out, out.followable(ctx, src)
}

// known are the tables that are not to be copied.
func (r *restoredTables) known() map[schema.Name]*storedTable {
	known := make(map[schema.Name]*storedTable, len(r.list))
	for i := range r.list {
		known[r.list[i].name] = &r.list[i].storedTable
	}
	return known
}

func (r *restoredTables) stored() []*storedTable {
	if r == nil {
		return nil
	}
	list := make([]*storedTable, len(r.list))
	for i := range r.list {
		list[i] = &r.list[i].storedTable
	}
	return list
}

// unchanged refuses tables whose rows are not those that were restored: which were written by a later transaction than the one that
// completed the restore, or which are gone. It reads all of them.
func (r *restoredTables) unchanged(ctx context.Context, q querier) error {
	if r == nil {
		return nil
	}
	byTarget := map[schema.Name]restoredTable{}
	for _, t := range r.list {
		if sum, found := byTarget[t.target]; found {
			t.rows += sum.rows
			t.doneXID = min(t.doneXID, sum.doneXID)
		}
		byTarget[t.target] = t
	}
	var changed []string
	for _, t := range byTarget {
		why, err := t.changed(ctx, q)
		if err != nil {
			return err
		}
		if why != "" {
			changed = append(changed, fmt.Sprintf("table %s %s", t.target, why))
		}
	}
	if changed == nil {
		return nil
	}
	slices.Sort(changed)
	return failed(reasonRestoredChanged, "the replica is not as it was restored: %s; leave such tables out with --exclude-table, or %s", strings.Join(changed, "; "), copyInstead)
}

// changed says how a table of the target differs from what was restored into it; empty when it does not.
func (t *restoredTable) changed(ctx context.Context, q querier) (string, error) {
	var oid uint32
	var partitioned bool
	var since uint64
	err := q.QueryRow(ctx, `SELECT coalesce(c.oid, 0), coalesce(c.relkind = 'p', false), pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::numeric - $2::numeric
		FROM (SELECT) one LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass($1)`, t.target.SQL(), t.doneXID).Scan(&oid, &partitioned, &since)
	if err != nil {
		return "", fmt.Errorf("look for table %s of the replica: %w", t.target, err)
	}
	switch {
	case oid == 0:
		return "is gone", nil
	case oid != t.targetOID:
		return "is another one than that which was restored", nil
	case since >= mostXIDs:
		return "was restored too many transactions ago to tell whether it was written since", nil
	}
	only := "ONLY " + t.target.SQL()
	if partitioned {
		only = t.target.SQL()
	}
	var rows, later int64
	// xmin keeps the transaction that wrote the row also when it is frozen.
	err = q.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE age(xmin) < age($1::text::xid8::xid)) FROM "+only, fmt.Sprint(t.doneXID)).Scan(&rows, &later)
	if err != nil {
		return "", fmt.Errorf("read table %s of the replica: %w", t.target, err)
	}
	switch {
	case later > 0:
		return fmt.Sprintf("has %d rows that were written since", later), nil
	case rows != t.rows:
		return fmt.Sprintf("has %d rows instead of %d", rows, t.rows), nil
	}
	return "", nil
}

// take makes the tables part of a replication, copied as of their backup's position: within the transaction that carries the plan
// out, while nobody else can write to them.
func (r *restoredTables) take(ctx context.Context, tx pgx.Tx, replication string, gone *drops) error {
	if r == nil {
		return nil
	}
	for _, t := range r.list {
		if _, err := tx.Exec(ctx, "LOCK TABLE "+t.target.SQL()+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return fmt.Errorf("lock table %s: %w", t.target, err)
		}
	}
	if err := r.unchanged(ctx, tx); err != nil {
		return err
	}
	for i := range r.list {
		t := &r.list[i].storedTable
		if err := addTable(ctx, tx, replication, t); err != nil {
			return err
		}
		if err := beginTable(ctx, tx, replication, t.name, copySnapshot{restoredSnapshot, t.position}, gone); err != nil {
			return err
		}
		if err := setTableState(ctx, tx, replication, t.name, tableCopied); err != nil {
			return err
		}
	}
	return nil
}
