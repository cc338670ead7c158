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
	lacks, err := p.schemaProblems(ctx, conn, role)
	if err != nil {
		return err
	}
	tables, triggers, err := p.tableProblems(ctx, conn, role)
	if err != nil {
		return err
	}
	lacks = append(lacks, tables...)
	if unguarded {
		if why := p.needsReplicaRole(triggers); why != "" {
			lacks = append(lacks, lack{
				why + ", and this role may not set session_replication_role, without which rows cannot be applied table by table",
				"GRANT SET ON PARAMETER session_replication_role TO " + role + " as a superuser",
			})
		}
	}
	grant, err := postgres.MessageGrant(ctx, conn)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	if grant != "" {
		lacks = append(lacks, lack{"each applied transaction begins with a logical message that tells where it came from", grant + " as a superuser"})
	}
	if lacks == nil {
		return nil
	}
	problems := make([]string, len(lacks))
	for i, l := range lacks {
		problems[i] = l.text + ": run " + l.mend
	}
	return &privilegeError{failed(reasonPrivilege, "role %s lacks privileges on the replica: %s", p.target.Role.Name, strings.Join(problems, "; ")), lacks}
}

// lack is a privilege that is missing, and the statement that gives it.
type lack struct{ text, mend string }

// privilegeError says that the role lacks privileges on the replica.
type privilegeError struct {
	refused error
	lacks   []lack
}

func (e *privilegeError) Error() string { return e.refused.Error() }
func (e *privilegeError) Unwrap() error { return e.refused }

// readable refuses tables that wait for a copy and that the source's role may not read.
func (p *plan) readable(src *source) error {
	var lacks []lack
	var grants []string
	for _, t := range p.tables {
		if grant := src.told.grants[t.oid]; grant != "" {
			lacks = append(lacks, lack{fmt.Sprintf("the source may not read table %s", t.name), grant})
			grants = append(grants, fmt.Sprintf("table %s (run there: %s)", t.name, grant))
		}
	}
	if lacks == nil {
		return nil
	}
	return &privilegeError{failed(reasonSourcePrivilege, "the role of the source's inventory may not read what has to be copied: %s", strings.Join(grants, ", ")), lacks}
}

// schemaProblems are about the schemas that tables are created in.
func (p *plan) schemaProblems(ctx context.Context, conn *pgx.Conn, role string) ([]lack, error) {
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
	var problems []lack
	for _, name := range closed {
		problems = append(problems, lack{"tables have to be created in schema " + name, fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s", postgres.Ident(name), role)})
	}
	creates := slices.ContainsFunc(p.statements.Before, func(s schema.Statement) bool { return s.Kind == "schema" })
	if creates && !p.target.Role.Create && !p.target.Role.Superuser {
		var database string
		if err := conn.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return nil, fmt.Errorf("read the replica's name: %w", err)
		}
		problems = append(problems, lack{"schemas have to be created", fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", postgres.Ident(database), role)})
	}
	return problems, nil
}

// tableProblems are about the tables that are there already and will be written. It also returns those of them that have
// triggers which session_replication_role would keep from firing.
func (p *plan) tableProblems(ctx context.Context, conn *pgx.Conn, role string) (problems []lack, triggers []string, err error) {
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
			problems = append(problems, lack{fmt.Sprintf("table %s is in a schema that it may not use", t), fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", postgres.Ident(t.Schema), role)})
		}
		if len(lacks) > 0 {
			problems = append(problems, lack{fmt.Sprintf("table %s has to be read and written", t), fmt.Sprintf("GRANT %s ON TABLE %s TO %s", strings.Join(lacks, ", "), t.SQL(), role)})
		}
		if hidden {
			mend := "ALTER ROLE " + role + " BYPASSRLS as a superuser"
			if !forced {
				mend += ", or GRANT " + postgres.Ident(owner) + " TO " + role
			}
			problems = append(problems, lack{fmt.Sprintf("row level security of table %s hides rows from it", t), mend})
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
