package applier

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// The source's word on who this replica is for it. They are errors of the replication, not of whoever asks about it: without this a
// user whose own credential is good would be told that it is not.
const (
	reasonSourceCredential = "SOURCE_REFUSES_CREDENTIAL"
	reasonSourceForbids    = "SOURCE_FORBIDS"
	reasonNoCredential     = "CREDENTIAL_MISSING" //nolint:gosec // it is a name: the source's reason when there is none
)

// refused makes a source's refusal an error of this replica.
func refused(err error) error {
	var reason string
	switch code := rpc.Code(err); {
	case code == codes.Unauthenticated:
		reason = reasonSourceCredential
	case code == codes.PermissionDenied && access.IsRefusal(rpc.Reason(err)):
		reason = reasonSourceForbids
	default:
		return err
	}
	text := rpc.Message(err)
	if rpc.Reason(err) == reasonNoCredential { // it names the flags of whoever calls it
		text = "it wants to know who calls: give the replication a token (--source-token-file), or a client certificate (--source-tls-cert)"
	}
	return rpc.Errorf(codes.FailedPrecondition, reason, "the source refuses this replica: %s", text).With("reason", rpc.Reason(err))
}

// refusals has every call to a source pass through refused.
func refusals() rpc.DialOption {
	return rpc.WithDialOptions(
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return refused(invoke(ctx, method, request, answer, conn, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, refused(err)
			}
			return refusedStream{stream}, nil
		}),
	)
}

type refusedStream struct{ grpc.ClientStream }

func (s refusedStream) RecvMsg(m any) error { return refused(s.ClientStream.RecvMsg(m)) }
