// Package node makes a PostgreSQL database the home of a Syncline node: the schema syncline with the tables of its roles,
// and a server id that stays the same as long as the database does. A database that was copied together with the server
// id of another node is refused, so two nodes never answer to one id.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/setup"
	"github.com/seed0419d559/syncline/migrations"
)

// Role is what a node does with its database.
type Role string

// The roles. A node with both is prepared for each.
const (
	Primary Role = "primary"
	Replica Role = "replica"
)

// Identity is who a node is.
type Identity struct {
	ServerID         string // a UUID
	SystemIdentifier string // PostgreSQL's, in decimal
	PostgresVersion  int    // server_version_num, such as 150018
	Database         string
}

var (
	// ErrVersion says that the PostgreSQL server is too old.
	ErrVersion = errors.New("PostgreSQL version not supported")
	// ErrStandby says that the server takes no writes.
	ErrStandby = errors.New("PostgreSQL server is a standby")
	// ErrCopied says that the database was copied from another node's, together with its server id.
	ErrCopied = errors.New("server id belongs to another database")
	// ErrPrivilege says that the role may not do what preparing needs.
	ErrPrivilege = errors.New("privilege missing")
	// ErrNewer says that a newer Syncline has prepared the database.
	ErrNewer = errors.New("database was prepared by a newer Syncline")
	// ErrRunning says that a process of the node is connected to the database.
	ErrRunning = errors.New("the database is in use by a Syncline server")
)

const (
	minVersion = 150000
	// prepareLock is held while a database is prepared, for several processes of a node start together.
	prepareLock = int64(0x53594e43_4c494e45)
	application = "syncline prepare"
)

// state is what a look at the database shows before anything is changed.
type state struct {
	identity    Identity
	databaseOID uint32
	user        string
	recovery    bool
	schema      bool // there is a schema syncline
	mayCreate   bool // the user may create schemas in the database
	mayUse      bool // the user may use the schema and create tables in it; false without the schema
}

// Prepare connects, checks what the node needs of its server, brings the tables of the role up to date, and makes or reads
// the server id. Processes that prepare the same database at the same time wait for one another. Its errors are the
// sentinels of this package and those of the connection.
func Prepare(ctx context.Context, url string, role Role) (Identity, error) {
	var files fs.FS
	switch role {
	case Primary:
		files = migrations.Primary()
	case Replica:
		files = migrations.Replica()
	default:
		return Identity{}, fmt.Errorf("prepare database: unknown role %q", role)
	}
	conn, err := postgres.Connect(ctx, url, application)
	if err != nil {
		return Identity{}, err
	}
	defer disconnect(ctx, conn)
	s, err := look(ctx, conn, "")
	if err != nil {
		return Identity{}, err
	}
	if err := s.check(); err != nil {
		return Identity{}, err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", prepareLock); err != nil {
		return Identity{}, fmt.Errorf("wait for another process that prepares database %s: %w", s.identity.Database, err)
	}
	if err := s.makeSchema(ctx, conn); err != nil {
		return Identity{}, err
	}
	if err := s.migrate(ctx, conn, role, files); err != nil {
		return Identity{}, err
	}
	return s.claim(ctx, conn)
}

// disconnect also releases the advisory lock. The context may have ended.
func disconnect(ctx context.Context, conn *pgx.Conn) {
	if err := conn.Close(context.WithoutCancel(ctx)); err != nil {
		slog.Debug("close connection", "error", err)
	}
}

// look is for a role, the session's own when it is empty.
func look(ctx context.Context, conn *pgx.Conn, role string) (*state, error) {
	var s state
	// The version comes first and alone, so that the message is right for a server that knows nothing of the rest.
	err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&s.identity.PostgresVersion)
	if err != nil {
		return nil, fmt.Errorf("read PostgreSQL version: %w", err)
	}
	if v := s.identity.PostgresVersion; v < minVersion {
		return nil, fmt.Errorf("%w: the server runs %d.%d and Syncline needs 15 or newer; upgrade the server", ErrVersion, v/10000, v%10000)
	}
	err = conn.QueryRow(ctx, `
		SELECT c.system_identifier::text, d.oid, d.datname, coalesce(nullif($1::text, ''), current_user::text), pg_is_in_recovery(),
		       n.oid IS NOT NULL,
		       has_database_privilege(`+setup.Grantee+`, d.oid, 'CREATE'),
		       coalesce(has_schema_privilege(`+setup.Grantee+`, n.oid, 'USAGE') AND has_schema_privilege(`+setup.Grantee+`, n.oid, 'CREATE'), false)
		FROM pg_database d
		CROSS JOIN pg_control_system() c
		LEFT JOIN pg_namespace n ON n.nspname = 'syncline'
		WHERE d.datname = current_database()`, role).Scan(&s.identity.SystemIdentifier, &s.databaseOID, &s.identity.Database, &s.user,
		&s.recovery, &s.schema, &s.mayCreate, &s.mayUse)
	if err != nil {
		return nil, fmt.Errorf("read identity of the PostgreSQL server: %w", err)
	}
	return &s, nil
}

// check refuses a server that cannot be a node.
func (s *state) check() error {
	if s.recovery {
		return fmt.Errorf("%w: Syncline keeps its state in the database, and this server takes no writes; connect to the server that it follows", ErrStandby)
	}
	return nil
}

func (s *state) makeSchema(ctx context.Context, conn *pgx.Conn) error {
	if s.schema {
		return nil
	}
	// Checked before, because IF NOT EXISTS asks for the privilege even when the schema is there.
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'syncline')").Scan(&s.schema); err != nil {
		return fmt.Errorf("look for schema syncline: %w", err)
	}
	if s.schema {
		return nil // made by the process that we waited for
	}
	if !s.mayCreate {
		return fmt.Errorf("%w: role %s may not create the schema syncline in database %s; as its owner run: GRANT CREATE ON DATABASE %s TO %s, or: CREATE SCHEMA syncline AUTHORIZATION %s",
			ErrPrivilege, s.user, s.identity.Database, postgres.Ident(s.identity.Database), postgres.Ident(s.user), postgres.Ident(s.user))
	}
	if _, err := conn.Exec(ctx, "CREATE SCHEMA syncline"); err != nil {
		return fmt.Errorf("create schema syncline: %w", err)
	}
	s.mayUse = true
	return nil
}

func (s *state) migrate(ctx context.Context, conn *pgx.Conn, role Role, files fs.FS) error {
	table := "syncline." + string(role) + "_migrations"
	m, err := migrate.NewMigrator(ctx, conn, table)
	if err != nil {
		return fmt.Errorf("create table %s: %w", table, s.explain(err))
	}
	if err := m.LoadMigrations(files); err != nil {
		return fmt.Errorf("read migrations of role %s: %w", role, err)
	}
	current, err := m.GetCurrentVersion(ctx)
	if err != nil {
		return fmt.Errorf("read table %s: %w", table, s.explain(err))
	}
	last := m.Migrations[len(m.Migrations)-1].Sequence
	if current > last {
		return fmt.Errorf("%w: its tables have version %d and this program knows up to %d; use a program of at least that version", ErrNewer, current, last)
	}
	if current == last {
		return nil
	}
	if err := m.Migrate(ctx); err != nil {
		return fmt.Errorf("prepare tables of role %s: %w", role, s.explain(err))
	}
	return nil
}

// claim makes the server id if there is none, and otherwise checks that it was made here.
func (s *state) claim(ctx context.Context, conn *pgx.Conn) (Identity, error) {
	id := s.identity
	var system string
	var oid uint32
	// Two statements, because ON CONFLICT DO NOTHING returns no row that was there before.
	err := conn.QueryRow(ctx, "SELECT server_id::text, system_identifier, database_oid FROM syncline.server").Scan(&id.ServerID, &system, &oid)
	if errors.Is(err, pgx.ErrNoRows) {
		err = conn.QueryRow(ctx, `INSERT INTO syncline.server (server_id, system_identifier, database_oid)
			VALUES (gen_random_uuid(), $1, $2) RETURNING server_id::text, system_identifier, database_oid`,
			s.identity.SystemIdentifier, s.databaseOID).Scan(&id.ServerID, &system, &oid)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read server id: %w", s.explain(err))
	}
	if system != s.identity.SystemIdentifier || oid != s.databaseOID {
		return Identity{}, fmt.Errorf("%w: %s was made in database %d of PostgreSQL system %s, and this is database %d of system %s: it was copied, restored or upgraded; give it an id of its own with `syncline server reset-id`",
			ErrCopied, id.ServerID, oid, system, s.databaseOID, s.identity.SystemIdentifier)
	}
	return id, nil
}

// explain adds the way out to an error that says that a privilege is missing.
func (s *state) explain(err error) error {
	const insufficientPrivilege = "42501"
	if postgres.Code(err) != insufficientPrivilege {
		return err
	}
	user := postgres.Ident(s.user)
	if !s.mayUse {
		return fmt.Errorf("%w: role %s may not use the schema syncline; as its owner run: GRANT USAGE, CREATE ON SCHEMA syncline TO %s: %w", ErrPrivilege, s.user, user, err)
	}
	return fmt.Errorf("%w: the tables in schema syncline belong to another role; as that role run: GRANT ALL ON ALL TABLES IN SCHEMA syncline TO %s; if tables have to be changed for a new version, start once as their owner: %w",
		ErrPrivilege, user, err)
}
