package schema

import "strings"

// settingsQuery makes every printed expression independent of the session (its search_path above all). lock_timeout
// bounds the wait for a table that someone holds exclusively: PostgreSQL's functions that print an index or an expression,
// or tell a size, lock the table while they do so.
const settingsQuery = `
SELECT pg_catalog.set_config('search_path', '', true), pg_catalog.set_config('quote_all_identifiers', 'off', true),
       pg_catalog.set_config('DateStyle', 'ISO, YMD', true), pg_catalog.set_config('IntervalStyle', 'postgres', true),
       pg_catalog.set_config('extra_float_digits', '3', true), pg_catalog.set_config('TimeZone', 'UTC', true),
       pg_catalog.set_config('bytea_output', 'hex', true), pg_catalog.set_config('lc_monetary', 'C', true),
       pg_catalog.set_config('lock_timeout',
           CASE pg_catalog.current_setting('lock_timeout') WHEN '0' THEN '15s' ELSE pg_catalog.current_setting('lock_timeout') END, true)`

// lockedQuery names the tables that somebody holds so that nobody else can read them.
const lockedQuery = `
SELECT coalesce(string_agg(quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' by process ' || l.pid, ', ' ORDER BY 1), '')
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p')
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`

const serverQuery = `
SELECT current_setting('server_version_num')::int, current_user::text, r.rolsuper,
       has_database_privilege(current_database(), 'CREATE')
  FROM pg_roles r WHERE r.rolname = current_user`

const schemasQuery = `SELECT n.nspname::text FROM pg_namespace n WHERE {user n} ORDER BY n.nspname`

const extensionsQuery = `
SELECT e.extname::text, n.nspname::text, e.extversion, false
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 ORDER BY e.extname`

const availableQuery = `
SELECT a.name::text, a.default_version, v.trusted
  FROM pg_available_extensions a JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
 WHERE a.installed_version IS NULL
 ORDER BY a.name`

const collationsQuery = `
SELECT n.nspname::text, c.collname::text, c.collprovider::text, c.collisdeterministic,
       coalesce({colllocale}, ''), coalesce(c.collcollate, ''), coalesce(c.collctype, ''), coalesce({collrules}, '')
  FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
 WHERE {user n} AND NOT {member pg_collation c.oid}
 ORDER BY n.nspname, c.collname`

// relationsQuery finds all that has rows or could be taken for a table.
const relationsQuery = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relispartition,
       c.relreplident::text, c.relrowsecurity, c.relforcerowsecurity, c.relfilenode,
       c.reltuples::float8, c.relpages::int8,
       CASE WHEN c.relkind = 'p' THEN coalesce(pg_get_partkeydef(c.oid), '') ELSE '' END,
       CASE WHEN c.relispartition THEN coalesce(pg_get_expr(c.relpartbound, c.oid), '') ELSE '' END,
       coalesce(c.reloptions, '{}'),
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('R', 'A')),
       EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled IN ('R', 'A')),
       coalesce((SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' LIMIT 1), '')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE {alive c.oid} AND c.relkind IN ('r', 'p', 'f', 'm', 'v') AND ({user n} OR c.relpersistence = 't' AND n.nspname LIKE 'pg\_temp\_%')
 ORDER BY n.nspname, c.relname`

// sizesQuery asks the file system, so it is for the selected tables only.
const sizesQuery = `
SELECT c.oid, coalesce(pg_relation_size(c.oid) / current_setting('block_size')::int8, 0), coalesce(pg_table_size(c.oid), 0)
  FROM pg_class c WHERE c.oid = ANY ($1) AND c.relkind = 'r'`

// goneQuery finds the tables that were dropped after the snapshot was taken.
const goneQuery = `SELECT t.oid FROM unnest($1::oid[]) AS t (oid) WHERE NOT {alive t.oid}`

const inheritsQuery = `
SELECT i.inhrelid, i.inhparent
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE c.relkind IN ('r', 'p')
 ORDER BY i.inhrelid, i.inhseqno`

// columnsQuery: typstorage and typcollation are what a column has unless told otherwise.
const columnsQuery = `
SELECT a.attrelid, a.attname::text, a.attnum, format_type(a.atttypid, a.atttypmod), a.atttypid,
       CASE WHEN a.attcollation <> t.typcollation THEN {collation a.attcollation} ELSE '' END,
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                                       AND NOT k.convalidated AND k.conkey[1] = a.attnum),
       CASE WHEN {alive a.attrelid} THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END, a.attidentity::text, a.attgenerated::text,
       CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text ELSE '' END
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum`

const indexesQuery = `
SELECT i.indrelid, c.relname::text, CASE WHEN {alive i.indrelid} THEN coalesce(pg_get_indexdef(i.indexrelid), '') ELSE '' END, m.amname::text,
       ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
               LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
              WHERE k.n <= i.indnkeyatts ORDER BY k.n),
       i.indisunique, i.indisprimary, i.indisvalid, i.indimmediate, i.indpred IS NOT NULL, i.indnullsnotdistinct,
       i.indisreplident, coalesce(k.conname::text, ''), coalesce(pn.nspname::text, ''), coalesce(pc.relname::text, '')
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
  LEFT JOIN pg_class pc ON pc.oid = h.inhparent LEFT JOIN pg_namespace pn ON pn.oid = pc.relnamespace
 WHERE i.indrelid = ANY ($1)
 ORDER BY i.indrelid, c.relname`

const constraintsQuery = `
SELECT k.conrelid, k.conname::text, k.contype::text, CASE WHEN {alive k.conrelid} THEN coalesce(pg_get_constraintdef(k.oid), '') ELSE '' END,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, n)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n),
       k.condeferrable, k.condeferred, k.convalidated, {conenforced}, k.coninhcount > 0, k.conislocal,
       k.connoinherit AND k.contype IN ('c', 'n'),
       {conperiod}, coalesce(rn.nspname::text, ''), coalesce(rc.relname::text, '')
  FROM pg_constraint k
  LEFT JOIN pg_class rc ON rc.oid = k.confrelid LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace
 WHERE k.conrelid = ANY ($1) AND k.contype IN ('p', 'u', 'c', 'f', 'x', 'n') AND NOT (k.contype = 'f' AND k.conparentid <> 0)
 ORDER BY k.conrelid, k.conname, k.contype`

// sequencesQuery: the last column says whether the value may be read.
const sequencesQuery = `
SELECT c.oid, n.nspname::text, c.relname::text, format_type(s.seqtypid, NULL), s.seqstart, s.seqmin, s.seqmax,
       s.seqincrement, s.seqcache, s.seqcycle, coalesce(own.schema, ''), coalesce(own.name, ''), coalesce(own.col, ''),
       coalesce(own.deptype = 'i', false),
       CASE WHEN has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')
            THEN coalesce(to_regclass(quote_ident(n.nspname) || '.' || quote_ident(c.relname)) = c.oid, false) ELSE false END
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (
    SELECT d.deptype, tn.nspname::text AS schema, t.relname::text AS name, a.attname::text AS col
      FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
      JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
       AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) own ON true
 WHERE {alive c.oid} AND c.relpersistence = 'p' AND {user n} AND NOT {member pg_class c.oid}
 ORDER BY n.nspname, c.relname`

const typesQuery = `
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) WHEN 'r' THEN format_type(r.rngsubtype, NULL)
            ELSE '' END,
       CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation THEN {collation t.typcollation}
            WHEN t.typtype = 'r' AND r.rngcollation <> b.typcollation THEN {collation r.rngcollation} ELSE '' END,
       coalesce(pg_get_expr(t.typdefaultbin, 'pg_type'::regclass), ''), t.typnotnull,
       CASE WHEN o.opcdefault THEN '' ELSE coalesce(quote_ident(os.nspname) || '.' || quote_ident(o.opcname), '') END,
       CASE WHEN r.rngcanonical <> 0 THEN {function r.rngcanonical} ELSE '' END,
       CASE WHEN r.rngsubdiff <> 0 THEN {function r.rngsubdiff} ELSE '' END,
       coalesce(mn.nspname::text, ''), coalesce(m.typname::text, ''),
       CASE t.typtype WHEN 'd' THEN (
           SELECT json_agg(json_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid),
                           'validated', k.convalidated) ORDER BY k.conname)
             FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c') END,
       CASE t.typtype WHEN 'c' THEN (
           SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'collation',
                           CASE WHEN a.attcollation <> at.typcollation THEN {collation a.attcollation} ELSE '' END)
                           ORDER BY a.attnum)
             FROM pg_attribute a JOIN pg_type at ON at.oid = a.atttypid
            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_range r ON r.rngtypid = t.oid
  LEFT JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE r.rngsubtype END
  LEFT JOIN pg_opclass o ON o.oid = r.rngsubopc LEFT JOIN pg_namespace os ON os.oid = o.opcnamespace
  LEFT JOIN pg_type m ON m.oid = r.rngmultitypid LEFT JOIN pg_namespace mn ON mn.oid = m.typnamespace
  LEFT JOIN pg_class rel ON rel.oid = t.typrelid
 WHERE t.typisdefined AND {user n} AND NOT {member pg_type t.oid}
   AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND rel.relkind = 'c')
 ORDER BY n.nspname, t.typname`

// needsQuery walks pg_depend from tables ($1) and from all types to what they rest on. An array or multirange stands
// for its element or range. An object below FirstNormalObjectId is PostgreSQL's own.
const needsQuery = `
WITH dep AS (
    SELECT d.objid AS owner, coalesce(a.attname::text, '') AS col,
           CASE WHEN d.objsubid > 0 THEN 'type' ELSE 'partition key' END AS used, d.refclassid, d.refobjid
      FROM pg_depend d LEFT JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid AND d.objsubid > 0
     WHERE d.classid = 'pg_class'::regclass AND d.objid = ANY ($1)
    UNION ALL
    SELECT x.adrelid, a.attname::text, CASE WHEN a.attgenerated <> '' THEN 'generation expression' ELSE 'default' END,
           d.refclassid, d.refobjid
      FROM pg_attrdef x JOIN pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum
      JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = x.oid
     WHERE x.adrelid = ANY ($1)
    UNION ALL
    SELECT k.conrelid, '', 'constraint ' || k.conname, d.refclassid, d.refobjid
      FROM pg_constraint k JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
     WHERE k.conrelid = ANY ($1)
    UNION ALL
    SELECT i.indrelid, '', 'index ' || c.relname, d.refclassid, d.refobjid
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
     WHERE i.indrelid = ANY ($1)
    UNION ALL
    SELECT t.oid, '', CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'range' END, d.refclassid, d.refobjid
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
      JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
     WHERE t.typtype IN ('d', 'r') AND {user n}
    UNION ALL
    SELECT t.oid, '', 'constraint ' || k.conname, d.refclassid, d.refobjid
      FROM pg_type t JOIN pg_constraint k ON k.contypid = t.oid
      JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
    UNION ALL
    SELECT t.oid, a.attname::text, 'attribute', d.refclassid, d.refobjid
      FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
      JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid > 0
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid
), resolved AS (
    SELECT dep.owner, dep.col, dep.used, dep.refclassid,
           CASE WHEN dep.refclassid <> 'pg_type'::regclass THEN dep.refobjid
                ELSE coalesce(el.oid, r.rngtypid, dep.refobjid) END AS refobjid
      FROM dep
      LEFT JOIN pg_type el ON dep.refclassid = 'pg_type'::regclass AND el.typarray = dep.refobjid
      LEFT JOIN pg_range r ON dep.refclassid = 'pg_type'::regclass
           AND r.rngmultitypid = coalesce(el.oid, dep.refobjid)
     WHERE dep.refobjid >= 16384
), found AS (
    SELECT DISTINCT owner, col, used, refclassid, refobjid FROM resolved
     WHERE (refobjid <> owner
            AND refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass,
                               'pg_opfamily'::regclass, 'pg_collation'::regclass, 'pg_ts_config'::regclass, 'pg_am'::regclass))
        OR (refclassid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class s WHERE s.oid = refobjid AND s.relkind = 'S'))
)
SELECT f.owner, f.col, f.used, CASE WHEN rel.relkind IN ('r', 'p', 'v', 'm', 'f') THEN 'table' ELSE coalesce(o.type, '') END,
       coalesce(o.identity, ''), coalesce(tn.nspname::text, ''), coalesce(t.typname::text, s.relname::text, k.collname::text, ''),
       coalesce((SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                  WHERE d.classid = f.refclassid AND d.objid = f.refobjid AND d.deptype = 'e' LIMIT 1), '')
  FROM found f CROSS JOIN LATERAL pg_identify_object(f.refclassid, f.refobjid, 0) o
  LEFT JOIN pg_type t ON f.refclassid = 'pg_type'::regclass AND t.oid = f.refobjid
  LEFT JOIN pg_class rel ON rel.oid = t.typrelid
  LEFT JOIN pg_class s ON f.refclassid = 'pg_class'::regclass AND s.oid = f.refobjid
  LEFT JOIN pg_collation k ON f.refclassid = 'pg_collation'::regclass AND k.oid = f.refobjid
  LEFT JOIN pg_namespace tn ON tn.oid = coalesce(t.typnamespace, s.relnamespace, k.collnamespace)
 ORDER BY 1, 2, 3, 4, 5`

const objectsQuery = `
WITH own AS (
    SELECT 'pg_proc'::regclass::oid AS class, p.oid, n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, n.nspname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid, n.nspname FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
    UNION ALL
    SELECT 'pg_opfamily'::regclass, o.oid, n.nspname FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace
    UNION ALL
    SELECT 'pg_ts_config'::regclass, c.oid, n.nspname FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type el WHERE el.typarray = t.oid)
    UNION ALL
    SELECT 'pg_am'::regclass, a.oid, 'public' FROM pg_am a
)
SELECT coalesce(o.type, ''), o.identity
  FROM own CROSS JOIN LATERAL pg_identify_object(own.class, own.oid, 0) o
 WHERE own.oid >= 16384 AND {user own} AND o.identity IS NOT NULL
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = own.class AND d.objid = own.oid AND d.deptype = 'e')
   -- a range makes its own constructor functions
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = own.class AND d.objid = own.oid AND d.deptype = 'i'
                      AND d.refclassid = 'pg_type'::regclass)
 ORDER BY 1, 2`

// largeObjectsCounted bounds the counting of large objects, of which there can be very many.
const largeObjectsCounted = 10000

const othersQuery = `
SELECT 'large objects', CASE WHEN count(*) > $1 THEN 'more than ' || $1 ELSE count(*)::text END || ' large objects'
  FROM (SELECT FROM pg_largeobject_metadata LIMIT $1 + 1) l HAVING count(*) > 0
UNION ALL
SELECT 'role', r.rolname::text FROM pg_roles r WHERE r.rolname NOT LIKE 'pg\_%'
UNION ALL
SELECT 'statistics', quote_ident(n.nspname) || '.' || quote_ident(s.stxname)
  FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {user n}
UNION ALL
SELECT 'sequence', quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND c.relpersistence = 'u' AND {user n}
 ORDER BY 1, 2`

// queryFor fills in what differs between servers, and the conditions that many queries share:
// {user n}           the schema row n is neither PostgreSQL's nor Syncline's
// {alive oid}        the relation still exists, whatever the snapshot shows: only then can its expressions be printed
// {member pg_x oid}  an extension brought that object
// {collation oid}, {function oid}  the qualified, quoted name
func queryFor(query string, serverVersion int) string {
	choose := func(since int, then, otherwise string) string {
		if serverVersion >= since {
			return then
		}
		return otherwise
	}
	query = strings.NewReplacer(
		"{conenforced}", choose(180000, "k.conenforced", "true"),
		"{conperiod}", choose(180000, "k.conperiod", "false"),
		"{colllocale}", choose(170000, "c.colllocale", "c.colliculocale"),
		"{collrules}", choose(160000, "c.collicurules", "''"),
	).Replace(query)
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(query, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if after, braces := strings.CutPrefix(rest, "}"); braces { // '{}' the empty array
			b.WriteString("{}")
			query = after
			continue
		}
		words, after, _ := strings.Cut(rest, "}")
		b.WriteString(expand(strings.Fields(words)))
		query = after
	}
}

func expand(words []string) string {
	switch words[0] {
	case "user":
		return "(" + words[1] + ".nspname NOT LIKE 'pg\\_%' AND " + words[1] + ".nspname NOT IN ('information_schema', 'syncline'))"
	case "alive":
		return "(has_table_privilege(" + words[1] + ", 'SELECT') IS NOT NULL)" // looks into the present catalog, NULL for no table
	case "member":
		return "EXISTS (SELECT FROM pg_depend e WHERE e.classid = '" + words[1] + "'::regclass AND e.objid = " + words[2] + " AND e.deptype = 'e')"
	case "collation":
		return "(SELECT quote_ident(cn.nspname) || '.' || quote_ident(cc.collname) FROM pg_collation cc" +
			" JOIN pg_namespace cn ON cn.oid = cc.collnamespace WHERE cc.oid = " + words[1] + ")"
	case "function":
		return "(SELECT quote_ident(fn.nspname) || '.' || quote_ident(p.proname) FROM pg_proc p" +
			" JOIN pg_namespace fn ON fn.oid = p.pronamespace WHERE p.oid = " + words[1] + ")"
	}
	panic("schema: unknown placeholder " + words[0])
}
