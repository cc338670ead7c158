package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/compare"
)

// The modes of a load.
const (
	catchup = "catchup" // the replica is away during the load
	fromWAL = "wal"     // so is whatever reads the primary's WAL
	live    = "live"    // nothing is away
)

func replayTrial(w workload, mode string, t target) trial {
	r := replay{w, mode}
	contenders := func(o options) []contender {
		all := withoutFloor(o)
		if w.large {
			all = append(natives(o.native), contender{side: synclineSide})
		}
		if mode != catchup {
			all = append(all, contender{side: floorSide})
		}
		return all
	}
	return trial{workload: w.name, mode: mode, measures: timed(t), contenders: contenders, run: r.run}
}

// replay is a workload in a mode.
type replay struct {
	workload
	mode string
}

// run does one run.
func (r replay) run(ctx context.Context, e experiment) (f figures, err error) {
	err = r.inLab(ctx, e, func(ctx context.Context, l *lab, s side) error {
		f, err = r.measure(ctx, e, l, s)
		return err
	})
	return f, err
}

// inLab calls do when the contender replicates the workload's tables in a lab of its own, and compares them afterwards.
func (r replay) inLab(ctx context.Context, e experiment, do func(context.Context, *lab, side) error) (err error) {
	var replicas []string
	if e.contender.side != floorSide {
		replicas = []string{database}
	}
	l, err := newLab(ctx, e, replicas...)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	if err := r.prepare(ctx, e, l); err != nil {
		return err
	}
	s := e.contender.on(l, e.options)
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = explained(err, s)
		}
		err = errors.Join(err, s.close())
	}()
	if err := s.replicate(ctx); err != nil {
		return err
	}
	if err := reachedByAll(ctx, l, []side{s}); err != nil {
		return err
	}
	if err := l.settle(ctx, replicas...); err != nil {
		return err
	}
	if err := do(ctx, l, s); err != nil {
		return err
	}
	if l.replica == nil {
		return nil
	}
	return equal(ctx, l.primaryURL(), l.replicaURL())
}

// prepare creates and fills the tables. The native side needs them on the replica too; Syncline makes its own.
func (r replay) prepare(ctx context.Context, e experiment, l *lab) error {
	if err := execute(ctx, l.primaryURL(), r.create(e)); err != nil {
		return err
	}
	if e.contender.side == nativeSide {
		if err := execute(ctx, l.replicaURL(), markerTable+";"+r.create(e)); err != nil {
			return err
		}
	}
	if r.fill != nil {
		return r.fill(ctx, e, l)
	}
	return nil
}

// measure runs the load and times the replication.
func (r replay) measure(ctx context.Context, e experiment, l *lab, s side) (figures, error) {
	switch r.mode {
	case catchup:
		if err := s.stop(ctx, replicaOnly); err != nil {
			return nil, err
		}
	case fromWAL:
		if err := s.stop(ctx, everything); err != nil {
			return nil, err
		}
	}
	f := figures{}
	walBefore, err := l.walPosition(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	profiled := func(experiment, string) {}
	if r.mode == live {
		profiled = startProfiles(ctx, s)
	}
	began := time.Now()
	n, err := r.load(ctx, e, l)
	if err != nil {
		return nil, err
	}
	marker, err := l.mark(ctx)
	if err != nil {
		return nil, err
	}
	f[changes], f[loadSeconds] = float64(n), time.Since(began).Seconds()
	if r.mode != live {
		loaded := time.Now()
		if err := s.settled(ctx); err != nil {
			return nil, err
		}
		if r.mode == catchup && e.contender.side == synclineSide {
			f[tailSeconds] = time.Since(loaded).Seconds()
		}
		began = time.Now()
		if err := s.start(ctx); err != nil {
			return nil, err
		}
		profiled = startProfiles(ctx, s)
	}
	if err := s.reached(ctx, marker); err != nil {
		return nil, err
	}
	f[seconds] = time.Since(began).Seconds()
	profiled(e, r.name+"-"+r.mode)
	walAfter, err := l.walPosition(ctx)
	if err != nil {
		return nil, err
	}
	f[walBytes] = walAfter - walBefore
	return f, s.report(ctx, f)
}

// walPosition is where the primary writes its WAL, in bytes.
func (l *lab) walPosition(ctx context.Context) (bytes float64, err error) {
	err = l.conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8").Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("read the WAL position: %w", err)
	}
	return bytes, nil
}

// errDifferent means that the replica does not hold what the primary holds.
var errDifferent = errors.New("the replica differs from the primary")

// equal compares every row of every table.
func equal(ctx context.Context, primaryURL, replicaURL string) error {
	return withConn(ctx, primaryURL, func(a *pgx.Conn) error {
		return withConn(ctx, replicaURL, func(b *pgx.Conn) error {
			report, err := compare.Databases(ctx, a, b, compare.Options{Details: 10})
			if err != nil {
				return fmt.Errorf("compare the replica with the primary: %w", err)
			}
			if !report.Equal() || report.Rows() == 0 {
				return fmt.Errorf("%w: %s", errDifferent, report)
			}
			return nil
		})
	})
}

// explained adds what the side's processes have to say about an error.
func explained(err error, s side) error {
	if s, ok := s.(*syncline); ok {
		return fmt.Errorf("%w\n%s", err, s.explain())
	}
	return err
}
