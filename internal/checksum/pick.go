package checksum

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// Pick says which rows are read, with all their values.
type Pick struct {
	// Keys are those of the rows, for a table with a key.
	Keys [][]string
	// Equal takes the rows too whose key is equal to one of them and prints differently, as 1.0 and 1.00 do.
	Equal bool
	// AsText compares the texts of keys, for keys that may be no values of the type. The whole table is read for them.
	AsText bool
	// Hashes are those of whole rows, for a table without a key. The whole table is read for them.
	Hashes map[Hash]bool
	// More are columns to read besides those of the table's description.
	More []string
	// Lock keeps others from changing the rows until the transaction ends. Rows picked by hash are not locked.
	Lock bool
}

// Picked is a row. It is good until the function that it is given to returns.
type Picked struct {
	// Table is the OID of the table that has the row, and Place where in it the row lies, both as text.
	Table, Place string
	// Hash is that of the row, for a table without a key.
	Hash Hash
	// Values are those of Table.Columns, then those of Pick.More; nil is NULL.
	Values [][]byte
}

// Pick gives the rows that are asked for, in no certain order.
func (t Table) Pick(ctx context.Context, conn *pgconn.PgConn, p Pick, give func(Picked) error) error {
	condition, params := "", [][]byte(nil)
	joint := " WHERE "
	if t.where != "" {
		condition, joint = joint+t.where, " AND "
	}
	asked := map[string]bool{}
	if t.key > 0 {
		keys, values, err := t.keyCondition(ctx, conn, p.Keys, p.AsText)
		if err != nil {
			return err
		}
		condition, params = condition+joint+keys, values
		for _, key := range p.Keys {
			asked[keyText(key)] = true
		}
		if p.Lock {
			condition += " FOR UPDATE OF t"
		}
	}
	columns := append(append([]string(nil), t.columns...), p.More...)
	for i, name := range columns {
		columns[i] = "t." + postgres.Ident(name)
	}
	only := "ONLY "
	if t.whole {
		only = ""
	}
	sql := "SELECT " + strings.Join(append([]string{"t.tableoid::text", "t.ctid::text"}, columns...), ", ") + " FROM " + only + t.name.SQL() + " AS t" + condition
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := newHasher()
	rows := conn.ExecParams(ctx, sql, params, nil, nil, nil)
	for rows.NextRow() {
		values := rows.Values()
		row := Picked{Table: string(values[0]), Place: string(values[1]), Values: values[2:]}
		if t.key > 0 {
			if !p.Equal && !asked[keyText(texts(row.Values[:t.key]))] {
				continue
			}
		} else if row.Hash = h.row(row.Values[:len(t.columns)]); !p.Hashes[row.Hash] {
			continue
		}
		if err := give(row); err != nil {
			cancel()
			_, _ = rows.Close() // it was cancelled
			return err
		}
	}
	_, err := rows.Close()
	return err
}

// RowHash is the hash of a row, with its values in the order of Table.Columns.
func RowHash(values [][]byte) Hash { return newHasher().row(values) }

// keyText makes one text of a key, which no other key has.
func keyText(key []string) string { return strings.Join(key, "\x00") }

// errNoKeyColumn says that the table has lost a column of its key.
var errNoKeyColumn = errors.New("a column of the key is missing")

// keyTypes tells the type of each column of the key, and whether the = that is known without a search_path is that of the type.
const keyTypes = `SELECT a.attname, pg_catalog.format_type(a.atttypid, -1),
	b.oid < 16384 OR b.typtype IN ('e', 'c', 'r', 'm') OR b.typcategory = 'A'
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`

// keyCondition is the SQL that finds rows by their keys, through an index where there is one, and its parameters.
func (t Table) keyCondition(ctx context.Context, conn *pgconn.PgConn, keys [][]string, asText bool) (string, [][]byte, error) {
	result := conn.ExecParams(ctx, keyTypes, [][]byte{[]byte(t.name.SQL())}, nil, nil, nil).Read()
	if result.Err != nil {
		return "", nil, result.Err
	}
	types := map[string][][]byte{}
	for _, row := range result.Rows {
		types[string(row[0])] = row
	}
	var left, right, names, arrays []string
	params := make([][]byte, t.key)
	for i, name := range t.columns[:t.key] {
		row := types[name]
		if row == nil {
			return "", nil, fmt.Errorf("%w: %s", errNoKeyColumn, name)
		}
		k := fmt.Sprintf("k%d", i)
		names = append(names, k)
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		if string(row[2]) == "t" && !asText {
			left, right = append(left, "t."+postgres.Ident(name)), append(right, "k."+k+"::"+string(row[1]))
		} else {
			left, right = append(left, "t."+postgres.Ident(name)+"::text"), append(right, "k."+k)
		}
		column := make([]string, len(keys))
		for j, key := range keys {
			if len(key) != t.key {
				return "", nil, fmt.Errorf("%w %q: the key has %d columns", ErrRange, key, t.key)
			}
			column[j] = key[i]
		}
		params[i] = textArray(column)
	}
	return fmt.Sprintf("(%s) IN (SELECT %s FROM unnest(%s) AS k(%s))",
		strings.Join(left, ", "), strings.Join(right, ", "), strings.Join(arrays, ", "), strings.Join(names, ", ")), params, nil
}

// textArray writes an array of texts as PostgreSQL reads it.
func textArray(list []string) []byte {
	out := []byte{'{'}
	for i, v := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		for j := range len(v) {
			if v[j] == '"' || v[j] == '\\' {
				out = append(out, '\\')
			}
			out = append(out, v[j])
		}
		out = append(out, '"')
	}
	return append(out, '}')
}
