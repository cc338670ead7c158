package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
)

// Equality says how a type's = relates to its text form.
type Equality byte

// The kinds of equality, from the most useful to the least.
const (
	EqualityExact  Equality = iota + 1 // = holds exactly when the text forms are the same
	EqualityCoarse                     // = holds for some values that print differently: 1.0 and 1.00, 0 and -0
	EqualityNone                       // there is no usable =; only the text form can be compared
)

// TargetColumn is one column of a target table.
type TargetColumn struct {
	Name           string
	NotNull        bool
	Generated      bool     // computed by the target: never written
	IdentityAlways bool     // cannot stand in SET
	Equality       Equality // of its type
	Operator       string   // its type's equality operator as SQL, such as = or OPERATOR("public".=)
	Type           string   // as SQL, without a modifier
	TypeOID        uint32
	Enum           bool // its type is one
	// HasArray tells that there is an array type of its type, whose elements are set apart by commas and come out of unnest in
	// one column. Those of composites come in a column for each field.
	HasArray bool
}

// Target is a table of the target database, as its catalog says.
type Target struct {
	OID         uint32
	Schema      string
	Name        string
	Partitioned bool
	Columns     []TargetColumn
	// UniqueKeys are the column sets of unique indexes that can find a row: valid, immediate, without predicate or
	// expression, every column NOT NULL. The primary key comes first.
	UniqueKeys [][]string
	// Unique are the column sets of all unique indexes without predicate or expression: two rows with the same values may not be.
	Unique [][]string
	// RowTriggers tells of triggers or rules that fire for replicated changes: such a table is written row by row.
	RowTriggers bool
}

func (t *Target) column(name string) *TargetColumn {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

func nameOf(t *Target) schema.Name { return schema.Name{Schema: t.Schema, Name: t.Name} }

// Catalog is what the target database's catalog said of some tables when it was read.
type Catalog map[schema.Name]*Target

// The equality of a type is that of the type a domain stands on, and of an array's elements. Types whose = and text
// form agree are listed; every other type with a default btree operator class is coarse, the rest have none. A composite's =
// fails at run time when a field has none, so composites are compared as text. box and circle have a = that compares
// areas.
const columnsQuery = `
WITH RECURSIVE base(oid, root, elem) AS (
  SELECT t.oid, t.oid, false FROM pg_catalog.pg_type t {of these tables}
  UNION ALL
  SELECT b.oid, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END, b.elem OR t.typtype <> 'd'
  FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.root
  WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc)
), leaf AS (
  SELECT b.oid, b.root, bool_or(b.elem) OVER (PARTITION BY b.oid) AS elem
  FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.root
  WHERE NOT (t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc))
), equality AS (
  SELECT l.oid, l.elem,
    CASE
      WHEN r.typtype = 'c' OR r.typtype = 'p' THEN 3
      WHEN r.typtype = 'e' THEN 1
      WHEN r.typname = ANY ('{bool,bytea,char,name,int8,int2,int4,text,varchar,oid,date,time,timestamp,timestamptz,uuid,inet,cidr,macaddr,macaddr8,bit,varbit,money,pg_lsn,xid8}')
        AND r.typnamespace = 'pg_catalog'::regnamespace THEN 1
      WHEN r.typtype IN ('r', 'm') THEN 2
      WHEN op.oprname IS NOT NULL THEN 2
      ELSE 3
    END AS class,
    op.oprname, op.nspname, r.typtype = 'c' AND NOT l.elem AS composite
  FROM leaf l JOIN pg_catalog.pg_type r ON r.oid = l.root
  LEFT JOIN LATERAL (
    SELECT o.oprname, n.nspname
    FROM pg_catalog.pg_opclass c
    JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
    JOIN pg_catalog.pg_amop a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3 AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
    JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
    WHERE c.opcdefault AND c.opcintype = r.oid
    LIMIT 1
  ) op ON true
)
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p',
  EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('R', 'A') AND NOT t.tgisinternal)
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1' AND w.ev_enabled IN ('R', 'A')),
  a.attname, coalesce(a.attnotnull, false), coalesce(a.attgenerated <> '', false), coalesce(a.attidentity = 'a', false),
  CASE WHEN e.class = 1 AND co.collisdeterministic IS FALSE THEN 2 ELSE coalesce(e.class, 3) END,
  CASE WHEN e.elem OR e.nspname IS NULL OR e.nspname = 'pg_catalog' THEN '=' ELSE pg_catalog.format('OPERATOR(%I.%s)', e.nspname, e.oprname) END,
  coalesce(pg_catalog.format_type(a.atttypid, -1), ''), coalesce(a.atttypid, 0), coalesce(ty.typtype = 'e', false),
  coalesce(ty.typarray <> 0 AND ty.typdelim = ',' AND NOT e.composite, false)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
LEFT JOIN equality e ON e.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'syncline') {of these}
ORDER BY c.oid, a.attnum`

const keysQuery = `
SELECT i.indrelid, array_agg(a.attname ORDER BY k.ord), i.indimmediate AND bool_and(a.attnotnull)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ord)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.ord <= i.indnkeyatts
  AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'syncline') {of these}
GROUP BY i.indexrelid, i.indrelid, i.indisprimary, i.indimmediate
ORDER BY i.indrelid, i.indisprimary DESC, count(*), i.indexrelid`

// someTables restricts the queries to the tables whose schemas are $1 and whose names are $2. The types come first in the query: reading
// those of every table takes longer than all the rest.
var someTables = strings.NewReplacer(
	"{of these tables}", "WHERE t.oid IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid IN ("+wantedTables+") AND a.attnum > 0 AND NOT a.attisdropped)",
	"{of these}", "AND c.oid IN ("+wantedTables+")")

const wantedTables = `SELECT w.oid FROM unnest($1::text[], $2::text[]) AS wanted(space, name)
    JOIN pg_catalog.pg_namespace s ON s.nspname = wanted.space JOIN pg_catalog.pg_class w ON w.relnamespace = s.oid AND w.relname = wanted.name`

// querier is a session or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// ReadTarget reads one table; nil when there is none of that name.
func ReadTarget(ctx context.Context, conn querier, name schema.Name) (*Target, error) {
	catalog, err := ReadCatalog(ctx, conn, []schema.Name{name})
	return catalog[name], err
}

// ReadCatalog reads those of some tables that the database of conn has, in two queries whatever their number.
func ReadCatalog(ctx context.Context, conn querier, names []schema.Name) (Catalog, error) {
	schemas, tables := make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		schemas[i], tables[i] = name.Schema, name.Name
	}
	catalog := Catalog{}
	byOID := map[uint32]*Target{}
	rows, err := conn.Query(ctx, someTables.Replace(columnsQuery), schemas, tables)
	if err != nil {
		return nil, fmt.Errorf("read target tables: %w", err)
	}
	var (
		oid                          uint32
		schemaName, name, operator   string
		partitioned, triggers        bool
		notNull, generated, identity bool
		column                       *string
		equality                     int
		typ                          string
		typeOID                      uint32
		enum, hasArray               bool
	)
	_, err = pgx.ForEachRow(rows, []any{&oid, &schemaName, &name, &partitioned, &triggers, &column, &notNull, &generated, &identity, &equality, &operator, &typ, &typeOID, &enum, &hasArray}, func() error {
		target := byOID[oid]
		if target == nil {
			target = &Target{OID: oid, Schema: schemaName, Name: name, Partitioned: partitioned, RowTriggers: triggers}
			byOID[oid] = target
			catalog[schema.Name{Schema: schemaName, Name: name}] = target
		}
		if column != nil {
			target.Columns = append(target.Columns, TargetColumn{
				Name: *column, NotNull: notNull, Generated: generated, IdentityAlways: identity,
				Equality: Equality(equality), Operator: operator, Type: typ, TypeOID: typeOID, Enum: enum, HasArray: hasArray,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read target tables: %w", err)
	}
	rows, err = conn.Query(ctx, someTables.Replace(keysQuery), schemas, tables)
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of the target: %w", err)
	}
	var columns []string
	var finds bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &columns, &finds}, func() error {
		target := byOID[oid]
		if target == nil {
			return nil
		}
		key := slices.Clone(columns)
		if target.Unique = append(target.Unique, key); finds {
			target.UniqueKeys = append(target.UniqueKeys, key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read unique indexes of the target: %w", err)
	}
	return catalog, nil
}
