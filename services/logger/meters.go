package logger

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/seed0419d559/syncline/services/logger"

var tracer = otel.Tracer(scope)

// meters are the metrics of a logger. What is counted per transaction or more often is kept in the status and only read
// when somebody collects.
type meters struct {
	sentBlocks, sentBytes       metric.Int64Counter
	writtenBlocks, writtenBytes metric.Int64Counter
}

func newMeters(s *Service) (*meters, error) {
	meter := otel.Meter(scope)
	var m meters
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.sentBlocks = counter("syncline.logger.follow.blocks", "{block}", "Blocks sent to followers")
	m.sentBytes = counter("syncline.logger.follow.bytes", "By", "Bytes of blocks sent to followers")
	m.writtenBlocks = counter("syncline.logger.log.blocks", "{block}", "Blocks written to the change log")
	m.writtenBytes = counter("syncline.logger.log.bytes", "By", "Bytes of blocks written to the change log")
	observed := func(name, unit, description string, read func() int64, sum bool) {
		callback := metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(read()); return nil })
		var err error
		if sum {
			_, err = meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description), callback)
		} else {
			_, err = meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description), callback)
		}
		errs = append(errs, err)
	}
	st := &s.status
	observed("syncline.logger.transactions", "{transaction}", "Transactions captured", st.transactions.Load, true)
	observed("syncline.logger.changes", "{change}", "Row changes captured", st.changes.Load, true)
	observed("syncline.logger.open_transactions", "By", "Transactions that have not ended yet, on the logger's disk", func() int64 {
		if open := s.spool.Load(); open != nil {
			return open.Bytes()
		}
		return 0
	}, false)
	observed("syncline.logger.followers", "{follower}", "Connected followers", func() int64 { return int64(s.followers.connected()) }, false)
	observed("syncline.logger.lag", "By", "WAL of the primary that is not in the change log", func() int64 {
		if s.ready() != nil {
			return 0
		}
		return max(0, int64(st.walLSN())-int64(s.changes.Head().Position.LSN))
	}, false)
	observed("syncline.logger.retained_wal", "By", "WAL that the slot keeps on the primary", func() int64 {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.server.retained
	}, false)
	observed("syncline.logger.capturing", "1", "1 while capture runs", func() int64 {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.phase == PhaseCapturing {
			return 1
		}
		return 0
	}, false)
	observed("syncline.logger.contact_age", "ms", "Time since the primary was last heard of", func() int64 {
		if contact := st.contact.Load(); contact != 0 {
			return time.Since(time.Unix(0, contact)).Milliseconds()
		}
		return 0
	}, false)
	for _, err := range errs {
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the instrument
		}
	}
	return &m, nil
}

func (m *meters) sent(ctx context.Context, bytes int) {
	m.sentBlocks.Add(ctx, 1)
	m.sentBytes.Add(ctx, int64(bytes))
}

func (m *meters) written(ctx context.Context, bytes int) {
	m.writtenBlocks.Add(ctx, 1)
	m.writtenBytes.Add(ctx, int64(bytes))
}
