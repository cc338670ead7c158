package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/checksum"
)

// updated reads the results of a pipeline of updates: each has to change one row.
func (m *mending) updated(pipeline *pgconn.Pipeline, n int) (err error) {
	defer func() {
		if closing := pipeline.Close(); err == nil {
			err = closing
		}
	}()
	if err := pipeline.Sync(); err != nil {
		return fmt.Errorf("send changes: %w", err)
	}
	for range n {
		results, err := pipeline.GetResults()
		if err != nil {
			return err
		}
		reader, ok := results.(*pgconn.ResultReader)
		if !ok {
			return fmt.Errorf("unexpected answer %T", results)
		}
		tag, err := reader.Close()
		if err != nil {
			return err
		}
		if tag.RowsAffected() != 1 {
			return m.moved("updated", 1, tag.RowsAffected())
		}
	}
	return nil
}

// uniqueIndexes are the column lists of a table's unique indexes, those of expressions and of parts of the table left out.
const uniqueIndexes = `SELECT array_agg(a.attname::text ORDER BY k.ord)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ord)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.ord <= i.indnkeyatts AND i.indrelid = $1
GROUP BY i.indexrelid ORDER BY i.indexrelid`

// widen returns the batch with the rows of the target that hold a unique value which the batch's rows need; nil when there are
// none. A row of the source needs the value, so such a row differs from the source too.
func (m *mending) widen(ctx context.Context, changes []rowChange) (*batch, error) {
	rows, err := m.conn.Query(ctx, uniqueIndexes, m.unit.oid)
	if err != nil {
		return nil, err
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		return nil, err
	}
	wider := &batch{table: m.batch.table, keys: slices.Clone(m.batch.keys), hashes: slices.Clone(m.batch.hashes), asText: m.batch.asText, hereAsText: m.batch.hereAsText}
	known := map[string]bool{}
	for _, key := range wider.keys {
		known[strings.Join(key, "\x00")] = true
	}
	for _, hash := range wider.hashes {
		known[string(hash[:])] = true
	}
	columns := readingOf(m.unit).Columns()
	for _, index := range indexes {
		needed := valuesOf(changes, columns, index)
		if len(needed) == 0 {
			continue
		}
		reading := checksum.NewTable(m.unit.target, m.unit.partitioned, index, m.unit.columns, checksum.ByDigest).Where(m.unit.where)
		err := reading.Pick(ctx, m.conn.PgConn(), checksum.Pick{Keys: needed, Equal: true}, func(r checksum.Picked) error {
			values := make([][]byte, len(columns))
			for i, name := range columns {
				values[i] = r.Values[slices.Index(reading.Columns(), name)]
			}
			id := identityOf(m.unit, values)
			if known[id] {
				return nil
			}
			known[id] = true
			if len(m.unit.key) == 0 {
				wider.hashes = append(wider.hashes, checksum.Hash([]byte(id)))
				return nil
			}
			var key []string
			for _, v := range values[:len(m.unit.key)] {
				key = append(key, string(v))
			}
			wider.keys = append(wider.keys, key)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if wider.size() == m.batch.size() {
		return nil, nil //nolint:nilnil // nothing is in the way, which is no error
	}
	return wider, nil
}

// valuesOf are the values that changed rows are to have in an index; NULL is in nobody's way.
func valuesOf(changes []rowChange, columns, index []string) (needed [][]string) {
	for _, c := range changes {
		if c.there == nil {
			continue
		}
		var values []string
		for _, name := range index {
			i := slices.Index(columns, name)
			if i < 0 || c.there[i] == nil {
				break
			}
			values = append(values, string(c.there[i]))
		}
		if len(values) == len(index) {
			needed = append(needed, values)
		}
	}
	return needed
}
