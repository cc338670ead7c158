package inventory

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Sentinels of this service; Errors says which status each of them becomes.
var (
	// ErrSnapshotGone says that a snapshot expired, was closed, lost its session, or never was. Open a new one.
	ErrSnapshotGone = errors.New("snapshot is gone")
	// ErrTooManySnapshots says that as many snapshots are open as the server allows.
	ErrTooManySnapshots = errors.New("too many open snapshots")
	// ErrTooManySlots says that PostgreSQL has no free slot or walsender for a snapshot.
	ErrTooManySlots = errors.New("no free replication slot")
	// ErrNotLogical says that the primary does not write what logical decoding needs.
	ErrNotLogical = errors.New("wal_level is not logical")
	// ErrNotPrimary says that the server is a standby.
	ErrNotPrimary = errors.New("server is a standby")
	// ErrTableRewritten says that a table was truncated, rewritten, altered or dropped after the snapshot. A new snapshot
	// shows it as it is now.
	ErrTableRewritten = errors.New("table changed after the snapshot")
	// ErrTableLocked says that another session kept a table locked for longer than the dump waits. Try again.
	ErrTableLocked = errors.New("table is locked")
	// ErrNoSuchTable says that a snapshot does not show a table.
	ErrNoSuchTable = errors.New("table not found")
	// ErrPartitioned says that a table has no rows of its own: its partitions have them.
	ErrPartitioned = errors.New("table is partitioned")
	// ErrNotATable says that a name is of something whose rows are not replicated.
	ErrNotATable = errors.New("not a replicated table")
	// ErrColumn says that a column does not exist or cannot be copied.
	ErrColumn = errors.New("cannot read column")
	// ErrRowTooLarge says that PostgreSQL cannot print a row in the asked format: beyond about 1 GB of text.
	ErrRowTooLarge = errors.New("row is too large")
	// ErrLogChanged says that no position of the change log fits a snapshot. Open a new one.
	ErrLogChanged = errors.New("change log does not fit the snapshot")
	// ErrLoggerUnavailable says that the logger cannot be reached or does not capture.
	ErrLoggerUnavailable = errors.New("logger is not available")
	// ErrPermission says that the role of the connection lacks a privilege; the text has the GRANT.
	ErrPermission = errors.New("permission denied")
	// ErrUnavailable says that PostgreSQL could not be reached or the connection broke. Try again.
	ErrUnavailable = errors.New("PostgreSQL is not available")
	// ErrStopping says that the service is shutting down.
	ErrStopping = errors.New("inventory service is stopping")
)

// Errors maps the sentinels of this service to statuses.
func Errors() rpc.Table {
	return rpc.Table{
		{Sentinel: ErrSnapshotGone, Code: codes.NotFound, Reason: "SNAPSHOT_GONE"},
		{Sentinel: ErrTooManySnapshots, Code: codes.ResourceExhausted, Reason: "TOO_MANY_SNAPSHOTS"},
		{Sentinel: ErrTooManySlots, Code: codes.ResourceExhausted, Reason: "TOO_MANY_SLOTS"},
		{Sentinel: ErrNotLogical, Code: codes.FailedPrecondition, Reason: "WAL_LEVEL"},
		{Sentinel: ErrNotPrimary, Code: codes.FailedPrecondition, Reason: "NOT_PRIMARY"},
		{Sentinel: ErrTableRewritten, Code: codes.FailedPrecondition, Reason: "TABLE_REWRITTEN"},
		{Sentinel: ErrTableLocked, Code: codes.Unavailable, Reason: "TABLE_LOCKED"},
		{Sentinel: schema.ErrTableLocked, Code: codes.Unavailable, Reason: "TABLE_LOCKED"},
		{Sentinel: ErrNoSuchTable, Code: codes.NotFound, Reason: "TABLE_NOT_FOUND"},
		{Sentinel: ErrPartitioned, Code: codes.InvalidArgument, Reason: "PARTITIONED_TABLE"},
		{Sentinel: ErrNotATable, Code: codes.InvalidArgument, Reason: "NOT_A_TABLE"},
		{Sentinel: ErrColumn, Code: codes.InvalidArgument, Reason: "INVALID_COLUMN"},
		{Sentinel: checksum.ErrRange, Code: codes.InvalidArgument, Reason: "INVALID_RANGE"},
		{Sentinel: ErrRowTooLarge, Code: codes.FailedPrecondition, Reason: "ROW_TOO_LARGE"},
		{Sentinel: ErrLogChanged, Code: codes.FailedPrecondition, Reason: "LOG_CHANGED"},
		{Sentinel: ErrLoggerUnavailable, Code: codes.Unavailable, Reason: "LOGGER_UNAVAILABLE"},
		{Sentinel: ErrPermission, Code: codes.PermissionDenied, Reason: "PERMISSION_DENIED"},
		{Sentinel: ErrUnavailable, Code: codes.Unavailable, Reason: "POSTGRES_UNAVAILABLE"},
		{Sentinel: postgres.ErrUnfinished, Code: codes.Unavailable, Reason: "NOT_READY"},
		{Sentinel: ErrStopping, Code: codes.Unavailable, Reason: rpc.ReasonStopping},
	}
}

// blocked is the error of a snapshot that was not ready in time, naming what it waited for.
func blocked(reason string, writers []writer) error {
	var names, ways, xids, pids, gids []string
	for _, w := range writers {
		names = append(names, w.String())
		if way := w.wayOut(); way != "" {
			ways = append(ways, way)
		}
		xids = append(xids, fmt.Sprint(w.xid))
		if w.pid != 0 {
			pids = append(pids, fmt.Sprint(w.pid))
		}
		if w.gid != "" {
			gids = append(gids, w.gid)
		}
	}
	text := "open snapshot: not ready in time: " + reason
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	if len(ways) > 0 {
		text += "; end what holds it up (" + strings.Join(ways, "; ") + ") or wait longer"
	} else {
		text += "; try again, or wait longer"
	}
	return rpc.Errorf(codes.DeadlineExceeded, "SNAPSHOT_BLOCKED", "%s", text).
		With("xids", strings.Join(xids, ",")).With("pids", strings.Join(pids, ",")).With("prepared", strings.Join(gids, ","))
}

// SQLSTATEs that this package decides by.
const (
	codeNoPrivilege     = "42501"
	codeUndefinedTable  = "42P01"
	codeUndefinedColumn = "42703"
	codeUndefinedSchema = "3F000"
	codeLockTimeout     = "55P03"
	codeNotInState      = "55000"
	codeTooLarge        = "54000"
	codeSlotsFull       = "53400" // all replication slots are in use
	codeSerialization   = "40001" // initial slot snapshot too large
	codeWrongKind       = "42809"
	codeInternal        = "XX000"
)

// explain gives the sentinel to a failure of the connection itself and leaves every other error as it is: err wraps
// exactly one of them afterwards.
func explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ended(ctx)
	case postgres.Code(err) == codeNoPrivilege:
		return fmt.Errorf("%w: %s", ErrPermission, serverText(err))
	case postgres.IsTransient(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// ended is why ctx has ended: a cause of this service, or else an error that matches ctx.Err() as well as its cause.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	for _, own := range []error{errNotInTime, ErrSnapshotGone, ErrStopping, ErrUnavailable, ctx.Err()} {
		if errors.Is(cause, own) {
			return cause
		}
	}
	return fmt.Errorf("%w: %w", ctx.Err(), cause)
}

// serverText is the server's own words without the code.
func serverText(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message
	}
	return err.Error()
}

// isDataError tells whether a value that a client gave is none of the type that it was given for.
func isDataError(err error) bool { return strings.HasPrefix(postgres.Code(err), "22") }
