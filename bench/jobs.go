package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// replications are how many of them one applier has, each of one small table.
var replications = []int{10, 100, 1000}

// Figures of many replications.
const (
	jobs          = "replications"
	createSeconds = "create_seconds"           // until all are created
	roundSeconds  = "round_seconds"            // from a change of each table until each replication has applied its own, at the median
	mostSessions  = "replica_sessions"         // of the applier at the replica, at any time
	earlyPeak     = "replica_early_peak_bytes" // memory of `syncline replica` after the first round
)

const (
	jobRounds = 5
	rowsOfJob = 100
)

func jobsTrial(n int) trial {
	return trial{
		workload: "jobs", mode: strconv.Itoa(n),
		contenders: func(options) []contender { return []contender{{side: synclineSide}} },
		run:        func(ctx context.Context, e experiment) (figures, error) { return runJobs(ctx, e, e.sized(n)) },
	}
}

// runJobs has one applier carry n replications into one database, of a table each, and then changes every table a few times.
func runJobs(ctx context.Context, e experiment, n int) (f figures, err error) {
	l, err := newLab(ctx, e, database)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return nil, err
	}
	var tables strings.Builder
	for i := range n {
		fmt.Fprintf(&tables, "CREATE TABLE public.job_%d (id bigint PRIMARY KEY, note text); INSERT INTO public.job_%[1]d SELECT n, 'row ' || n FROM generate_series(1, %d) n;\n", i, rowsOfJob)
	}
	if err := errors.Join(execute(ctx, l.primaryURL(), tables.String()), execute(ctx, l.replicaURL(), markerTable)); err != nil { // that table is no job's
		return nil, err
	}
	s := newSyncline(l, e.options, l.replicaURL())
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = explained(err, s)
		}
		err = errors.Join(err, s.close())
	}()
	if err := s.serve(ctx); err != nil {
		return nil, err
	}
	most, watched := watchSessions(ctx, s)
	f = figures{jobs: float64(n)}
	began := time.Now()
	for i := range n {
		spec := &applierv1.ReplicationSpec{Source: s.primary.grpc, IncludeTables: []string{fmt.Sprintf("public.job_%d", i)}}
		if _, err := s.applier().CreateReplication(ctx, &applierv1.CreateReplicationRequest{Name: fmt.Sprintf("job-%d", i), Spec: spec}); err != nil {
			return nil, fmt.Errorf("create replication %d: %w", i, err)
		}
	}
	f[createSeconds] = time.Since(began).Seconds()
	if err := s.allBeyond(ctx, n, 0); err != nil {
		return nil, err
	}
	f[copySeconds] = time.Since(began).Seconds()
	var rounds []float64
	for round := range jobRounds {
		began := time.Now()
		at, err := changeEach(ctx, l, n, rowsOfJob+1+round)
		if err != nil {
			return nil, err
		}
		if err := s.allBeyond(ctx, n, at); err != nil {
			return nil, err
		}
		rounds = append(rounds, time.Since(began).Seconds())
		if round == 0 {
			f.peak(earlyPeak, s.replica.pid())
		}
	}
	f[roundSeconds] = median(rounds)
	f.peak(replicaPeak, s.replica.pid())
	if err := watched(); err != nil {
		return nil, err
	}
	f[mostSessions] = float64(most.Load())
	return f, equal(ctx, l.primaryURL(), l.replicaURL())
}

// changeEach makes one transaction in each table and returns a position after them.
func changeEach(ctx context.Context, l *lab, n, id int) (at uint64, err error) {
	return at, withConn(ctx, l.primaryURL(), func(conn *pgx.Conn) error {
		for i := range n {
			if _, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO public.job_%d VALUES ($1, 'new')", i), id); err != nil {
				return fmt.Errorf("change table %d: %w", i, err)
			}
		}
		var bytes int64
		err := conn.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint - 1").Scan(&bytes)
		at = uint64(bytes)
		return err //nolint:wrapcheck // the caller says what failed
	})
}

// allBeyond returns when each replication has its first copy and everything up to a position.
func (s *syncline) allBeyond(ctx context.Context, n int, at uint64) error {
	return poll(ctx, lookAtCopyEvery, func() (bool, error) {
		answer, err := s.applier().ListReplications(ctx, &applierv1.ListReplicationsRequest{})
		if err != nil {
			return false, fmt.Errorf("list the replications: %w", err)
		}
		done := 0
		for _, r := range answer.GetReplications() {
			if err := check(r); err != nil {
				return false, err
			}
			if r.GetPosition() != nil && r.GetSync().GetEndTime() != nil && r.GetPosition().GetLsn() >= at {
				done++
			}
		}
		return done == n, nil
	})
}

// watchSessions counts the applier's sessions until it is told to end.
func watchSessions(ctx context.Context, s *syncline) (most *atomic.Int64, end func() error) {
	most = &atomic.Int64{}
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		failed <- withConn(ctx, s.url, func(conn *pgx.Conn) error {
			return poll(ctx, lookAtCopyEvery, func() (bool, error) {
				var n int64
				err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'syncline%'").Scan(&n)
				most.Store(max(most.Load(), n))
				return false, err //nolint:wrapcheck // the caller says what failed
			})
		})
	}()
	return most, func() error {
		cancel()
		if err := <-failed; err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("count the sessions: %w", err)
		}
		return nil
	}
}

// manyJobs are the runs with different numbers of replications on one version.
func manyJobs(version string, samples []sample) (of []figures) {
	for _, n := range replications {
		mode := strconv.Itoa(n)
		var runs []sample
		for _, run := range samples {
			if run.PostgreSQL == version && run.Workload == "jobs" && run.Mode == mode {
				runs = append(runs, run)
			}
		}
		if len(runs) == 0 {
			continue
		}
		f := figures{}
		for _, name := range []string{jobs, createSeconds, copySeconds, roundSeconds, mostSessions, earlyPeak, replicaPeak} {
			f[name] = medianOf(runs, name, synclineSide, "")
		}
		of = append(of, f)
	}
	return of
}
