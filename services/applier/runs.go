package applier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// What a run was begun by, and how it ended, as stored.
const (
	triggerUser     = "user"
	triggerSchedule = "schedule"
	triggerCatchUp  = "catch_up"
	triggerApplier  = "applier"

	resultSuccess = "success"
	resultWarning = "warning"
	resultError   = "error"
	resultFatal   = "fatal"
)

var runTriggers = map[string]applierv1.RunTrigger{
	triggerUser: applierv1.RunTrigger_RUN_TRIGGER_USER, triggerSchedule: applierv1.RunTrigger_RUN_TRIGGER_SCHEDULE,
	triggerCatchUp: applierv1.RunTrigger_RUN_TRIGGER_CATCH_UP, triggerApplier: applierv1.RunTrigger_RUN_TRIGGER_APPLIER,
}

var runResults = map[string]applierv1.RunResult{
	resultSuccess: applierv1.RunResult_RUN_RESULT_SUCCESS, resultWarning: applierv1.RunResult_RUN_RESULT_WARNING,
	resultError: applierv1.RunResult_RUN_RESULT_ERROR, resultFatal: applierv1.RunResult_RUN_RESULT_FATAL,
}

// jobRun is a run as syncline.shown_runs has it.
type jobRun struct {
	ID           int64      `json:"id"`
	Replication  string     `json:"replication"`
	Trigger      string     `json:"trigger"`
	Due          *time.Time `json:"due_at"`
	Began        time.Time  `json:"began_at"`
	Ended        *time.Time `json:"ended_at"`
	Result       string     `json:"result"`
	Code         string     `json:"code"`
	Text         string     `json:"message"`
	Side         string     `json:"side"`
	Faults       int32      `json:"faults"`
	Applier      string     `json:"applier"`
	Takeovers    int32      `json:"takeovers"`
	Missed       int32      `json:"missed"`
	Skipped      int32      `json:"skipped"`
	Transactions int64      `json:"transactions"`
	Changes      int64      `json:"changes"`
	Rows         int64      `json:"rows"`
	SetAside     int64      `json:"set_aside"`
	From         string     `json:"from_position"`
	To           string     `json:"to_position"`
}

func readRun(content []byte) (*jobRun, error) {
	if content == nil {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	run := &jobRun{}
	if err := json.Unmarshal(content, run); err != nil {
		return nil, fmt.Errorf("read a run: %w", err)
	}
	return run, nil
}

func (j *jobRun) proto() *applierv1.Run {
	if j == nil {
		return nil
	}
	out := &applierv1.Run{
		Id: j.ID, Replication: j.Replication, Trigger: runTriggers[j.Trigger], DueTime: timeProto(j.Due), BeginTime: timestamppb.New(j.Began), EndTime: timeProto(j.Ended),
		Result: runResults[j.Result], Code: j.Code, Text: j.Text, Side: faultSides[j.Side], Faults: j.Faults, Applier: j.Applier, Takeovers: j.Takeovers,
		Missed: j.Missed, Skipped: j.Skipped, Transactions: j.Transactions, Changes: j.Changes, RowsCopied: j.Rows, SetAside: j.SetAside,
	}
	if at, err := change.ParsePosition(j.From); err == nil {
		out.From = positionProto(at)
	}
	if at, err := change.ParsePosition(j.To); err == nil {
		out.To = positionProto(at)
	}
	return out
}

// opening is what a run begins with.
type opening struct {
	trigger string
	due     *time.Time
	missed  int
}

// openRun begins a run, unless one goes on.
func openRun(ctx context.Context, tx pgx.Tx, name string, o opening) error {
	_, err := tx.Exec(ctx, `INSERT INTO syncline.job_runs (replication, trigger, due_at, missed, applier, from_transactions, from_changes, from_rows, from_set_aside, from_log_id, from_lsn)
		SELECT name, $2, $3, $4, '', transactions, changes, rows, set_aside, log_id, lsn FROM syncline.run_totals WHERE name = $1
		ON CONFLICT (replication) WHERE ended_at IS NULL DO NOTHING`, name, o.trigger, o.due, o.missed)
	return wrapUnlessNil(err, "store the begin of a run of replication "+name)
}

// ending is what a run ends with. One without a fault of its own shows the last one that it met on its way.
type ending struct{ result, code, text, side string }

// closeRun ends the run that goes on, if one does.
func closeRun(ctx context.Context, q querier, name string, e ending) error {
	_, err := q.Exec(ctx, `UPDATE syncline.job_runs j SET ended_at = now(), result = CASE WHEN $2 = 'success' AND (j.faults > 0 OR t.set_aside > j.from_set_aside) THEN 'warning' ELSE $2 END,
			code = CASE WHEN $3 = '' THEN j.code ELSE $3 END, message = CASE WHEN $4 = '' THEN j.message ELSE $4 END, side = CASE WHEN $5 = '' THEN j.side ELSE $5 END,
			transactions = t.transactions - j.from_transactions, changes = t.changes - j.from_changes, rows = t.rows - j.from_rows, set_aside = t.set_aside - j.from_set_aside,
			to_log_id = t.log_id, to_lsn = t.lsn
		FROM syncline.run_totals t WHERE t.name = $1 AND j.replication = $1 AND j.ended_at IS NULL`, name, e.result, e.code, cleanText(e.text), e.side)
	return wrapUnlessNil(err, "store the end of a run of replication "+name)
}

// settleRun counts what was applied between the decision to stop a run and its end.
func (s *store) settleRun(ctx context.Context, name string) error {
	_, err := s.pool.Exec(ctx, `UPDATE syncline.job_runs j SET ended_at = now(), transactions = t.transactions - j.from_transactions, changes = t.changes - j.from_changes,
			rows = t.rows - j.from_rows, set_aside = t.set_aside - j.from_set_aside, to_log_id = t.log_id, to_lsn = t.lsn,
			result = CASE WHEN j.result = 'success' AND t.set_aside > j.from_set_aside THEN 'warning' ELSE j.result END
		FROM syncline.run_totals t WHERE t.name = $1 AND j.id = (SELECT max(id) FROM syncline.job_runs WHERE replication = $1) AND j.ended_at IS NOT NULL
			AND (j.to_lsn IS DISTINCT FROM t.lsn OR j.rows <> t.rows - j.from_rows)`, name)
	return wrapUnlessNil(err, "store the end of a run of replication "+name)
}

// failRun stores what a run has failed with. One with a schedule is tried again when the next run is due; it is durable on return.
func (s *store) failRun(ctx context.Context, name string, e ending, scheduled bool) error {
	return s.write(ctx, &event{}, func(tx pgx.Tx) error { // its state tells the run log
		if scheduled {
			tag, err := tx.Exec(ctx, "UPDATE syncline.replications SET wanted = 'failed' WHERE name = $1 AND wanted = 'running'", name)
			if err != nil || tag.RowsAffected() == 0 {
				return wrapUnlessNil(err, "store that the run of replication "+name+" has failed") // or a user has stopped it meanwhile
			}
		}
		return closeRun(ctx, tx, name, e)
	})
}

// noteFault counts a fault of the run that goes on.
func (s *store) noteFault(ctx context.Context, name string, f failure, text string) error {
	_, err := s.pool.Exec(ctx, "UPDATE syncline.job_runs SET faults = faults + 1, code = $2, message = $3, side = $4 WHERE replication = $1 AND ended_at IS NULL",
		name, f.code, cleanText(text), f.side())
	return wrapUnlessNil(err, "store a fault of replication "+name)
}

// own notes who runs a replication, and begins a run if none goes on. The caller holds the replication's lock.
func (s *store) own(ctx context.Context, r *stored, applier string) error {
	if run := r.lastRun; r.applier == applier && run != nil && run.Ended == nil && run.Applier == applier {
		return nil
	}
	e := &event{}
	return s.write(ctx, e, func(tx pgx.Tx) error {
		var wanted string
		err := tx.QueryRow(ctx, "UPDATE syncline.replications SET applier = $2, resting = false WHERE name = $1 RETURNING wanted", r.name, applier).Scan(&wanted)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: %s", errNotFound, r.name)
		}
		if err != nil {
			return fmt.Errorf("store who runs replication %s: %w", r.name, err)
		}
		if wanted != wantedRunning {
			return errEnded
		}
		if err := openRun(ctx, tx, r.name, opening{trigger: triggerApplier}); err != nil {
			return err
		}
		var takeovers int32
		err = tx.QueryRow(ctx, `UPDATE syncline.job_runs SET applier = $2, takeovers = takeovers + (applier <> '')::integer
			WHERE replication = $1 AND ended_at IS NULL AND applier <> $2 RETURNING takeovers`, r.name, applier).Scan(&takeovers)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // it did before
		}
		if takeovers > 0 && takeovers&(takeovers-1) == 0 { // the 1st, 2nd, 4th, 8th, …
			*e = event{replication: r.name, kind: kindTakenOver, text: "applier " + applier + " runs it now; before it was " + r.applier, position: r.position, hasPosition: r.hasPosition, count: takeovers}
		}
		return wrapUnlessNil(err, "store who runs replication "+r.name)
	})
}

// runsBefore returns the runs of a replication, or of all, that began before the one with an id; 0 is the end.
func (s *store) runsBefore(ctx context.Context, replication string, before int64, limit int) ([]*jobRun, error) {
	rows, err := s.pool.Query(ctx, `SELECT to_jsonb(j) FROM syncline.shown_runs j
		WHERE ($1 = '' OR replication = $1) AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, replication, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanRun)
	return list, wrapUnlessNil(err, "list runs")
}

// pruneRuns removes what is too old, and of each replication what is beyond the number that is kept; what goes on stays.
const pruneRuns = `DELETE FROM syncline.job_runs WHERE ended_at IS NOT NULL AND (ended_at < now() - make_interval(secs => $1)
	OR id IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY replication ORDER BY id DESC) AS nth FROM syncline.job_runs) numbered WHERE nth > $2))`
