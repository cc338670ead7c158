package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// checkPrivileges refuses a plan that the role may not carry out, and names the statements that mend it.
func (p *plan) checkPrivileges(ctx context.Context, t *target) error {
	role := postgres.Ident(p.target.Role.Name)
	problems, err := p.schemaProblems(ctx, t, role)
	if err != nil {
		return err
	}
	tables, err := p.tableProblems(ctx, t, role)
	if err != nil {
		return err
	}
	if problems = append(problems, tables...); problems != nil {
		return fmt.Errorf("%w for role %s: %s", ErrPrivilege, p.target.Role.Name, strings.Join(problems, "; "))
	}
	return nil
}

// schemaProblems are about what has to be created.
func (p *plan) schemaProblems(ctx context.Context, t *target, role string) (problems []string, err error) {
	var database string
	var syncline bool
	if err := t.conn.QueryRow(ctx, `SELECT current_database(), EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'syncline')`).Scan(&database, &syncline); err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	creates := !syncline || slices.ContainsFunc(p.statements.Before, func(s schema.Statement) bool { return s.Kind == schema.StatementSchema })
	if creates && !p.target.Role.Create && !p.target.Role.Superuser {
		problems = append(problems, fmt.Sprintf("schemas have to be created: run GRANT CREATE ON DATABASE %s TO %s", postgres.Ident(database), role))
	}
	var names []string
	for _, name := range p.create {
		names = append(names, name.Schema)
	}
	rows, err := t.conn.Query(ctx, `SELECT n.nspname::text FROM pg_catalog.pg_namespace n
		WHERE n.nspname = ANY ($1) AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE')) ORDER BY 1`, names)
	if err != nil {
		return nil, fmt.Errorf("read privileges on schemas: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read privileges on schemas: %w", err)
	}
	for _, name := range closed {
		problems = append(problems, fmt.Sprintf("tables have to be created in schema %s: run GRANT USAGE, CREATE ON SCHEMA %s TO %s", name, postgres.Ident(name), role))
	}
	return problems, nil
}

// tableProblems are about tables that are there already.
func (p *plan) tableProblems(ctx context.Context, t *target, role string) (problems []string, err error) {
	var schemas, names []string
	for _, name := range p.existing() {
		schemas, names = append(schemas, name.Schema), append(names, name.Name)
	}
	rows, err := t.conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, has_schema_privilege(n.oid, 'USAGE'),
			ARRAY(SELECT w FROM unnest('{SELECT,INSERT,DELETE,TRUNCATE}'::text[]) WITH ORDINALITY p (w, place)
				WHERE NOT has_table_privilege(c.oid, w) ORDER BY place),
			c.relrowsecurity AND row_security_active(c.oid),
			EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'O')
		FROM unnest($1::text[], $2::text[]) AS w (nspname, relname)
		JOIN pg_catalog.pg_namespace n ON n.nspname = w.nspname
		JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.relname
		ORDER BY 1, 2`, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read privileges on tables: %w", err)
	}
	var name schema.Name
	var usable, hidden, fires bool
	var lacks []string
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &usable, &lacks, &hidden, &fires}, func() error {
		if !usable {
			problems = append(problems, fmt.Sprintf("table %s is in a schema that it may not use: run GRANT USAGE ON SCHEMA %s TO %s", name, postgres.Ident(name.Schema), role))
		}
		if len(lacks) > 0 {
			problems = append(problems, fmt.Sprintf("table %s has to be read and written: run GRANT %s ON TABLE %s TO %s", name, strings.Join(lacks, ", "), name.SQL(), role))
		}
		if hidden {
			problems = append(problems, fmt.Sprintf("row level security of table %s hides rows from it: run ALTER ROLE %s BYPASSRLS as a superuser", name, role))
		}
		if fires && t.unguarded {
			problems = append(problems, fmt.Sprintf("triggers or foreign keys of table %s would fire: as a superuser run GRANT SET ON PARAMETER session_replication_role TO %s", name, role))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read privileges on tables: %w", err)
	}
	return problems, nil
}
