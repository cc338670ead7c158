package applier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/copytext"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// maxWidened bounds how often a batch takes in further rows that are in the way of its own.
const maxWidened = 20

// mendBatch makes a batch's rows equal to the source's in one target transaction. Rows that are in the way of others, because
// they have to give up a unique value first, are mended together with them.
func (p *repair) mendBatch(ctx context.Context, conn *pgx.Conn, s copySnapshot, b *batch) error {
	u := b.table.unit
	replace := false // changed rows are deleted and inserted again, so that they can swap unique values
	for widened := 0; ; {
		var err error
		if b, err = p.entangled(ctx, conn, b); err != nil {
			return err
		}
		there, err := p.rowsThere(ctx, s, b)
		if rpc.Reason(err) == reasonInvalidRange && !b.asText {
			b.asText = true // as bigint the replica has keys that are beyond the source's integer
			continue
		}
		if err != nil {
			return err
		}
		m := &mending{repair: p, unit: u, snapshot: s, conn: conn, batch: b, replace: replace}
		err = m.run(ctx, there)
		code := postgres.Code(err)
		switch {
		case err == nil:
			p.tables[u.target].result.Resolved += m.resolved
			return p.described(u, m.changes)
		case len(u.key) > 0 && strings.HasPrefix(code, "22") && !b.hereAsText: // a key, or else a value, which is refused once more then
			b.hereAsText = true
			continue
		case code != "23505" && code != "23P01":
			return mendError(u, err)
		case !replace:
			replace = true
			continue
		}
		wider, more := m.widen(ctx, m.changes)
		if more != nil {
			return mendError(u, more)
		}
		if wider == nil || widened == maxWidened || wider.size() > batchHashes {
			return mendError(u, fmt.Errorf("%w; `syncline sync --mode copy` copies the table anew", err))
		}
		b = wider
		widened++
	}
}

func (p *repair) described(u *verifyUnit, changes []rowChange) error {
	if err := p.describeChanges(p.tables[u.target], u, changes); err != nil {
		return err
	}
	return p.tell(false, func(now *applierv1.RepairProgress) { now.Mended += int64(len(changes)) })
}

// mending is one attempt to mend a batch.
type mending struct {
	repair   *repair
	unit     *verifyUnit
	snapshot copySnapshot
	conn     *pgx.Conn
	batch    *batch
	replace  bool

	target  *apply.Target
	more    []string // columns that only the target has, and does not compute
	changes []rowChange

	resolved int64 // changes in quarantine that have left it
}

// run changes the rows and commits, or changes nothing.
func (m *mending) run(ctx context.Context, there map[string]*rowThere) error {
	tx, err := m.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("mend table %s: %w", m.unit.target, err)
	}
	defer func() {
		if !m.conn.IsClosed() {
			_ = tx.Rollback(context.WithoutCancel(ctx))
		}
	}()
	commitTime, err := m.enter(ctx, tx)
	if err != nil {
		return err
	}
	here, err := rowsHere(ctx, tx, m.batch, m.more)
	if err != nil {
		return err
	}
	m.changes = changesOf(m.unit, there, here, m.repair.onlyInserts(m.unit))
	resolves, err := m.resolves(ctx, tx, there, here)
	if err != nil || len(m.changes)+len(resolves) == 0 {
		return err
	}
	if len(m.changes) > 0 {
		// To whoever follows this replica the rows come from the source, as they are there at this position.
		if err := apply.WriteOrigin(ctx, tx, m.repair.source.server.GetServerId(), m.snapshot.position, commitTime); err != nil {
			return err
		}
		if err := m.write(ctx, tx); err != nil {
			return err
		}
	}
	if err := m.resolve(ctx, tx, resolves); err != nil {
		return err
	}
	fault.Point(FaultRepairWritten)
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("mend table %s: %w", m.unit.target, err)
	}
	fault.Point(FaultRepairCommitted)
	return nil
}

// enter makes sure that the target holds exactly the source transactions up to the snapshot's position, in the unit's tables too,
// and keeps it so until the transaction ends: whatever is applied or copied has to update these rows.
func (m *mending) enter(ctx context.Context, tx pgx.Tx) (commitTime change.Timestamp, err error) {
	if m.repair.copying {
		commitTime, err = m.enterCopy(ctx, tx)
	} else {
		commitTime, err = m.enterPosition(ctx, tx)
	}
	if err != nil {
		return 0, err
	}
	if m.target, err = apply.ReadTarget(ctx, tx, m.unit.target); err != nil {
		return 0, err
	}
	if m.target == nil || m.target.OID != m.unit.oid {
		return 0, &cannotCompareError{err: fmt.Errorf("table %s of the replica was replaced meanwhile", m.unit.target), passes: true}
	}
	for _, c := range m.target.Columns {
		if !c.Generated && !slices.Contains(m.unit.columns, c.Name) {
			m.more = append(m.more, c.Name)
		}
	}
	return commitTime, nil
}

// enterPosition does so for a replication that applies.
func (m *mending) enterPosition(ctx context.Context, tx pgx.Tx) (commitTime change.Timestamp, err error) {
	name, at := m.repair.request.GetName(), m.snapshot.position
	var log, lsn string
	var stored *int64
	if err := tx.QueryRow(ctx, "SELECT log_id, lsn::text, commit_time FROM syncline.positions WHERE replication = $1 FOR UPDATE", name).Scan(&log, &lsn, &stored); err != nil {
		return 0, fmt.Errorf("read position of replication %s: %w", name, err)
	}
	position, err := change.ParsePosition(log + "@" + lsn)
	if err != nil {
		return 0, err
	}
	if position.LogID != at.LogID || position.LSN > at.LSN {
		return 0, fmt.Errorf("%w: the replica is at %s instead of %s", errSuperseded, position, at)
	}
	for _, source := range m.unit.sources {
		var right bool
		err := tx.QueryRow(ctx, `SELECT state = 'copied' AND log_id = $4 AND copy_lsn <= $5::text::pg_lsn AND target_schema = $6 AND target_table = $7
			FROM syncline.tables WHERE replication = $1 AND schema_name = $2 AND table_name = $3 FOR SHARE`,
			name, source.Schema, source.Name, at.LogID.String(), at.LSN.String(), m.unit.target.Schema, m.unit.target.Name).Scan(&right)
		if err == nil && !right || errors.Is(err, pgx.ErrNoRows) {
			return 0, &cannotCompareError{err: fmt.Errorf("table %s was copied anew meanwhile", source), passes: true}
		}
		if err != nil {
			return 0, fmt.Errorf("read tables of replication %s: %w", name, err)
		}
	}
	if stored == nil {
		return change.TimestampOf(time.Now()), nil
	}
	return change.Timestamp(*stored), nil
}

// table is the target as statements name it.
func (m *mending) table() string {
	if m.target.Partitioned {
		return m.unit.target.SQL()
	}
	return "ONLY " + m.unit.target.SQL()
}

// write deletes, then updates, then inserts: so a unique value is free before it is taken.
func (m *mending) write(ctx context.Context, tx pgx.Tx) error {
	var deletes []*rowHere
	var updates []rowChange
	var inserts, replaced [][][]byte
	for _, c := range m.changes {
		switch {
		case c.here == nil:
			inserts = append(inserts, c.there)
		case c.there == nil:
			deletes = append(deletes, c.here)
		case m.replace || m.setsIdentity(c):
			deletes = append(deletes, c.here)
			replaced = append(replaced, slices.Concat(c.there, c.here.values[len(c.there):]))
		default:
			updates = append(updates, c)
		}
	}
	columns := readingOf(m.unit).Columns()
	if err := m.remove(ctx, tx, deletes); err != nil {
		return err
	}
	if err := m.update(ctx, updates, columns); err != nil {
		return err
	}
	if err := m.insert(ctx, tx, columns, inserts); err != nil {
		return err
	}
	return m.insert(ctx, tx, slices.Concat(columns, m.more), replaced)
}

// setsIdentity tells whether a change is of a column that cannot stand in SET.
func (m *mending) setsIdentity(c rowChange) bool {
	for i, name := range readingOf(m.unit).Columns() {
		at := slices.IndexFunc(m.target.Columns, func(t apply.TargetColumn) bool { return t.Name == name })
		if at >= 0 && m.target.Columns[at].IdentityAlways && !sameValues(c.there[i:i+1], c.here.values[i:i+1]) {
			return true
		}
	}
	return false
}

func (m *mending) remove(ctx context.Context, tx pgx.Tx, rows []*rowHere) error {
	places := map[string][]string{}
	for _, r := range rows {
		places[r.table] = append(places[r.table], r.place)
	}
	for table, list := range places {
		tag, err := tx.Exec(ctx, "DELETE FROM "+m.table()+" WHERE tableoid = $1::text::oid AND ctid = ANY ($2::text[]::tid[])", table, list)
		if err != nil {
			return err
		}
		if tag.RowsAffected() != int64(len(list)) {
			return m.moved("deleted", int64(len(list)), tag.RowsAffected())
		}
	}
	return nil
}

// moved says that rows are not where they were, or that a trigger kept them from being changed.
func (m *mending) moved(what string, want, got int64) error {
	return &cannotCompareError{err: fmt.Errorf("table %s of the replica: %d rows were %s instead of %d: somebody else writes to them, or a trigger stands in the way", m.unit.target, got, what, want), passes: true}
}

// What is sent before results are read.
const (
	maxQueued      = 500
	maxQueuedBytes = 1 << 20
)

// update changes rows where they lie, in the columns that differ.
func (m *mending) update(ctx context.Context, updates []rowChange, columns []string) error {
	for len(updates) > 0 {
		n, size := 0, 0
		pipeline := m.conn.PgConn().StartPipeline(ctx)
		for ; n < len(updates) && n < maxQueued && size < maxQueuedBytes; n++ {
			c := updates[n]
			params := [][]byte{[]byte(c.here.table), []byte(c.here.place)}
			var set []string
			for i, v := range c.there {
				if sameValues(c.here.values[i:i+1], c.there[i:i+1]) {
					continue
				}
				params = append(params, v)
				set = append(set, postgres.Ident(columns[i])+" = $"+strconv.Itoa(len(params)))
				size += len(v)
			}
			pipeline.SendQueryParams("UPDATE "+m.table()+" SET "+strings.Join(set, ", ")+" WHERE tableoid = $1::text::oid AND ctid = $2::text::tid", params, nil, nil, nil)
		}
		if err := m.updated(pipeline, n); err != nil {
			return err
		}
		updates = updates[n:]
	}
	return nil
}

// insert writes rows with COPY. Values are of the columns, in their order.
func (m *mending) insert(ctx context.Context, tx pgx.Tx, columns []string, rows [][][]byte) error {
	if len(rows) == 0 {
		return nil
	}
	sql := "COPY " + m.unit.target.SQL()
	if len(columns) > 0 {
		sql += " (" + postgres.Idents(columns) + ")"
	}
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, &rowReader{rows: rows}, sql+" FROM STDIN")
	if err != nil {
		return err
	}
	if tag.RowsAffected() != int64(len(rows)) {
		return m.moved("inserted", int64(len(rows)), tag.RowsAffected())
	}
	return nil
}

// rowReader gives rows to COPY, one after the other.
type rowReader struct {
	rows [][][]byte
	line []byte
	rest []byte
}

func (r *rowReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(r.rows) == 0 {
			return 0, io.EOF
		}
		r.line = copytext.Append(r.line[:0], r.rows[0])
		r.rest, r.rows = r.line, r.rows[1:]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
