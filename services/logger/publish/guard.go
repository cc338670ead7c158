package publish

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// A look at the catalog now and then notices a lost identity a moment too late: until then PostgreSQL refuses UPDATE and DELETE
// on the table, and always so within the transaction that took the identity away. An event trigger is there in time. It
// does what Reconcile would do, for the tables on which PostgreSQL would refuse statements: they leave the first
// publication, and of a partitioned table the partitions that still have an identity are listed one by one.
//
// It never makes a statement fail itself: whatever goes wrong inside becomes a warning, and waiting for a lock is short. It
// runs with the rights of the role that made it, because whoever may alter a table need not own the publication.
const guardSQL = `
DECLARE
  listed record;
  leaf record;
BEGIN
  FOR listed IN
    SELECT r.prrelid AS oid, n.nspname, c.relname, c.relkind
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.pubname = {publication} AND EXISTS (
      SELECT FROM (SELECT r.prrelid AS relid WHERE c.relkind = 'r'
                   UNION ALL SELECT t.relid FROM pg_partition_tree(r.prrelid) t WHERE c.relkind = 'p' AND t.isleaf) l
      JOIN pg_class c ON c.oid = l.relid
      WHERE {refused})
  LOOP
    BEGIN
      EXECUTE format('ALTER PUBLICATION %I DROP TABLE ONLY %I.%I', {publication}, listed.nspname, listed.relname);
      FOR leaf IN
        SELECT n.nspname, c.relname FROM pg_partition_tree(listed.oid) t
        JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE listed.relkind = 'p' AND t.isleaf AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT {refused}
      LOOP
        EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I', {publication}, leaf.nspname, leaf.relname);
      END LOOP;
      IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
          WHERE p.pubname = {insert publication} AND r.prrelid = {announcements}::regclass) THEN
        EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY {announcements table}', {insert publication});
      END IF;
      {announce}({publication}, json_build_object(
        'removed', json_build_array(json_build_object('oid', listed.oid::int8, 'schema', listed.nspname, 'name', listed.relname)),
        'captured', (SELECT coalesce(json_agg(json_build_object('oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname)), '[]')
                     FROM pg_partition_tree(listed.oid) t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE listed.relkind = 'p' AND t.isleaf AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT {refused}))::text);
      {announced};
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'table %.% stays published without a replica identity for now: %', listed.nspname, listed.relname, SQLERRM;
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'looking for tables that are published without a replica identity: %', SQLERRM;
END`

// refusedSQL tells whether PostgreSQL refuses UPDATE and DELETE on c when it is published (CheckCmdReplicaIdentity): it has no
// identity, or, from 18 on, one with a generated column that is not published.
const refusedSQL = `(c.relkind = 'r' AND c.relpersistence = 'p' AND CASE c.relreplident
        WHEN 'f' THEN {version} >= 180000 AND EXISTS (
          SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
        WHEN 'n' THEN true
        ELSE NOT EXISTS (
          SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
            AND (c.relreplident = 'd' AND x.indisprimary OR c.relreplident = 'i' AND x.indisreplident)
            AND NOT ({version} >= 180000 AND EXISTS (
              SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]))))
      END)`

// guardTags are the commands that can take an identity away.
const guardTags = "'ALTER TABLE', 'DROP INDEX', 'DROP TYPE', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED'"

// guardLockTimeout is below the server's deadlock_timeout: the trigger gives up before anybody is ended for it.
const guardLockTimeout = "500ms"

// Guard makes the event trigger, or brings it up to date, where the role may: PostgreSQL wants a superuser. It returns whether
// the trigger is there. Without it a lost identity is noticed with the next Reconcile.
func Guard(ctx context.Context, conn *pgx.Conn, cfg Config) (bool, error) {
	var version string
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')").Scan(&version); err != nil {
		return false, fmt.Errorf("read the server's version: %w", err)
	}
	body := strings.NewReplacer("{publication}", postgres.Literal(cfg.Name), "{insert publication}", postgres.Literal(cfg.InsertName()),
		"{announcements}", postgres.Literal(Announcements.SQL()), "{announcements table}", Announcements.SQL(),
		"{announce}", announceSQL[0], "{announced}", announceSQL[1],
		"{refused}", strings.ReplaceAll(refusedSQL, "{version}", version)).Replace(guardSQL)
	function, trigger := "guard_"+cfg.Name, cfg.Name+"_guard"
	var there bool
	err := conn.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc f ON f.oid = e.evtfoid JOIN pg_namespace n ON n.oid = f.pronamespace
			WHERE e.evtname = $1 AND n.nspname = 'syncline' AND f.proname = $2 AND f.prosrc = $3 AND e.evtenabled = 'A')`, trigger, function, body).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for event trigger %s: %w", trigger, err)
	}
	if there {
		return true, nil
	}
	name := postgres.Ident("syncline", function)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, statement := range []string{
			"CREATE OR REPLACE FUNCTION " + name + "() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER " +
				"SET search_path = pg_catalog, pg_temp SET lock_timeout = " + postgres.Literal(guardLockTimeout) + " AS " + postgres.Literal(body),
			"DROP EVENT TRIGGER IF EXISTS " + postgres.Ident(trigger),
			"CREATE EVENT TRIGGER " + postgres.Ident(trigger) + " ON ddl_command_end WHEN TAG IN (" + guardTags + ") EXECUTE FUNCTION " + name + "()",
			"ALTER EVENT TRIGGER " + postgres.Ident(trigger) + " ENABLE ALWAYS", // also for what an applier alters
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("make event trigger %s: %w", trigger, err)
			}
		}
		return nil
	})
	if postgres.Code(err) == insufficientPrivilege {
		return false, nil
	}
	return err == nil, err
}

const insufficientPrivilege = "42501"
