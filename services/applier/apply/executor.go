package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// task is what the engine hands to the executor, in order. Exactly one field is set, or the end of a group comes with its last slice.
type task struct {
	write    *write
	truncate *truncation
	commit   *commitPoint
}

// write is a prepared slice.
type write struct {
	origin []byte // of the target transaction, which begins with it if none is open
	steps  []step
}

// truncation empties targets in the open target transaction.
type truncation struct {
	origin          []byte
	targets         []*Target
	selected        []selection
	restartIdentity bool
}

// commitPoint ends a group, or moves the position over what does not concern the target.
type commitPoint struct {
	position     change.LSN
	commitTime   change.Timestamp
	hasCommit    bool
	transactions int
	changes      int64
}

// tasksAhead is how many tasks wait while one runs: the next slice is prepared while the server works on this one.
const tasksAhead = 1

// executor owns the session: it runs the tasks one after the other.
type executor struct {
	config   *Config
	writer   writer
	begun    bool // BEGIN was sent
	progress Progress
	storedAt time.Time
	// uncounted are transactions that wrote nothing here, taken since the position was stored: it counts them when it is next.
	uncounted int
	// outstanding counts the tasks handed over and not done. idle is signalled when it falls to zero.
	outstanding atomic.Int32
	idle        chan struct{}
	needed      []*statement // of the group that is sent at once
}

func (x *executor) run(ctx context.Context, tasks <-chan task) error {
	tick := time.NewTicker(x.config.Options.StoreInterval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			err = x.storeIdle(ctx)
		case t := <-tasks:
			switch {
			case t.write != nil && t.commit != nil:
				err = x.end(ctx, t.write, t.commit)
			case t.write != nil:
				err = x.write(ctx, t.write)
			case t.truncate != nil:
				err = x.truncate(ctx, t.truncate)
			default:
				err = x.commit(ctx, t.commit)
			}
			if x.outstanding.Add(-1) == 0 {
				select {
				case x.idle <- struct{}{}:
				default:
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// begin queues BEGIN and the origin message: the message is the first thing the transaction writes.
func (x *executor) begin(ctx context.Context, origin []byte) error {
	if x.begun {
		return nil
	}
	x.begun, x.writer.usual = true, lookUp
	s := &x.config.Session.statements
	if err := x.writer.pipe.send(ctx, &s.begin, nil, expectation{rows: -1, what: "begin"}); err != nil {
		return err
	}
	return x.writer.pipe.send(ctx, &s.origin, [][]byte{origin}, expectation{rows: -1, what: "write origin"})
}

func (x *executor) write(ctx context.Context, w *write) error {
	if err := x.begin(ctx, w.origin); err != nil {
		return err
	}
	if err := x.writer.write(ctx, w.steps, &x.config.Session.statements); err != nil {
		return err
	}
	fault.Point(FaultSliceWritten)
	return nil
}

// end writes the last slice of a group and commits it.
func (x *executor) end(ctx context.Context, w *write, c *commitPoint) error {
	done, err := x.once(ctx, w, c)
	if err != nil {
		return err
	}
	if done {
		x.committed(c)
		return x.applied(c)
	}
	if err := x.write(ctx, w); err != nil {
		return err
	}
	return x.commit(ctx, c)
}

// commit makes a group applied: its rows and the position that says so are committed together, or neither.
func (x *executor) commit(ctx context.Context, c *commitPoint) error {
	if x.begun {
		if err := x.writer.aside.tellDropped(ctx, &x.writer.pipe); err != nil {
			return err
		}
		if err := x.queueCommit(ctx, c); err != nil {
			return err
		}
		fault.Point(FaultBeforeCommit)
		if err := x.moved(x.writer.pipe.flush(ctx)); err != nil {
			return err
		}
		fault.Point(FaultAfterCommit)
		x.committed(c)
	} else {
		x.uncounted += c.transactions
	}
	return x.applied(c)
}

// applied tells how far the target is.
func (x *executor) applied(c *commitPoint) error {
	x.progress.Position.LSN = c.position
	if c.hasCommit {
		x.progress.CommitTime, x.progress.HasCommit = c.commitTime, true
	}
	x.progress.Transactions += int64(c.transactions)
	x.progress.Changes += c.changes
	x.progress.Fallbacks = x.writer.fallbacks
	x.progress.Unsynced, x.progress.Told = x.writer.aside.held.Unsynced(), x.writer.aside.tell()
	return x.config.Applied(x.progress)
}

// sendPosition moves the stored position, provided that it still is where this session left it. The stored commit time stays
// where no transaction was taken since the engine began.
func (x *executor) sendPosition(ctx context.Context, c *commitPoint) error {
	params := x.positionParams(c)
	err := x.writer.pipe.send(ctx, &x.config.Session.statements.position, params, expectation{rows: 1, what: storePosition})
	if err == nil {
		err = x.writer.pipe.flush(ctx)
	}
	return x.moved(err)
}

const storePosition = "store position"

func (x *executor) positionParams(c *commitPoint) [][]byte {
	params := [][]byte{
		[]byte(x.config.Replication), []byte(x.progress.Stored.String()), []byte(c.position.String()), nil,
		strconv.AppendInt(nil, int64(c.transactions+x.uncounted), 10), strconv.AppendInt(nil, c.changes, 10),
	}
	if c.hasCommit {
		params[3] = strconv.AppendInt(nil, int64(c.commitTime), 10)
	}
	return params
}

// moved names the failure of the position's statement: it touches one row, or says with a division by zero that it does not.
func (x *executor) moved(err error) error {
	var stage *stageError
	if !errors.As(err, &stage) || stage.what != storePosition {
		return err
	}
	var count *RowCountError
	if errors.As(err, &count) || postgres.Code(err) == codeDivisionByZero {
		return fmt.Errorf("%w (expected %s)", ErrMoved, x.progress.Stored)
	}
	return err
}

const codeDivisionByZero = "22012"

// storeIdle stores a position that moved without anything to write.
func (x *executor) storeIdle(ctx context.Context) error {
	if x.begun || x.progress.Position.LSN <= x.progress.Stored || time.Since(x.storedAt) < x.config.Options.StoreInterval {
		return nil
	}
	if err := x.sendPosition(ctx, &commitPoint{position: x.progress.Position.LSN, commitTime: x.progress.CommitTime, hasCommit: x.progress.HasCommit}); err != nil {
		return err
	}
	x.progress.Stored, x.storedAt, x.uncounted = x.progress.Position.LSN, time.Now(), 0
	return x.config.Applied(x.progress)
}

// truncate empties the tables of one statement. PostgreSQL refuses to TRUNCATE a table that a table outside of the list
// refers to, even while foreign keys are not enforced, and one of which deferred triggers have still to run, maybe for a transaction of
// the source that had ended: then the rows are deleted instead.
func (x *executor) truncate(ctx context.Context, t *truncation) error {
	if err := x.begin(ctx, t.origin); err != nil {
		return err
	}
	// A selection may need a scan, and what a trigger runs is the user's.
	x.writer.pipe.sendLater(x.writer.joins[anything], setJoins)
	if err := x.deleteSelected(ctx, t.selected); err != nil {
		return err
	}
	if err := x.truncateWhole(ctx, t); err != nil {
		return err
	}
	x.writer.pipe.sendLater(x.writer.joins[x.writer.usual], setJoins)
	emptied := slices.Clone(t.targets)
	for _, s := range t.selected {
		emptied = append(emptied, s.target) // what is in quarantine of it is this replication's
	}
	return x.writer.aside.emptied(ctx, &x.writer.pipe, emptied)
}

func (x *executor) truncateWhole(ctx context.Context, t *truncation) error {
	if len(t.targets) == 0 {
		return nil
	}
	if _, err := x.writer.exec(ctx, "SAVEPOINT syncline_truncate"); err != nil {
		return fmt.Errorf("truncate %s: %w", names(t.targets), err)
	}
	if _, err := x.exec(ctx, truncateSQL(t.targets, t.restartIdentity)); err != nil {
		if code := postgres.Code(err); code != codeFeatureNotSupported && code != codeObjectInUse {
			return fmt.Errorf("truncate %s: %w", names(t.targets), err)
		}
		return x.deleteAll(ctx, t.targets)
	}
	_, err := x.exec(ctx, "RELEASE SAVEPOINT syncline_truncate")
	return err
}

const (
	codeFeatureNotSupported = "0A000"
	codeObjectInUse         = "55006"
)

func (x *executor) deleteAll(ctx context.Context, targets []*Target) error {
	if _, err := x.exec(ctx, "ROLLBACK TO SAVEPOINT syncline_truncate; RELEASE SAVEPOINT syncline_truncate"); err != nil {
		return fmt.Errorf("truncate %s: %w", names(targets), err)
	}
	for _, target := range targets {
		b := builder{plan: &Plan{Target: target}}
		if _, err := x.exec(ctx, "DELETE FROM "+b.table()); err != nil {
			return fmt.Errorf("empty table %s: %w", nameOf(target), err)
		}
	}
	return nil
}

func (x *executor) exec(ctx context.Context, sql string) (pgconn.CommandTag, error) {
	return x.writer.pipe.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
}
