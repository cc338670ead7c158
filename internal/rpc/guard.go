package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
)

// Guard decides which calls a server takes, and is told what came of them.
type Guard interface {
	// Admit names the caller by the credential of a call, and decides whether it may call the method at all. That is done before
	// anything of the request is read, one call after the other on each connection: it must not block.
	Admit(ctx context.Context, method string) (context.Context, error)
	// Check decides on a request, and may change it. Its context is that of Admit.
	Check(ctx context.Context, method string, request any) error
	// Revoked is closed when the caller's credential counts no more; nil is never.
	Revoked(ctx context.Context) <-chan struct{}
	// Answer returns an answer as its caller may see it: itself, or a copy without what it may not.
	Answer(ctx context.Context, answer any) any
	// Done is told how a call ended that was admitted; request is nil if none came.
	Done(ctx context.Context, method string, request any, err error)
}

// WithGuard has every call decided on by a guard. Without one every call is taken.
func WithGuard(g Guard) Option { return func(s *settings) { s.guarding = g } }

// ReasonRevoked says that the credential of a stream counts no more.
const ReasonRevoked = "CREDENTIAL_REVOKED"

// errRevoked is the cause with which streams are cancelled whose caller's credential counts no more.
var errRevoked = errors.New("credential was revoked")

// admit is the guard at the door.
func (i *interceptors) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	guarded, err := i.guarding.Admit(ctx, info.FullMethodName)
	if err != nil {
		return ctx, statusOf(ctx, err, i.table).Err()
	}
	return context.WithValue(guarded, admittedKey{}, true), nil
}

// admittedKey marks the context of a call that has passed the door.
type admittedKey struct{}

// errNotAdmitted is a fault of ours: no call comes here by another way.
var errNotAdmitted = errors.New("call did not pass the guard")

// check has the guard decide on a request.
func (i *interceptors) check(ctx context.Context, method string, request any) error {
	if i.guarding == nil {
		return nil
	}
	if ctx.Value(admittedKey{}) == nil {
		return errNotAdmitted
	}
	return i.guarding.Check(ctx, method, request) //nolint:wrapcheck // it is made for the caller
}

// answer has the guard look at an answer.
func (i *interceptors) answer(ctx context.Context, answer any) any {
	if i.guarding == nil {
		return answer
	}
	return i.guarding.Answer(ctx, answer)
}

func (i *interceptors) done(ctx context.Context, method string, request any, err error) {
	if i.guarding != nil && ctx.Value(admittedKey{}) != nil {
		i.guarding.Done(ctx, method, request, err)
	}
}

// endWhenRevoked cancels a stream's context when its caller's credential counts no more. The function ends the watch.
func (i *interceptors) endWhenRevoked(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	if i.guarding == nil {
		return func() {}
	}
	revoked := i.guarding.Revoked(ctx)
	if revoked == nil {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-revoked:
			cancel(errRevoked)
		case <-ended:
		}
	}()
	return func() { close(ended) }
}

func (s *settings) guardOptions() []grpc.ServerOption {
	if s.guarding == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.InTapHandle(s.admit)}
}
