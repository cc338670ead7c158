package applier

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/seed0419d559/syncline/services/applier"

// observe has metrics read what is in quarantine whenever somebody collects, until stop is called.
func (s *Service) observe() (stop func(), err error) {
	meter := otel.Meter(scope)
	changes, err := meter.Int64ObservableGauge("syncline.applier.unsynced", metric.WithUnit("{change}"), metric.WithDescription("Changes in quarantine, by replication and reason"))
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the instrument
	}
	registered, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, r := range s.runners {
			n := r.status.unsyncedNow()
			of := func(reason string) metric.ObserveOption {
				return metric.WithAttributes(attribute.String("replication", name), attribute.String("reason", reason))
			}
			o.ObserveInt64(changes, n.Quarantined, of("quarantined"))
			o.ObserveInt64(changes, n.Waiting, of("waiting"))
		}
		return nil
	}, changes)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the instrument
	}
	return func() { _ = registered.Unregister() }, nil
}
