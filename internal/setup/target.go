package setup

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// CodePrivilege is that of every privilege that a role lacks.
const CodePrivilege = "PRIVILEGE"

// privilege is the problem of one that is missing.
func privilege(sql []string, format string, args ...any) Problem {
	return Problem{Code: CodePrivilege, Text: fmt.Sprintf(format, args...), SQL: sql}
}

// CreateSchemas is the problem of a role that may not create schemas in a database.
func CreateSchemas(database, role string) Problem {
	sql := "GRANT CREATE ON DATABASE " + postgres.Ident(database) + " TO " + postgres.Ident(role)
	return privilege([]string{sql}, "schemas have to be created: run %s", sql)
}

// SetReplicaRole is the problem of a role that has to set session_replication_role, and may not.
func SetReplicaRole(why, role string) Problem {
	sql := "GRANT SET ON PARAMETER session_replication_role TO " + postgres.Ident(role)
	return privilege([]string{sql}, "%s, and this role may not set session_replication_role, without which rows cannot be applied table by table; as a superuser run %s", why, sql)
}

// EmitMessages is the problem of a role that may not emit the message with which applied transactions begin; grant is what MessageGrant says.
func EmitMessages(grant string) Problem {
	return privilege([]string{grant}, "each applied transaction begins with a logical message that tells where it came from: run %s as a superuser", grant)
}

// ClosedSchemas are those of the schemas, as far as they are there, in which a role may not create tables.
func ClosedSchemas(ctx context.Context, q Querier, role string, names []string) (problems []Problem, err error) {
	rows, err := q.Query(ctx, `
		SELECT n.nspname::text FROM pg_catalog.pg_namespace n
		WHERE n.nspname = ANY ($2) AND NOT (has_schema_privilege(`+Grantee+`, n.oid, 'USAGE') AND has_schema_privilege(`+Grantee+`, n.oid, 'CREATE'))
		ORDER BY 1`, role, names)
	if err != nil {
		return nil, fmt.Errorf("read privileges on the replica's schemas: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read privileges on the replica's schemas: %w", err)
	}
	for _, name := range closed {
		sql := "GRANT USAGE, CREATE ON SCHEMA " + postgres.Ident(name) + " TO " + postgres.Ident(role)
		problems = append(problems, privilege([]string{sql}, "tables have to be created in schema %s: run %s", name, sql))
	}
	return problems, nil
}

// hiddenSQL tells whether row level security of c hides rows from the role, as row_security_active does for the session's own. A member of
// the owner's role counts as the owner.
func hiddenSQL(owner string) string {
	return `c.relrowsecurity AND NOT (c.relforcerowsecurity IS FALSE AND ` + owner + `)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles b WHERE b.rolname = ` + Grantee + ` AND (b.rolsuper OR b.rolbypassrls))`
}

// Writable finds what keeps a role from reading and writing those of the tables that are there. It also returns those of them that have
// triggers which session_replication_role would keep from firing.
func Writable(ctx context.Context, q Querier, role string, tables []schema.Name) (problems []Problem, triggers []string, err error) {
	schemas, names := split(tables)
	rows, err := q.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, has_schema_privilege(`+Grantee+`, n.oid, 'USAGE'),
			ARRAY(SELECT w FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) WITH ORDINALITY p (w, place)
				WHERE NOT has_table_privilege(`+Grantee+`, c.oid, w) ORDER BY place),
			`+hiddenSQL(Member("c.relowner"))+`, c.relforcerowsecurity, pg_get_userbyid(c.relowner)::text,
			(SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = c.relowner),
			EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled = 'O')
		FROM unnest($2::text[], $3::text[]) AS w (nspname, relname)
		JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
		JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname
		ORDER BY 1, 2`, role, schemas, names)
	if err != nil {
		return nil, nil, fmt.Errorf("read privileges on the replica's tables: %w", err)
	}
	var t schema.Name
	var usable, hidden, forced, super, fires bool
	var lacks []string
	var owner string
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &usable, &lacks, &hidden, &forced, &owner, &super, &fires}, func() error {
		if !usable {
			problems = append(problems, useSchema(t, role))
		}
		if len(lacks) > 0 {
			sql := "GRANT " + strings.Join(lacks, ", ") + " ON TABLE " + t.SQL() + " TO " + postgres.Ident(role)
			problems = append(problems, privilege([]string{sql}, "table %s has to be read and written: run %s", t, sql))
		}
		if hidden {
			sql := bypass(role)
			mend := sql + " as a superuser"
			if !forced {
				grant := "GRANT " + postgres.Ident(owner) + " TO " + postgres.Ident(role)
				mend += ", or " + grant
				if !super { // nobody becomes a superuser on the way
					sql = grant
				}
			}
			problems = append(problems, privilege([]string{sql}, "row level security of table %s hides rows from it: run %s", t, mend))
		}
		if fires {
			triggers = append(triggers, t.String())
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read privileges on the replica's tables: %w", err)
	}
	return problems, triggers, nil
}

func bypass(role string) string { return "ALTER ROLE " + postgres.Ident(role) + " BYPASSRLS" }

func useSchema(t schema.Name, role string) Problem {
	sql := "GRANT USAGE ON SCHEMA " + postgres.Ident(t.Schema) + " TO " + postgres.Ident(role)
	return privilege([]string{sql}, "table %s is in a schema that it may not use: run %s", t, sql)
}

// Readable finds what keeps a role from reading tables of a primary, once it is a member of each owner's role, as capturing needs.
func Readable(ctx context.Context, q Querier, role string, tables []schema.Name) (problems []Problem, err error) {
	schemas, names := split(tables)
	rows, err := q.Query(ctx, `
		SELECT n.nspname::text, c.relname::text,
			has_schema_privilege(`+Grantee+`, n.oid, 'USAGE') OR has_schema_privilege(c.relowner, n.oid, 'USAGE'),
			has_table_privilege(`+Grantee+`, c.oid, 'SELECT') OR has_table_privilege(c.relowner, c.oid, 'SELECT'),
			`+hiddenSQL("true")+`
		FROM unnest($2::text[], $3::text[]) AS w (nspname, relname)
		JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
		JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname
		ORDER BY 1, 2`, role, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read privileges on the primary's tables: %w", err)
	}
	var t schema.Name
	var usable, readable, hidden bool
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &usable, &readable, &hidden}, func() error {
		if !usable {
			problems = append(problems, useSchema(t, role))
		}
		if !readable {
			sql := "GRANT SELECT ON TABLE " + t.SQL() + " TO " + postgres.Ident(role)
			problems = append(problems, privilege([]string{sql}, "table %s has to be read: run %s", t, sql))
		}
		if hidden {
			problems = append(problems, privilege([]string{bypass(role)}, "row level security hides rows of table %s from role %s: run %s", t, role, bypass(role)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read privileges on the primary's tables: %w", err)
	}
	return problems, nil
}

func split(tables []schema.Name) (schemas, names []string) {
	for _, t := range tables {
		schemas, names = append(schemas, t.Schema), append(names, t.Name)
	}
	return schemas, names
}
