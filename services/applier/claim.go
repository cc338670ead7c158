package applier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/schedule"
)

// missedAfter is how late a run has to be for it to count as missed: no applier was there to begin it.
const missedAfter = 30 * time.Second

// checkSchedule finds what is wrong with the schedule of a spec.
func checkSchedule(p *problems, spec *applierv1.ReplicationSpec) {
	if spec.GetSchedule() == nil {
		return
	}
	if spec.GetMode() != applierv1.Mode_MODE_ONCE {
		p.add("spec.schedule", "is for replications whose runs end by themselves: set mode to once, or leave the schedule out")
	}
	_, wrong := schedule.New(spec.GetSchedule())
	for _, one := range wrong {
		p.add("spec.schedule."+one.Field, "%s", one.Text)
	}
}

// comesDue refuses a schedule by which no run will ever begin.
func comesDue(spec *applierv1.ReplicationSpec, now time.Time) error {
	if spec.GetSchedule() == nil {
		return nil
	}
	s, _ := schedule.New(spec.GetSchedule())
	if s == nil {
		return nil // that is told field by field
	}
	if _, ok := s.First(now); !ok {
		return rpc.Invalid("spec.schedule", "no run is ever due by it: its times, window, days, not_before and not_after have none in common from now on")
	}
	return nil
}

// planRuns decides anew when the next run begins, in the time of the database. Without a schedule, or at the end of it, none does.
func planRuns(ctx context.Context, tx pgx.Tx, name string, spec *applierv1.ReplicationSpec) error {
	var now time.Time
	var begun int
	if err := tx.QueryRow(ctx, "SELECT now(), scheduled_runs FROM syncline.replications WHERE name = $1 FOR UPDATE", name).Scan(&now, &begun); err != nil {
		return fmt.Errorf("plan the runs of replication %s: %w", name, err)
	}
	var next plannedRun
	if s, wrong := schedule.New(spec.GetSchedule()); spec.GetSchedule() != nil && len(wrong) == 0 && (s.MaxRuns == 0 || begun < s.MaxRuns) {
		next = planned(s)(s.First(now))
	}
	_, err := tx.Exec(ctx, "UPDATE syncline.replications SET next_due = $2, next_run = $3, missed = 0 WHERE name = $1 AND wanted <> 'stopped'", name, next.due, next.begin)
	return wrapUnlessNil(err, "plan the runs of replication "+name)
}

// plannedRun is when a run is due and begins; nil for never.
type plannedRun struct{ due, begin *time.Time }

func planned(s *schedule.Schedule) func(due time.Time, ok bool) plannedRun {
	return func(due time.Time, ok bool) plannedRun {
		if !ok {
			return plannedRun{}
		}
		begin := s.Begin(due, rand.Float64())
		return plannedRun{&due, &begin}
	}
}

// claim is a due run as it stands in the database, held by a lock on its row.
type claim struct {
	name      string
	now       time.Time
	due       time.Time
	begin     time.Time
	missed    int // before those that are due now
	scheduled int
	going     bool // a run goes on
	schedule  *schedule.Schedule
}

// claimDue begins the run that is due, in one transaction with its record and with when the next one is due: whoever commits first has begun
// it, and nobody does a second time. A run that is due while one goes on is skipped, and one that may not begin any more
// now is put off. begun is false where nothing is to be started.
func (s *store) claimDue(ctx context.Context, name string) (begun bool, err error) {
	e := &event{}
	err = s.write(ctx, e, func(tx pgx.Tx) error {
		c, err := readClaim(ctx, tx, name)
		if err != nil || c == nil {
			return err
		}
		passed, nextDue, more := c.schedule.Passed(c.due, c.now)
		next := planned(c.schedule)(nextDue, more)
		switch {
		case c.going:
			err = c.skip(ctx, tx, passed, next, e)
		case !c.schedule.Open(c.now):
			err = c.putOff(ctx, tx, passed, e)
		default:
			begun = true
			err = c.start(ctx, tx, passed, next, e)
		}
		if err != nil {
			return fmt.Errorf("begin the run of replication %s that is due: %w", name, err)
		}
		fault.Point(FaultClaiming)
		return nil
	})
	return begun && err == nil, err
}

// readClaim returns nil when nothing is due any more, or somebody else is at it.
func readClaim(ctx context.Context, tx pgx.Tx, name string) (*claim, error) {
	c := &claim{name: name}
	var content []byte
	err := tx.QueryRow(ctx, `SELECT now(), next_due, next_run, missed, scheduled_runs, spec, EXISTS (SELECT FROM syncline.job_runs WHERE replication = name AND ended_at IS NULL)
		FROM syncline.replications WHERE name = $1 AND next_run <= now() AND wanted <> 'stopped' FOR UPDATE SKIP LOCKED`, name).Scan(&c.now, &c.due, &c.begin, &c.missed, &c.scheduled, &content, &c.going)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	spec := &applierv1.ReplicationSpec{}
	if err == nil {
		err = protojson.Unmarshal(content, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("read the schedule of replication %s: %w", name, err)
	}
	var wrong []schedule.Problem
	if c.schedule, wrong = schedule.New(spec.GetSchedule()); len(wrong) > 0 {
		return nil, fmt.Errorf("read the schedule of replication %s: %s %s", name, wrong[0].Field, wrong[0].Text)
	}
	return c, nil
}

// start begins the run. It stands for all that were missed.
func (c *claim) start(ctx context.Context, tx pgx.Tx, passed int, next plannedRun, e *event) error {
	o := opening{trigger: triggerSchedule, due: &c.due, missed: c.missed + passed - 1}
	if late := c.now.Sub(c.begin) > missedAfter; late || c.missed > 0 {
		o.trigger = triggerCatchUp
		if late {
			o.missed++
		}
	}
	if c.schedule.MaxRuns > 0 && c.scheduled+1 >= c.schedule.MaxRuns {
		next = plannedRun{}
	}
	*e = event{replication: c.name, kind: kindScheduled, text: "the run that was due at " + stamp(c.due) + " begins"}
	if o.missed > 0 {
		*e = event{replication: c.name, kind: kindMissed, count: int32(o.missed), text: fmt.Sprintf("%d runs were due from %s on and have not begun; one begins now for all of them", o.missed, stamp(c.due))}
	}
	tag, err := tx.Exec(ctx, `UPDATE syncline.replications SET wanted = 'running', starts = starts + 1, scheduled_runs = scheduled_runs + 1, missed = 0, next_due = $3, next_run = $4
		WHERE name = $1 AND next_run = $2`, c.name, c.begin, next.due, next.begin)
	if err == nil && tag.RowsAffected() != 1 {
		err = errNotWanted
	}
	if err != nil {
		return err //nolint:wrapcheck // the caller says what it is
	}
	return openRun(ctx, tx, c.name, o)
}

// skip passes over what is due while a run goes on. The run log is told of the 1st, 2nd, 4th, 8th, … of one run.
func (c *claim) skip(ctx context.Context, tx pgx.Tx, passed int, next plannedRun, e *event) error {
	if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET next_due = $2, next_run = $3 WHERE name = $1", c.name, next.due, next.begin); err != nil {
		return err //nolint:wrapcheck // the caller says what it is
	}
	var skipped int32
	err := tx.QueryRow(ctx, "UPDATE syncline.job_runs SET skipped = skipped + $2 WHERE replication = $1 AND ended_at IS NULL RETURNING skipped", c.name, passed).Scan(&skipped)
	if err == nil && bitsOf(skipped) != bitsOf(skipped-int32(passed)) {
		*e = event{replication: c.name, kind: kindSkipped, count: skipped, text: "the run that was due at " + stamp(c.due) + " is skipped, because the one before it still goes on"}
	}
	return err //nolint:wrapcheck // the caller says what it is
}

func bitsOf(n int32) (bits int) {
	for ; n > 0; n >>= 1 {
		bits++
	}
	return bits
}

// putOff leaves what was missed to the next time at which a run may begin.
func (c *claim) putOff(ctx context.Context, tx pgx.Tx, passed int, e *event) error {
	missed := c.missed + passed
	next := planned(c.schedule)(c.schedule.Opens(c.now))
	*e = event{replication: c.name, kind: kindMissed, count: int32(missed), text: fmt.Sprintf("%d runs were due from %s on and have not begun; ", missed, stamp(c.due))}
	if next.begin == nil {
		e.text += "the schedule has ended"
	} else {
		e.text += "one begins for all of them at " + stamp(*next.begin)
	}
	_, err := tx.Exec(ctx, "UPDATE syncline.replications SET next_due = $2, next_run = $3, missed = $4 WHERE name = $1", c.name, next.due, next.begin, min(missed, schedule.MostPassed))
	return err //nolint:wrapcheck // the caller says what it is
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 MST") }
