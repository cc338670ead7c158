package principals

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/discreet"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Reasons of refusals.
const (
	ReasonNoCredential = "CREDENTIAL_MISSING" //nolint:gosec // it is a name
	ReasonCredential   = "CREDENTIAL_INVALID" //nolint:gosec // it is a name
	ReasonNoPrincipals = "NO_PRINCIPALS"
)

const (
	headerAuthorization = "authorization"
	// HeaderPrincipal names the principal of a call that REST makes within the process, for a caller that it knows by its certificate.
	// From anywhere else it is not believed.
	HeaderPrincipal = "syncline-principal"
)

// caller is who makes a call; without one every call is taken.
type caller struct{ *known }

type callerKey struct{}

func callerOf(ctx context.Context) *known {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.known
}

// Admit implements rpc.Guard.
func (r *Registry) Admit(ctx context.Context, method string) (context.Context, error) {
	if !r.config.Required || access.Open(method) {
		return ctx, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	one, err := r.identify(ctx, md)
	if err != nil {
		return ctx, err
	}
	ctx = access.WithCaller(context.WithValue(ctx, callerKey{}, caller{one}), one.principal)
	if err := access.CheckMethod(one.principal, method); err != nil {
		r.Done(ctx, method, nil, err) // it goes no further
		return ctx, err
	}
	return ctx, nil
}

// Check implements rpc.Guard.
func (r *Registry) Check(ctx context.Context, method string, request any) error {
	if one := callerOf(ctx); one != nil {
		return access.CheckRequest(one.principal, method, request)
	}
	return nil // every call is taken, or this one needs no credential
}

// identify finds the principal of a call. A token goes before a certificate, and a wrong one is not made good by it.
func (r *Registry) identify(ctx context.Context, md metadata.MD) (*known, error) {
	if values := md.Get(headerAuthorization); len(values) > 0 {
		return r.identifyToken(ctx, values)
	}
	if names := md.Get(HeaderPrincipal); len(names) == 1 && rpc.IsLocal(ctx) {
		if one := r.byName(names[0]); one != nil {
			return one, nil
		}
		return nil, invalid("principal %s is not there any more", names[0])
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			if one, err := r.identifyCertificate(ctx, info.State.VerifiedChains); one != nil || err != nil {
				return one, err
			}
		}
	}
	return nil, r.missing()
}

func (r *Registry) identifyToken(ctx context.Context, values []string) (*known, error) {
	if len(values) > 1 {
		return nil, invalid("there is more than one Authorization in the call")
	}
	token, ok := rpc.ParseBearer(values[0])
	if !ok {
		return nil, invalid("Authorization has to be of the form: Bearer TOKEN")
	}
	if one := r.byToken(token); one != nil {
		return one, nil
	}
	if r.again(ctx) {
		if one := r.byToken(token); one != nil {
			return one, nil
		}
	}
	if r.empty() {
		return nil, r.missing()
	}
	return nil, invalid("the token is of no principal of this node: it is mistyped, or was taken back or replaced")
}

// identifyCertificate returns nil without a certificate.
func (r *Registry) identifyCertificate(ctx context.Context, chains [][]*x509.Certificate) (*known, error) {
	if len(chains) == 0 || len(chains[0]) == 0 {
		return nil, nil //nolint:nilnil // there is none, and that is no error yet
	}
	names := access.CertificateNames(chains[0][0])
	one, several := r.byCertificate(names)
	if one == nil && !several && r.again(ctx) {
		one, several = r.byCertificate(names)
	}
	switch {
	case several:
		return nil, invalid("the client certificate belongs to more than one principal (%s)", strings.Join(names, ", "))
	case one == nil:
		return nil, invalid("the client certificate is of no principal of this node; it goes by %s", strings.Join(names, ", "))
	}
	return one, nil
}

func invalid(format string, args ...any) error {
	return rpc.Errorf(codes.Unauthenticated, ReasonCredential, format, args...)
}

// missing is the error for a call without a credential.
func (r *Registry) missing() error {
	if r.empty() {
		return rpc.Errorf(codes.Unauthenticated, ReasonNoPrincipals, "every call needs a principal here, and there is none yet: make the first with `syncline principal create NAME --role admin --postgres URL`, beside the server")
	}
	return rpc.Errorf(codes.Unauthenticated, ReasonNoCredential, "this server wants to know who calls: give a token (--token-file or SYNCLINE_TOKEN; over HTTP the header Authorization: Bearer TOKEN), or a client certificate (--tls-cert)")
}

// Revoked implements rpc.Guard.
func (r *Registry) Revoked(ctx context.Context) <-chan struct{} {
	if one := callerOf(ctx); one != nil {
		return one.revoked // nil for this process itself
	}
	return nil
}

// Answer implements rpc.Guard: values of rows are taken out of texts for those who may not read rows.
func (r *Registry) Answer(ctx context.Context, answer any) any {
	message, ok := answer.(proto.Message)
	if !ok || access.MayReadRows(access.CallerOf(ctx)) {
		return answer
	}
	return discreet.Elided(message)
}

// Done implements rpc.Guard: whatever changes the configuration, or tries to, leaves a line in the log.
func (r *Registry) Done(ctx context.Context, method string, request any, err error) {
	if !access.Changes(method) {
		return
	}
	who := "anonymous"
	if one := callerOf(ctx); one != nil {
		who = one.principal.Name
	}
	attributes := []any{
		slog.String("principal", who), slog.String("method", method[strings.LastIndexByte(method, '.')+1:]),
		slog.String("resource", resource(request)), slog.String("outcome", rpc.CodeName(rpc.Code(err))),
	}
	if err != nil {
		attributes = append(attributes, slog.String("reason", rpc.Reason(err)))
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		attributes = append(attributes, slog.String("from", p.Addr.String()))
	}
	r.config.Log.Info("configuration", slog.Group("audit", attributes...))
}

// resource is what a request is about: its name. Nothing else of a request is logged, for some of it is secret.
func resource(request any) string {
	message, ok := request.(proto.Message)
	if !ok {
		return ""
	}
	m := message.ProtoReflect()
	for _, name := range []protoreflect.Name{"name", "follower", "replication"} {
		if fd := m.Descriptor().Fields().ByName(name); fd != nil && fd.Kind() == protoreflect.StringKind && !fd.IsList() {
			const most = 200
			text := m.Get(fd).String()
			return text[:min(len(text), most)]
		}
	}
	return ""
}

// Visitor is who sends a request over HTTP, as REST passes it on.
type Visitor struct {
	Authorization string // empty for a caller that shows a certificate
	Principal     string // of a caller that shows a certificate
}

// AdmitHTTP names who sends a request over HTTP, before its body is read. It returns an error for a role below least, unless that is
// empty.
func (r *Registry) AdmitHTTP(request *http.Request, least access.Role) (Visitor, error) {
	values := request.Header.Values(headerAuthorization)
	if !r.config.Required {
		return Visitor{}, nil
	}
	var one *known
	var err error
	if len(values) > 0 {
		one, err = r.identifyToken(request.Context(), values)
	} else if request.TLS != nil {
		one, err = r.identifyCertificate(request.Context(), request.TLS.VerifiedChains)
	}
	switch {
	case err != nil:
		return Visitor{}, err
	case one == nil:
		return Visitor{}, r.missing()
	case least != "" && !one.principal.Role.Includes(least):
		return Visitor{}, rpc.Errorf(codes.PermissionDenied, access.ReasonForbidden, "principal %s has the role %s, and %s needs %s", one.principal.Name, one.principal.Role, request.URL.Path, least)
	case len(values) > 0:
		return Visitor{Authorization: values[0]}, nil
	}
	return Visitor{Principal: one.principal.Name}, nil
}
