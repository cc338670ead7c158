package inventory

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// scope names this package to OpenTelemetry.
const scope = "github.com/seed0419d559/syncline/services/inventory"

// metrics are recorded once per call, never per row.
type metrics struct {
	open        metric.Int64UpDownCounter
	opening     metric.Float64Histogram
	dumping     metric.Int64UpDownCounter
	dumpRows    metric.Int64Counter
	dumpBytes   metric.Int64Counter
	dumpSeconds metric.Float64Histogram
}

func newMetrics() (*metrics, error) {
	meter := otel.Meter(scope)
	var m metrics
	var errs [6]error
	m.open, errs[0] = meter.Int64UpDownCounter("syncline.inventory.snapshots.open", metric.WithDescription("Open snapshots"))
	m.opening, errs[1] = meter.Float64Histogram("syncline.inventory.snapshot.opening.duration", metric.WithUnit("s"), metric.WithDescription("Time to open a snapshot, waiting included"))
	m.dumping, errs[2] = meter.Int64UpDownCounter("syncline.inventory.dumps.running", metric.WithDescription("Running dumps"))
	m.dumpRows, errs[3] = meter.Int64Counter("syncline.inventory.dump.rows", metric.WithDescription("Rows of dumps that ended well"))
	m.dumpBytes, errs[4] = meter.Int64Counter("syncline.inventory.dump.bytes", metric.WithUnit("By"), metric.WithDescription("Bytes sent by dumps"))
	m.dumpSeconds, errs[5] = meter.Float64Histogram("syncline.inventory.dump.duration", metric.WithUnit("s"), metric.WithDescription("Time of a dump"))
	return &m, errors.Join(errs[:]...)
}

// dumped records the end of a dump.
func (m *metrics) dumped(ctx context.Context, took time.Duration, rows, bytes int64, err error) {
	m.dumping.Add(ctx, -1)
	m.dumpSeconds.Record(ctx, took.Seconds(), outcome(err))
	m.dumpBytes.Add(ctx, bytes)
	if err == nil {
		m.dumpRows.Add(ctx, rows)
	}
}

// span begins a span of this service; end closes it with the error that *err holds by then.
func span(ctx context.Context, name string, attributes ...attribute.KeyValue) (spanned context.Context, end func(err *error)) {
	spanned, s := otel.Tracer(scope).Start(ctx, name, trace.WithAttributes(attributes...))
	return spanned, func(err *error) {
		if *err != nil {
			s.SetStatus(codes.Error, rpc.Message(*err))
		}
		s.End()
	}
}

// outcome labels a measurement with whether it went well.
func outcome(err error) metric.MeasurementOption {
	return metric.WithAttributes(attribute.Bool("ok", err == nil))
}
