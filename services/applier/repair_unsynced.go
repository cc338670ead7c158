package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// Changes in quarantine are resolved by the batch that makes all rows equal which they are about: in its transaction they leave the quarantine,
// for the rows hold what they and all before them have done on the source. So a batch takes in the rows of every change that is about one
// of its own; see docs/adr/0025-repair-resolves-quarantine.md.

// countUnsynced counts the changes in quarantine of each unit.
func countUnsynced(ctx context.Context, q querier, replication string, units []*verifyUnit) error {
	rows, err := q.Query(ctx, "SELECT schema_name, table_name, count(*) FROM syncline.quarantine WHERE replication = $1 GROUP BY 1, 2", replication)
	if err != nil {
		return fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	var name schema.Name
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &n}, func() error {
		for _, u := range units {
			if slices.Contains(u.sources, name) {
				u.unsynced += n
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	return nil
}

// takeIn has the rows mended too that changes in quarantine are about, or notes why the table cannot be mended.
func (p *repair) takeIn(ctx context.Context, t *repairedTable, v *applierv1.TableVerification, d *differingTable) error {
	if v.GetUnsynced() == 0 || p.request.GetDryRun() || t.failed != "" || d == nil {
		return nil
	}
	about, err := p.entries(ctx, p.runner.store.pool, d.unit)
	if err != nil {
		var cannot *cannotCompareError
		if !errors.As(err, &cannot) {
			return err
		}
		t.failed = cannot.err.Error()
		return nil
	}
	d.known = map[string]bool{}
	var keys [][]string
	add := func(key []string) {
		if id := keyID(key); !d.known[id] {
			d.known[id] = true
			keys = append(keys, key)
		}
	}
	for _, one := range about {
		for _, key := range one.Keys {
			add(key)
		}
	}
	for _, key := range d.keys {
		add(key)
	}
	d.keys = keys
	return nil
}

func keyID(key []string) string { return strings.Join(key, "\x00") }

// settles tells whether a table that is equal is mended all the same, for the changes in quarantine that are about its rows: as long as that
// resolves some.
func (p *repair) settles(t *repairedTable, v *applierv1.TableVerification) bool {
	if v.GetUnsynced() == 0 || p.request.GetDryRun() || t.result.GetResolved() == t.settled {
		return false
	}
	t.settled = t.result.GetResolved()
	return true
}

// entries are the changes in quarantine that are about rows of a unit. Where they do not tell which rows these are nothing of the table can be mended:
// they could be applied over what is mended.
func (p *repair) entries(ctx context.Context, q querier, u *verifyUnit) ([]apply.AboutRows, error) {
	about, err := apply.EntryRows(ctx, q, p.request.GetName(), u.sources, u.target, u.key)
	var untold *apply.UntoldRowsError
	var many *apply.TooManyRowsError
	if errors.As(err, &untold) || errors.As(err, &many) {
		name := p.request.GetName()
		return nil, &cannotCompareError{err: fmt.Errorf("%w, so mending it could have some of them applied over newer rows: `syncline replication retry %s --table %s` or `discard` takes them out first, or `syncline sync %s --mode copy --table %s` copies the table anew",
			err, name, u.sources[0], name, u.sources[0])}
	}
	return about, err
}

// entangled is a batch with the rows of all changes in quarantine that are about one of its rows, and so on.
func (p *repair) entangled(ctx context.Context, conn *pgx.Conn, b *batch) (*batch, error) {
	if p.copying {
		return b, nil // they are dropped when a copy begins
	}
	about, err := p.entries(ctx, conn, b.table.unit)
	if err != nil || len(about) == 0 {
		return b, err
	}
	known := make(map[string]bool, len(b.keys))
	for _, key := range b.keys {
		known[keyID(key)] = true
	}
	wider := &batch{table: b.table, keys: slices.Clone(b.keys), asText: b.asText, hereAsText: b.hereAsText}
	for grown := true; grown; {
		grown = false
		for _, one := range about {
			if !slices.ContainsFunc(one.Keys, func(key []string) bool { return known[keyID(key)] }) {
				continue
			}
			for _, key := range one.Keys {
				if id := keyID(key); !known[id] {
					known[id], grown = true, true
					wider.keys = append(wider.keys, key)
				}
			}
		}
	}
	if wider.size() > max(batchHashes, b.size()) {
		return nil, &cannotCompareError{err: fmt.Errorf("changes in quarantine move more than %d rows from key to key; discard them first, or have the table copied anew", batchHashes)}
	}
	return wider, nil
}

// resolves are the changes in quarantine whose rows are all equal to the source's when the batch is written. Nobody adds to them or takes any
// away until the transaction ends, for it holds the row of the position.
func (m *mending) resolves(ctx context.Context, tx pgx.Tx, there map[string]*rowThere, here map[string]*rowsAlike) (ids []int64, err error) {
	if m.repair.copying {
		return nil, nil
	}
	about, err := m.repair.entries(ctx, tx, m.unit)
	if err != nil || len(about) == 0 {
		return nil, err
	}
	equal := make(map[string]bool, len(m.batch.keys))
	for _, key := range m.batch.keys {
		id := keyID(key)
		equal[id] = !m.repair.onlyInserts(m.unit) || insertedEqual(there[id], here[id])
	}
	for _, one := range about {
		n := 0
		for _, key := range one.Keys {
			if _, in := equal[keyID(key)]; in {
				n++
			}
		}
		switch {
		case n > 0 && n < len(one.Keys):
			return nil, &cannotCompareError{err: fmt.Errorf("table %s: change %d came into quarantine meanwhile", m.unit.target, one.ID), passes: true}
		case n > 0 && !slices.ContainsFunc(one.Keys, func(key []string) bool { return !equal[keyID(key)] }):
			ids = append(ids, one.ID)
		}
	}
	return ids, nil
}

// insertedEqual tells whether a row of a table of which only inserts come is the source's when the batch is written: others stay as they are.
func insertedEqual(there *rowThere, here *rowsAlike) bool {
	return there != nil && (here == nil || len(here.rows) == 1 && sameValues(here.rows[0].values[:len(there.values)], there.values))
}

// resolve takes changes out of the quarantine and tells the run log.
func (m *mending) resolve(ctx context.Context, tx pgx.Tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	name := m.repair.request.GetName()
	released, err := apply.Resolve(ctx, tx, name, ids)
	if err != nil {
		return err
	}
	m.resolved = int64(len(ids))
	text := fmt.Sprintf("a repair has made rows of table %s equal to the source's, so %d changes that are about them have left the quarantine", m.unit.target, len(ids))
	if released > 0 {
		text += fmt.Sprintf("; %d that waited behind them are about other rows, and wait to be retried", released)
	}
	return insertEvents(ctx, tx, &event{replication: name, kind: kindMendedRows, rows: m.resolved, tables: 1, text: text, position: m.snapshot.position, hasPosition: true})
}

// reloadHeld reads what the quarantine holds before the engine that stands still goes on: it must not go on with keys that are free, nor without those
// that are not.
func (r *runner) reloadHeld(ctx context.Context) error {
	r.mu.Lock()
	held, end := r.aside, r.endStream
	r.mu.Unlock()
	if held == nil || held.Unsynced().Rows() == 0 {
		return nil
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := held.Reload(fresh, r.store.pool); err != nil {
		err = fmt.Errorf("after changes in quarantine were settled: %w", err)
		end(err)
		return err
	}
	r.status.update(func(s *status) { s.unsynced = held.Unsynced() })
	return nil
}
