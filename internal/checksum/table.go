package checksum

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// ErrRange says that a range cannot be read: its places are of another kind, or out of order.
var ErrRange = errors.New("invalid range")

// Order is what the rows of a table are cut into ranges by.
type Order int

// The orders; see the package comment.
const (
	ByDigest Order = iota
	ByKey
)

// SortsAlike tells whether every server sorts a type's values alike, so that a key of such types can be ordered by itself.
func SortsAlike(typeOID uint32) bool {
	switch typeOID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID, pgtype.BoolOID, pgtype.UUIDOID,
		pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return true
	}
	return false
}

// RangesByIndex is for transactions that read ranges of keys: PostgreSQL takes the two ends of a range of composite keys for
// independent of one another, expects a quarter of the table in between, and would read all of it for each range.
const RangesByIndex = "SET LOCAL enable_seqscan = off"

// Table is what is read of a table. NewTable makes one.
type Table struct {
	name    schema.Name
	whole   bool // rows of the tables below it count too
	key     int  // how many of the columns are the key
	columns []string
	order   Order
	where   string // a condition for the rows, "" for all
}

// NewTable describes the reading of a table. Columns of the key need not be among the others. partitioned says that the rows of
// its partitions are meant. Ordered by key, a table needs one.
func NewTable(name schema.Name, partitioned bool, key, columns []string, order Order) Table {
	rest := slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return slices.Contains(key, c) })
	slices.Sort(rest)
	return Table{name: name, whole: partitioned, key: len(key), columns: slices.Concat(key, rest), order: order}
}

// Where returns the reading of those rows only that fulfil a condition in SQL; "" changes nothing.
func (t Table) Where(condition string) Table {
	t.where = condition
	return t
}

// Columns are the columns in the order in which they are hashed.
func (t Table) Columns() []string { return t.columns }

// selection is the SQL that reads a range, and its parameters.
func (t Table) selection(r Range, sorted bool) (string, [][]byte, error) {
	var sql strings.Builder
	sql.WriteString("SELECT " + postgres.Idents(t.columns) + " FROM ")
	if !t.whole {
		sql.WriteString("ONLY ")
	}
	sql.WriteString(t.name.SQL())
	joint := " WHERE "
	if t.where != "" {
		sql.WriteString(joint + t.where)
		joint = " AND "
	}
	if t.order != ByKey {
		return sql.String(), nil, nil
	}
	var params [][]byte
	for _, end := range []struct {
		place []string
		sign  string
	}{{r.After, ">"}, {r.Through, "<="}} {
		if len(end.place) == 0 {
			continue
		}
		if len(end.place) != t.key {
			return "", nil, fmt.Errorf("%w %q: the key has %d columns", ErrRange, end.place, t.key)
		}
		var places []string
		for _, v := range end.place {
			params = append(params, []byte(v))
			places = append(places, fmt.Sprintf("$%d", len(params)))
		}
		fmt.Fprintf(&sql, "%s(%s) %s (%s)", joint, postgres.Idents(t.columns[:t.key]), end.sign, strings.Join(places, ", "))
		joint = " AND "
	}
	if sorted {
		sql.WriteString(" ORDER BY " + postgres.Idents(t.columns[:t.key]))
	}
	return sql.String(), params, nil
}
