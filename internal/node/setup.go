package node

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/setup"
)

// CodeState is that of problems with the node's own tables.
const CodeState = "STATE"

// SetupProblems are what keeps a role from preparing a database and keeping its state there. It returns ErrVersion and ErrStandby for servers
// that cannot be a node.
func SetupProblems(ctx context.Context, conn *pgx.Conn, role string) ([]setup.Problem, error) {
	s, err := look(ctx, conn, role)
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	name := postgres.Ident(role)
	if !s.schema {
		if s.mayCreate {
			return nil, nil
		}
		sql := "GRANT CREATE ON DATABASE " + postgres.Ident(s.identity.Database) + " TO " + name
		return []setup.Problem{{Code: CodeState, Text: fmt.Sprintf("role %s may not create the schema syncline: run %s", role, sql), SQL: []string{sql}}}, nil
	}
	var problems []setup.Problem
	if !s.mayUse {
		sql := "GRANT USAGE, CREATE ON SCHEMA syncline TO " + name
		problems = append(problems, setup.Problem{Code: CodeState, Text: fmt.Sprintf("role %s may not use the schema syncline: run %s", role, sql), SQL: []string{sql}})
	}
	closed, err := closedTables(ctx, conn, role)
	if err != nil {
		return nil, err
	}
	if closed {
		sql := []string{"GRANT ALL ON ALL TABLES IN SCHEMA syncline TO " + name, "GRANT ALL ON ALL SEQUENCES IN SCHEMA syncline TO " + name}
		problems = append(problems, setup.Problem{Code: CodeState, Text: fmt.Sprintf("the tables in schema syncline belong to another role: run %s; %s; "+
			"if tables have to be changed for a new version, start once as their owner", sql[0], sql[1]), SQL: sql})
	}
	return problems, nil
}

// closedTables tells whether there is something in the schema syncline that a role may not read and write.
func closedTables(ctx context.Context, conn *pgx.Conn, role string) (closed bool, err error) {
	err = conn.QueryRow(ctx, `
		SELECT coalesce(bool_or(NOT CASE c.relkind
			WHEN 'S' THEN has_sequence_privilege(`+setup.Grantee+`, c.oid, 'USAGE')
			ELSE has_table_privilege(`+setup.Grantee+`, c.oid, 'SELECT') AND has_table_privilege(`+setup.Grantee+`, c.oid, 'INSERT')
			     AND has_table_privilege(`+setup.Grantee+`, c.oid, 'UPDATE') AND has_table_privilege(`+setup.Grantee+`, c.oid, 'DELETE') END), false)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'syncline' AND c.relkind IN ('r', 'S')`, role).Scan(&closed)
	if err != nil {
		return false, fmt.Errorf("read privileges on schema syncline: %w", err)
	}
	return closed, nil
}
