package applier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/encoding/protojson"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// The phases of a replication, as stored.
type phase string

const (
	phaseNew        phase = "new"         // nothing was written to the target's tables
	phaseSyncing    phase = "syncing"     // the first copy is under way
	phaseCatchingUp phase = "catching_up" // every table is copied, some at a later position than others
	phaseRunning    phase = "running"     // all tables are consistent with the stored position
)

// Whether a user wants a replication to run, as stored.
const (
	wantedRunning = "running"
	wantedStopped = "stopped"
)

// The states of a table's copy, as stored.
const (
	tableWaiting = "waiting"
	tableCopying = "copying"
	tableCopied  = "copied"
)

// stored is a replication as the target database holds it.
type stored struct {
	name           string
	spec           *applierv1.ReplicationSpec
	wanted         string
	phase          phase
	sourceServerID string
	createdAt      time.Time
	syncStarted    *time.Time
	syncEnded      *time.Time
}

// storedTable is one table's copy. position is set from the moment the copy begins.
type storedTable struct {
	name          schema.Name
	target        schema.Name // where its rows go
	oid           uint32      // on the source
	state         string
	position      change.Position
	snapshotID    string
	estimatedRows int64
	bytesExpected int64
	pages         int64
	rows, bytes   int64 // of the finished chunks
}

// store reads and writes the replications in the target database.
type store struct{ pool *pgxpool.Pool }

// querier is what pool, connection and transaction have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const replicationColumns = "name, spec, wanted, phase, source_server_id, created_at, sync_started_at, sync_ended_at, (SELECT secrets FROM syncline.replication_secrets WHERE replication = name)"

func scanReplication(row pgx.CollectableRow) (*stored, error) {
	var s stored
	var spec, hidden []byte
	if err := row.Scan(&s.name, &spec, &s.wanted, &s.phase, &s.sourceServerID, &s.createdAt, &s.syncStarted, &s.syncEnded, &hidden); err != nil {
		return nil, err
	}
	s.spec = &applierv1.ReplicationSpec{}
	if err := protojson.Unmarshal(spec, s.spec); err != nil {
		return nil, fmt.Errorf("read stored options of replication %s: %w", s.name, err)
	}
	if err := addSecrets(s.spec, hidden); err != nil {
		return nil, fmt.Errorf("replication %s: %w", s.name, err)
	}
	return &s, nil
}

func (s *store) list(ctx context.Context) ([]*stored, error) {
	rows, err := s.pool.Query(ctx, "SELECT "+replicationColumns+" FROM syncline.replications ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list replications: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanReplication)
	if err != nil {
		return nil, fmt.Errorf("list replications: %w", err)
	}
	return list, nil
}

// get returns errNotFound for a name that there is not.
func (s *store) get(ctx context.Context, name string) (*stored, error) {
	rows, err := s.pool.Query(ctx, "SELECT "+replicationColumns+" FROM syncline.replications WHERE name = $1", name)
	if err != nil {
		return nil, fmt.Errorf("read replication %s: %w", name, err)
	}
	one, err := pgx.CollectExactlyOneRow(rows, scanReplication)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", errNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read replication %s: %w", name, err)
	}
	return one, nil
}

// insert stores a new replication; it is durable on return. errExists if there is one of that name.
func (s *store) insert(ctx context.Context, r *stored) error {
	spec, err := protojson.Marshal(withoutSecrets(r.spec))
	if err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	made := false
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO syncline.replications (name, spec, wanted, phase, source_server_id)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, r.name, string(spec), r.wanted, r.phase, r.sourceServerID)
		if made = tag.RowsAffected() == 1; err != nil || !made {
			return err
		}
		return storeSecrets(ctx, tx, r.name, r.spec)
	})
	if err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	if !made {
		return fmt.Errorf("%w: %s", errExists, r.name)
	}
	return nil
}

func (s *store) setWanted(ctx context.Context, name, wanted string) error {
	tag, err := s.pool.Exec(ctx, "UPDATE syncline.replications SET wanted = $2 WHERE name = $1", name, wanted)
	if err != nil {
		return fmt.Errorf("store state of replication %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: %s", errNotFound, name)
	}
	return nil
}

// remove forgets a replication and all that is known of its progress.
func (s *store) remove(ctx context.Context, name string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, table := range []string{"chunks", "tables", "positions"} {
			if _, err := tx.Exec(ctx, "DELETE FROM syncline."+table+" WHERE replication = $1", name); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "DELETE FROM syncline.replications WHERE name = $1", name)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete replication %s: %w", name, err)
	}
	return nil
}

func setPhase(ctx context.Context, q querier, name string, to phase) error {
	_, err := q.Exec(ctx, `UPDATE syncline.replications SET phase = $2,
		sync_started_at = CASE WHEN $2 = 'syncing' THEN coalesce(sync_started_at, now()) ELSE sync_started_at END,
		sync_ended_at = CASE WHEN $2 = 'running' AND sync_ended_at IS NULL THEN now() ELSE sync_ended_at END
		WHERE name = $1`, name, string(to))
	if err != nil {
		return fmt.Errorf("store phase of replication %s: %w", name, err)
	}
	return nil
}

// createdTables are those that the first copy created and has not finished yet.
func createdTables(ctx context.Context, q querier, replication string) ([]schema.Name, error) {
	var names []schema.Name
	err := q.QueryRow(ctx, "SELECT created_tables FROM syncline.replications WHERE name = $1", replication).Scan(&names)
	if err != nil {
		return nil, fmt.Errorf("read created tables of replication %s: %w", replication, err)
	}
	return names, nil
}

func setCreatedTables(ctx context.Context, q querier, replication string, names []schema.Name) error {
	if names == nil {
		names = []schema.Name{}
	}
	if _, err := q.Exec(ctx, "UPDATE syncline.replications SET created_tables = $2 WHERE name = $1", replication, names); err != nil {
		return fmt.Errorf("store created tables of replication %s: %w", replication, err)
	}
	return nil
}

func listTables(ctx context.Context, q querier, replication string) ([]*storedTable, error) {
	rows, err := q.Query(ctx, `SELECT t.schema_name, t.table_name, t.state, coalesce(t.log_id, ''), coalesce(t.copy_lsn::text, ''),
		coalesce(t.snapshot_id, ''), t.estimated_rows, t.bytes_expected, t.pages, t.target_schema, t.target_table, t.source_oid, coalesce(sum(c.rows), 0)::bigint, coalesce(sum(c.bytes), 0)::bigint
		FROM syncline.tables t LEFT JOIN syncline.chunks c USING (replication, schema_name, table_name)
		WHERE t.replication = $1
		GROUP BY t.replication, t.schema_name, t.table_name ORDER BY t.schema_name, t.table_name`, replication)
	if err != nil {
		return nil, fmt.Errorf("read tables of replication %s: %w", replication, err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*storedTable, error) {
		var t storedTable
		var log, lsn string
		if err := row.Scan(&t.name.Schema, &t.name.Name, &t.state, &log, &lsn, &t.snapshotID, &t.estimatedRows, &t.bytesExpected, &t.pages,
			&t.target.Schema, &t.target.Name, &t.oid, &t.rows, &t.bytes); err != nil {
			return nil, err
		}
		if lsn == "" {
			return &t, nil
		}
		var err error
		t.position, err = change.ParsePosition(log + "@" + lsn)
		return &t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of replication %s: %w", replication, err)
	}
	return tables, nil
}

// addTable makes a table part of a replication, waiting for its copy; one that is part already is copied anew.
func addTable(ctx context.Context, q querier, replication string, t *storedTable) error {
	_, err := q.Exec(ctx, `INSERT INTO syncline.tables (replication, schema_name, table_name, state, estimated_rows, bytes_expected, pages, target_schema, target_table, source_oid)
		VALUES ($1, $2, $3, 'waiting', $4, $5, $6, $7, $8, $9) ON CONFLICT (replication, schema_name, table_name) DO UPDATE
		SET state = 'waiting', estimated_rows = excluded.estimated_rows, bytes_expected = excluded.bytes_expected, pages = excluded.pages,
			target_schema = excluded.target_schema, target_table = excluded.target_table, source_oid = excluded.source_oid`,
		replication, t.name.Schema, t.name.Name, t.estimatedRows, t.bytesExpected, t.pages, t.target.Schema, t.target.Name, t.oid)
	if err != nil {
		return fmt.Errorf("store table %s of replication %s: %w", t.name, replication, err)
	}
	return nil
}

// targetsOfOthers are the tables of the target that other replications write, and which.
func targetsOfOthers(ctx context.Context, q querier, replication string) (map[schema.Name]string, error) {
	rows, err := q.Query(ctx, "SELECT target_schema, target_table, replication FROM syncline.tables WHERE replication <> $1", replication)
	if err != nil {
		return nil, fmt.Errorf("read tables of other replications: %w", err)
	}
	others := map[schema.Name]string{}
	var name schema.Name
	var other string
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &other}, func() error {
		others[name] = other
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tables of other replications: %w", err)
	}
	return others, nil
}

// beginTable makes a table 'copying' from a snapshot, forgetting what an earlier copy had finished. It stands before the
// statement that empties the target table, in one transaction with it: so it waits for a chunk that a former session is
// committing, or makes that chunk's finishChunk fail.
func beginTable(ctx context.Context, q querier, replication string, name schema.Name, snapshot copySnapshot) error {
	_, err := q.Exec(ctx, `UPDATE syncline.tables SET state = 'copying', snapshot_id = $4, log_id = $5, copy_lsn = $6::text::pg_lsn
		WHERE replication = $1 AND schema_name = $2 AND table_name = $3`,
		replication, name.Schema, name.Name, snapshot.id, snapshot.position.LogID.String(), snapshot.position.LSN.String())
	if err != nil {
		return fmt.Errorf("store begin of the copy of table %s: %w", name, err)
	}
	if _, err := q.Exec(ctx, "DELETE FROM syncline.chunks WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
		replication, name.Schema, name.Name); err != nil {
		return fmt.Errorf("forget finished chunks of table %s: %w", name, err)
	}
	return nil
}

// finishChunk records a page range. It belongs into the transaction that writes the range's rows, and fails with
// errSuperseded when the table's copy was begun anew meanwhile.
func finishChunk(ctx context.Context, q querier, replication string, name schema.Name, snapshotID string, fromPage, rows, bytes int64) error {
	tag, err := q.Exec(ctx, `INSERT INTO syncline.chunks (replication, schema_name, table_name, from_page, rows, bytes)
		SELECT replication, schema_name, table_name, $5, $6, $7 FROM syncline.tables
		WHERE replication = $1 AND schema_name = $2 AND table_name = $3 AND snapshot_id = $4 AND state = 'copying' FOR SHARE`,
		replication, name.Schema, name.Name, snapshotID, fromPage, rows, bytes)
	if err != nil {
		return fmt.Errorf("store finished chunk of table %s: %w", name, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("table %s: %w", name, errSuperseded)
	}
	return nil
}

func finishedChunks(ctx context.Context, q querier, replication string, name schema.Name) (map[int64]bool, error) {
	rows, err := q.Query(ctx, "SELECT from_page FROM syncline.chunks WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
		replication, name.Schema, name.Name)
	if err != nil {
		return nil, fmt.Errorf("read finished chunks of table %s: %w", name, err)
	}
	pages, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read finished chunks of table %s: %w", name, err)
	}
	done := make(map[int64]bool, len(pages))
	for _, page := range pages {
		done[page] = true
	}
	return done, nil
}

func setTableState(ctx context.Context, q querier, replication string, name schema.Name, state string) error {
	_, err := q.Exec(ctx, "UPDATE syncline.tables SET state = $4 WHERE replication = $1 AND schema_name = $2 AND table_name = $3",
		replication, name.Schema, name.Name, state)
	if err != nil {
		return fmt.Errorf("store state of table %s: %w", name, err)
	}
	return nil
}

// setFirstPosition stores the position that following begins at, after every table was copied. A replication that has
// a position keeps it.
func setFirstPosition(ctx context.Context, q querier, replication string, position change.Position) error {
	_, err := q.Exec(ctx, "INSERT INTO syncline.positions (replication, log_id, lsn) VALUES ($1, $2, $3::text::pg_lsn) ON CONFLICT DO NOTHING",
		replication, position.LogID.String(), position.LSN.String())
	if err != nil {
		return fmt.Errorf("store first position of replication %s: %w", replication, err)
	}
	return nil
}
