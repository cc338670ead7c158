package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// checkPrivileges refuses a plan that the role may not carry out, or whose changes it may not apply, and names the statements
// that mend it. It touches nothing. unguarded says that the role may not set session_replication_role.
func (p *plan) checkPrivileges(ctx context.Context, conn *pgx.Conn, unguarded bool) error {
	role := postgres.Ident(p.target.Role.Name)
	problems, err := p.schemaProblems(ctx, conn, role)
	if err != nil {
		return err
	}
	tables, triggers, err := p.tableProblems(ctx, conn, role)
	if err != nil {
		return err
	}
	problems = append(problems, tables...)
	if unguarded {
		if why := p.needsReplicaRole(triggers); why != "" {
			problems = append(problems, fmt.Sprintf("%s, and this role may not set session_replication_role, without which rows cannot be applied table by table; "+
				"as a superuser run GRANT SET ON PARAMETER session_replication_role TO %s", why, role))
		}
	}
	grant, err := postgres.MessageGrant(ctx, conn)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	if grant != "" {
		problems = append(problems, fmt.Sprintf("each applied transaction begins with a logical message that tells where it came from: run %s as a superuser", grant))
	}
	if problems != nil {
		return failed(reasonPrivilege, "role %s lacks privileges on the replica: %s", p.target.Role.Name, strings.Join(problems, "; "))
	}
	return nil
}

// schemaProblems are about the schemas that tables are created in.
func (p *plan) schemaProblems(ctx context.Context, conn *pgx.Conn, role string) ([]string, error) {
	var names []string
	for _, t := range p.create {
		names = append(names, t.Schema)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text FROM pg_catalog.pg_namespace n
		WHERE n.nspname = ANY ($1) AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'))
		ORDER BY 1`, names)
	if err != nil {
		return nil, fmt.Errorf("read privileges on the replica's schemas: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read privileges on the replica's schemas: %w", err)
	}
	var problems []string
	for _, name := range closed {
		problems = append(problems, fmt.Sprintf("tables have to be created in schema %s: run GRANT USAGE, CREATE ON SCHEMA %s TO %s", name, postgres.Ident(name), role))
	}
	creates := slices.ContainsFunc(p.statements.Before, func(s schema.Statement) bool { return s.Kind == "schema" })
	if creates && !p.target.Role.Create && !p.target.Role.Superuser {
		var database string
		if err := conn.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return nil, fmt.Errorf("read the replica's name: %w", err)
		}
		problems = append(problems, fmt.Sprintf("schemas have to be created: run GRANT CREATE ON DATABASE %s TO %s", postgres.Ident(database), role))
	}
	return problems, nil
}

// tableProblems are about the tables that are there already and will be written. It also returns those of them that have
// triggers which session_replication_role would keep from firing.
func (p *plan) tableProblems(ctx context.Context, conn *pgx.Conn, role string) (problems, triggers []string, err error) {
	var schemas, names []string
	seen := map[schema.Name]bool{}
	for _, t := range p.source.Tables {
		if !t.HasRows() {
			continue
		}
		if target, ok := schema.Route(p.source.Database, p.target, t.FullName()); ok && !seen[target] {
			seen[target] = true
			schemas, names = append(schemas, target.Schema), append(names, target.Name)
		}
	}
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, has_schema_privilege(n.oid, 'USAGE'),
			ARRAY(SELECT w FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) WITH ORDINALITY p (w, place)
				WHERE NOT has_table_privilege(c.oid, w) ORDER BY place),
			c.relrowsecurity AND row_security_active(c.oid), c.relforcerowsecurity, pg_get_userbyid(c.relowner)::text,
			EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled = 'O')
		FROM unnest($1::text[], $2::text[]) AS w (nspname, relname)
		JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
		JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname
		ORDER BY 1, 2`, schemas, names)
	if err != nil {
		return nil, nil, fmt.Errorf("read privileges on the replica's tables: %w", err)
	}
	var t schema.Name
	var usable, hidden, forced, fires bool
	var lacks []string
	var owner string
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &usable, &lacks, &hidden, &forced, &owner, &fires}, func() error {
		if !usable {
			problems = append(problems, fmt.Sprintf("table %s is in a schema that it may not use: run GRANT USAGE ON SCHEMA %s TO %s", t, postgres.Ident(t.Schema), role))
		}
		if len(lacks) > 0 {
			problems = append(problems, fmt.Sprintf("table %s has to be read and written: run GRANT %s ON TABLE %s TO %s", t, strings.Join(lacks, ", "), t.SQL(), role))
		}
		if hidden {
			mend := "ALTER ROLE " + role + " BYPASSRLS as a superuser"
			if !forced {
				mend += ", or GRANT " + postgres.Ident(owner) + " TO " + role
			}
			problems = append(problems, fmt.Sprintf("row level security of table %s hides rows from it: run %s", t, mend))
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

// needsReplicaRole says why session_replication_role has to be set, or nothing if it need not.
func (p *plan) needsReplicaRole(triggers []string) string {
	for _, t := range slices.Concat(p.source.Tables, p.target.Tables) {
		for _, c := range t.Constraints {
			if c.Type == schema.ConstraintForeign {
				return fmt.Sprintf("table %s has a foreign key", t.FullName())
			}
		}
	}
	if triggers != nil {
		return "triggers would fire on table " + strings.Join(triggers, ", ")
	}
	return ""
}
