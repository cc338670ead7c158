package rpc

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Row says what status an error that matches Sentinel becomes.
type Row struct {
	Sentinel error // matched with errors.Is
	Code     codes.Code
	Reason   string
}

// Table maps the sentinels of a service to statuses. The first matching row counts.
type Table []Row

// errStopping is the cause with which streams are cancelled when the server stops.
var errStopping = errors.New("server is stopping")

// statusOf is the one funnel through which every error of a handler passes. The text is that of the whole chain; code and
// reason come from the first that says them: an Error, the table, a status received from another server, a context.
func statusOf(ctx context.Context, err error, table Table) *status.Status {
	if errors.Is(context.Cause(ctx), errStopping) && isCanceled(err) {
		return Errorf(codes.Unavailable, ReasonStopping, "the server is shutting down; connect again").GRPCStatus()
	}
	if errors.Is(context.Cause(ctx), errRevoked) && isCanceled(err) {
		return Errorf(codes.Unauthenticated, ReasonRevoked, "the credential of this call was changed or taken back").GRPCStatus()
	}
	var own *Error
	if errors.As(err, &own) {
		return own.status(Message(err))
	}
	for _, row := range table {
		if errors.Is(err, row.Sentinel) {
			return (&Error{Code: row.Code, Reason: row.Reason}).status(Message(err))
		}
	}
	var received interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &received):
		return forward(received.GRPCStatus(), Message(err))
	case errors.Is(err, context.Canceled):
		return (&Error{Code: codes.Canceled, Reason: "CANCELED"}).status(Message(err))
	case errors.Is(err, context.DeadlineExceeded):
		return (&Error{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED"}).status(Message(err))
	}
	return (&Error{Code: codes.Internal, Reason: ReasonInternal}).status(Message(err))
}

// forward keeps code and details of another server's status under the text of the error that wraps it. Without an
// ErrorInfo of ours the code's name is the reason.
func forward(s *status.Status, text string) *status.Status {
	message := s.Proto()
	message.Message = clean(text)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return status.FromProto(message)
		}
	}
	return withDetails(status.FromProto(message), &errdetails.ErrorInfo{Reason: CodeName(s.Code()), Domain: Domain})
}

func isCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
}

// CodeName is the name of a code as it stands in the protocol's documentation: FAILED_PRECONDITION.
func CodeName(code codes.Code) string {
	var b strings.Builder
	for i, r := range code.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && code != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
