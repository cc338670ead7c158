// Package telemetry sets up what a server process tells of itself: its log, metrics for Prometheus, traces for OpenTelemetry,
// and the HTTP endpoints to read them. Nothing here is on the path of the data: metrics and spans are per call or block.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Formats of the log.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger returns a logger that writes lines of a format ("text" or "json") from a level ("debug", "info", "warn",
// "error") on.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: expected debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: from}
	switch format {
	case FormatText:
		return slog.New(slog.NewTextHandler(w, options)), nil
	case FormatJSON:
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q: expected text or json", format)
}

// The variables by which OpenTelemetry says where traces go. Without them none are made.
var traceVariables = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// Provider holds what Start set up.
type Provider struct {
	registry *prometheus.Registry
	shutdown []func(context.Context) error
}

// Start installs the global providers of OpenTelemetry: metrics that Handler serves to Prometheus, and traces that are sent by
// OTLP when the environment says where to.
func Start(ctx context.Context, role, version string) (*Provider, error) {
	p := &Provider{registry: prometheus.NewRegistry()}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(p.registry))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	about := resource.NewSchemaless(attribute.String("service.name", "syncline"), attribute.String("service.version", version), attribute.String("syncline.role", role))
	meters := metric.NewMeterProvider(metric.WithReader(exporter), metric.WithResource(about))
	otel.SetMeterProvider(meters)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	p.shutdown = append(p.shutdown, meters.Shutdown)
	if !wantsTraces() {
		return p, nil
	}
	spans, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up traces: %w", err)
	}
	tracers := trace.NewTracerProvider(trace.WithBatcher(spans), trace.WithResource(about))
	otel.SetTracerProvider(tracers)
	p.shutdown = append(p.shutdown, tracers.Shutdown)
	return p, nil
}

func wantsTraces() bool {
	for _, name := range traceVariables {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// Shutdown sends what was collected.
func (p *Provider) Shutdown(ctx context.Context) error {
	var failed error
	for _, shutdown := range p.shutdown {
		failed = errors.Join(failed, shutdown(ctx))
	}
	return failed
}

// Limits of every HTTP request. What streams sets its own in place of them.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 2 * time.Minute // between two requests of a connection
	maxHeaderBytes    = 32 << 10
)

// Handler serves /metrics, /healthz (the process lives), /readyz (ready returns nil) and, if profile is set, /debug/pprof/. All other
// paths are left to others.
func (p *Provider) Handler(ready func(context.Context) error, profile bool, others http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	if profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/metrics", path == "/healthz", path == "/readyz", profile && strings.HasPrefix(path, "/debug/pprof/"):
			mux.ServeHTTP(w, r)
		default:
			others.ServeHTTP(w, r) // with its path as it is: a mux would clean it
		}
	})
}

// NewHTTPServer returns a server for the handler with its limits set.
func NewHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
