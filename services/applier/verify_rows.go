package applier

import (
	"context"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
)

// rows compares the rows of some ranges one by one.
func (c *tableCheck) rows(ctx context.Context, ranges []checksum.Range) error {
	sources, targets := newRowSet(len(c.unit.key)), newRowSet(len(c.unit.key))
	group, reading := errgroup.WithContext(ctx)
	group.Go(func() error {
		return c.reading.Rows(reading, c.conn.PgConn(), ranges, func(r checksum.Row) error {
			targets.add(r)
			return nil
		})
	})
	group.Go(func() error {
		for _, name := range c.unit.sources {
			request := c.request(name, ranges)
			request.Rows = true
			if err := c.checksum(reading, request, func(answer *inventoryv1.ChecksumResponse) error {
				for _, row := range answer.GetRows() {
					if len(row.GetHash()) != checksum.HashBytes {
						return errMalformedChecksum
					}
					sources.add(checksum.Row{Key: row.GetKey(), Hash: checksum.Hash(row.GetHash()), Columns: row.GetColumnHashes(), Count: row.GetCount()})
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	for _, d := range differences(sources, targets, c.reading.Columns()) {
		c.describe(d)
	}
	return nil
}

func (c *tableCheck) describe(d rowDifference) {
	switch d.kind {
	case applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING:
		c.result.Missing += d.count
	case applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA:
		c.result.Extra += d.count
	default:
		c.result.Changed += d.count
	}
	if c.differing != nil {
		c.differing.add(c.unit, d)
		return
	}
	if c.full() {
		return
	}
	c.differences = append(c.differences, &applierv1.RowDifference{
		Schema: c.unit.target.Schema, Table: c.unit.target.Name, Kind: d.kind, KeyColumns: c.unit.key, Key: d.key, Columns: d.columns, Count: d.count,
	})
}

// rowSet is the rows of some ranges on one side, by key; without a key by hash.
type rowSet struct {
	key  int
	rows map[string][]checksum.Row
}

func newRowSet(key int) *rowSet { return &rowSet{key, map[string][]checksum.Row{}} }

// add takes a row; the same one may come again without a key.
func (s *rowSet) add(r checksum.Row) {
	name := string(r.Hash[:])
	if s.key > 0 {
		name = strings.Join(r.Key, "\x00") // which no value of PostgreSQL holds
	}
	list := s.rows[name]
	if i := slices.IndexFunc(list, func(o checksum.Row) bool { return o.Hash == r.Hash }); i >= 0 {
		list[i].Count += r.Count
		return
	}
	s.rows[name] = append(list, r)
}

// rowDifference is a key, or a row without one, that is not the same on both sides.
type rowDifference struct {
	kind    applierv1.DifferenceKind
	key     []string
	hash    checksum.Hash // of a row without a key
	columns []string
	count   int64
}

// differences compares two sets, in the order of the names under which they hold their rows. Rows of one key that are on both sides
// in different forms are changed; a replica whose key is not unique may have more of them.
func differences(source, target *rowSet, columns []string) []rowDifference {
	names := maps.Clone(source.rows)
	maps.Copy(names, target.rows)
	var found []rowDifference
	for _, name := range slices.Sorted(maps.Keys(names)) {
		left, right := unmatched(source.rows[name], target.rows[name])
		for len(left) > 0 && len(right) > 0 {
			a, b := &left[0], &right[0]
			n := min(a.Count, b.Count)
			found = append(found, rowDifference{applierv1.DifferenceKind_DIFFERENCE_KIND_CHANGED, a.Key, a.Hash, changedColumns(*a, *b, columns), n})
			if a.Count -= n; a.Count == 0 {
				left = left[1:]
			}
			if b.Count -= n; b.Count == 0 {
				right = right[1:]
			}
		}
		for _, r := range left {
			found = append(found, rowDifference{applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING, r.Key, r.Hash, nil, r.Count})
		}
		for _, r := range right {
			found = append(found, rowDifference{applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA, r.Key, r.Hash, nil, r.Count})
		}
	}
	return found
}

// unmatched takes out of both lists what is in both.
func unmatched(a, b []checksum.Row) (left, right []checksum.Row) {
	left, right = slices.Clone(a), slices.Clone(b)
	for i := range left {
		for j := range right {
			if left[i].Hash == right[j].Hash {
				n := min(left[i].Count, right[j].Count)
				left[i].Count -= n
				right[j].Count -= n
			}
		}
	}
	none := func(r checksum.Row) bool { return r.Count == 0 }
	return slices.DeleteFunc(left, none), slices.DeleteFunc(right, none)
}

func changedColumns(a, b checksum.Row, columns []string) []string {
	var names []string
	for i, name := range columns {
		if i < len(a.Columns) && i < len(b.Columns) && a.Columns[i] != b.Columns[i] {
			names = append(names, name)
		}
	}
	return names
}
