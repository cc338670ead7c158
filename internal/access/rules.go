package access

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// Reasons of refusals.
const (
	ReasonForbidden     = "FORBIDDEN"        // the role does not reach
	ReasonSetNeeded     = "SET_NEEDED"       // a replicator has to name a set
	ReasonSetNotGranted = "SET_NOT_GRANTED"  // it has no grant for this set with these parameters
	ReasonNothing       = "NOTHING_GRANTED"  // it has no grant at all
	ReasonUnknownMethod = "UNKNOWN_METHOD"   // nobody may call what has no rule
	ReasonOtherFollower = "FOLLOWER_REFUSED" // the follower is not the principal's
)

// IsRefusal tells whether the reason of a PERMISSION_DENIED is one of this package, and not of what PostgreSQL permits.
func IsRefusal(reason string) bool {
	switch reason {
	case ReasonForbidden, ReasonSetNeeded, ReasonSetNotGranted, ReasonNothing, ReasonUnknownMethod, ReasonOtherFollower:
		return true
	}
	return false
}

// scoped is a request that names a set.
type scoped interface {
	GetSet() string
	GetParameters() map[string]string
}

// CheckMethod tells whether a principal may call a method at all. What it may ask of it CheckRequest tells.
func CheckMethod(p *Principal, method string) error {
	r, known := methods[method]
	switch {
	case open[method]:
		return nil
	case !known:
		return refuse(ReasonUnknownMethod, "%s has no rule that allows it to anybody", method)
	case p.Role != Replicator && p.Role.Includes(r.least):
		return nil
	case p.Role != Replicator:
		return refuse(ReasonForbidden, "principal %s has the role %s, and %s needs %s", p.Name, p.Role, short(method), r.least)
	case r.replicator == never:
		return refuse(ReasonForbidden, "principal %s has the role %s, which may not call %s; it needs %s", p.Name, p.Role, short(method), r.least)
	case r.replicator == always || p.wholeDatabase():
		return nil
	case len(p.Grants) == 0:
		return refuse(ReasonNothing, "principal %s is granted no set, so it reads nothing; an admin grants one with `syncline principal create --set SET`", p.Name)
	case r.replicator == whole:
		return refuse(ReasonForbidden, "principal %s reads sets only, and %s tells of all tables", p.Name, short(method))
	}
	return nil
}

// CheckRequest tells whether a principal may make this request of a method that it may call. It gives a follower in the request the
// principal's own name in front, where the principal is a replicator: so it can only mean one of its own.
func CheckRequest(p *Principal, method string, request any) error {
	if err := CheckMethod(p, method); err != nil || p.Role != Replicator {
		return err
	}
	if methods[method].replicator == bySet && !p.wholeDatabase() {
		if err := p.checkSet(method, request); err != nil {
			return err
		}
	}
	if message, ok := request.(proto.Message); ok {
		return ownFollower(p.Name, message)
	}
	return nil
}

// checkSet refuses a request for a set that is not granted. One that cannot name a set asks for everything.
func (p *Principal) checkSet(method string, request any) error {
	names, ok := request.(scoped)
	if !ok || names.GetSet() == "" {
		return refuse(ReasonSetNeeded, "principal %s reads sets only (%v), and this request of %s names none", p.Name, p.Grants, short(method))
	}
	known := false
	for _, g := range p.Grants {
		if g.Set != names.GetSet() {
			continue
		}
		known = true
		if within(names.GetParameters(), g.Parameters) {
			return nil
		}
	}
	if known {
		return refuse(ReasonSetNotGranted, "principal %s is granted set %s with other parameters (%v)", p.Name, names.GetSet(), p.Grants)
	}
	return refuse(ReasonSetNotGranted, "principal %s is not granted set %s; it is granted %v", p.Name, names.GetSet(), p.Grants)
}

// within tells whether all granted parameters stand among the asked ones with the same values.
func within(asked, granted map[string]string) bool {
	for name, value := range granted {
		if got, ok := asked[name]; !ok || got != value {
			return false
		}
	}
	return true
}

func refuse(reason, format string, args ...any) error {
	return rpc.Errorf(codes.PermissionDenied, reason, format, args...)
}
