package applier

import (
	"slices"
	"sync"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/schema"
)

// The most that one comparison remembers of rows to mend, over all tables. What lies beyond is found by the next one.
const (
	maxDifferingRows  = 200_000
	maxDifferingBytes = 32 << 20
	// differingRowBytes is about what a row takes besides its key.
	differingRowBytes = 64
)

// differing collects the rows that a comparison finds different, to be mended after it.
type differing struct {
	named int // rows of each table that are described

	mu     sync.Mutex
	tables map[schema.Name]*differingTable // all that are compared
	rows   int
	bytes  int
}

// differingTable is what differs in the tables of one unit.
type differingTable struct {
	unit   *verifyUnit
	known  map[string]bool // keys, once changes in quarantine have added theirs
	keys   [][]string      // of the rows, where they have keys
	hashes []checksum.Hash // of the rows, where they have none
	rows   []*applierv1.RepairedRow
}

func newDiffering(named int) *differing {
	return &differing{named: named, tables: map[schema.Name]*differingTable{}}
}

func (d *differing) full() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows >= maxDifferingRows || d.bytes >= maxDifferingBytes
}

func (d *differing) add(u *verifyUnit, row rowDifference) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tables[u.target]
	d.rows++
	d.bytes += differingRowBytes
	if len(u.key) > 0 {
		if n := len(t.keys); n > 0 && slices.Equal(t.keys[n-1], row.key) {
			return // the replica has more than one row of this key
		}
		t.keys = append(t.keys, row.key)
		for _, v := range row.key {
			d.bytes += len(v)
		}
	} else {
		t.hashes = append(t.hashes, row.hash)
	}
	if len(t.rows) < d.named {
		t.rows = append(t.rows, repairedRow(u, actionOf(row.kind), row.key, row.columns, row.count))
	}
}

func actionOf(kind applierv1.DifferenceKind) applierv1.RepairAction {
	switch kind {
	case applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING:
		return applierv1.RepairAction_REPAIR_ACTION_INSERT
	case applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA:
		return applierv1.RepairAction_REPAIR_ACTION_DELETE
	}
	return applierv1.RepairAction_REPAIR_ACTION_UPDATE
}

func repairedRow(u *verifyUnit, action applierv1.RepairAction, key, columns []string, count int64) *applierv1.RepairedRow {
	return &applierv1.RepairedRow{
		Schema: u.target.Schema, Table: u.target.Name, Action: action, KeyColumns: u.key, Key: key, Columns: columns, Count: count,
	}
}

// know prepares units for being mended. They are compared by whole rows where the replica allows NULL in the key: such a row cannot
// be found by its key.
func (d *differing) know(units []*verifyUnit, target schema.Database) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range units {
		d.tables[u.target] = &differingTable{unit: u}
		t, _ := target.Table(u.target)
		for _, name := range u.key {
			if c, found := t.Column(name); found && !c.NotNull {
				u.key, u.order = nil, checksum.ByDigest
				break
			}
		}
	}
}
