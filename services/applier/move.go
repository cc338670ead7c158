package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// moveTo makes a replication that does not run go on after another position than the stored one. That is exact only where the replica
// is as of that position, which nobody but the user can know; so it has to be forced, and stays visible.
func (s *Service) moveTo(ctx context.Context, r *runner, fresh *stored, in *applierv1.StartReplicationRequest) error {
	to, err := positionOf(in.GetFrom())
	if err != nil {
		return rpc.Invalid("from.log_id", "%v", err)
	}
	if to.LSN == 0 {
		return rpc.Invalid("from.lsn", "0 is no position")
	}
	if fresh.hasPosition && to == fresh.position {
		return nil
	}
	switch {
	case r.active():
		return rpc.Errorf(codes.FailedPrecondition, reasonActive, "replication %s is %s, and only one that does not run can be moved to another position; stop it first with `syncline replication stop %s`",
			fresh.name, stateName(r.status.stateNow()), fresh.name)
	case !fresh.hasPosition || fresh.pending != pendingNothing || fresh.phase != phaseRunning && fresh.phase != phaseCatchingUp:
		return rpc.Errorf(codes.FailedPrecondition, reasonNotCopied, "replication %s has tables that wait for their copy, so there is no other position to begin at; start it without one", fresh.name)
	}
	if err := s.holdsPosition(ctx, fresh, to); err != nil {
		return err
	}
	what, refused := movement(fresh, to)
	if refused != nil && !in.GetForce() {
		return refused
	}
	if err := s.store.force(ctx, s.config.PostgresURL, fresh, to, what); err != nil {
		return err
	}
	fault.Point(FaultForced)
	_, err = r.refresh(ctx)
	return err
}

// holdsPosition refuses a position that the source's change log does not hold.
func (s *Service) holdsPosition(ctx context.Context, fresh *stored, to change.Position) error {
	src, err := s.config.dialSource(ctx, fresh.name, fresh.spec)
	if err != nil {
		return err
	}
	defer src.close()
	if id := src.server.GetServerId(); id != fresh.sourceServerID {
		return rpc.Errorf(codes.FailedPrecondition, reasonSourceChanged, "the source at %s is now another server (%s instead of %s); see `syncline replication update %s --accept-source`",
			fresh.spec.GetSource(), id, fresh.sourceServerID, fresh.name)
	}
	return src.holds(ctx, to)
}

// holds refuses a position that the source's change log does not hold.
func (s *source) holds(ctx context.Context, at change.Position) error {
	ranges, err := s.loggerClient().GetRanges(ctx, &loggerv1.GetRangesRequest{})
	if err != nil {
		return fmt.Errorf("ask the source's logger for its range: %w", err)
	}
	first, last := change.LSN(ranges.GetFirstLsn()), change.LSN(ranges.GetLastLsn())
	var refused *rpc.Error
	switch {
	case ranges.GetLogId() != at.LogID.String():
		refused = rpc.Errorf(codes.FailedPrecondition, reasonLogIDMismatch, "the source's change log is %s, and %s is a position of another one", ranges.GetLogId(), at)
	case at.LSN < first:
		refused = rpc.Errorf(codes.FailedPrecondition, reasonPositionTooOld, "%s is before the start of the source's change log, %s", at, first)
	case at.LSN > last:
		refused = rpc.Errorf(codes.FailedPrecondition, reasonPositionAhead, "%s is beyond the end of the source's change log, %s", at, last)
	default:
		return nil
	}
	return refused.With("log_id", ranges.GetLogId()).With("first_lsn", first.String()).With("last_lsn", last.String())
}

// movement tells what it means to go on after another position, and refuses it.
func movement(fresh *stored, to change.Position) (what string, refused *rpc.Error) {
	const wayOut = "; if the replica is known to be as of that position, say so with --force (force)"
	switch from := fresh.position; {
	case from.LogID != to.LogID:
		what = fmt.Sprintf("a position of another change log than %s, so what lies between the two cannot be told", from)
		return what, rpc.Errorf(codes.FailedPrecondition, reasonOtherLog, "%s is %s%s", to, what, wayOut)
	case to.LSN > from.LSN:
		what = fmt.Sprintf("after %s, so all transactions in between are passed over", from.LSN)
		return what, rpc.Errorf(codes.FailedPrecondition, reasonSkips, "%s is %s%s", to.LSN, what, wayOut)
	default:
		what = fmt.Sprintf("before %s, so the transactions in between are applied a second time", from.LSN)
		return what, rpc.Errorf(codes.FailedPrecondition, reasonRepeats, "%s is %s%s", to.LSN, what, wayOut)
	}
}

// force stores a position. Tables count as copied at the position where their copy is of another log. It holds the replication's lock, so
// nobody applies meanwhile.
func (s *store) force(ctx context.Context, url string, fresh *stored, to change.Position, what string) error {
	session, err := apply.OpenSession(ctx, url, fresh.name)
	if err != nil {
		return err
	}
	defer session.Close()
	text := fmt.Sprintf("the position was forced to %s, which is %s", to, what)
	e := &event{replication: fresh.name, at: time.Now(), kind: kindPositionForced, text: text, position: to, hasPosition: true}
	return s.write(ctx, e, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE syncline.positions SET log_id = $2, lsn = $3::text::pg_lsn, updated_at = now() WHERE replication = $1 AND log_id = $4 AND lsn = $5::text::pg_lsn",
			fresh.name, to.LogID.String(), to.LSN.String(), fresh.position.LogID.String(), fresh.position.LSN.String())
		if err == nil && tag.RowsAffected() != 1 {
			err = apply.ErrMoved
		}
		if err != nil {
			return fmt.Errorf("force position of replication %s: %w", fresh.name, err)
		}
		if _, err := tx.Exec(ctx, "UPDATE syncline.tables SET log_id = $2, copy_lsn = $3::text::pg_lsn WHERE replication = $1 AND log_id <> $2",
			fresh.name, to.LogID.String(), to.LSN.String()); err != nil {
			return fmt.Errorf("force position of replication %s: %w", fresh.name, err)
		}
		if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET phase = 'catching_up', standing_warnings = array_append(standing_warnings, $2::text) WHERE name = $1",
			fresh.name, e.at.UTC().Format("2006-01-02 15:04:05 MST")+": "+text); err != nil {
			return fmt.Errorf("force position of replication %s: %w", fresh.name, err)
		}
		return nil
	})
}
