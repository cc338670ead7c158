package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrUnfinished says that a transaction that is in WAL as committed has not ended for readers yet.
var ErrUnfinished = errors.New("transaction has committed and is not visible yet")

// How long AwaitEnd waits, and how often it looks.
const (
	endPatience  = 10 * time.Second
	firstEndLook = 5 * time.Millisecond
	lastEndLook  = 200 * time.Millisecond
)

// A transaction holds the lock on its own id until it has left the list of running ones. Every role may see that.
const runningSQL = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND transactionid = $1::text::xid AND mode = 'ExclusiveLock' AND granted)"

// AwaitEnd waits until what a transaction did can be seen by statements that begin afterwards. Its commit record can be read from WAL
// earlier: by a moment, or for as long as it waits for a synchronous standby. Who looks in the catalog for what such a record tells of
// has to wait. It returns ErrUnfinished when that takes longer than ten seconds.
func AwaitEnd(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, xid uint32) error {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	for pause := firstEndLook; ; pause = min(2*pause, lastEndLook) {
		var running bool
		err := db.QueryRow(ctx, runningSQL, fmt.Sprint(xid)).Scan(&running)
		if err == nil && !running {
			return nil
		}
		if err == nil {
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
			}
		}
		switch {
		case outer.Err() != nil:
			return fmt.Errorf("wait for the end of transaction %d: %w", xid, context.Cause(outer))
		case ctx.Err() != nil:
			return fmt.Errorf("transaction %d: %w: it waits on the primary, for a synchronous standby maybe (synchronous_standby_names)", xid, ErrUnfinished)
		}
		return fmt.Errorf("look whether transaction %d has ended: %w", xid, err)
	}
}
