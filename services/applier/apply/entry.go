package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/schema"
)

// entry is a change in quarantine, without its values.
type entry struct {
	heldEntry

	from                      sourceTxn
	number                    int64
	relation                  *change.Relation
	types                     []string // of the target's columns
	locator                   []int
	operation                 Operation
	hasOld                    bool
	code, constraint, message string
}

// StoredRelation is a table's shape as of a change in quarantine, as it is stored there.
type StoredRelation struct {
	OID      uint32         `json:"oid"`
	Identity string         `json:"identity"`
	Columns  []StoredColumn `json:"columns"`
}

// StoredColumn is one of its columns.
type StoredColumn struct {
	Name         string `json:"name"`
	TypeOID      uint32 `json:"type"` // on the source
	TypeModifier int32  `json:"modifier"`
	Key          bool   `json:"key"`
	Type         string `json:"target_type"` // of the target's column; "" where the target computes it
}

func newEntry(o *op, behind int64, refused error) *entry {
	e := &entry{
		from: *o.from, number: o.number, relation: o.plan.Relation, locator: o.plan.locator, operation: o.operation, hasOld: o.hasOld,
		heldEntry: heldEntry{
			behind: behind, bytes: int64(o.size()), target: nameOf(o.plan.Target), origin: o.from.origin.server,
			holds: o.plan.holdsOf(o.operation, o.decodeOld(nil), o.decodeNew(nil)),
		},
	}
	for _, c := range o.plan.columns {
		typ := ""
		if c != nil {
			typ = c.Type
		}
		e.types = append(e.types, typ)
	}
	if e.locator == nil {
		e.locator = o.plan.copyFields
	}
	if refused != nil {
		e.code, e.constraint, e.message = reasonOf(refused)
	}
	return e
}

// insert writes the entry, gives it its id and counts it. It reports false when the change is there already.
func (e *entry) insert(ctx context.Context, conn *pgx.Conn, c *Config) (fresh bool, err error) {
	plan := StoredRelation{OID: e.relation.OID, Identity: string(e.relation.Identity)}
	for i, column := range e.relation.Columns {
		plan.Columns = append(plan.Columns, StoredColumn{Name: column.Name, TypeOID: column.TypeOID, TypeModifier: column.TypeModifier, Key: column.Key, Type: e.types[i]})
	}
	shape, err := json.Marshal(plan)
	if err != nil {
		return false, fmt.Errorf("set aside: %w", err)
	}
	var behind *int64
	if e.behind != 0 {
		behind = &e.behind
	}
	o := &e.from.origin
	err = conn.QueryRow(ctx, `WITH entry AS (INSERT INTO syncline.quarantine (replication, log_id, commit_lsn, number, commit_time, xid,
			origin_server, origin_log, origin_lsn, origin_time, schema_name, table_name, target_schema, target_table, relation, locator,
			operation, has_old, signature, held, waits_behind, sqlstate, constraint_name, message, bytes)
		VALUES ($1, $2, $3::text::pg_lsn, $4, $5, $6, $7, $8, $9::text::pg_lsn, $10, $11, $12, $13, $14, $15::text::jsonb, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)
		ON CONFLICT (replication, log_id, commit_lsn, number) DO UPDATE SET number = excluded.number RETURNING id, xmax = 0 AS fresh),
		counted AS (UPDATE syncline.positions SET set_aside = set_aside + 1 WHERE replication = $1 AND (SELECT fresh FROM entry))
		SELECT id, fresh FROM entry`,
		c.Replication, c.Position.LogID.String(), e.from.commitLSN.String(), e.number, int64(e.from.commitTime), int64(e.from.xid),
		o.server, o.position.LogID.String(), o.position.LSN.String(), int64(o.commitTime), e.relation.Schema, e.relation.Name, e.target.Schema, e.target.Name,
		string(shape), e.locator, string(e.operation), e.hasOld, e.holds.stored(), e.holds.bytes(), behind, e.code, e.constraint, e.message, e.bytes).Scan(&e.id, &fresh)
	if err != nil {
		return false, fmt.Errorf("set aside: %w", err)
	}
	return fresh, nil
}

// stored is the signature as it is stored: "" for the whole table.
func (h *holds) stored() string {
	if h.whole {
		return ""
	}
	return h.signature
}

func (h *holds) bytes() [][]byte {
	list := make([][]byte, len(h.keys))
	for i := range h.keys {
		list[i] = h.keys[i][:]
	}
	return list
}

// valueSQL keeps a value as bytes, whatever it is.
const valueSQL = "INSERT INTO syncline.quarantine_values (entry, old, ordinal, kind, value) VALUES ($1::bigint, $2::boolean, $3::integer, $4::text, $5::bytea)"

var valueFormats = []int16{textFormat, textFormat, textFormat, textFormat, binaryFormat}

// insertValues queues the values of the entry's rows, as they came.
func (e *entry) insertValues(ctx context.Context, p *pipe, fixed *fixedStatements, o *op) error {
	id := strconv.AppendInt(nil, e.id, 10)
	for _, row := range []struct {
		old    string
		values block.Row
	}{{"true", o.old}, {"false", o.new}} {
		i := 0
		for c := row.values.Columns(); c.More(); i++ {
			kind, text := c.Next()
			params := [][]byte{id, []byte(row.old), strconv.AppendInt(nil, int64(i), 10), {kind}, nil}
			if kind == block.ValueText {
				params[4] = text
			}
			if err := p.sendFormats(ctx, &fixed.value, params, valueFormats, expectation{rows: 1, what: "set aside"}); err != nil {
				return err
			}
		}
	}
	return nil
}

// readEntry reads an entry to apply it again.
func readEntry(ctx context.Context, conn querier, replication string, known *heldEntry) (e *entry, old, now []value, err error) {
	e = &entry{heldEntry: *known, relation: &change.Relation{}}
	var stored StoredRelation
	var shape []byte
	var operation, originLog, originLSN, lsn string
	var originTime, commitTime int64
	rows, err := conn.Query(ctx, `SELECT number, commit_lsn::text, commit_time, origin_log, origin_lsn::text, origin_time, schema_name, table_name, relation::text, operation, has_old
		FROM syncline.quarantine WHERE replication = $1 AND id = $2`, replication, known.id)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read change %d in quarantine: %w", known.id, err)
	}
	_, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{}, row.Scan(&e.number, &lsn, &commitTime, &originLog, &originLSN, &originTime, &e.relation.Schema, &e.relation.Name, &shape, &operation, &e.hasOld)
	})
	if err == nil {
		err = json.Unmarshal(shape, &stored)
	}
	if err == nil {
		e.from.origin.server, e.from.origin.commitTime, e.from.commitTime = known.origin, change.Timestamp(originTime), change.Timestamp(commitTime)
		e.from.origin.position, err = change.ParsePosition(originLog + "@" + originLSN)
	}
	if err == nil {
		e.from.commitLSN, err = change.ParseLSN(lsn)
	}
	if err == nil && (len(operation) != 1 || len(stored.Identity) != 1) {
		err = fmt.Errorf("operation %q, identity %q", operation, stored.Identity)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read change %d in quarantine: %w", known.id, err)
	}
	e.operation, e.relation.OID, e.relation.Identity = Operation(operation[0]), stored.OID, change.Identity(stored.Identity[0])
	for _, c := range stored.Columns {
		e.relation.Columns = append(e.relation.Columns, change.Column{Name: c.Name, TypeOID: c.TypeOID, TypeModifier: c.TypeModifier, Key: c.Key})
	}
	old, now, err = readValues(ctx, conn, e)
	return e, old, now, err
}

// readValues reads the rows of an entry; old is nil when it has none.
func readValues(ctx context.Context, conn querier, e *entry) (old, now []value, err error) {
	rows, err := conn.Query(ctx, "SELECT old, ordinal, kind, value FROM syncline.quarantine_values WHERE entry = $1 ORDER BY old, ordinal", e.id)
	if err != nil {
		return nil, nil, fmt.Errorf("read values of change %d in quarantine: %w", e.id, err)
	}
	if e.hasOld {
		old = []value{}
	}
	var isOld bool
	var ordinal int
	var kind string
	var text []byte
	_, err = pgx.ForEachRow(rows, []any{&isOld, &ordinal, &kind, &text}, func() error {
		row := &now
		if isOld {
			row = &old
		}
		if ordinal != len(*row) || len(kind) != 1 {
			return fmt.Errorf("value %d of kind %q is not the next one", ordinal, kind)
		}
		v := value{kind: kind[0]}
		if v.kind == block.ValueText {
			v.text = text
			if v.text == nil {
				v.text = []byte{}
			}
		}
		*row = append(*row, v)
		text = nil // it is the row's now
		return nil
	})
	columns := len(e.relation.Columns)
	if err == nil && (e.hasOld && len(old) != columns || e.operation != Delete && len(now) != columns) {
		err = fmt.Errorf("it has %d and %d values of %d columns", len(old), len(now), columns)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read values of change %d in quarantine: %w", e.id, err)
	}
	return old, now, nil
}

// deleteEntries takes entries out of the quarantine.
func deleteEntries(ctx context.Context, tx pgx.Tx, replication string, ids []int64) error {
	tag, err := tx.Exec(ctx, "DELETE FROM syncline.quarantine WHERE replication = $1 AND id = ANY ($2)", replication, ids)
	if err == nil && tag.RowsAffected() != int64(len(ids)) {
		err = fmt.Errorf("%d of %d are there", tag.RowsAffected(), len(ids))
	}
	if err == nil {
		_, err = tx.Exec(ctx, "DELETE FROM syncline.quarantine_values WHERE entry = ANY ($1)", ids)
	}
	if err != nil {
		return fmt.Errorf("take changes out of quarantine: %w", err)
	}
	return nil
}

// Dropped are changes of a table that are taken out of the quarantine because what they would change is gone, or comes anew.
type Dropped struct {
	Table schema.Name
	Rows  int64
}

// forgetSQL takes out changes that a condition is true of, with their values, and returns how many of which source table these are.
const forgetSQL = `WITH gone AS (DELETE FROM syncline.quarantine WHERE replication = $1 AND %s RETURNING id, schema_name, table_name),
	cleared AS (DELETE FROM syncline.quarantine_values v USING gone WHERE v.entry = gone.id)
	SELECT schema_name, table_name, count(*) FROM gone GROUP BY 1, 2 ORDER BY 1, 2`

// ForgetQuarantine takes out what is in quarantine of source tables whose rows are copied anew, or of all tables where none is named. It
// belongs into the transaction that says so, and so does telling of it.
func ForgetQuarantine(ctx context.Context, conn querier, replication string, table *schema.Name) ([]Dropped, error) {
	schemaName, name := "", ""
	if table != nil {
		schemaName, name = table.Schema, table.Name
	}
	return forget(ctx, conn, "($3 = '' OR schema_name = $2 AND table_name = $3)", replication, schemaName, name)
}

func forget(ctx context.Context, conn querier, condition string, args ...any) ([]Dropped, error) {
	rows, err := conn.Query(ctx, fmt.Sprintf(forgetSQL, condition), args...)
	if err != nil {
		return nil, fmt.Errorf("take changes out of quarantine: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Dropped, err error) {
		return d, row.Scan(&d.Table.Schema, &d.Table.Name, &d.Rows)
	})
	if err != nil {
		return nil, fmt.Errorf("take changes out of quarantine: %w", err)
	}
	return list, nil
}
