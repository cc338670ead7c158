package rest

import (
	"context"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/principals"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Gate names who sends a request, before anything but its header is read. Without one, as in front of a server elsewhere, that server
// decides by what is passed on.
type Gate interface {
	AdmitHTTP(r *http.Request, least access.Role) (principals.Visitor, error)
}

// SetGate sets the gate, before the handler serves.
func (h *Handler) SetGate(g Gate) { h.gate = g }

type visitorKey struct{}

// admitted returns the request with its sender, as whom gRPC is called.
func (h *Handler) admitted(r *http.Request) (*http.Request, error) {
	var v principals.Visitor
	if h.gate != nil {
		var err error
		if v, err = h.gate.AdmitHTTP(r, ""); err != nil {
			return nil, err //nolint:wrapcheck // it is made for the caller
		}
	} else if values := r.Header.Values("Authorization"); len(values) == 1 {
		v.Authorization = values[0]
	} else if len(values) > 1 {
		return nil, rpc.Invalid("Authorization", "there is more than one in the request")
	}
	return r.WithContext(context.WithValue(r.Context(), visitorKey{}, v)), nil
}

// forward gives a call the credential of the request that it is made for, and no other: what the gateway made of headers goes.
func forward(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Delete("authorization")
	md.Delete(principals.HeaderPrincipal)
	v, _ := ctx.Value(visitorKey{}).(principals.Visitor)
	if v.Authorization != "" {
		md.Set("authorization", v.Authorization)
	}
	if v.Principal != "" {
		md.Set(principals.HeaderPrincipal, v.Principal)
	}
	return metadata.NewOutgoingContext(ctx, md)
}

func forwardUnary(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(forward(ctx), method, request, answer, conn, append(opts, rpc.LargeAnswer())...)
}

func forwardStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(forward(ctx), desc, conn, method, opts...)
}
