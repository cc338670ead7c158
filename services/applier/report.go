package applier

import (
	"context"
	"time"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

const reportInterval = 2 * time.Second

// report tells the source what is durable here. The position that was seen stored at one tick is reported at a later
// one, once the target has flushed its WAL beyond where it stood when the position was seen.
func (r *runner) report(ctx context.Context, src *source) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	var seen change.Position
	var written string // WAL insert position of the target after seen was applied
	var reported change.Position
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if written != "" && seen != reported {
			var flushed bool
			err := r.store.pool.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn() >= $1::text::pg_lsn", written).Scan(&flushed)
			if err == nil && flushed {
				// What does not arrive is reported again with the next position.
				if _, err := src.loggerClient().ReportApplied(ctx, &loggerv1.ReportAppliedRequest{Follower: r.followerName(), Position: positionProto(seen)}); err == nil {
					reported = seen
				}
			}
		}
		if position := r.status.storedPosition(); (seen == reported || written == "") && position != seen {
			var lsn string
			if err := r.store.pool.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&lsn); err == nil {
				seen, written = position, lsn
			}
		}
	}
}
