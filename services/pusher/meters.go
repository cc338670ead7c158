package pusher

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
)

const scope = "github.com/seed0419d559/syncline/services/pusher"

// observe has metrics read the pushes whenever somebody collects, until stop is called. So one whose target is away does not stand still:
// the time since it was last heard of grows.
func (s *Service) observe() (stop func(), err error) {
	meter := otel.Meter(scope)
	var errs []error
	counter := func(name, unit, about string) metric.Int64Observable {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, unit, about string) metric.Int64Observable {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return g
	}
	list := []struct {
		metric.Int64Observable
		read func(*push) (value int64, known bool)
	}{
		{counter("syncline.push.sent", "By", "Bytes sent to the target"), func(p *push) (int64, bool) { return p.sent.Load(), true }},
		{counter("syncline.push.faults", "{fault}", "Attempts that ended with a fault"), func(p *push) (int64, bool) { return p.faults, true }},
		{gauge("syncline.push.attached", "1", "1 while the target reads through the push"), func(p *push) (int64, bool) {
			if p.state == pushv1.PushState_PUSH_STATE_ATTACHED {
				return 1, true
			}
			return 0, true
		}},
		{gauge("syncline.push.failed", "1", "1 while something has to be mended first"), func(p *push) (int64, bool) {
			if p.state == pushv1.PushState_PUSH_STATE_FAILED {
				return 1, true
			}
			return 0, true
		}},
		{gauge("syncline.push.lag", "By", "WAL that the target has not applied, as last heard"), func(p *push) (int64, bool) {
			if p.heard == nil {
				return 0, false
			}
			return p.heard.lagBytes, true
		}},
		{gauge("syncline.push.contact_age", "ms", "Time since the target was last heard of"), func(p *push) (int64, bool) {
			return time.Since(p.lastHeard).Milliseconds(), !p.lastHeard.IsZero()
		}},
	}
	var observables []metric.Observable
	for i, one := range list {
		if errs[i] != nil {
			return nil, errs[i] // it names the instrument
		}
		observables = append(observables, one.Int64Observable)
	}
	registered, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, p := range s.all() {
			of := metric.WithAttributes(attribute.String("push", p.name))
			p.mu.Lock()
			for _, one := range list {
				if value, known := one.read(p); known {
					o.ObserveInt64(one.Int64Observable, value, of)
				}
			}
			p.mu.Unlock()
		}
		return nil
	}, observables...)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the instrument
	}
	return func() { _ = registered.Unregister() }, nil
}
