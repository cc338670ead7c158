package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Unsynced counts what a quarantine holds.
type Unsynced struct {
	Quarantined int64 // changes that the target refused
	Waiting     int64 // changes that wait behind one of the same key
	Bytes       int64
}

// Rows is how many changes there are.
func (u Unsynced) Rows() int64 { return u.Quarantined + u.Waiting }

func (u *Unsynced) add(e *heldEntry, sign int64) {
	u.Bytes += sign * e.bytes
	if e.behind != 0 {
		u.Waiting += sign
	} else {
		u.Quarantined += sign
	}
}

// Held is what the quarantine of a replication holds: the rows that nobody may change before the changes that are set aside. Its size is
// bounded by the quarantine's. The executor adds to it; it is read again after a retry, while the engine stands still.
type Held struct {
	replication string
	rows        atomic.Int64 // so that asking costs nothing where there are none

	mu     sync.Mutex
	all    Unsynced
	tables map[schema.Name]*heldTable
}

// heldTable is what is held of one target table; each with the latest entry that holds it.
type heldTable struct {
	all        Unsynced
	last       int64
	whole      int64
	signatures map[string]int64
	keys       map[keyHash]int64
}

// heldEntry is what is known of an entry without its values.
type heldEntry struct {
	id, behind, bytes int64
	target            schema.Name
	holds             holds
	origin            string // server id
}

// LoadHeld reads what the quarantine of a replication holds.
func LoadHeld(ctx context.Context, conn querier, replication string) (*Held, error) {
	h := &Held{replication: replication}
	return h, h.Reload(ctx, conn)
}

// Reload reads it again. Nothing may be applied meanwhile.
func (h *Held) Reload(ctx context.Context, conn querier) error {
	list, err := heldEntries(ctx, conn, h.replication)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.tables = Unsynced{}, map[schema.Name]*heldTable{}
	for _, e := range list {
		h.add(e)
	}
	h.rows.Store(h.all.Rows())
	return nil
}

// heldEntries are all entries of a replication, in the order of their changes.
func heldEntries(ctx context.Context, conn querier, replication string) ([]*heldEntry, error) {
	rows, err := conn.Query(ctx, `SELECT id, coalesce(waits_behind, 0), bytes, target_schema, target_table, signature, held, origin_server
		FROM syncline.quarantine WHERE replication = $1 ORDER BY id`, replication)
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*heldEntry, error) {
		var e heldEntry
		var keys [][]byte
		if err := row.Scan(&e.id, &e.behind, &e.bytes, &e.target.Schema, &e.target.Name, &e.holds.signature, &keys, &e.origin); err != nil {
			return nil, err
		}
		e.holds.whole = e.holds.signature == ""
		for _, k := range keys {
			if len(k) != len(keyHash{}) {
				return nil, fmt.Errorf("entry %d holds a key of %d bytes", e.id, len(k))
			}
			e.holds.keys = append(e.holds.keys, keyHash(k))
		}
		return &e, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	return list, nil
}

// Unsynced counts what is held.
func (h *Held) Unsynced() Unsynced {
	if h == nil {
		return Unsynced{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

// add holds what an entry holds. The caller holds the lock.
func (h *Held) add(e *heldEntry) {
	t := h.tables[e.target]
	if t == nil {
		t = &heldTable{signatures: map[string]int64{}, keys: map[keyHash]int64{}}
		h.tables[e.target] = t
	}
	h.all.add(e, 1)
	t.all.add(e, 1)
	h.rows.Store(h.all.Rows())
	t.last = e.id
	if e.holds.whole {
		t.whole = e.id
	} else {
		t.signatures[e.holds.signature] = e.id
	}
	for _, k := range e.holds.keys {
		t.keys[k] = e.id
	}
}

// forget gives a table's rows free. The caller holds the lock.
func (h *Held) forget(target schema.Name) {
	t := h.tables[target]
	if t == nil {
		return
	}
	delete(h.tables, target)
	h.all.Quarantined -= t.all.Quarantined
	h.all.Waiting -= t.all.Waiting
	h.all.Bytes -= t.all.Bytes
	h.rows.Store(h.all.Rows())
}

// behind is the latest entry that holds something of what a change concerns, 0 for none. The caller holds the lock. Where keys of different
// columns meet, nothing tells whether they are of one row: then the change waits.
func (t *heldTable) behind(c *holds) int64 {
	if t == nil {
		return 0
	}
	if t.whole != 0 || c.whole {
		return t.last
	}
	for signature := range t.signatures {
		if signature != c.signature {
			return t.last
		}
	}
	var latest int64
	for _, k := range c.keys {
		latest = max(latest, t.keys[k])
	}
	return latest
}

// any tells whether one of the tables has something held.
func (h *Held) any(ops []op) bool {
	if h == nil || h.rows.Load() == 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(ops, func(o op) bool { return h.tables[nameOf(o.plan.Target)] != nil })
}

// table returns what is held of an operation's table, nil for nothing.
func (h *Held) table(o *op) *heldTable {
	if h == nil || h.rows.Load() == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tables[nameOf(o.plan.Target)]
}
