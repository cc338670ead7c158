// Package setup holds what may stand between a role and its work in a database, and the statements that mend it. Services ask it before
// they start, for themselves; `syncline prepare` asks for a role that may not even be there yet. So both go by the same rules.
package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
)

// Manner says how the statements of a problem have to be run.
type Manner byte

const (
	// Together is within a transaction with others.
	Together Manner = iota
	// Alone is in a transaction of its own: it waits for a lock on a table, and nobody shall wait for several at once.
	Alone
	// Outside is outside of a transaction: PostgreSQL allows no other way.
	Outside
)

// Problem is one thing that has to be mended.
type Problem struct {
	Code string // stable
	Text string // for people, with the way out
	// SQL are the statements that mend it, in their order; none when somebody has to decide.
	SQL    []string
	Manner Manner
	// Setting is the one that SQL sets, to Value. It holds only after PostgreSQL was restarted. Empty for other problems.
	Setting, Value string
}

// Reason is the text without the way out.
func (p Problem) Reason() string {
	for _, word := range []string{": run ", "; as a superuser run ", ": GRANT "} {
		if reason, _, found := strings.Cut(p.Text, word); found && p.SQL != nil {
			return reason
		}
	}
	return p.Text
}

// Set is the problem of a setting that needs a restart.
func Set(code, setting, value, format string, args ...any) Problem {
	return Problem{
		Code: code, Text: fmt.Sprintf(format, args...), Manner: Outside, Setting: setting, Value: value,
		SQL: []string{"ALTER SYSTEM SET " + setting + " = " + postgres.Literal(value)},
	}
}

// Grantee is SQL for the role of the parameter $1, such that PostgreSQL's has_…_privilege functions take it: an empty one is that of the
// session, and one that is not there yet has what PUBLIC has.
const Grantee = `(CASE WHEN $1::text = '' THEN current_user
	ELSE coalesce((SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = $1::text), 'public') END)`

// Member is SQL that tells whether that role has the rights of the role whose OID the expression is.
func Member(oid string) string {
	// The role is looked up once, whatever the number of rows.
	return `coalesce(pg_catalog.pg_has_role((SELECT me.oid FROM pg_catalog.pg_roles me WHERE me.rolname = ` + Grantee + `), ` + oid + `, 'USAGE'), false)`
}

// Querier is a session or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// MessageGrant returns the statement that lets a role emit logical messages of text, to be run by a superuser; it is empty when the role
// may. Everybody may, unless the right was taken away from PUBLIC.
func MessageGrant(ctx context.Context, q Querier, role string) (string, error) {
	var grant string
	err := q.QueryRow(ctx, `
		SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, $1::text)
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = 'pg_logical_emit_message' AND p.proargtypes[2] = 'text'::regtype
		  AND NOT has_function_privilege(`+Grantee+`, p.oid, 'EXECUTE')`, role).Scan(&grant)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look whether logical messages may be emitted: %w", err)
	}
	return grant, nil
}
