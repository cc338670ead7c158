package principals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/postgres"
)

var (
	// ErrExists says that the name or the certificate of a new principal is taken.
	ErrExists = errors.New("principal exists already")
	// ErrUnknown says that there is no principal of that name.
	ErrUnknown = errors.New("there is no such principal")
	// ErrLastAdmin says that nobody could make principals any more.
	ErrLastAdmin = errors.New("it is the only admin")
	// ErrNoToken says that a principal shows itself by a certificate.
	ErrNoToken = errors.New("principal has no token")
	// ErrNotPrepared says that no server has prepared the database.
	ErrNotPrepared = errors.New("database is not prepared")
)

// Record is a principal as it is stored. It has either a certificate or the hash of a token.
type Record struct {
	access.Principal
	Certificate string
	TokenHash   *access.TokenHash
	CreatedAt   time.Time
	TokenAt     time.Time
}

// database is what the store needs of a pool or a connection.
type database interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Store reads and writes principals.
type Store struct{ db database }

// NewStore makes a store on a connection or a pool.
func NewStore(db database) *Store { return &Store{db} }

const columns = "name, role, grants, token_hash, coalesce(certificate, ''), created_at, token_at"

func scan(row pgx.CollectableRow) (*Record, error) {
	var r Record
	var hash []byte
	var tokenAt *time.Time
	if err := row.Scan(&r.Name, &r.Role, &r.Grants, &hash, &r.Certificate, &r.CreatedAt, &tokenAt); err != nil {
		return nil, err
	}
	if tokenAt != nil {
		r.TokenAt = *tokenAt
	}
	if hash != nil {
		r.TokenHash = (*access.TokenHash)(hash)
	}
	return &r, nil
}

// List returns all principals by name.
func (s *Store) List(ctx context.Context) ([]*Record, error) {
	rows, err := s.db.Query(ctx, "SELECT "+columns+" FROM syncline.principals ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("read principals: %w", explain(err))
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("read principals: %w", explain(err))
	}
	return list, nil
}

// Create stores a new principal and returns it as it is stored. Its errors are ErrExists and those of the database.
func (s *Store) Create(ctx context.Context, r *Record) (*Record, error) {
	var hash []byte
	var certificate *string
	if r.TokenHash != nil {
		hash = r.TokenHash[:]
	} else {
		certificate = &r.Certificate
	}
	grants := r.Grants
	if grants == nil {
		grants = []access.Grant{}
	}
	rows, err := s.db.Query(ctx, `INSERT INTO syncline.principals (name, role, grants, token_hash, certificate, token_at)
		VALUES ($1, $2, $3, $4, $5, CASE WHEN $4::bytea IS NULL THEN NULL ELSE now() END)
		ON CONFLICT DO NOTHING RETURNING `+columns, r.Name, string(r.Role), grants, hash, certificate)
	if err != nil {
		return nil, fmt.Errorf("store principal %s: %w", r.Name, explain(err))
	}
	made, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s, or one with its certificate", ErrExists, r.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("store principal %s: %w", r.Name, explain(err))
	}
	return made, nil
}

// Rotate replaces the hash of a principal's token.
func (s *Store) Rotate(ctx context.Context, name string, hash access.TokenHash) (*Record, error) {
	rows, err := s.db.Query(ctx, `UPDATE syncline.principals SET token_hash = CASE WHEN certificate IS NULL THEN $2::bytea END,
		token_at = CASE WHEN certificate IS NULL THEN now() END WHERE name = $1 RETURNING `+columns, name, hash[:])
	if err != nil {
		return nil, fmt.Errorf("store token of principal %s: %w", name, explain(err))
	}
	r, err := pgx.CollectExactlyOneRow(rows, scan)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	case err != nil:
		return nil, fmt.Errorf("store token of principal %s: %w", name, explain(err))
	case r.Certificate != "":
		return nil, fmt.Errorf("%w: %s shows itself by the certificate %s, which is renewed by whoever issues it", ErrNoToken, name, r.Certificate)
	}
	return r, nil
}

// Delete forgets a principal, but not the last admin unless that is forced.
func (s *Store) Delete(ctx context.Context, name string, force bool) error {
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// Two admins who delete each other at the same time wait here.
		if _, err := tx.Exec(ctx, "LOCK TABLE syncline.principals IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		var role access.Role
		err := tx.QueryRow(ctx, "DELETE FROM syncline.principals WHERE name = $1 RETURNING role", name).Scan(&role)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: %q", ErrUnknown, name)
		}
		if err != nil || role != access.Admin || force {
			return err
		}
		var admins int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM syncline.principals WHERE role = 'admin'").Scan(&admins); err != nil {
			return err
		}
		if admins == 0 {
			return fmt.Errorf("%w, and without one nobody could make principals any more: make another one first, or use `syncline principal delete %s --postgres URL`", ErrLastAdmin, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete principal %s: %w", name, explain(err))
	}
	return nil
}

// explain adds the way out to an error about a table that is not there.
func explain(err error) error {
	const undefinedTable, undefinedSchema = "42P01", "3F000"
	if code := postgres.Code(err); code == undefinedTable || code == undefinedSchema {
		return fmt.Errorf("%w: start a Syncline server on it first, which prepares it", ErrNotPrepared)
	}
	return err
}
