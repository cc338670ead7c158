package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

var (
	// errNotFound says that there is no replication of that name.
	errNotFound = errors.New("there is no such replication")
	// errExists says that there is a replication of that name, or one of the same source with some of the same tables.
	errExists = errors.New("there is such a replication already")
	// errSuperseded says that what was planned for a table does not hold any more: its copy was begun anew, so an older chunk of
	// it must not count, or another replication has taken it.
	errSuperseded = errors.New("what was planned does not hold any more")
)

// The reasons that stop a replication until somebody mends what they name, and those of refusals.
const (
	reasonNotFound       = "REPLICATION_NOT_FOUND"
	reasonExists         = "REPLICATION_EXISTS"
	reasonSourceIsTarget = "SOURCE_IS_TARGET"
	reasonSourceChanged  = "SOURCE_CHANGED"
	reasonNoSource       = "SOURCE_UNREACHABLE"
	reasonNotSyncline    = "NOT_A_SOURCE"
	reasonMismatch       = "SCHEMA_MISMATCH"
	reasonMissingObject  = "MISSING_OBJECT"
	reasonUnknownTable   = "UNKNOWN_TABLE"
	reasonNotEmpty       = "TABLE_NOT_EMPTY"
	reasonPrivilege      = "MISSING_PRIVILEGE"
	reasonRowMissing     = "ROW_MISSING"
	reasonRowExists      = "ROW_EXISTS"
	reasonRowRefused     = "ROW_REFUSED"
	reasonTarget         = "TARGET_ERROR"
	reasonInUse          = "IN_USE"
	reasonStream         = "STREAM_ERROR"
	reasonInternal       = "INTERNAL"
	reasonNotReached     = "NOT_REACHED"
	reasonVerifying      = "VERIFICATION_RUNNING"
	reasonSyncing        = "SYNC_RUNNING"
	reasonNotRunning     = "REPLICATION_NOT_RUNNING"
	reasonHeld           = "HELD"
	reasonETag           = "ETAG_MISMATCH"
	reasonActive         = "REPLICATION_ACTIVE"
	reasonNotCopied      = "NOT_COPIED"
	reasonSkips          = "SKIPS_TRANSACTIONS"
	reasonRepeats        = "REPEATS_TRANSACTIONS"
	reasonOtherLog       = "OTHER_LOG"
	reasonTransient      = "TRANSIENT"
	reasonInterrupted    = "INTERRUPTED"
	reasonScheduled      = "SCHEDULED"
	reasonSharedTarget   = "SHARED_TARGET"
	reasonSourceMixed    = "SOURCE_MIXED"
	reasonSourceOld      = "SOURCE_TOO_OLD"
	reasonQuarantineFull = "QUARANTINE_FULL"
	reasonNotUnsynced    = "NOT_IN_QUARANTINE"
	reasonEditRefused    = "EDIT_REFUSED"
	reasonNotApart       = "SHARED_ROWS_NOT_APART"
	reasonRename         = "RENAME_CONFLICT"
	// From the logger and the inventory.
	reasonSnapshotGone   = "SNAPSHOT_GONE"
	reasonTableRewritten = "TABLE_REWRITTEN"
	reasonTableLocked    = "TABLE_LOCKED"
	reasonNoTable        = "TABLE_NOT_FOUND"
	reasonInvalidRange   = "INVALID_RANGE"
	reasonNotReady       = "NOT_READY"
	reasonSetChanged     = "SET_CHANGED"
	reasonNoFollower     = "FOLLOWER_UNKNOWN"
	reasonFollows        = "FOLLOWER_CONNECTED"
	reasonPositionTooOld = "POSITION_TOO_OLD"
	reasonPositionAhead  = "POSITION_AHEAD"
	reasonLogIDMismatch  = "LOG_ID_MISMATCH"
	// reasonSourcePrivilege is what a copy ends with that reads what it may not.
	reasonSourcePrivilege = "PERMISSION_DENIED"
)

// errorTable maps sentinels to statuses for the whole service.
var errorTable = rpc.Table{
	{Sentinel: errNotFound, Code: codes.NotFound, Reason: reasonNotFound},
	{Sentinel: errExists, Code: codes.AlreadyExists, Reason: reasonExists},
	{Sentinel: apply.ErrInUse, Code: codes.Aborted, Reason: reasonInUse},
}

// failure is what a run ended with, as its state shows it.
type failure struct {
	code   string
	passes bool // may pass by itself: try again
}

// isGap tells whether the source's change log does not hold the replica's position: only copies lead on.
func (f failure) isGap() bool {
	return f.code == reasonPositionTooOld || f.code == reasonPositionAhead || f.code == reasonLogIDMismatch
}

// side tells whose fault it is.
func (f failure) side() string {
	switch f.code {
	case reasonNotAttached, reasonNoSource, reasonNotSyncline, reasonSourceMixed, reasonSourceOld, reasonSourceChanged, reasonSnapshotGone, reasonTableRewritten, reasonTableLocked, reasonNoTable,
		reasonNotReady, reasonFollows, reasonStream, reasonUnknownTable, reasonPositionTooOld, reasonPositionAhead, reasonLogIDMismatch, rpc.ReasonStopping:
		return sideRemote
	}
	if strings.HasPrefix(f.code, "SET_") { // what a set is, is decided there
		return sideRemote
	}
	return sideLocal
}

// mayBeStale tells whether the failure can come from what the session saw of the target before: its tables as they were
// when it began, or a row that an update in progress hid from it.
func (f failure) mayBeStale() bool {
	switch f.code {
	case reasonRowMissing, reasonMismatch, reasonRowRefused, reasonTarget:
		return !f.passes
	}
	return false
}

// classify decides whether an error passes by itself, and names it.
func classify(err error) failure {
	var own *rpc.Error
	var change *apply.ChangeError
	var rows *apply.RowCountError
	var full *apply.QuarantineFullError
	var noPlan *apply.MismatchError
	var mismatch *schema.MismatchError
	var missing *schema.MissingObjectsError
	var conflict *schema.ConflictError
	var unknown *schema.UnknownTablesError
	switch {
	case errors.As(err, &own):
		// A credential may be renewed on either side first; the other side follows.
		return failure{own.Reason, rpc.IsTransient(own) || own.Reason == reasonSourceCredential}
	case errors.As(err, &noPlan), errors.As(err, &mismatch), errors.As(err, &conflict):
		return failure{reasonMismatch, false}
	case errors.Is(err, schema.ErrRename):
		return failure{reasonRename, false}
	case errors.As(err, &missing):
		return failure{reasonMissingObject, false}
	case errors.As(err, &unknown):
		return failure{reasonUnknownTable, false}
	case errors.Is(err, apply.ErrInUse), errors.Is(err, apply.ErrMoved), errors.Is(err, errSuperseded), errors.Is(err, errNotWanted):
		return failure{reasonInUse, true}
	case errors.Is(err, errSilent), errors.Is(err, block.ErrChecksum), errors.Is(err, block.ErrMalformed), errors.Is(err, block.ErrChain), errors.Is(err, apply.ErrStreamOrder), errors.Is(err, errOtherLog):
		return failure{reasonStream, true}
	case errors.As(err, &full):
		return failure{reasonQuarantineFull, false}
	case errors.As(err, &change):
		return classifyChange(err, errors.As(err, &rows))
	}
	if postgres.Code(err) != "" {
		return failure{targetReason(err), postgres.IsTransient(err)}
	}
	if rpc.Code(err) == codes.Unimplemented {
		return failure{reasonNotSyncline, false}
	}
	switch rpc.Reason(err) {
	case "":
		if rpc.IsTransient(err) || rpc.Code(err) == codes.DeadlineExceeded {
			return failure{reasonNoSource, true}
		}
		if postgres.IsTransient(err) || errors.Is(err, context.DeadlineExceeded) {
			return failure{reasonTarget, true}
		}
		return failure{reasonInternal, true}
	case reasonSnapshotGone, reasonSetChanged:
		return failure{rpc.Reason(err), true}
	}
	return failure{rpc.Reason(err), rpc.IsTransient(err)}
}

func classifyChange(err error, rows bool) failure {
	if rows {
		return failure{reasonRowMissing, false}
	}
	code := postgres.Code(err)
	switch {
	case postgres.IsTransient(err):
		return failure{reasonTarget, true}
	case code == "23505" || code == "23P01":
		return failure{reasonRowExists, false}
	case code == "42501":
		return failure{reasonPrivilege, false}
	case code == "42703" || code == "42P01" || code == "42804": // column, table or type changed since the session looked
		return failure{reasonMismatch, false}
	}
	return failure{reasonRowRefused, false}
}

func targetReason(err error) string {
	if postgres.Code(err) == "42501" {
		return reasonPrivilege
	}
	return reasonTarget
}

// failed makes an error that stops a replication until somebody mends what it names.
func failed(reason, format string, args ...any) error {
	return fmt.Errorf("%w", rpc.Errorf(codes.FailedPrecondition, reason, format, args...))
}
