package applier

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// Why changes leave the quarantine without being applied.
const (
	whyCopied  = "its copy, which begins now, holds what they would change"
	whyResync  = "all tables are copied anew"
	whyRemoved = "the table is no part of the replication any more"
	whyDeleted = "the replication is deleted"
	whyEnded   = "the run has ended"
	whyEmptied = "the source emptied the table"
)

// drops are the changes that a transaction takes out of the quarantine without applying them. Its events are stored at its end.
type drops struct {
	replication string
	events      []*event
}

// forget takes out what is in quarantine of a source table, or of all where it is nil.
func (d *drops) forget(ctx context.Context, tx pgx.Tx, table *schema.Name, why string) error {
	dropped, err := apply.ForgetQuarantine(ctx, tx, d.replication, table)
	if err != nil {
		return err
	}
	d.add(dropped, why)
	return nil
}

func (d *drops) add(dropped []apply.Dropped, why string) {
	for _, one := range dropped {
		d.events = append(d.events, &event{
			replication: d.replication, kind: kindDropped, rows: one.Rows, tables: 1,
			text: fmt.Sprintf("%d changes of table %s in quarantine are dropped: %s", one.Rows, one.Table, why),
		})
	}
}

// eventWriter is a transaction, or a session in one.
type eventWriter interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// store tells the run log. It belongs at the end of the transaction.
func (d *drops) store(ctx context.Context, tx eventWriter) error {
	if len(d.events) == 0 {
		return nil
	}
	return insertEvents(ctx, tx, d.events...)
}

// truncated tells in a target transaction what its truncates have taken out of the quarantine.
func truncated(ctx context.Context, conn *pgx.Conn, replication string, dropped []apply.Dropped) error {
	d := &drops{replication: replication}
	d.add(dropped, whyEmptied)
	return d.store(ctx, conn)
}
