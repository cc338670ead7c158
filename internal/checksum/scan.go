package checksum

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// Chunk is the checksum of a range.
type Chunk struct {
	Range Range
	Sum   Sum
}

// Row is the checksum of a row.
type Row struct {
	// Key are the values of the key; without a key one text for people, in which long values are cut.
	Key  []string
	Hash Hash
	// Columns are hashes of the single values, in the order of Table.Columns; nil without a key.
	Columns []uint64
	// Count is how many such rows there are: more than one only without a key, where the same row can also come again.
	Count int64
}

// read gives each row of a range to each, whose argument is good until it returns. When that fails the session is of no more use.
func (t Table) read(ctx context.Context, conn *pgconn.PgConn, r Range, sorted bool, each func(values [][]byte) error) error {
	sql, params, err := t.selection(r, sorted)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows := conn.ExecParams(ctx, sql, params, nil, nil, nil)
	for rows.NextRow() {
		if err := each(rows.Values()); err != nil {
			cancel()
			_, _ = rows.Close() // it was cancelled
			return err
		}
	}
	_, err = rows.Close()
	return err
}

// Split reads a range in the order of the key and gives chunks of so many rows without a gap; the last one may have fewer.
func (t Table) Split(ctx context.Context, conn *pgconn.PgConn, r Range, rows int64, give func(Chunk) error) error {
	h := newHasher()
	now := Chunk{Range: Range{After: r.After}}
	var last []string // the key of the last row of a full chunk
	err := t.read(ctx, conn, r, true, func(values [][]byte) error {
		if now.Sum.Rows == rows {
			now.Range.Through = last
			if err := give(now); err != nil {
				return err
			}
			now = Chunk{Range: Range{After: last}}
		}
		now.Sum.row(h.row(values))
		if now.Sum.Rows == rows {
			last = texts(values[:t.key])
		}
		return nil
	})
	if err != nil {
		return err
	}
	now.Range.Through = r.Through
	return give(now)
}

// Sums returns the checksum of each range. By digest the ranges have to be in order and apart, and the table is read once.
func (t Table) Sums(ctx context.Context, conn *pgconn.PgConn, ranges []Range) ([]Sum, error) {
	h := newHasher()
	sums := make([]Sum, len(ranges))
	if t.order == ByKey {
		for i, r := range ranges {
			if err := t.read(ctx, conn, r, false, func(values [][]byte) error {
				sums[i].row(h.row(values))
				return nil
			}); err != nil {
				return nil, err
			}
		}
		return sums, nil
	}
	list, err := spans(ranges)
	if err != nil {
		return nil, err
	}
	return sums, t.read(ctx, conn, Range{}, false, func(values [][]byte) error {
		hash := h.row(values)
		digest := binary.BigEndian.Uint64(hash[:]) // of a table without a key
		if t.key > 0 {
			digest = h.digest(values[:t.key])
		}
		if i, found := search(list, digest); found {
			sums[i].row(hash)
		}
		return nil
	})
}

// Rows gives each row of the ranges, for which the same holds as for Sums.
func (t Table) Rows(ctx context.Context, conn *pgconn.PgConn, ranges []Range, give func(Row) error) error {
	h := newHasher()
	if t.order == ByKey {
		for _, r := range ranges {
			if err := t.read(ctx, conn, r, false, func(values [][]byte) error { return give(t.row(h, values)) }); err != nil {
				return err
			}
		}
		return nil
	}
	list, err := spans(ranges)
	if err != nil {
		return err
	}
	if t.key == 0 {
		return t.counted(ctx, conn, h, list, give)
	}
	return t.read(ctx, conn, Range{}, false, func(values [][]byte) error {
		if _, found := search(list, h.digest(values[:t.key])); !found {
			return nil
		}
		return give(t.row(h, values))
	})
}

// maxCounted bounds the different rows that are counted before they are given.
const maxCounted = 10_000

// counted gives rows without a key, each with how often it came lately: there may be any number of equal ones.
func (t Table) counted(ctx context.Context, conn *pgconn.PgConn, h *hasher, list []span, give func(Row) error) error {
	seen := map[Hash]*Row{}
	flush := func() error {
		for _, r := range seen {
			if err := give(*r); err != nil {
				return err
			}
		}
		clear(seen)
		return nil
	}
	err := t.read(ctx, conn, Range{}, false, func(values [][]byte) error {
		hash := h.row(values)
		if _, found := search(list, binary.BigEndian.Uint64(hash[:])); !found {
			return nil
		}
		if r := seen[hash]; r != nil {
			r.Count++
			return nil
		}
		if len(seen) == maxCounted {
			if err := flush(); err != nil {
				return err
			}
		}
		seen[hash] = &Row{Key: []string{t.describe(values)}, Hash: hash, Count: 1}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (t Table) row(h *hasher, values [][]byte) Row {
	r := Row{Key: texts(values[:t.key]), Hash: h.row(values), Columns: make([]uint64, len(values)), Count: 1}
	for i := range values {
		r.Columns[i] = binary.BigEndian.Uint64(h.fields(values[i : i+1]))
	}
	return r
}

func search(list []span, digest uint64) (int, bool) {
	return slices.BinarySearchFunc(list, digest, func(s span, d uint64) int {
		switch {
		case s.last < d:
			return -1
		case s.first > d:
			return 1
		}
		return 0
	})
}

func texts(values [][]byte) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

// longestShown is how many bytes of a value the description of a row has.
const longestShown = 40

func (t Table) describe(values [][]byte) string { return Describe(t.columns, values) }

// Describe makes a text of a row for people, in which long values are cut.
func Describe(columns []string, values [][]byte) string {
	var s strings.Builder
	for i, v := range values {
		if i > 0 {
			s.WriteString(", ")
		}
		switch {
		case v == nil:
			fmt.Fprintf(&s, "%s=NULL", columns[i])
		case len(v) > longestShown:
			end := longestShown
			for !utf8.RuneStart(v[end]) {
				end--
			}
			fmt.Fprintf(&s, "%s=%q… (%d bytes)", columns[i], v[:end], len(v))
		default:
			fmt.Fprintf(&s, "%s=%q", columns[i], v)
		}
	}
	return s.String()
}
