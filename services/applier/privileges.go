package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/setup"
)

// checkPrivileges refuses a plan that the role may not carry out, or whose changes it may not apply, and names the statements
// that mend it. It touches nothing. unguarded says that the role may not set session_replication_role.
func (p *plan) checkPrivileges(ctx context.Context, conn *pgx.Conn, unguarded bool) error {
	role := p.target.Role.Name
	problems, err := p.schemaProblems(ctx, conn, role)
	if err != nil {
		return err
	}
	tables, triggers, err := setup.Writable(ctx, conn, role, p.written())
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	problems = append(problems, tables...)
	if unguarded {
		if why := p.needsReplicaRole(triggers); why != "" {
			problems = append(problems, setup.SetReplicaRole(why, role))
		}
	}
	grant, err := setup.MessageGrant(ctx, conn, role)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	if grant != "" {
		problems = append(problems, setup.EmitMessages(grant))
	}
	if problems == nil {
		return nil
	}
	texts, lacks := make([]string, len(problems)), make([]lack, len(problems))
	for i, problem := range problems {
		texts[i], lacks[i] = problem.Text, lack{problem.Reason(), strings.Join(problem.SQL, "; ")}
	}
	return &privilegeError{failed(reasonPrivilege, "role %s lacks privileges on the replica: %s", role, strings.Join(texts, "; ")), lacks}
}

// lack is a privilege that is missing, and the statement that gives it.
type lack struct{ text, mend string }

// privilegeError says that a role lacks privileges.
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
func (p *plan) schemaProblems(ctx context.Context, conn *pgx.Conn, role string) ([]setup.Problem, error) {
	var names []string
	for _, t := range p.create {
		names = append(names, t.Schema)
	}
	slices.Sort(names)
	problems, err := setup.ClosedSchemas(ctx, conn, role, slices.Compact(names))
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what failed
	}
	creates := slices.ContainsFunc(p.statements.Before, func(s schema.Statement) bool { return s.Kind == "schema" })
	if creates && !p.target.Role.Create && !p.target.Role.Superuser {
		var database string
		if err := conn.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return nil, fmt.Errorf("read the replica's name: %w", err)
		}
		problems = append(problems, setup.CreateSchemas(database, role))
	}
	return problems, nil
}

// written are the tables of the replica that rows go to, as far as they are there already.
func (p *plan) written() (names []schema.Name) {
	seen := map[schema.Name]bool{}
	for _, t := range p.source.Tables {
		if !t.HasRows() {
			continue
		}
		if target, ok := schema.Route(p.source.Database, p.target, t.FullName()); ok && !seen[target] {
			seen[target] = true
			names = append(names, target)
		}
	}
	return names
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
