package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
)

// ErrInUse says that another session applies this replication: another applier runs on the same database, or the
// session of one that was killed has not ended yet.
var ErrInUse = errors.New("another session applies this replication")

// ErrMoved says that somebody else moved the replication's position. The transaction that would have applied changes
// a second time was rolled back.
var ErrMoved = errors.New("the replication's position was moved by another session")

// Our advisory locks are kept apart from an application's: "sync" in ASCII, and the next number. The session that applies a
// replication holds the first one alone; sessions that load and build for it share the second one.
const (
	LockSpace   = 0x73796e63
	loaderSpace = LockSpace + 1
)

// lockHolders are the server's process ids of the sessions that hold the lock of a space and a replication.
const lockHolders = `SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted
	AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
	AND classid = $1::int::oid AND objid = (hashtext($2)::bigint & 4294967295)::oid AND objsubid = 2`

// endTimeout bounds the wait for sessions that were told to end.
const endTimeout = 5 * time.Second

// Session is the one target session that applies a replication. It holds the replication's lock, so between Open and
// Close nobody else applies it.
type Session struct {
	conn        *pgx.Conn
	replication string
	Catalog     Catalog
	// Unguarded is set when the session may not set session_replication_role: triggers and foreign keys fire.
	Unguarded  bool
	statements fixedStatements
}

// fixedStatements are those of every applied transaction.
type fixedStatements struct{ begin, origin, position, commit, savepoint, release, value statement }

func newFixedStatements() fixedStatements {
	return fixedStatements{
		begin: statement{sql: beginSQL}, origin: statement{sql: originSQL + ", " + lookUp.sql()}, position: statement{sql: positionSQL}, commit: statement{sql: commitSQL},
		savepoint: statement{sql: "SAVEPOINT syncline"}, release: statement{sql: "RELEASE SAVEPOINT syncline"}, value: statement{sql: valueSQL},
	}
}

// OpenSession connects, sets session_replication_role where the role may, and takes the replication's lock. Catalog is empty until Read.
func OpenSession(ctx context.Context, url, replication string) (*Session, error) {
	conn, err := postgres.Connect(ctx, url, "syncline applier "+replication)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: conn, replication: replication, statements: newFixedStatements()}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) prepare(ctx context.Context) error {
	if err := setReplicaRole(ctx, s.conn); errors.Is(err, errReplicaRole) {
		s.Unguarded = true
	} else if err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, applySettings+fastCompression); err != nil {
		return fmt.Errorf("set up apply session: %w", err)
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	return s.endLoaders(ctx)
}

// applySettings are those of a session that applies:
//   - When this machine is gone without a word the server notices within half a minute, and another applier takes over.
//   - The position moves with the rows, so what an unflushed commit loses in a crash is simply applied again.
//   - Generic plans are made once.
//   - Compiling the catalog's query took 4 s where running it took 0.6 s (3,000 tables).
const applySettings = `SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
	SET synchronous_commit = off;
	SET plan_cache_mode = force_generic_plan;
	SET jit = off`

// fastCompression has the server compress large values with LZ4, which takes a tenth of the time that pglz does (ADR 28): where it
// knows LZ4, and neither its configuration nor the database nor the role says what to use. A column that names its method keeps it.
const fastCompression = `;
	SELECT pg_catalog.set_config(name, 'lz4', false) FROM pg_catalog.pg_settings
	WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)`

// lockWait is how long a session waits for the replication's lock: one that was just closed holds it until the server notices.
const lockWait = 2 * time.Second

func (s *Session) lock(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockWait.Milliseconds())); err != nil {
		return fmt.Errorf("lock replication %s: %w", s.replication, err)
	}
	_, err := s.conn.Exec(ctx, "SELECT pg_advisory_lock($1::int, hashtext($2))", LockSpace, s.replication)
	if postgres.Code(err) == codeLockNotAvailable {
		return fmt.Errorf("%w (%s); it ends by itself when that applier is gone", ErrInUse, s.replication)
	}
	if err != nil {
		return fmt.Errorf("lock replication %s: %w", s.replication, err)
	}
	if _, err := s.conn.Exec(ctx, "SET lock_timeout = 0"); err != nil {
		return fmt.Errorf("lock replication %s: %w", s.replication, err)
	}
	return nil
}

const codeLockNotAvailable = "55P03"

// endLoaders ends the sessions that load and build on behalf of an applier that was killed or has lost the lock, and waits until
// they have ended. The server itself goes on with a statement whose client is gone: a CREATE INDEX may take hours more.
func (s *Session) endLoaders(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, "SELECT pg_catalog.pg_terminate_backend(pid, $3) FROM ("+lockHolders+") loaders", loaderSpace, s.replication, endTimeout.Milliseconds())
	if err != nil {
		return fmt.Errorf("end former sessions of replication %s: %w", s.replication, err)
	}
	var left bool
	if err := s.conn.QueryRow(ctx, "SELECT EXISTS ("+lockHolders+")", loaderSpace, s.replication).Scan(&left); err != nil {
		return fmt.Errorf("end former sessions of replication %s: %w", s.replication, err)
	}
	if left {
		return fmt.Errorf("%w (%s): it loads rows or builds indexes", ErrInUse, s.replication)
	}
	return nil
}

// ConnectLoader opens a session for the first copy, with the same settings as the one that applies. holder is the server's process
// id of the session that holds the replication's lock: if it has lost it, or loses it later, this session has no right to be.
func ConnectLoader(ctx context.Context, url, replication string, holder uint32) (*pgx.Conn, error) {
	conn, err := postgres.Connect(ctx, url, "syncline applier "+replication)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: conn}
	if err := setReplicaRole(ctx, conn); err != nil && !errors.Is(err, errReplicaRole) {
		s.Close()
		return nil, err
	}
	// Rows and the record that they are there are lost together, or not at all.
	if _, err := conn.Exec(ctx, "SET synchronous_commit = off"+fastCompression); err != nil {
		s.Close()
		return nil, fmt.Errorf("set up copy session: %w", err)
	}
	if err := shareLock(ctx, conn, replication, holder); err != nil {
		s.Close()
		return nil, err
	}
	return conn, nil
}

// shareLock makes a loader known to endLoaders, and then makes sure that holder still has the replication's lock: whoever takes
// that later finds the loader.
func shareLock(ctx context.Context, conn *pgx.Conn, replication string, holder uint32) error {
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_lock_shared($1::int, hashtext($2))", loaderSpace, replication); err != nil {
		return fmt.Errorf("set up copy session: %w", err)
	}
	var held bool
	if err := conn.QueryRow(ctx, "SELECT $3::int IN ("+lockHolders+")", LockSpace, replication, int64(holder)).Scan(&held); err != nil {
		return fmt.Errorf("set up copy session: %w", err)
	}
	if !held {
		return fmt.Errorf("%w (%s): this one has lost its lock", ErrInUse, replication)
	}
	return nil
}

// Read reads tables into Catalog, in the place of what it holds.
func (s *Session) Read(ctx context.Context, names []schema.Name) (err error) {
	s.Catalog, err = ReadCatalog(ctx, s.conn, names)
	return err
}

var errReplicaRole = errors.New("session_replication_role cannot be set")

// setReplicaRole turns off ordinary triggers and foreign keys for the session.
func setReplicaRole(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET session_replication_role = replica")
	if postgres.Code(err) == "42501" {
		return errReplicaRole
	}
	if err != nil {
		return fmt.Errorf("set session_replication_role: %w", err)
	}
	return nil
}

// Conn is the session's connection, for statements outside of an applied transaction.
func (s *Session) Conn() *pgx.Conn { return s.conn }

// Close ends the session at once; an open transaction is rolled back by the server.
func (s *Session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// ReadPosition returns the stored position: every source transaction at or below it is in the target's tables, none
// after it. found is false before the first copy.
func (s *Session) ReadPosition(ctx context.Context) (position change.Position, found bool, err error) {
	var log, lsn string
	err = s.conn.QueryRow(ctx, "SELECT log_id, lsn::text FROM syncline.positions WHERE replication = $1", s.replication).Scan(&log, &lsn)
	if errors.Is(err, pgx.ErrNoRows) {
		return change.Position{}, false, nil
	}
	if err != nil {
		return change.Position{}, false, fmt.Errorf("read position of replication %s: %w", s.replication, err)
	}
	position, err = change.ParsePosition(log + "@" + lsn)
	return position, err == nil, err
}

// Fixed statements of every applied transaction.
const (
	beginSQL    = "BEGIN"
	originSQL   = "SELECT pg_catalog.pg_logical_emit_message(true, 'syncline.origin', $1::text)"
	positionSQL = "UPDATE syncline.positions SET lsn = $3::pg_lsn, commit_time = coalesce($4::bigint, commit_time), updated_at = now(), " +
		"transactions = transactions + $5::bigint, changes = changes + $6::bigint WHERE replication = $1 AND lsn = $2::pg_lsn"
	commitSQL = "COMMIT"
)

// pipe queues statements of the open transaction and checks each one's row count. At most one of its pipelines is open.
type pipe struct {
	conn     *pgx.Conn
	pipeline *pgconn.Pipeline
	queued   []expectation
	later    []deferred // sent with what comes next
	bytes    int
	prepared int          // statements prepared since the session began
	live     []*statement // those that the server knows
	failed   *op          // the operation that the last error is about, nil when it is about none
}

// expectation is what a queued statement must do, and what to say when it does not.
type expectation struct {
	rows int64 // rows it must touch; -1 for any number
	op   *op   // nil for our own statements
	what string
}

// deferred is a statement of ours, without parameters, whose result is no hurry.
type deferred struct {
	statement *statement
	what      string
}

// stageError says in which of our own statements something failed.
type stageError struct {
	what string
	err  error
}

func (e *stageError) Error() string { return e.what + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// Limits of one round trip: what is sent before results are read stays well within the socket buffers' reach of both sides.
const (
	pipeMaxStatements = 2000
	pipeMaxBytes      = 1 << 20
	maxPrepared       = 2000
)

// send queues one execution with parameters as text. They are not kept.
func (p *pipe) send(ctx context.Context, s *statement, params [][]byte, e expectation) error {
	return p.sendFormats(ctx, s, params, nil, e)
}

// sendLater has a statement without parameters go out with whatever is sent next: COPY can take it along as well as a pipeline.
func (p *pipe) sendLater(s *statement, what string) {
	p.later = append(p.later, deferred{s, what})
}

// catchUp queues what was to be sent later.
func (p *pipe) catchUp(ctx context.Context) error {
	later := p.later
	p.later = nil // queueing may flush
	for _, d := range later {
		if err := p.send(ctx, d.statement, nil, expectation{rows: -1, what: d.what}); err != nil {
			return err
		}
	}
	p.later = later[:0]
	return nil
}

// sendFormats queues one execution with parameters in their formats; nil is text.
func (p *pipe) sendFormats(ctx context.Context, s *statement, params [][]byte, formats []int16, e expectation) error {
	if len(p.later) > 0 {
		if err := p.catchUp(ctx); err != nil {
			return err
		}
	}
	if s.name == "" {
		if err := p.prepare(ctx, s); err != nil {
			if p.failed == nil {
				p.failed = e.op
			}
			return describe(err, e.op)
		}
	}
	if p.pipeline == nil {
		p.pipeline = p.conn.PgConn().StartPipeline(ctx)
	}
	p.pipeline.SendQueryPrepared(s.name, params, formats, nil)
	p.queued = append(p.queued, e)
	for _, v := range params {
		p.bytes += len(v) + 8
	}
	if len(p.queued) >= pipeMaxStatements || p.bytes >= pipeMaxBytes {
		return p.flush(ctx)
	}
	return nil
}

// prepare makes a statement known to the session. The number of prepared statements is bounded: when it is reached
// all are dropped and those in use come back one by one.
func (p *pipe) prepare(ctx context.Context, s *statement) error {
	if err := p.flush(ctx); err != nil {
		return err
	}
	if len(p.live) >= maxPrepared {
		var drop strings.Builder
		for _, old := range p.live {
			drop.WriteString("DEALLOCATE " + old.name + ";")
			old.name = ""
		}
		if _, err := p.conn.Exec(ctx, drop.String(), pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("drop prepared statements: %w", err)
		}
		p.live = p.live[:0]
	}
	p.prepared++
	name := fmt.Sprintf("syncline_%d", p.prepared)
	if _, err := p.conn.PgConn().Prepare(ctx, name, s.sql, nil); err != nil {
		return err
	}
	s.name = name
	p.live = append(p.live, s)
	return nil
}

// flush sends what is queued or was to be sent later, reads every result and checks the row counts. On an error the transaction is lost.
func (p *pipe) flush(ctx context.Context) error {
	if len(p.later) > 0 {
		if err := p.catchUp(ctx); err != nil {
			return err
		}
	}
	return p.settle()
}

// copyFrom runs COPY FROM STDIN, in one round trip with what was to be sent later and with the guard. A guard that comes again is prepared:
// it takes a third of the time then.
func (p *pipe) copyFrom(ctx context.Context, r io.Reader, guard *copyGuard, sql string) (pgconn.CommandTag, error) {
	if guard != nil && guard.used && guard.check.name == "" {
		if err := p.prepare(ctx, &guard.check); err != nil {
			return pgconn.CommandTag{}, err
		}
	}
	if err := p.settle(); err != nil {
		return pgconn.CommandTag{}, err
	}
	var all strings.Builder
	for _, d := range p.later {
		all.WriteString(d.statement.sql + "; ")
	}
	p.later = p.later[:0]
	if guard != nil {
		all.WriteString(guard.lock + "; ")
		if check := &guard.check; check.name != "" {
			all.WriteString("EXECUTE " + check.name + "; ")
		} else {
			all.WriteString(check.sql + "; ")
		}
		guard.used = true
	}
	all.WriteString(sql)
	return p.conn.PgConn().CopyFrom(ctx, r, all.String())
}

// settle is flush for what is queued alone.
func (p *pipe) settle() error {
	if p.pipeline == nil {
		return nil
	}
	defer func() {
		p.pipeline, p.queued, p.bytes = nil, p.queued[:0], 0
	}()
	if err := p.pipeline.Sync(); err != nil {
		_ = p.pipeline.Close()
		return fmt.Errorf("send changes: %w", err)
	}
	var first error
	for i := range p.queued {
		e := &p.queued[i]
		results, err := p.pipeline.GetResults()
		if err == nil {
			if reader, ok := results.(*pgconn.ResultReader); ok {
				var tag pgconn.CommandTag
				tag, err = reader.Close()
				if err == nil && e.rows >= 0 && tag.RowsAffected() != e.rows {
					err = &RowCountError{Want: e.rows, Got: tag.RowsAffected()}
				}
			} else {
				err = fmt.Errorf("unexpected answer %T", results)
			}
		}
		if err != nil {
			first, p.failed = describe(err, e.op), e.op
			if e.what != "" {
				first = &stageError{e.what, first}
			}
			break
		}
	}
	if err := p.pipeline.Close(); err != nil && first == nil {
		first = fmt.Errorf("read results: %w", err)
	}
	return first
}
