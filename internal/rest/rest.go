// Package rest serves the gRPC services of a process over HTTP: each method that proto/gateway.yaml gives a path, in JSON. It is a
// client of those services like any other. An answer's status and body carry the same reason as gRPC does; what it does not know in
// a request is refused, never ignored; every request is bounded in size and number, and in time unless it is a stream.
package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Paths of what is no method.
const (
	pathDocument = "/openapi.json"
	pathPage     = "/docs"
	pathMethods  = "/v1/" // and below
)

// registrations are the generated handlers by the full name of their service.
var registrations = map[string]func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
	serverv1.ServerService_ServiceDesc.ServiceName:       serverv1.RegisterServerServiceHandler,
	inventoryv1.InventoryService_ServiceDesc.ServiceName: inventoryv1.RegisterInventoryServiceHandler,
	loggerv1.LoggerService_ServiceDesc.ServiceName:       loggerv1.RegisterLoggerServiceHandler,
	applierv1.ApplierService_ServiceDesc.ServiceName:     applierv1.RegisterApplierServiceHandler,
	accessv1.AccessService_ServiceDesc.ServiceName:       accessv1.RegisterAccessServiceHandler,
	pushv1.PushService_ServiceDesc.ServiceName:           pushv1.RegisterPushServiceHandler,
}

// Limits bound what clients can ask for at the same time, and for how long.
type Limits struct {
	BodyBytes int64
	// Requests bounds all that are being answered, Streams those of them that are streams.
	Requests, Streams int
	// Body bounds how long a client may take to send its request, and Unary how long a call that is no stream may take, beyond the
	// timeout that it asks for itself. It is longer than those that the services have by default, so that their answers come first.
	Body, Unary time.Duration
	// Stall is how long a client may take none of an answer.
	Stall time.Duration
}

// DefaultLimits returns the limits of every server.
func DefaultLimits() Limits {
	return Limits{BodyBytes: 1 << 20, Requests: 256, Streams: 128, Body: 10 * time.Second, Unary: 90 * time.Second, Stall: time.Minute}
}

// Handler serves REST.
type Handler struct {
	conn       *grpc.ClientConn
	limits     Limits
	mux        *runtime.ServeMux
	operations []*operation
	byPattern  map[string]*operation // by method and template
	document   []byte
	page       *page
	gate       Gate          // nil passes everything on
	requests   chan struct{} // one element for each request that is being answered
	streams    chan struct{}
	crossSite  *http.CrossOriginProtection
}

// Dial makes the connection that New needs. Calls on it carry the credential of the HTTP request that they are made for, so the options
// have none.
func Dial(address string, opts ...rpc.DialOption) (*grpc.ClientConn, error) {
	return rpc.Dial(address, append(opts, rpc.WithDialOptions(grpc.WithChainUnaryInterceptor(forwardUnary), grpc.WithChainStreamInterceptor(forwardStream)))...)
}

// New makes a handler for those of the services, by their full names, that are Syncline's. The connection leads to a server that has
// them, and stays the caller's. The version stands in the OpenAPI document.
func New(conn *grpc.ClientConn, services []string, version string, limits Limits) (*Handler, error) {
	h := &Handler{
		conn: conn, limits: limits, byPattern: make(map[string]*operation),
		requests: make(chan struct{}, limits.Requests), streams: make(chan struct{}, limits.Streams),
		crossSite: http.NewCrossOriginProtection(),
	}
	h.mux = h.newMux()
	services = slices.DeleteFunc(slices.Clone(services), func(name string) bool { return registrations[name] == nil })
	doc, err := newDocument(services, version)
	if err != nil {
		return nil, err
	}
	if h.operations, err = doc.operations(services); err != nil {
		return nil, err
	}
	for _, op := range h.operations {
		h.byPattern[op.method+" "+op.template] = op
	}
	for _, name := range services {
		if err := registrations[name](context.Background(), h.mux, conn); err != nil {
			return nil, fmt.Errorf("serve %s over HTTP: %w", name, err)
		}
	}
	if err := h.replace(); err != nil {
		return nil, err
	}
	if h.document, err = doc.bytes(); err != nil {
		return nil, err
	}
	h.page, err = newPage(doc)
	return h, err
}

// newMux makes the gateway's router. No headers pass through it in either direction.
func (h *Handler) newMux() *runtime.ServeMux {
	none := func(string) (string, bool) { return "", false }
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllCharacters),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			WriteError(w, err)
		}),
		runtime.WithRoutingErrorHandler(h.notRouted),
		runtime.WithMiddlewares(h.checked),
	)
}

// replace has the streams whose messages are made for programs served in a form that people read.
func (h *Handler) replace() error {
	readable := map[string]runtime.HandlerFunc{
		loggerv1.LoggerService_Follow_FullMethodName:     h.follow,
		inventoryv1.InventoryService_Dump_FullMethodName: h.dump,
	}
	for _, op := range h.operations {
		if serve := readable[op.fullMethod()]; serve != nil {
			if err := h.mux.HandlePath(op.method, op.template, serve); err != nil {
				return fmt.Errorf("serve %s over HTTP: %w", op.fullMethod(), err)
			}
		}
	}
	return nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if err := h.sameSite(r); err != nil {
		WriteError(w, err)
		return
	}
	switch path := r.URL.Path; {
	case path == pathDocument || path == pathPage:
		h.serveDocument(w, r)
	case path == "/" && r.Method == http.MethodGet:
		http.Redirect(w, r, pathPage, http.StatusFound)
	case strings.HasPrefix(path, pathMethods):
		admitted, err := h.admitted(r)
		if err != nil {
			header.Set("Connection", "close") // else the rest of the body would be waited for
			WriteError(w, err)
			return
		}
		h.bounded(w, admitted)
	default:
		WriteError(w, unknownPath(r))
	}
}

func (h *Handler) serveDocument(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		WriteError(w, wrongMethod(r, "GET, HEAD"))
	case r.URL.Path == pathPage:
		h.page.ServeHTTP(w, r)
	default:
		w.Header().Set("Content-Type", typeJSON)
		_, _ = w.Write(h.document) // whoever is gone needs no answer
	}
}
