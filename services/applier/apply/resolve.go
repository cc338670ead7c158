package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/schema"
)

// AboutRows is a change in quarantine with the rows that it is about: the one before it and the one after it, each by its key as the source
// printed it.
type AboutRows struct {
	ID   int64
	Keys [][]string
}

// UntoldRowsError says that a change in quarantine does not tell by a key which rows it is about.
type UntoldRowsError struct{ ID int64 }

func (e *UntoldRowsError) Error() string {
	return fmt.Sprintf("change %d in quarantine does not tell by the key which rows it is about", e.ID)
}

// TooManyRowsError says that the keys of the changes in quarantine are more than should be held.
type TooManyRowsError struct{ Changes int }

func (e *TooManyRowsError) Error() string {
	return fmt.Sprintf("more than %d changes in quarantine have keys that are large", e.Changes)
}

// mostKeyBytes bounds the keys of changes in quarantine that are held at a time.
const mostKeyBytes = 32 << 20

// EntryRows tells which rows the changes in quarantine of some source tables, and of their target, are about.
func EntryRows(ctx context.Context, conn querier, replication string, sources []schema.Name, target schema.Name, key []string) ([]AboutRows, error) {
	list, err := keyedEntries(ctx, conn, replication, sources, target)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if len(key) == 0 {
		return nil, &UntoldRowsError{list[0].id}
	}
	if err := readKeys(ctx, conn, list, key); err != nil {
		return nil, err
	}
	about := make([]AboutRows, len(list))
	for i, e := range list {
		if about[i].ID = e.id; !e.rows(key, &about[i]) {
			return nil, &UntoldRowsError{e.id}
		}
	}
	return about, nil
}

// keyedEntry is what of an entry tells its rows.
type keyedEntry struct {
	id        int64
	operation Operation
	hasOld    bool
	shape     StoredRelation
	old, now  map[string]value // by the column's name, of the key only
}

func keyedEntries(ctx context.Context, conn querier, replication string, sources []schema.Name, target schema.Name) ([]*keyedEntry, error) {
	var schemas, names []string
	for _, s := range sources {
		schemas, names = append(schemas, s.Schema), append(names, s.Name)
	}
	rows, err := conn.Query(ctx, `SELECT id, operation, has_old, relation::text FROM syncline.quarantine WHERE replication = $1
			AND ((schema_name, table_name) IN (SELECT * FROM unnest($2::text[], $3::text[])) OR target_schema = $4 AND target_table = $5) ORDER BY id`,
		replication, schemas, names, target.Schema, target.Name)
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*keyedEntry, error) {
		e := &keyedEntry{old: map[string]value{}, now: map[string]value{}}
		var operation string
		var shape []byte
		if err := row.Scan(&e.id, &operation, &e.hasOld, &shape); err != nil {
			return nil, err
		}
		if len(operation) != 1 {
			return nil, fmt.Errorf("entry %d has the operation %q", e.id, operation)
		}
		e.operation = Operation(operation[0])
		return e, json.Unmarshal(shape, &e.shape)
	})
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	return list, nil
}

// readKeys fills in the values of key columns.
func readKeys(ctx context.Context, conn querier, list []*keyedEntry, key []string) error {
	byID := make(map[int64]*keyedEntry, len(list))
	ids := make([]int64, len(list))
	for i, e := range list {
		byID[e.id], ids[i] = e, e.id
	}
	rows, err := conn.Query(ctx, `SELECT v.entry, v.old, q.relation->'columns'->v.ordinal->>'name', v.kind, v.value
		FROM syncline.quarantine_values v JOIN syncline.quarantine q ON q.id = v.entry
		WHERE v.entry = ANY ($1) AND q.relation->'columns'->v.ordinal->>'name' = ANY ($2)`, ids, key)
	if err != nil {
		return fmt.Errorf("read keys of changes in quarantine: %w", err)
	}
	var id int64
	var old bool
	var name, kind string
	var text []byte
	size := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &old, &name, &kind, &text}, func() error {
		if size += len(text); size > mostKeyBytes {
			return &TooManyRowsError{len(list)}
		}
		row := byID[id].now
		if old {
			row = byID[id].old
		}
		if len(kind) != 1 {
			return fmt.Errorf("a value of entry %d is of kind %q", id, kind)
		}
		row[name] = value{kind: kind[0], text: text}
		text = nil // it is the row's now
		return nil
	})
	if err != nil {
		return fmt.Errorf("read keys of changes in quarantine: %w", err)
	}
	return nil
}

// rows fills in the keys of the entry's rows; it reports false where they are not told.
func (e *keyedEntry) rows(key []string, about *AboutRows) bool {
	var before, after []string
	for _, name := range key {
		at := slices.IndexFunc(e.shape.Columns, func(c StoredColumn) bool { return c.Name == name })
		if at < 0 {
			return false
		}
		identity := e.shape.Columns[at].Key || e.shape.Identity == string(change.IdentityFull)
		old, now := e.old[name], e.now[name]
		if e.hasOld && !identity {
			return false // NULL stands in the place of a value that was not sent
		}
		if now.kind == block.ValueUnchanged && e.hasOld {
			now = old
		}
		switch {
		case e.operation == Insert:
			old = now
		case e.operation == Delete && e.hasOld:
			now = old
		case e.operation == Update && e.hasOld:
		case e.operation == Update && identity: // the source sends the old row when one of these has changed
			old = now
		default:
			return false
		}
		if old.kind != block.ValueText || now.kind != block.ValueText {
			return false
		}
		before, after = append(before, string(old.text)), append(after, string(now.text))
	}
	if about.Keys = [][]string{after}; !slices.Equal(before, after) {
		about.Keys = append(about.Keys, before)
	}
	return true
}

// Resolve takes changes out of the quarantine because their rows are equal to the source's, in the transaction that makes them so. What waited
// behind them alone, and is about another row, waits for a retry then: released is how many do.
func Resolve(ctx context.Context, tx pgx.Tx, replication string, ids []int64) (released int64, err error) {
	list, err := heldEntries(ctx, tx, replication)
	if err != nil {
		return 0, err
	}
	if err := deleteEntries(ctx, tx, replication, ids); err != nil {
		return 0, err
	}
	gone := make(map[int64]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	rest := heldTables{}
	for _, e := range list {
		if gone[e.id] {
			continue
		}
		behind := rest.behind(e)
		rest.add(e)
		if !gone[e.behind] {
			continue
		}
		if behind == 0 {
			released++
		}
		if err := waitOn(ctx, tx, replication, e.id, behind); err != nil {
			return 0, err
		}
	}
	return released, nil
}

// waitOn notes what an entry waits behind now; nothing but a retry where that is 0.
func waitOn(ctx context.Context, tx pgx.Tx, replication string, id, behind int64) error {
	_, err := tx.Exec(ctx, `UPDATE syncline.quarantine SET waits_behind = nullif($3::bigint, 0),
			message = CASE WHEN $3::bigint = 0 THEN 'the row that it waited behind is mended; it waits to be retried' ELSE message END
		WHERE replication = $1 AND id = $2`, replication, id, behind)
	if err != nil {
		return fmt.Errorf("take changes out of quarantine: %w", err)
	}
	return nil
}
