package pgtest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// mutable is a table as the mutator sees it.
type mutable struct {
	name       string // quoted
	minor      bool   // one of the many tables of key types, which must not crowd out the others
	only       bool   // ONLY goes before its name: not for partitioned tables
	columns    []mutableColumn
	key        []string // columns of the primary key or the identity index
	deferrable bool     // a unique constraint is, so ON CONFLICT is not possible
}

type mutableColumn struct {
	name       string
	typ        string // as format_type prints it
	generated  bool
	always     bool // GENERATED ALWAYS AS IDENTITY
	hasDefault bool // or an identity
}

func (t mutable) from() string {
	if t.only {
		return "ONLY " + t.name
	}
	return t.name
}

// readTables lists the tables outside the schemas syncline and bank, whose truth is known from outside, unlogged ones
// included, but no partitions.
func (m *mutator) readTables(ctx context.Context) error {
	var allowed string
	if err := m.conn.QueryRow(ctx, "SHOW max_prepared_transactions").Scan(&allowed); err != nil {
		return err
	}
	m.prepares = allowed != "0"
	rows, err := m.conn.Query(ctx, `
		SELECT c.oid, n.nspname::text, c.relname::text, c.relkind <> 'p',
			coalesce((SELECT array_agg(a.attname::text ORDER BY k.place)
				FROM (SELECT i.indkey, i.indnkeyatts FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)
					ORDER BY i.indisprimary DESC LIMIT 1) i
				CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
				JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts), '{}'),
			EXISTS (SELECT FROM pg_constraint s WHERE s.conrelid = c.oid AND s.condeferrable AND s.contype <> 'f')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
			AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'syncline', 'bank') AND n.nspname NOT LIKE 'pg\_%'
		ORDER BY n.nspname, c.relname`)
	if err != nil {
		return err
	}
	var oid uint32
	var schema, name string
	var t mutable
	byOID := map[uint32]int{}
	_, err = pgx.ForEachRow(rows, []any{&oid, &schema, &name, &t.only, &t.key, &t.deferrable}, func() error {
		t.name = postgres.Ident(schema, name)
		t.minor = schema == "kinds" && strings.HasPrefix(name, keyTable)
		byOID[oid] = len(m.tables)
		m.tables = append(m.tables, t)
		t = mutable{}
		return nil
	})
	if err != nil {
		return err
	}
	if len(m.tables) == 0 {
		return fmt.Errorf("there is no table")
	}
	return m.readColumns(ctx, byOID)
}

func (m *mutator) readColumns(ctx context.Context, byOID map[uint32]int) error {
	rows, err := m.conn.Query(ctx, `
		SELECT attrelid, attname::text, format_type(atttypid, atttypmod), attgenerated <> '', attidentity = 'a', atthasdef OR attidentity <> ''
		FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum`)
	if err != nil {
		return err
	}
	var oid uint32
	var c mutableColumn
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.name, &c.typ, &c.generated, &c.always, &c.hasDefault}, func() error {
		if i, ok := byOID[oid]; ok {
			m.tables[i].columns = append(m.tables[i].columns, c)
		}
		return nil
	})
	return err
}

// change makes a random statement on a table. An empty one means that the table allows nothing of the sort drawn.
func (m *mutator) change(t mutable) (sort, sql string, args []any) {
	switch n := m.r.IntN(1000); {
	case n < 4:
		return m.truncate(t)
	case n < 480:
		return m.insert(t)
	case n < 830:
		return m.update(t)
	case n < 838:
		return m.updateAll(t)
	default:
		return m.delete(t)
	}
}

func (m *mutator) truncate(t mutable) (sort, sql string, args []any) {
	sql = "TRUNCATE " + t.from()
	if m.chance(0.3) {
		if other := pick(m.r, m.tables); other.name != t.name {
			sql += ", " + other.from()
		}
	}
	if m.chance(0.3) {
		sql += " RESTART IDENTITY"
	}
	return "truncate", sql + " CASCADE", nil
}

func (m *mutator) insert(t mutable) (sort, sql string, args []any) {
	sort = "insert"
	var columns, values []string
	for _, c := range t.columns {
		if c.generated || c.hasDefault && m.chance(0.5) || !m.known(c) || !slices.Contains(t.key, c.name) && m.chance(0.1) {
			continue
		}
		args = append(args, m.value(c, slices.Contains(t.key, c.name)))
		columns = append(columns, c.name)
		values = append(values, fmt.Sprintf("$%d", len(args)))
	}
	if len(columns) == 0 {
		return sort, "INSERT INTO " + t.name + " DEFAULT VALUES", nil
	}
	rows := "VALUES (" + strings.Join(values, ", ") + ")"
	if len(t.key) == 0 && m.chance(0.3) {
		rows += ", (" + strings.Join(values, ", ") + ")" // the same row twice
	}
	sql = fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE %s", t.name, postgres.Idents(columns), rows)
	if len(t.key) == 0 || t.deferrable || !m.chance(0.4) {
		return sort, sql, args
	}
	set := slices.DeleteFunc(columns, func(c string) bool { return slices.Contains(t.key, c) || m.always(t, c) })
	if len(set) == 0 || m.chance(0.3) {
		return "insert on conflict", sql + " ON CONFLICT DO NOTHING", args
	}
	var assign []string
	for _, c := range set {
		assign = append(assign, postgres.Ident(c)+" = EXCLUDED."+postgres.Ident(c))
	}
	return "upsert", fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", sql, postgres.Idents(t.key), strings.Join(assign, ", ")), args
}

func (m *mutator) always(t mutable, name string) bool {
	return slices.ContainsFunc(t.columns, func(c mutableColumn) bool { return c.name == name && c.always })
}

// update changes random columns of a few rows. A key column is among them in a fifth of the cases.
func (m *mutator) update(t mutable) (sort, sql string, args []any) {
	sort = "update"
	keys := m.chance(0.2)
	var set []string
	for _, c := range t.columns {
		isKey := slices.Contains(t.key, c.name)
		if c.generated || c.always || !m.known(c) || isKey && !keys || m.chance(0.6) {
			continue
		}
		if isKey {
			sort = "update of key"
		}
		args = append(args, m.value(c, isKey))
		set = append(set, fmt.Sprintf("%s = $%d", postgres.Ident(c.name), len(args)))
	}
	if len(set) == 0 {
		return sort, "", nil
	}
	where, args := m.some(t, args)
	return sort, fmt.Sprintf("UPDATE %s SET %s WHERE %s", t.from(), strings.Join(set, ", "), where), args
}

// updateAll sets one column of all rows, or moves all integer keys by one.
func (m *mutator) updateAll(t mutable) (sort, sql string, args []any) {
	c := slices.DeleteFunc(slices.Clone(t.columns), func(c mutableColumn) bool {
		return c.generated || c.always || !m.known(c) || strings.HasPrefix(c.name, "big_")
	})
	if len(c) == 0 {
		return "update all", "", nil
	}
	column := pick(m.r, c)
	name := postgres.Ident(column.name)
	if column.typ == "integer" {
		return "update all", fmt.Sprintf("UPDATE %s SET %s = %s + 1", t.from(), name, name), nil
	}
	return "update all", fmt.Sprintf("UPDATE %s SET %s = $1", t.from(), name), []any{m.value(column, false)}
}

func (m *mutator) delete(t mutable) (sort, sql string, args []any) {
	where, args := m.some(t, nil)
	return "delete", fmt.Sprintf("DELETE FROM %s WHERE %s", t.from(), where), args
}

// some is a condition that picks one to three rows by chance, but the same ones for the same rows and r.
func (m *mutator) some(t mutable, args []any) (string, []any) {
	place, row := "ctid", "t"
	if len(t.key) > 0 {
		place = "(" + postgres.Idents(t.key) + ")"
		row = "ROW(" + postgres.Idents(t.key) + ")"
	}
	args = append(args, fmt.Sprint(m.r.Uint64()))
	rows := 1
	if m.chance(0.2) {
		rows += m.r.IntN(3)
	}
	fields := strings.TrimSuffix(strings.TrimPrefix(place, "("), ")")
	return fmt.Sprintf("%s IN (SELECT %s FROM %s AS t ORDER BY md5(%s::text || $%d::text) LIMIT %d)",
		place, fields, t.from(), row, len(args), rows), args
}
