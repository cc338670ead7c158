package applier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// scheduled makes stores of several appliers, and one replication with a schedule in their database.
func scheduled(t *testing.T, stores int, schedule *applierv1.Schedule) []*store {
	t.Helper()
	config := DefaultConfig()
	first, r := storedReplication(t, &config)
	list := []*store{first}
	for len(list) < stores {
		pool, err := pgxpool.New(t.Context(), first.pool.Config().ConnString())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		list = append(list, &store{pool, newRunLog(pool, &config)})
	}
	first.do(t, "UPDATE syncline.replications SET wanted = 'completed', completed_at = now(); UPDATE syncline.job_runs SET ended_at = now(), result = 'success'")
	u := &update{spec: &applierv1.ReplicationSpec{Source: "db1:7400", Mode: applierv1.Mode_MODE_ONCE, Schedule: schedule}, changed: []string{"mode", "schedule"}, sourceServerID: "x"}
	if err := first.update(t.Context(), r, u); err != nil {
		t.Fatal(err)
	}
	return list
}

func (s *store) do(t *testing.T, sql string, args ...any) {
	t.Helper()
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := s.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func one[T any](t *testing.T, s *store, sql string) (value T) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// complete ends the run as an engine does that has reached its end.
func (s *store) complete(ctx context.Context) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET wanted = 'completed', completed_at = now() WHERE wanted = 'running'"); err != nil {
			return err
		}
		return closeRun(ctx, tx, "shop", ending{result: resultSuccess})
	})
}

// backdate makes the next run one that was due some time ago.
func (s *store) backdate(t *testing.T, by time.Duration) {
	t.Helper()
	s.do(t, "UPDATE syncline.replications SET next_due = now() - $1::interval, next_run = now() - $1::interval", by)
}

// TestClaimedOnce: of several appliers that look at the same moment exactly one begins each run, in many rounds.
func TestClaimedOnce(t *testing.T) {
	const rounds, appliers = 100, 4
	stores := scheduled(t, appliers, &applierv1.Schedule{Interval: durationpb.New(time.Hour)})
	for round := range rounds {
		stores[0].backdate(t, time.Second)
		var begun atomic.Int32
		var all sync.WaitGroup
		gate := make(chan struct{})
		for _, s := range stores {
			all.Go(func() {
				<-gate
				for range 1 + rand.IntN(2) {
					ok, err := s.claimDue(t.Context(), "shop")
					if err != nil {
						t.Error(err)
					}
					if ok {
						begun.Add(1)
					}
				}
			})
		}
		close(gate)
		all.Wait()
		if begun.Load() == 0 { // those that looked have found its row locked: the next look has it
			t.Fatalf("round %d: nobody has begun the run", round)
		}
		if n := begun.Load(); n != 1 {
			t.Fatalf("round %d: %d appliers have begun the run", round, n)
		}
		if err := stores[round%appliers].complete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := one[int](t, stores[0], "SELECT count(*)::int FROM syncline.job_runs WHERE trigger = 'schedule' AND result = 'success' AND missed = 0 AND skipped = 0"); n != rounds {
		t.Errorf("%d runs are in the log, %d were due", n, rounds)
	}
	if n := one[int](t, stores[0], "SELECT scheduled_runs FROM syncline.replications"); n != rounds {
		t.Errorf("%d runs are counted", n)
	}
}

// TestClaims: what becomes of runs that are due.
func TestClaims(t *testing.T) {
	s := scheduled(t, 1, &applierv1.Schedule{Interval: durationpb.New(time.Hour), MaxRuns: 3})[0]
	claim := func(want bool) *jobRun {
		t.Helper()
		begun, err := s.claimDue(t.Context(), "shop")
		if err != nil || begun != want {
			t.Fatalf("begun %v, %v", begun, err)
		}
		runs, err := s.runsBefore(t.Context(), "shop", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return runs[0]
	}
	ahead := func() time.Duration {
		return one[time.Duration](t, s, "SELECT coalesce(next_run - now(), '0') FROM syncline.replications").Round(time.Minute)
	}
	first := claim(true) // an interval begins at once
	if first.Trigger != triggerSchedule || first.Ended != nil || first.Due == nil || ahead() != time.Hour {
		t.Errorf("the first run is %+v, and the next one comes in %s", first, ahead())
	}
	claim(false) // nothing is due
	s.backdate(t, 150*time.Minute)
	if skipped := claim(false); skipped.ID != first.ID || skipped.Skipped != 3 || ahead() != 30*time.Minute {
		t.Errorf("while it goes on: %+v, and the next one comes in %s", skipped, ahead())
	}
	if err := s.complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.backdate(t, 150*time.Minute)
	if late := claim(true); late.Trigger != triggerCatchUp || late.Missed != 3 || ahead() != 30*time.Minute {
		t.Errorf("three were missed: %+v, and the next one comes in %s", late, ahead())
	}
	if err := s.failRun(t.Context(), "shop", ending{resultFatal, reasonRowExists, "broken", sideLocal}, true); err != nil {
		t.Fatal(err)
	}
	s.backdate(t, time.Second)
	if last := claim(true); last.Trigger != triggerSchedule || last.Missed != 0 || ahead() != 0 {
		t.Errorf("the last run, after a failed one: %+v, and the next one comes in %s", last, ahead())
	}
	if err := s.complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	claim(false) // it was the last one
	runs, _ := s.runsBefore(t.Context(), "shop", 0, 10)
	if got := fmt.Sprintln(runs[0].Result, runs[1].Result, runs[1].Code, runs[1].Side, runs[2].Result, len(runs)); got != "success fatal ROW_EXISTS local success 4\n" {
		t.Errorf("the runs ended so: %s", got)
	}
	if missed := one[string](t, s, "SELECT string_agg(kind || ' ' || count, ', ' ORDER BY id) FROM syncline.events WHERE kind IN ('scheduled', 'missed', 'skipped')"); missed != "scheduled 0, skipped 3, missed 3, scheduled 0" {
		t.Errorf("the run log tells %s", missed)
	}
}

// TestClaimOutsideOfWindow: what was missed waits for the window, and is caught up by one run there.
func TestClaimOutsideOfWindow(t *testing.T) {
	s := scheduled(t, 1, &applierv1.Schedule{Interval: durationpb.New(10 * time.Minute)})[0]
	now := one[time.Time](t, s, "SELECT now()").UTC()
	window := now.Add(2*time.Hour).Format("15:04") + "-" + now.Add(4*time.Hour).Format("15:04")
	s.do(t, "UPDATE syncline.replications SET spec = jsonb_set(spec, '{schedule,window}', to_jsonb($1::text))", window)
	s.backdate(t, 22*time.Hour) // when the last window opened
	if begun, err := s.claimDue(t.Context(), "shop"); begun || err != nil {
		t.Fatalf("begun %v, %v", begun, err)
	}
	ahead := one[time.Duration](t, s, "SELECT next_run - now() FROM syncline.replications")
	if missed := one[int](t, s, "SELECT missed FROM syncline.replications"); missed < 11 || missed > 13 || ahead > 2*time.Hour || ahead < 118*time.Minute {
		t.Errorf("%d were missed, and are caught up in %s", missed, ahead)
	}
}

// TestStoppedSchedule: a stop holds the schedule too, and a start begins it anew and runs at once.
func TestStoppedSchedule(t *testing.T) {
	s := scheduled(t, 1, &applierv1.Schedule{Interval: durationpb.New(time.Hour)})[0]
	s.backdate(t, time.Minute)
	if err := s.setWanted(t.Context(), "shop", wantedStopped); err != nil {
		t.Fatal(err)
	}
	if begun, err := s.claimDue(t.Context(), "shop"); begun || err != nil || one[*time.Time](t, s, "SELECT next_run FROM syncline.replications") != nil {
		t.Errorf("stopped, and begun %v, %v", begun, err)
	}
	if err := s.setWanted(t.Context(), "shop", wantedRunning); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, s, "SELECT count(*)::int FROM syncline.job_runs WHERE trigger = 'user' AND ended_at IS NULL"); n != 1 {
		t.Errorf("%d runs have begun by the start", n)
	}
	if err := s.setWanted(t.Context(), "shop", wantedRunning); err != nil { // idempotent: single flight
		t.Fatal(err)
	}
	if begun, err := s.claimDue(t.Context(), "shop"); begun || err != nil { // due at once, and skipped: it runs
		t.Errorf("begun %v, %v", begun, err)
	}
	runs, err := s.runsBefore(t.Context(), "", 0, 1)
	if err != nil || runs[0].Skipped != 1 || one[*time.Time](t, s, "SELECT next_run FROM syncline.replications") == nil {
		t.Errorf("%+v, %v", runs, err)
	}
}

// TestRunCounts: a run counts what it has done, over engines and takeovers, and its faults make it a warning.
func TestRunCounts(t *testing.T) {
	config := DefaultConfig()
	s, _ := storedReplication(t, &config)
	at := change.Position{LogID: change.LogID{1}, LSN: 0x100}
	s.do(t, `UPDATE syncline.replications SET transactions = 5, changes = 50, copied_rows = 7, phase = 'running'`)
	s.do(t, `INSERT INTO syncline.positions (replication, log_id, lsn, transactions, changes) VALUES ('shop', $1, '0/100', 2, 20)`, at.LogID.String())
	for i, applier := range []string{"a", "a", "b"} {
		r, err := s.get(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.own(t.Context(), r, applier); err != nil {
			t.Fatal(err)
		}
		if run := one[string](t, s, "SELECT applier || ' ' || takeovers FROM syncline.job_runs"); run != fmt.Sprintf("%s %d", applier, i/2) {
			t.Errorf("run by %s: %s", applier, run)
		}
	}
	if err := s.noteFault(t.Context(), "shop", failure{reasonNoSource, true}, "it was away"); err != nil {
		t.Fatal(err)
	}
	if err := s.leave(t.Context(), "shop", change.Position{LogID: at.LogID, LSN: 0x200}, 9, true); err != nil {
		t.Fatal(err)
	}
	runs, err := s.runsBefore(t.Context(), "shop", 0, 10)
	if err != nil || len(runs) != 1 {
		t.Fatalf("%v, %v", runs, err)
	}
	r := runs[0].proto()
	if r.GetResult() != applierv1.RunResult_RUN_RESULT_WARNING || r.GetCode() != reasonNoSource || r.GetSide() != applierv1.FaultSide_FAULT_SIDE_REMOTE || r.GetFaults() != 1 ||
		r.GetTransactions() != 9 || r.GetChanges() != 70 || r.GetRowsCopied() != 7 || r.GetTo().GetLsn() != 0x200 || r.GetFrom() != nil || r.GetEndTime() == nil || r.GetApplier() != "b" {
		t.Errorf("the run is %v", r)
	}
	// Old ones go, and those beyond the number that is kept.
	s.do(t, "INSERT INTO syncline.job_runs (replication, trigger, ended_at, applier, from_transactions, from_changes, from_rows) SELECT 'shop', 'user', now() - n * interval '1 day', '', 0, 0, 0 FROM generate_series(40, 0, -1) n")
	s.runLog.maxCount = 20
	s.runLog.prune(t.Context())
	if n := one[int](t, s, "SELECT count(*)::int FROM syncline.job_runs"); n != 20 {
		t.Errorf("%d runs are kept", n)
	}
	s.runLog.maxAge = 24 * time.Hour
	s.runLog.prune(t.Context())
	if n := one[int](t, s, "SELECT count(*)::int FROM syncline.job_runs WHERE ended_at < now() - interval '1 day'"); n != 0 {
		t.Errorf("%d old runs are kept", n)
	}
}

// TestFailedStandsBy: what has failed here is not tried again only because another applier tries it, but stands by once that one has worked for some time.
func TestFailedStandsBy(t *testing.T) {
	config := DefaultConfig()
	s, r := storedReplication(t, &config)
	one := newRunner(&config, s, r)
	now := time.Now()
	g := func(after time.Duration, holder int, p phase) *glimpse {
		return &glimpse{name: r.name, at: now.Add(after), createdAt: r.createdAt, wanted: r.wanted, starts: r.starts, revision: r.revision, holder: holder, phase: p}
	}
	for _, c := range []struct {
		g    *glimpse
		want bool
	}{
		{g(time.Second, 7, phaseRunning), false}, {g(config.HealthyAfter, 7, phaseRunning), false}, {g(config.HealthyAfter+2*time.Second, 8, phaseRunning), false},
		{g(2*config.HealthyAfter+time.Second, 8, phaseSyncing), false}, {g(2*config.HealthyAfter+3*time.Second, 8, phaseRunning), true}, {g(3*config.HealthyAfter, 0, phaseRunning), false},
	} {
		one.look(c.g)
		if got := one.differs(c.g); got != c.want {
			t.Errorf("held by %d at %s in phase %s: stands by %v", c.g.holder, c.g.at.Sub(now), c.g.phase, got)
		}
	}
}
