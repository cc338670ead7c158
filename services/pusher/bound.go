package pusher

import (
	"context"
	"log/slog"

	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// principalOf is who a push's target is at this source: a replicator that is bound to the push's set. Its name is no other principal's,
// for those have no colon, and its followers are its own.
func principalOf(name string, spec *pushv1.PushSpec) *access.Principal {
	grant := access.Grant{Set: access.WholeDatabase}
	if spec.GetSet() != "" {
		grant = access.Grant{Set: spec.GetSet(), Parameters: spec.GetParameters()}
	}
	return &access.Principal{Name: followerPrefix + name, Role: access.Replicator, Grants: []access.Grant{grant}}
}

// followerPrefix begins the names of pushes' followers.
const followerPrefix = "push:"

// bound is the guard of what a target reaches: whoever calls is the push's principal, and nobody else, whatever the call says.
type bound struct {
	principal *access.Principal
	log       *slog.Logger
}

// Admit implements rpc.Guard.
func (b bound) Admit(ctx context.Context, method string) (context.Context, error) {
	err := access.CheckMethod(b.principal, method)
	if err != nil {
		b.Done(ctx, method, nil, err)
	}
	return ctx, err
}

// Check implements rpc.Guard.
func (b bound) Check(_ context.Context, method string, request any) error {
	return access.CheckRequest(b.principal, method, request)
}

// Revoked implements rpc.Guard: the connection ends with the push.
func (b bound) Revoked(context.Context) <-chan struct{} { return nil }

// Answer implements rpc.Guard.
func (b bound) Answer(_ context.Context, answer any) any { return answer }

// Done implements rpc.Guard: attempts to change anything leave a line in the log.
func (b bound) Done(_ context.Context, method string, _ any, err error) {
	if access.Changes(method) {
		b.log.Info("configuration", slog.Group("audit", slog.String("principal", b.principal.Name), slog.String("method", method), slog.String("outcome", rpc.CodeName(rpc.Code(err)))))
	}
}
