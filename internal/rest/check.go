package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// maxTimeout bounds the timeout that a call may ask for itself.
const maxTimeout = time.Hour

// checked stands before every operation: it refuses what the gateway would pass over, and bounds the call.
func (h *Handler) checked(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		op := h.operation(r.Method, pattern.String())
		switch {
		case op == nil:
			WriteError(w, rpc.Errorf(codes.Internal, rpc.ReasonInternal, "%s %s is not in the OpenAPI document", r.Method, pattern))
			return
		case op.misread(r):
			h.notRouted(r.Context(), h.mux, nil, w, r, http.StatusNotFound)
			return
		}
		timeout, err := op.check(r)
		if err != nil {
			WriteError(w, err)
			return
		}
		if op.streams() {
			leave, err := enter(h.streams, "streams")
			if err != nil {
				WriteError(w, err)
				return
			}
			defer leave()
			next(w, r, params)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), h.limits.Unary+timeout)
		defer cancel()
		next(w, r.WithContext(ctx), params)
	}
}

// takesParameter tells whether there is a parameter of the name. One that is a map takes an entry as NAME[KEY].
func (o *operation) takesParameter(name string) bool {
	base, key, entry := strings.Cut(name, "[")
	if entry && len(key) > 1 && strings.IndexAny(key, "[]") == len(key)-1 {
		return slices.Contains(o.query, base+"[string]")
	}
	return slices.Contains(o.query, name) && !entry
}

// check refuses parameters and fields that the operation does not have, and values that it cannot read. It returns the timeout
// that the request asks for.
func (o *operation) check(r *http.Request) (time.Duration, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, rpc.Invalid("query", "%v", err)
	}
	for name, value := range values {
		if !o.takesParameter(name) {
			return 0, refuse(rpc.ReasonUnknownField, name, "%s takes no such parameter; %s", o, o.takes())
		}
		if err := runtime.PopulateQueryParameters(o.newRequest(), url.Values{name: value}, utilities.NewDoubleArray(nil)); err != nil {
			return 0, rpc.Invalid(name, "%v", err)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, rpc.Errorf(codes.InvalidArgument, reasonBody, "read body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	request := o.newRequest()
	if len(body) > 0 {
		if err := o.checkBody(r, body, request); err != nil {
			return 0, err
		}
	}
	asks, ok := request.(interface{ GetTimeout() *durationpb.Duration })
	if !ok || asks.GetTimeout().AsDuration() <= 0 {
		return 0, nil // the method refuses one below zero
	}
	if asks.GetTimeout().AsDuration() > maxTimeout {
		return 0, rpc.Invalid("timeout", "over HTTP it is at most %v", maxTimeout)
	}
	return asks.GetTimeout().AsDuration(), nil
}

func (o *operation) takes() string {
	if len(o.query) == 0 {
		return "it takes none"
	}
	return "it takes " + strings.Join(o.query, ", ")
}

func (o *operation) checkBody(r *http.Request, body []byte, request proto.Message) error {
	if !o.body {
		return refuse(reasonBody, "body", "%s takes no body; %s", o, o.takes())
	}
	// A page of somebody else can have a browser send anything but this type.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != typeJSON {
		return refuse(reasonMediaType, "body", "its Content-Type has to be %s (curl --json sends it)", typeJSON)
	}
	if !json.Valid(body) {
		return refuse(reasonNotJSON, "body", "%v", syntax(body))
	}
	if err := (marshaler{}).Unmarshal(body, request); err != nil {
		// protojson puts its name and a space that is none before its words.
		text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
		if strings.Contains(text, "unknown field") {
			return refuse(rpc.ReasonUnknownField, "body", "%s", text)
		}
		return rpc.Invalid("body", "%s", text)
	}
	for _, name := range o.variables {
		if fd := o.rpc.Input().Fields().ByName(protoreflect.Name(name)); request.ProtoReflect().Has(fd) {
			return rpc.Invalid(name, "it stands in the path already")
		}
	}
	return nil
}

// syntax says where text is no JSON.
func syntax(body []byte) error {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	return errors.New("it is no JSON")
}
