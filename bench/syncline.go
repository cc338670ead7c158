package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

const replicationName = "bench"

// syncline is the real thing: `syncline primary` and `syncline replica`, driven over gRPC.
type syncline struct {
	lab      *lab
	url      string // of the replica's database
	primary  *service
	replica  *service
	stopped  depth
	profiles string // directory for profiles, "" for none

	cpuBefore [2]float64      // of primary and replica
	backends  map[int]float64 // CPU time before, of the PostgreSQL processes that worked for them
	sentTo    map[int]float64 // bytes, by port of the other end
	logBefore float64
}

func newSyncline(l *lab, o options, url string) *syncline {
	dir := l.primary.Dir()
	s := &syncline{
		lab:      l,
		url:      url,
		primary:  &service{binary: o.binary, role: "primary", url: l.primaryURL(), dir: dir},
		profiles: o.profile,
	}
	s.primary.extra = []string{"--data", s.logDir()}
	s.replica = &service{binary: o.binary, role: "replica", url: url, dir: l.replica.Dir()}
	return s
}

// logDir is where the change log is. It goes with the primary's directory.
func (s *syncline) logDir() string { return filepath.Join(s.lab.primary.Dir(), "changelog") }

func (s *syncline) replicate(ctx context.Context) error {
	if err := s.serve(ctx); err != nil {
		return err
	}
	if err := s.create(ctx); err != nil {
		return err
	}
	return s.copied(ctx)
}

// serve starts the processes.
func (s *syncline) serve(ctx context.Context) error {
	for _, service := range []*service{s.primary, s.replica} {
		if err := service.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *syncline) applier() applierv1.ApplierServiceClient {
	return applierv1.NewApplierServiceClient(s.replica.conn)
}

func (s *syncline) logger() loggerv1.LoggerServiceClient {
	return loggerv1.NewLoggerServiceClient(s.primary.conn)
}

// create asks for the replication; the copy begins.
func (s *syncline) create(ctx context.Context) error {
	_, err := s.applier().CreateReplication(ctx, &applierv1.CreateReplicationRequest{
		Name: replicationName, Spec: &applierv1.ReplicationSpec{Source: s.primary.grpc},
	})
	if err != nil {
		return fmt.Errorf("create the replication: %w", err)
	}
	return nil
}

// copied returns when the first copy is done and all tables are consistent with one position.
func (s *syncline) copied(ctx context.Context) error {
	return poll(ctx, lookAtCopyEvery, func() (bool, error) {
		answer, err := s.applier().GetReplication(ctx, &applierv1.GetReplicationRequest{Name: replicationName})
		if err != nil {
			return false, fmt.Errorf("ask for the replication: %w", err)
		}
		if err := check(answer.GetReplication()); err != nil {
			return false, err
		}
		return answer.GetReplication().GetState() == applierv1.State_STATE_RUNNING, nil
	})
}

// check refuses a replication that does not go on by itself.
func check(r *applierv1.Replication) error {
	switch r.GetState() {
	case applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
		return fmt.Errorf("the replication is %s: %s", r.GetState(), r.GetReason())
	}
	return nil
}

func (s *syncline) stop(ctx context.Context, d depth) error {
	s.stopped = d
	_, err := s.applier().StopReplication(ctx, &applierv1.StopReplicationRequest{Name: replicationName})
	if err != nil {
		return fmt.Errorf("stop the replication: %w", err)
	}
	if d == everything {
		return s.primary.stop()
	}
	return nil
}

// settled returns when the logger has the marker in its change log.
func (s *syncline) settled(ctx context.Context) error {
	if s.stopped == everything {
		return nil
	}
	return poll(ctx, lookEvery, func() (bool, error) {
		state, err := s.logger().GetState(ctx, &loggerv1.GetStateRequest{})
		if err != nil {
			return false, fmt.Errorf("ask the logger: %w", err)
		}
		return state.GetPosition().GetLsn() > s.lab.markedAfter, nil
	})
}

func (s *syncline) start(ctx context.Context) error {
	if s.stopped == everything {
		if err := s.primary.start(ctx); err != nil {
			return err
		}
	}
	_, err := s.applier().StartReplication(ctx, &applierv1.StartReplicationRequest{Name: replicationName})
	if err != nil {
		return fmt.Errorf("start the replication: %w", err)
	}
	return nil
}

func (s *syncline) reached(ctx context.Context, marker int64) error {
	return visible(ctx, s.url, marker, s.failed)
}

func (s *syncline) failed(ctx context.Context) error {
	answer, err := s.applier().GetReplication(ctx, &applierv1.GetReplicationRequest{Name: replicationName})
	if err != nil {
		return fmt.Errorf("ask for the replication: %w", err)
	}
	return check(answer.GetReplication())
}

func (s *syncline) begin(ctx context.Context) (err error) {
	s.backends = map[int]float64{}
	for side := range s.cpuBefore {
		pids, err := s.sessions(ctx, side)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			s.backends[pid] = ownCPU(pid)
		}
	}
	s.cpuBefore = [2]float64{s.primary.cpu(), s.replica.cpu()}
	s.logBefore = diskUsage(s.logDir())
	s.sentTo, err = sent(s.primary.port())
	return err
}

// sessions are PostgreSQL's processes that work for Syncline now, at the primary or at the replica.
func (s *syncline) sessions(ctx context.Context, side int) (list []int, err error) {
	url := s.lab.primaryURL()
	if side == 1 {
		url = s.url
	}
	return list, withConn(ctx, url, func(conn *pgx.Conn) (err error) {
		list, err = pids(ctx, conn, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'syncline%'")
		return err
	})
}

func (s *syncline) report(ctx context.Context, f figures) error {
	f[sourceCPU] = s.primary.cpu() - s.cpuBefore[0]
	f[applierCPU] = s.replica.cpu() - s.cpuBefore[1]
	for side, figure := range []string{sourceCPU, applierCPU} {
		pids, err := s.sessions(ctx, side)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			f[figure] += ownCPU(pid) - s.backends[pid]
		}
	}
	f[logBytes] = diskUsage(s.logDir()) - s.logBefore
	f.peak(primaryPeak, s.primary.pid())
	f.peak(replicaPeak, s.replica.pid())
	senders, err := pids(ctx, s.lab.conn, "SELECT pid FROM pg_stat_replication")
	if err != nil {
		return err
	}
	for _, pid := range senders {
		f.peak(senderPeak, pid)
	}
	return f.wire(s.primary.port(), s.sentTo, nil)
}

func (s *syncline) close() error {
	return errors.Join(s.replica.close(), s.primary.close())
}

// explain is what the processes printed last.
func (s *syncline) explain() string {
	return "syncline primary printed last:\n" + s.primary.logTail() + "syncline replica printed last:\n" + s.replica.logTail()
}
