package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// Reasons that HTTP adds to those of package rpc and of the services.
const (
	reasonUnknownPath     = "UNKNOWN_PATH"
	reasonWrongMethod     = "METHOD_NOT_ALLOWED"
	reasonNotJSON         = "INVALID_JSON"
	reasonMediaType       = "UNSUPPORTED_MEDIA_TYPE"
	reasonBody            = "UNEXPECTED_BODY"
	reasonBodyTooLarge    = "BODY_TOO_LARGE"
	reasonBodyTimeout     = "BODY_TIMEOUT"
	reasonTooManyRequests = "TOO_MANY_REQUESTS"
	reasonCrossOrigin     = "CROSS_ORIGIN"
	reasonUnknownHost     = "UNKNOWN_HOST"
)

// statuses are those that say more than what the code stands for in general.
var statuses = map[string]int{
	reasonWrongMethod:  http.StatusMethodNotAllowed,
	reasonMediaType:    http.StatusUnsupportedMediaType,
	reasonBodyTooLarge: http.StatusRequestEntityTooLarge,
	reasonBodyTimeout:  http.StatusRequestTimeout,
}

// failure is the body of every answer that is an error, and the last line of a stream that breaks off.
type failure struct {
	Error problem `json:"error"`
}

// problem is an error as gRPC has it: its code, and the reason and metadata of its ErrorInfo.
type problem struct {
	Code     int               `json:"code"`   // of HTTP
	Status   string            `json:"status"` // of gRPC
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Metadata map[string]string `json:"metadata"`
	Fields   []field           `json:"fields,omitempty"`
}

// field is a refused field of a request.
type field struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

func problemOf(err error) problem {
	code := rpc.Code(err)
	p := problem{Status: rpc.CodeName(code), Reason: rpc.Reason(err), Message: rpc.Message(err), Metadata: rpc.Metadata(err)}
	if p.Reason == "" {
		p.Reason = p.Status // it comes from the transport
	}
	if p.Metadata == nil {
		p.Metadata = map[string]string{}
	}
	for _, violation := range rpc.Fields(err) {
		p.Fields = append(p.Fields, field{violation.GetField(), violation.GetDescription()})
	}
	p.Code = runtime.HTTPStatusFromCode(code)
	if special := statuses[p.Reason]; special != 0 {
		p.Code = special
	}
	return p
}

// WriteError answers with an error.
func WriteError(w http.ResponseWriter, err error) {
	p := problemOf(err)
	if p.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="syncline"`)
	}
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Del("Transfer-Encoding")
	w.WriteHeader(p.Code)
	_, _ = w.Write(line(failure{p})) // whoever is gone needs no answer
}

// line is a value as JSON on one line. Values that cannot be JSON are faults of this package.
func line(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return line(failure{problemOf(rpc.Errorf(codes.Internal, rpc.ReasonInternal, "write answer: %w", err))})
	}
	return out.Bytes()
}

func unknownPath(r *http.Request) error {
	return rpc.Errorf(codes.NotFound, reasonUnknownPath, "there is nothing at %s on this server; %s lists what there is", r.URL.Path, pathDocument)
}

func wrongMethod(r *http.Request, allowed string) error {
	return rpc.Errorf(codes.Unimplemented, reasonWrongMethod, "%s is not possible at %s; possible is %s", r.Method, r.URL.Path, allowed).With("allowed", allowed)
}

// notRouted answers what no operation matches.
func (h *Handler) notRouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	allowed := strings.Join(h.allowed(r.URL.EscapedPath()), ", ")
	switch {
	case status == http.StatusBadRequest:
		WriteError(w, rpc.Invalid("path", "%q is not the path of a URL", r.URL.Path))
	case allowed != "":
		w.Header().Set("Allow", allowed)
		WriteError(w, wrongMethod(r, allowed))
	default:
		WriteError(w, unknownPath(r))
	}
}

// refuse is Invalid with a reason of its own.
func refuse(reason, name, format string, args ...any) error {
	e := rpc.Invalid(name, format, args...)
	e.Reason = reason
	return e.With("field", name)
}
