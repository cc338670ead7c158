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
	"github.com/seed0419d559/syncline/services/applier/apply"
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
	// wantedCompleted is what is left of wantedRunning when a run of mode once has ended.
	wantedCompleted = "completed"
	// wantedFailed is what is left of it when a run of one with a schedule has failed: the next run begins by itself.
	wantedFailed = "failed"
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
	revision       int64 // grows with what the user decides
	pending        pending
	autoResyncs    int      // in a row
	standing       []string // warnings that stand until all is copied anew
	applied        totals   // up to position
	unsynced       apply.Unsynced
	copied         copied // by chunks that are forgotten
	position       change.Position
	hasPosition    bool
	// setVersion is the version of the set that the target holds; 0 without a set, and before the plan of the first copy is carried out.
	setVersion  int64
	completedAt *time.Time // when the last run of mode once ended
	completed   change.Position
	transient   bool
	starts      int64      // grows with each start
	applier     string     // that runs it, or did last
	nextRun     *time.Time // by the schedule
	scheduled   int32      // runs that it has begun
	lastRun     *jobRun
	leftOut     []schema.Name // tables that were selected and not captured by the source when the copies were planned
}

// pending is what is to be done before anything is applied again, as stored.
type pending string

const (
	pendingNothing pending = ""
	pendingPlan    pending = "plan"   // look for tables to add
	pendingResync  pending = "resync" // copy all tables anew
	pendingMend    pending = "mend"   // the same, but ship only what differs
)

// all tells whether the position and all copies count no more.
func (p pending) all() bool { return p == pendingResync || p == pendingMend }

// copied counts what was copied.
type copied struct{ rows, bytes int64 }

// storedTable is one table's copy. position is set from the moment the copy begins.
type storedTable struct {
	name          schema.Name
	target        schema.Name // where its rows go
	own           bool        // the target is this table's, and not one that takes the rows of several partitions
	shared        bool        // the target holds rows of other replications too
	oid           uint32      // on the source
	state         string
	position      change.Position
	snapshotID    string
	estimatedRows int64
	bytesExpected int64
	pages         int64
	selector      string   // by which the set chooses its rows, "" for all
	columns       []string // those that the set has the target take; nil when that is not known
	rows, bytes   int64    // of the finished chunks
	incremental   bool     // the copy mends what the target holds, instead of replacing it
}

// store reads and writes the replications in the target database.
type store struct {
	pool   *pgxpool.Pool
	runLog *runLog
}

// querier is what pool, connection and transaction have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const replicationQuery = `SELECT r.name, r.spec, r.wanted, r.phase, r.source_server_id, r.created_at, r.sync_started_at, r.sync_ended_at,
	r.revision, r.pending, r.auto_resyncs, r.standing_warnings, r.transactions + coalesce(p.transactions, 0), r.changes + coalesce(p.changes, 0),
	r.copied_rows, r.copied_bytes, coalesce(p.log_id || '@' || p.lsn::text, ''), r.set_version, r.left_out,
	r.completed_at, coalesce(r.completed_log_id || '@' || r.completed_lsn::text, ''), r.transient,
	q.refused, q.waiting, q.bytes,
	r.starts, r.applier, r.next_run, r.scheduled_runs, (SELECT to_jsonb(j) FROM syncline.shown_runs j WHERE j.replication = r.name ORDER BY id DESC LIMIT 1),
	(SELECT secrets FROM syncline.replication_secrets WHERE replication = r.name)
	FROM syncline.replications r LEFT JOIN syncline.positions p ON p.replication = r.name
	CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE waits_behind IS NULL) AS refused, count(waits_behind) AS waiting, coalesce(sum(bytes), 0)::bigint AS bytes
		FROM syncline.quarantine WHERE replication = r.name) q`

func scanReplication(row pgx.CollectableRow) (*stored, error) {
	var s stored
	var spec, hidden, run []byte
	var position, completed string
	if err := row.Scan(&s.name, &spec, &s.wanted, &s.phase, &s.sourceServerID, &s.createdAt, &s.syncStarted, &s.syncEnded,
		&s.revision, &s.pending, &s.autoResyncs, &s.standing, &s.applied.transactions, &s.applied.changes, &s.copied.rows, &s.copied.bytes, &position, &s.setVersion, &s.leftOut,
		&s.completedAt, &completed, &s.transient, &s.unsynced.Quarantined, &s.unsynced.Waiting, &s.unsynced.Bytes,
		&s.starts, &s.applier, &s.nextRun, &s.scheduled, &run, &hidden); err != nil {
		return nil, err
	}
	if s.hasPosition = position != ""; s.hasPosition {
		var err error
		if s.position, err = change.ParsePosition(position); err != nil {
			return nil, fmt.Errorf("read stored position of replication %s: %w", s.name, err)
		}
	}
	if completed != "" {
		var err error
		if s.completed, err = change.ParsePosition(completed); err != nil {
			return nil, fmt.Errorf("read where replication %s was completed: %w", s.name, err)
		}
	}
	var err error
	if s.lastRun, err = readRun(run); err != nil {
		return nil, fmt.Errorf("replication %s: %w", s.name, err)
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
	rows, err := s.pool.Query(ctx, replicationQuery+" ORDER BY r.name COLLATE \"C\"")
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
	rows, err := s.pool.Query(ctx, replicationQuery+" WHERE r.name = $1", name)
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
	return s.write(ctx, &event{replication: r.name, kind: kindCreated, text: "created from " + r.spec.GetSource()}, func(tx pgx.Tx) error {
		return insertReplication(ctx, tx, r)
	})
}

func insertReplication(ctx context.Context, tx pgx.Tx, r *stored) error {
	spec, err := protojson.Marshal(withoutSecrets(r.spec))
	if err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	tag, err := tx.Exec(ctx, `INSERT INTO syncline.replications (name, spec, wanted, phase, source_server_id, transient, applier)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`, r.name, string(spec), r.wanted, r.phase, r.sourceServerID, r.transient, r.applier)
	if err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: %s", errExists, r.name)
	}
	if err := storeSecrets(ctx, tx, r.name, r.spec); err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	// The result of a former run of this name makes room.
	if _, err := tx.Exec(ctx, "DELETE FROM syncline.runs WHERE name = $1", r.name); err != nil {
		return fmt.Errorf("store replication %s: %w", r.name, err)
	}
	if r.wanted != wantedRunning {
		return planRuns(ctx, tx, r.name, r.spec)
	}
	return openRun(ctx, tx, r.name, opening{trigger: triggerUser})
}

// setWanted stores what the user wants, with the event that says so where it is not what was wanted before. A start begins a run unless one goes on,
// and the schedule; a stop ends both.
func (s *store) setWanted(ctx context.Context, name, wanted string) error {
	e := &event{replication: name, kind: kindStarted, text: "started by a user"}
	if wanted == wantedStopped {
		e.kind, e.text = kindStopped, "stopped by a user"
	}
	return s.write(ctx, e, func(tx pgx.Tx) error {
		var before string
		var content []byte
		err := tx.QueryRow(ctx, "SELECT wanted, spec FROM syncline.replications WHERE name = $1 FOR UPDATE", name).Scan(&before, &content)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: %s", errNotFound, name)
		}
		spec := &applierv1.ReplicationSpec{}
		if err == nil {
			err = protojson.Unmarshal(content, spec)
		}
		if err != nil {
			return fmt.Errorf("store state of replication %s: %w", name, err)
		}
		if before == wanted {
			e.kind = "" // nothing to tell
		}
		if wanted == wantedStopped {
			return stopRuns(ctx, tx, name, spec)
		}
		return startRun(ctx, tx, name, spec, before)
	})
}

// startRun has a replication run. Its schedule begins anew if it was stopped.
func startRun(ctx context.Context, tx pgx.Tx, name string, spec *applierv1.ReplicationSpec, before string) error {
	if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET wanted = 'running', starts = starts + 1 WHERE name = $1", name); err != nil {
		return fmt.Errorf("store state of replication %s: %w", name, err)
	}
	if before == wantedStopped {
		if err := planRuns(ctx, tx, name, spec); err != nil {
			return err
		}
	}
	return openRun(ctx, tx, name, opening{trigger: triggerUser})
}

// stopRuns has a replication stand still.
func stopRuns(ctx context.Context, tx pgx.Tx, name string, spec *applierv1.ReplicationSpec) error {
	if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET wanted = 'stopped', next_due = NULL, next_run = NULL, missed = 0 WHERE name = $1", name); err != nil {
		return fmt.Errorf("store state of replication %s: %w", name, err)
	}
	how := ending{result: resultSuccess} // a continuous one has no other end
	if spec.GetMode() == applierv1.Mode_MODE_ONCE {
		how = ending{result: resultWarning, text: "a user stopped it before its end"}
	}
	return closeRun(ctx, tx, name, how)
}

// remove forgets a replication and all that is known of its progress.
func (s *store) remove(ctx context.Context, name string) error {
	err := s.write(ctx, &event{replication: name, kind: kindDeleted, text: "deleted by a user; its tables and their rows stay"}, func(tx pgx.Tx) error {
		if err := closeRun(ctx, tx, name, ending{result: resultWarning, text: "a user deleted the replication"}); err != nil {
			return err
		}
		return forgetReplication(ctx, tx, name, whyDeleted)
	})
	if err != nil {
		return fmt.Errorf("delete replication %s: %w", name, err)
	}
	return nil
}

// forgetReplication removes all that is known of a replication, its run log excepted.
func forgetReplication(ctx context.Context, tx pgx.Tx, name, why string) error {
	gone := &drops{replication: name}
	if err := gone.forget(ctx, tx, nil, why); err != nil {
		return err
	}
	for _, table := range []string{"chunks", "tables", "positions"} {
		if _, err := tx.Exec(ctx, "DELETE FROM syncline."+table+" WHERE replication = $1", name); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DELETE FROM syncline.replications WHERE name = $1", name); err != nil {
		return err
	}
	return gone.store(ctx, tx)
}

func setPhase(ctx context.Context, q querier, name string, to phase) error {
	_, err := q.Exec(ctx, `UPDATE syncline.replications SET phase = $2, pending = CASE WHEN $2 = 'syncing' THEN '' ELSE pending END,
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
