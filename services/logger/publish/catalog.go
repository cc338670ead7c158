package publish

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/setup"
)

// Table is a permanent ordinary or partitioned table as far as publishing it matters.
type Table struct {
	OID         uint32
	Name        schema.Name
	Partitioned bool
	Parent      uint32 // the partitioned table of which it is a partition, else 0
	Identity    change.Identity
	// PrimaryKey and IdentityIndex tell of indexes that PostgreSQL takes for an identity: valid and not deferrable.
	PrimaryKey    bool
	IdentityIndex bool
	// Deferrable says that there is a primary key, but a deferrable one.
	Deferrable bool
	// Generated says that there is a generated column, GeneratedKey that the identity's index holds one.
	Generated    bool
	GeneratedKey bool
	// Owned says that the session's role may add the table to a publication.
	Owned bool
	Owner string
	// OwnerSuper says that the owner is a superuser.
	OwnerSuper bool
}

// querier is a session or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Sources: RelationGetIndexList and CheckCmdReplicaIdentity of PostgreSQL decide which index is an identity: it is valid
// and immediate, and the primary key (identity 'd') or the one that ALTER TABLE … REPLICA IDENTITY USING INDEX named.
var catalogSQL = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', coalesce(h.inhparent, 0)::oid, c.relreplident::text,
       coalesce(k.primary_key, false), coalesce(k.identity_index, false), coalesce(k.deferrable, false),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped),
       coalesce(k.generated_key, false),
       ` + setup.Member("c.relowner") + `, pg_get_userbyid(c.relowner)::text, coalesce(o.rolsuper, false)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_roles o ON o.oid = c.relowner
LEFT JOIN pg_inherits h ON c.relispartition AND h.inhrelid = c.oid
LEFT JOIN LATERAL (
  SELECT bool_or(x.indisprimary AND x.indimmediate AND x.indisvalid) AS primary_key,
         bool_or(x.indisreplident AND x.indimmediate AND x.indisvalid) AS identity_index,
         bool_or(x.indisprimary AND NOT x.indimmediate) AS deferrable,
         bool_or(EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                         AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]))) AS generated_key
  FROM pg_index x
  WHERE x.indrelid = c.oid
    AND (x.indisprimary AND c.relreplident <> 'i' OR x.indisreplident AND c.relreplident = 'i')
) k ON true
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`

// readTables reads every table that could be published, and Syncline's own, which the selection leaves out. Owned is for the role, the
// session's own when it is empty.
func readTables(ctx context.Context, q querier, role string) ([]Table, error) {
	rows, err := q.Query(ctx, catalogSQL, role)
	if err != nil {
		return nil, fmt.Errorf("read the catalog's tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Table, error) {
		var t Table
		var identity string
		err := row.Scan(&t.OID, &t.Name.Schema, &t.Name.Name, &t.Partitioned, &t.Parent, &identity,
			&t.PrimaryKey, &t.IdentityIndex, &t.Deferrable, &t.Generated, &t.GeneratedKey, &t.Owned, &t.Owner, &t.OwnerSuper)
		if err == nil {
			t.Identity = change.Identity(identity[0])
		}
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the catalog's tables: %w", err)
	}
	return tables, nil
}

// publication is one of ours as PostgreSQL has it.
type publication struct {
	oid       uint32 // 0 when it does not exist
	owned     bool
	owner     string
	allTables bool
	schemas   bool   // FOR TABLES IN SCHEMA
	publish   string // "insert, update, delete, truncate" as set in the options
	viaRoot   bool
	members   map[uint32]bool // by table OID, but for Announcements; true when rows or columns are filtered
	// announces says that it lists Announcements whole, announcesSome that it does so with a filter.
	announces, announcesSome bool
}

func readPublication(ctx context.Context, q querier, name, role string) (publication, error) {
	p := publication{members: make(map[uint32]bool)}
	err := q.QueryRow(ctx, `
		SELECT p.oid, `+setup.Member("p.pubowner")+`, pg_get_userbyid(p.pubowner)::text, p.puballtables,
		       EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid),
		       concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
		                 CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
		       p.pubviaroot
		FROM pg_publication p WHERE p.pubname = $2`, role, name).
		Scan(&p.oid, &p.owned, &p.owner, &p.allTables, &p.schemas, &p.publish, &p.viaRoot)
	if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it unwrapped
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read publication %s: %w", name, err)
	}
	rows, err := q.Query(ctx, `SELECT prrelid, prqual IS NOT NULL OR prattrs IS NOT NULL, 
		       coalesce(prrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2 AND c.relname = $3), false)
		FROM pg_publication_rel WHERE prpubid = $1`, p.oid, Announcements.Schema, Announcements.Name)
	if err != nil {
		return p, fmt.Errorf("read the tables of publication %s: %w", name, err)
	}
	var oid uint32
	var filtered, announcements bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &filtered, &announcements}, func() error {
		if announcements {
			p.announces, p.announcesSome = !filtered, filtered
		} else {
			p.members[oid] = filtered
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("read the tables of publication %s: %w", name, err)
	}
	return p, nil
}
