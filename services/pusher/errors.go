package pusher

import (
	"context"
	"errors"
	"regexp"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// The reasons of refusals, and of what stops a push.
const (
	reasonNotFound   = "PUSH_NOT_FOUND"
	reasonExists     = "PUSH_EXISTS"
	reasonETag       = "ETAG_MISMATCH"
	reasonNoTarget   = "TARGET_UNREACHABLE"
	reasonNotTarget  = "NOT_A_TARGET"
	reasonCredential = "TARGET_REFUSES_CREDENTIAL"
	reasonForbids    = "TARGET_FORBIDS"
	reasonOtherOne   = "TARGET_CHANGED"
	reasonGone       = "REPLICATION_GONE"
	reasonPrimary    = "PRIMARY_ERROR"
	reasonDiffers    = "REPLICATION_DIFFERS"
	// From the target.
	reasonNoReplication = "REPLICATION_NOT_FOUND"
	reasonThere         = "REPLICATION_EXISTS"
	reasonFollows       = "FOLLOWER_CONNECTED"
	reasonNoFollower    = "FOLLOWER_UNKNOWN"
	reasonNoCredential  = "CREDENTIAL_MISSING" //nolint:gosec // it is a name
)

func notFound(name string) error {
	return rpc.Errorf(codes.NotFound, reasonNotFound, "there is no push named %.100q; `syncline push list` shows those that there are", name)
}

func exists(name string) error {
	return rpc.Errorf(codes.AlreadyExists, reasonExists, "there is a push named %s already; choose another name, or delete that one", name).With("push", name)
}

// failed makes an error that stops a push until somebody mends what it names.
func failed(reason, format string, args ...any) error {
	return rpc.Errorf(codes.FailedPrecondition, reason, format, args...)
}

// hereReasons are those of what this node refuses: the push has to be changed.
var hereReasons = map[string]bool{reasonGone: true, reasonOtherOne: true, reasonNoTarget: true, reasonDiffers: true}

// failure is what an attempt ended with, as the push's state shows it.
type failure struct {
	reason, text string
	passes       bool // may pass by itself: try again
	here         bool // this node's fault, not the target's or that of the way to it
}

// side is where it has its cause; unspecified for none.
func (f failure) side() applierv1.FaultSide {
	switch {
	case f.reason == "":
		return applierv1.FaultSide_FAULT_SIDE_UNSPECIFIED
	case f.here:
		return applierv1.FaultSide_FAULT_SIDE_LOCAL
	}
	return applierv1.FaultSide_FAULT_SIDE_REMOTE
}

// classify names what an attempt ended with. What the target says is kept as far as it is not too long.
func classify(err error, target string) failure {
	f := classifyWhole(err, target)
	f.reason, f.text = bounded(f.reason), bounded(f.text)
	return f
}

func classifyWhole(err error, target string) failure {
	text := rpc.Message(err)
	if errors.Is(err, context.DeadlineExceeded) {
		return failure{reasonNoTarget, "the target at " + target + " does not answer in time", true, false}
	}
	if postgres.Code(err) != "" || rpc.Code(err) == codes.Unknown && postgres.IsTransient(err) {
		return failure{reasonPrimary, text, true, true}
	}
	switch code, reason := rpc.Code(err), rpc.Reason(err); {
	case reason == reasonNoCredential: // its text names the flags of whoever calls it
		return failure{reasonCredential, "the target refuses this push: it wants to know who calls: give the push a token (--target-token-file), or a client certificate (--target-tls-cert)", true, true}
	case code == codes.Unauthenticated: // it may be renewed on either side first
		return failure{reasonCredential, "the target refuses this push: " + text, true, true}
	case code == codes.PermissionDenied && access.IsRefusal(reason):
		return failure{reasonForbids, "the target refuses this push: " + text, false, true}
	case code == codes.Unimplemented:
		return failure{reasonNotTarget, "what listens at " + target + " is no Syncline server that takes pushes; give the gRPC address of a replica (default port 7500) of this version", false, false}
	case reason == "":
		if problem := rpc.HandshakeProblem(err, "target-"); problem != "" {
			text = problem + " (" + text + ")"
		}
		return failure{reasonNoTarget, "no connection to the target at " + target + ": " + text + rpc.EncryptionHint(err, "target-"), true, false}
	default:
		return failure{reason, text, rpc.IsTransient(err), hereReasons[reason] && code == codes.FailedPrecondition || code == codes.InvalidArgument}
	}
}
