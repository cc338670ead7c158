package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// MessageGrant returns the statement that lets the session's role emit logical messages of text, to be run by a superuser; it is empty
// when the role may. Everybody may, unless the right was taken away from PUBLIC.
func MessageGrant(ctx context.Context, conn *pgx.Conn) (string, error) {
	var grant string
	err := conn.QueryRow(ctx, `
		SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, current_user)
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = 'pg_logical_emit_message' AND p.proargtypes[2] = 'text'::regtype
		  AND NOT has_function_privilege(p.oid, 'EXECUTE')`).Scan(&grant)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look whether logical messages may be emitted: %w", err)
	}
	return grant, nil
}
