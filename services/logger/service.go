package logger

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Errors is the table from this service's sentinels to statuses, for the server that it is registered with. Errors about
// positions carry metadata and are made where they arise.
func Errors() rpc.Table {
	return rpc.Table{
		{Sentinel: changelog.ErrClosed, Code: codes.Unavailable, Reason: rpc.ReasonStopping},
	}
}

// GetState tells how capture and the change log are. It asks nothing of the primary.
func (s *Service) GetState(ctx context.Context, request *loggerv1.GetStateRequest) (*loggerv1.GetStateResponse, error) {
	one, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), 0)
	if err != nil {
		return nil, err
	}
	answer := &loggerv1.GetStateResponse{
		ServerId: s.cfg.ServerID, Slot: s.cfg.Slot, Publications: s.pub.Load().Names(), Followers: int32(s.followers.connected()),
	}
	s.status.describe(answer, one)
	s.describeSpeeds(answer)
	if since, _ := s.settings.stopped(); !since.IsZero() {
		answer.StopTime = timestamppb.New(since)
	}
	if s.ready() != nil {
		return answer, nil //nolint:nilerr // the state says why
	}
	head, v := s.changes.Head(), s.view()
	answer.Position, answer.FirstPosition, answer.StoredBytes = positionProto(head.Position), positionProto(v.first), v.bytes
	answer.CurrentWalLsn = max(answer.GetCurrentWalLsn(), uint64(head.Position.LSN))
	answer.LagBytes = int64(answer.GetCurrentWalLsn() - uint64(head.Position.LSN))
	if answer.GetLagBytes() == 0 {
		answer.LagSeconds = proto.Float64(0)
	} else if since, ok := s.wal.after(head.Position.LSN); ok {
		answer.LagSeconds = proto.Float64(max(0, v.now.Sub(since).Seconds()))
	}
	if head.HasCommit {
		answer.LastCommitTime = timestamppb.New(head.LastCommitTime.Time())
	}
	if one == nil { // who asks about a set may not be told of others
		answer.Warnings = append(answer.GetWarnings(), s.followers.warnings(v)...)
	}
	return answer, nil
}

func (s *Service) describeSpeeds(answer *loggerv1.GetStateResponse) {
	s.speeds.mu.Lock()
	defer s.speeds.mu.Unlock()
	answer.TransactionsPerSecond, answer.ChangesPerSecond = s.speeds.transactions.perSecond(), s.speeds.changes.perSecond()
	answer.LogBytesPerSecond = s.speeds.bytes.perSecond()
	if free, ok := freeBytes(s.cfg.Dir); ok {
		answer.FreeBytes = &free
	}
}

// GetRanges tells what the change log holds.
func (s *Service) GetRanges(context.Context, *loggerv1.GetRangesRequest) (*loggerv1.GetRangesResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	r := s.changes.Ranges()
	answer := &loggerv1.GetRangesResponse{
		LogId: r.LogID.String(), FirstLsn: uint64(r.First), LastLsn: uint64(r.Last),
		FirstBlock: r.FirstBlock, LastBlock: r.LastBlock, Bytes: int64(r.Bytes),
		Blocks: int64(r.LastBlock - r.FirstBlock + 1), RetentionLsn: max(uint64(r.First), uint64(s.changes.RetentionStart())),
	}
	if head := s.changes.Head(); head.HasCommit {
		answer.LastCommitTime = timestamppb.New(head.LastCommitTime.Time())
	}
	if !r.FirstTime.IsZero() {
		answer.FirstTime = timestamppb.New(r.FirstTime)
	}
	if !r.LastTime.IsZero() {
		answer.LastTime = timestamppb.New(r.LastTime)
	}
	return answer, nil
}

// ReportApplied notes what a follower has durably applied. A position that lies before an earlier one is taken as it is: the
// follower's database was restored.
func (s *Service) ReportApplied(_ context.Context, request *loggerv1.ReportAppliedRequest) (*loggerv1.ReportAppliedResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if name := request.GetFollower(); name == "" || len(name) > maxFollowerName {
		return nil, rpc.Invalid("follower", "a name of 1 to %d bytes is needed", maxFollowerName)
	}
	position, err := parsePosition("position", request.GetPosition())
	if err != nil {
		return nil, err
	}
	switch head := s.changes.Head().Position; {
	case position.LogID != head.LogID:
		return nil, s.positionError(changelog.ErrOtherLog, position)
	case position.LSN > head.LSN:
		return nil, s.positionError(changelog.ErrAhead, position)
	}
	s.followers.reportApplied(request.GetFollower(), position)
	return &loggerv1.ReportAppliedResponse{}, nil
}

// ListFollowers lists the connected and the registered followers.
func (s *Service) ListFollowers(ctx context.Context, _ *loggerv1.ListFollowersRequest) (*loggerv1.ListFollowersResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	return &loggerv1.ListFollowersResponse{Followers: s.followers.list(s.view(), s.behindSince(ctx))}, nil
}

// DeleteFollower forgets a registered follower.
func (s *Service) DeleteFollower(ctx context.Context, request *loggerv1.DeleteFollowerRequest) (*loggerv1.DeleteFollowerResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if request.GetFollower() == "" {
		return nil, rpc.Invalid("follower", "a name is needed")
	}
	if err := s.followers.forget(ctx, s.pool, request.GetFollower()); err != nil {
		return nil, err
	}
	return &loggerv1.DeleteFollowerResponse{}, nil
}

// EmitBarrier commits a message. Its LSN lies after the commit of everything that was committed before the call.
func (s *Service) EmitBarrier(ctx context.Context, _ *loggerv1.EmitBarrierRequest) (*loggerv1.EmitBarrierResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := s.capturing(); err != nil {
		return nil, err
	}
	id := s.changes.Head().Position.LogID
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	var text string
	if err := s.pool.QueryRow(ctx, "SELECT pg_logical_emit_message(true, $1, ''::text)::text", BarrierPrefix).Scan(&text); err != nil {
		if postgres.IsTransient(err) {
			return nil, rpc.Errorf(codes.Unavailable, CodeConnectionLost, "emit barrier: %w", err)
		}
		return nil, fmt.Errorf("emit barrier: %w", err)
	}
	lsn, err := change.ParseLSN(text)
	if err != nil {
		return nil, fmt.Errorf("emit barrier: %w", err)
	}
	return &loggerv1.EmitBarrierResponse{Position: positionProto(change.Position{LogID: id, LSN: lsn})}, nil
}
