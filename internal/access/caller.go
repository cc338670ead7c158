package access

import "context"

type callerKey struct{}

// WithCaller returns a context that names who makes a call.
func WithCaller(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, callerKey{}, p)
}

// CallerOf is who makes a call; nil where nobody asks who calls.
func CallerOf(ctx context.Context) *Principal {
	p, _ := ctx.Value(callerKey{}).(*Principal)
	return p
}

// MayReadRows tells whether values of rows may stand in what a caller is told.
func MayReadRows(p *Principal) bool {
	return p == nil || p.Role == Replicator || p.Role.Includes(Operator)
}
