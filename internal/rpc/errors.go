package rpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/seed0419d559/syncline/internal/discreet"
)

// Domain stands in every ErrorInfo that a Syncline server sends: its reasons mean what Syncline's documentation says.
const Domain = "syncline"

// Reasons that this package gives by itself; the services have their own.
const (
	ReasonUnknownField = "UNKNOWN_FIELD"   // the request holds a field that this server does not know
	ReasonUnknownValue = "UNKNOWN_VALUE"   // the request holds an enum value that this server does not know
	ReasonInvalid      = "INVALID_FIELD"   // a field's value is refused: see the BadRequest details
	ReasonStopping     = "SERVER_STOPPING" // the server shuts down: connect again later
	ReasonInternal     = "INTERNAL"        // a fault of the server itself
)

// maxMessageBytes keeps an error's text well below the header limits of common proxies and clients.
const maxMessageBytes = 16 << 10

// Error is an error with everything that a status on the wire carries. A handler returns one where the status depends on
// the case; where it depends on a sentinel alone the service's Table does.
type Error struct {
	Code     codes.Code
	Reason   string // stable, UPPER_SNAKE_CASE
	Message  string // tells the user the way out
	Metadata map[string]string

	fields []*errdetails.BadRequest_FieldViolation
	cause  error
}

// Errorf makes an Error. The format takes %w as fmt.Errorf does.
func Errorf(code codes.Code, reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Reason: reason, Message: err.Error(), cause: err}
}

// Invalid refuses the value of one field of a request, named by its path as in "spec.include_tables". More fields are
// added with Field.
func Invalid(field, format string, args ...any) *Error {
	description := fmt.Sprintf(format, args...)
	e := &Error{Code: codes.InvalidArgument, Reason: ReasonInvalid, Message: field + ": " + description}
	e.addField(field, description)
	return e
}

// With adds a key to the metadata.
func (e *Error) With(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string)
	}
	e.Metadata[key] = value
	return e
}

// Field adds a refused field. Its description is joined to the message.
func (e *Error) Field(field, format string, args ...any) *Error {
	description := fmt.Sprintf(format, args...)
	e.Message += "; " + field + ": " + description
	e.addField(field, description)
	return e
}

func (e *Error) addField(field, description string) {
	e.fields = append(e.fields, &errdetails.BadRequest_FieldViolation{
		Field: field, Description: strings.ToValidUTF8(description, "\uFFFD"), Reason: ReasonInvalid,
	})
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns what the format's %w wrapped.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is what goes over the wire.
func (e *Error) GRPCStatus() *status.Status { return e.status(e.Message) }

// status is GRPCStatus with the text of an error that wraps e.
func (e *Error) status(text string) *status.Status {
	info := &errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain, Metadata: make(map[string]string, len(e.Metadata))}
	for key, value := range e.Metadata {
		info.Metadata[key] = strings.ToValidUTF8(value, "\uFFFD")
	}
	details := []protoadapt.MessageV1{info}
	if len(e.fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: e.fields})
	}
	return withDetails(status.New(e.Code, clean(text)), details...)
}

// withDetails never fails: details are a help, the code and the text are the answer.
func withDetails(s *status.Status, details ...protoadapt.MessageV1) *status.Status {
	if detailed, err := s.WithDetails(details...); err == nil {
		return detailed
	}
	return s
}

func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxMessageBytes {
		text = strings.ToValidUTF8(text[:maxMessageBytes], "") + "…"
	}
	return text
}

// Code returns the code of a received status or of an Error; Unknown for any other error and OK for nil.
func Code(err error) codes.Code {
	s, _ := status.FromError(err)
	return s.Code()
}

// Reason returns the stable reason of a received status or of an Error, "" if it has none: then it comes from the
// transport or from a server that is not Syncline's.
func Reason(err error) string {
	if info := errorInfo(err); info != nil {
		return info.GetReason()
	}
	return ""
}

// Metadata returns the metadata of a received status or of an Error, nil if it has none.
func Metadata(err error) map[string]string {
	if info := errorInfo(err); info != nil {
		return maps.Clone(info.GetMetadata())
	}
	return nil
}

// Fields returns the refused fields of a received status by name, in their order.
func Fields(err error) []*errdetails.BadRequest_FieldViolation {
	s, _ := status.FromError(err)
	for _, detail := range s.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			return slices.Clone(bad.GetFieldViolations())
		}
	}
	return nil
}

// Message returns an error's text as a person shall read it: that of a received status stands without the words that
// gRPC puts before it, and values of rows are marked in what PostgreSQL says.
func Message(err error) string {
	if err == nil {
		return ""
	}
	var received interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &received) {
		return discreet.Text(err, err.Error())
	}
	s := received.GRPCStatus()
	return discreet.Text(err, strings.ReplaceAll(err.Error(), s.Err().Error(), s.Message()))
}

// IsTransient tells whether the same call may succeed when it is tried again later: the server or the network was away,
// the server is stopping, or resources were short. Ends of the caller's own context are not transient.
func IsTransient(err error) bool {
	switch Code(err) {
	case codes.Unavailable, codes.Aborted, codes.ResourceExhausted:
		return true
	case codes.Internal:
		return Reason(err) == "" // a broken stream: our own servers give every error a reason
	default:
		return false
	}
}

func errorInfo(err error) *errdetails.ErrorInfo {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info
		}
	}
	return nil
}
