package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/discreet"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Quarantine is what becomes of changes that the target refuses. Those that wait behind one that is in it already are always set aside.
type Quarantine struct {
	SetAside bool  // set them aside; else the first one ends the engine
	Held     *Held // what is held since before; nil for nothing, and then nothing can be set aside
	MaxRows  int64
	MaxBytes int64
	// Dropped tells, in the target transaction just before it is committed, what a truncate has taken out; it may be nil.
	Dropped func(ctx context.Context, conn *pgx.Conn, replication string, dropped []Dropped) error
}

// What a quarantine takes when nothing is said.
const (
	DefaultQuarantineRows  = 1_000
	DefaultQuarantineBytes = 64 << 20
)

// QuarantineFullError says that a change would have to be set aside and there is no room for it. Nothing of its transaction was applied.
type QuarantineFullError struct {
	Now               Unsynced
	MaxRows, MaxBytes int64
	Err               error // why it would have to be
}

func (e *QuarantineFullError) Error() string {
	return fmt.Sprintf("the quarantine holds %d changes (%d bytes) and takes %d (%d bytes), and one more would have to go there: %s", e.Now.Rows(), e.Now.Bytes, e.MaxRows, e.MaxBytes, e.Err)
}

func (e *QuarantineFullError) Unwrap() error { return e.Err }

// aside sets changes aside for a writer.
type aside struct {
	on       bool
	held     *Held
	limits   Quarantine
	config   *Config
	told     []string
	untold   int
	dropped  []Dropped // in the open transaction
	old, now []value
}

// mostTold bounds what is told of one commit.
const mostTold = 10

func newAside(c *Config) aside {
	return aside{on: c.Quarantine.SetAside && c.Quarantine.Held != nil, held: c.Quarantine.Held, limits: c.Quarantine, config: c}
}

// refusesData tells whether the target refuses a change for what is in it, or in the rows that are there, and not for the state that the
// system is in: only such a change is poison.
func refusesData(err error) bool {
	var count *RowCountError
	if errors.As(err, &count) {
		return true
	}
	code := postgres.Code(err)
	if len(code) != 5 || postgres.IsTransient(err) {
		return false
	}
	switch code[:2] {
	case "22", "23", "38", "44", "P0": // values, constraints, functions of triggers, check options, what triggers raise
		return true
	}
	return code == "54000" // such as a value that is too large for its index
}

// waits tells whether one of the changes has to wait behind one that is set aside.
func (a *aside) waits(ops []op) bool {
	return a.held.any(ops) && a.free(ops) < len(ops)
}

// free is how many changes at the front need not wait.
func (a *aside) free(ops []op) int {
	for i := range ops {
		if a.behind(&ops[i]) != 0 {
			return i
		}
	}
	return len(ops)
}

// behind is the entry that a change has to wait behind, 0 for none.
func (a *aside) behind(o *op) int64 {
	t := a.held.table(o)
	if t == nil {
		return 0
	}
	a.old, a.now = o.decodeOld(a.old[:0]), o.decodeNew(a.now[:0])
	h := o.plan.holdsOf(o.operation, a.old, a.now)
	return t.behind(&h)
}

// emptied discards what was set aside of tables that the source has emptied: it would change rows that are gone.
func (a *aside) emptied(ctx context.Context, p *pipe, targets []*Target) error {
	if a.held == nil || a.held.rows.Load() == 0 {
		return nil
	}
	for _, target := range targets {
		name := nameOf(target)
		a.held.mu.Lock()
		t := a.held.tables[name]
		a.held.mu.Unlock()
		if t == nil {
			continue
		}
		dropped, err := forget(ctx, p.conn, "target_schema = $2 AND target_table = $3", a.config.Replication, name.Schema, name.Name)
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		a.dropped = append(a.dropped, dropped...)
		a.held.mu.Lock()
		a.held.forget(name)
		a.held.mu.Unlock()
	}
	return nil
}

// tellDropped tells in the open transaction what was dropped in it.
func (a *aside) tellDropped(ctx context.Context, p *pipe) error {
	if len(a.dropped) == 0 {
		return nil
	}
	dropped := a.dropped
	if a.dropped = nil; a.limits.Dropped == nil {
		return nil
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	return a.limits.Dropped(ctx, p.conn, a.config.Replication, dropped)
}

func (a *aside) note(text string) {
	if len(a.told) < mostTold {
		a.told = append(a.told, text)
	} else {
		a.untold++
	}
}

// tell gives what was noted.
func (a *aside) tell() []string {
	told := a.told
	if a.untold > 0 {
		told = append(told, fmt.Sprintf("and %d more", a.untold))
	}
	a.told, a.untold = nil, 0
	return told
}

// afterRefusal is how many changes are tried together after one that was refused; then twice as many each time.
const afterRefusal = 8

// carefully writes operations one by one in their order, under savepoints, and sets aside those that are refused for their data and those
// that have to wait. A savepoint covers many operations as long as none is refused: then it shrinks to what comes before that one, and
// then to that one alone.
func (w *writer) carefully(ctx context.Context, ops []op, fixed *fixedStatements) error {
	window := len(ops)
	for len(ops) > 0 {
		if id := w.aside.behind(&ops[0]); id != 0 {
			if err := w.put(ctx, &ops[0], id, nil, fixed); err != nil {
				return err
			}
			ops = ops[1:]
			continue
		}
		n := w.aside.free(ops[:min(window, len(ops))])
		refused, err := w.guarded(ctx, ops[:n], fixed)
		switch {
		case err == nil:
			ops, window = ops[n:], 2*max(window, afterRefusal)
		case refused < 0 || !w.aside.on || !refusesData(err):
			return err
		case refused > 0:
			window = refused
		case n > 1:
			window = 1
		default:
			if err := w.put(ctx, &ops[0], 0, err, fixed); err != nil {
				return err
			}
			ops, window = ops[1:], afterRefusal
		}
	}
	return nil
}

// guarded writes operations under a savepoint. When one fails, nothing of them stands, and refused is its index; -1 when something else
// failed.
func (w *writer) guarded(ctx context.Context, ops []op, fixed *fixedStatements) (refused int, err error) {
	w.pipe.failed = nil
	if err := w.pipe.send(ctx, &fixed.savepoint, nil, expectation{rows: -1, what: "set savepoint"}); err != nil {
		return -1, err
	}
	if err = w.queueAll(ctx, ops); err == nil {
		err = w.pipe.flush(ctx)
	}
	if err == nil {
		return 0, w.pipe.send(ctx, &fixed.release, nil, expectation{rows: -1, what: "release savepoint"})
	}
	refused = -1
	for i := range ops {
		if w.pipe.failed == &ops[i] {
			refused = i
		}
	}
	if refused < 0 || w.pipe.conn.IsClosed() || postgres.IsTransient(err) || ctx.Err() != nil {
		return -1, err
	}
	if _, rollback := w.pipe.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT syncline; RELEASE SAVEPOINT syncline", pgx.QueryExecModeSimpleProtocol); rollback != nil {
		return -1, errors.Join(err, rollback)
	}
	return refused, err
}

// put sets a change aside in the open transaction: one that was refused with an error, or one that waits behind an entry.
func (w *writer) put(ctx context.Context, o *op, behind int64, refused error, fixed *fixedStatements) error {
	if err := w.pipe.flush(ctx); err != nil {
		return err
	}
	e := newEntry(o, behind, refused)
	if err := w.aside.room(&e.heldEntry, refused, o); err != nil {
		return err
	}
	fresh, err := e.insert(ctx, w.pipe.conn, w.aside.config)
	if err != nil {
		return describe(err, o)
	}
	if !fresh {
		return nil // the position was forced back, and it is there, and held, already
	}
	if err := e.insertValues(ctx, &w.pipe, fixed, o); err != nil {
		return err
	}
	if err := w.pipe.flush(ctx); err != nil {
		return err
	}
	w.aside.held.mu.Lock()
	w.aside.held.add(&e.heldEntry)
	w.aside.held.mu.Unlock()
	if refused != nil {
		w.aside.note(fmt.Sprintf("change %d of table %s is set aside: %s", e.id, e.target, e.message))
	}
	fault.Point(FaultSetAside)
	return nil
}

// room refuses what the quarantine cannot take.
func (a *aside) room(e *heldEntry, refused error, o *op) error {
	now := a.held.Unsynced()
	if now.Rows() < a.limits.MaxRows && now.Bytes+e.bytes <= a.limits.MaxBytes {
		return nil
	}
	if refused == nil {
		refused = describe(fmt.Errorf("it waits behind change %d", e.behind), o)
	}
	return &QuarantineFullError{Now: now, MaxRows: a.limits.MaxRows, MaxBytes: a.limits.MaxBytes, Err: refused}
}

// reasonOf is why the target refused a change: SQLSTATE, constraint and text.
func reasonOf(err error) (code, constraint, text string) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		code, constraint = pg.Code, pg.ConstraintName
	}
	var count *RowCountError
	if errors.As(err, &count) {
		code = codeNoData
	}
	var change *ChangeError
	if text = discreet.Text(err, err.Error()); errors.As(err, &change) {
		text = change.text()
	}
	return code, constraint, shortened(text)
}

// codeNoData is the SQLSTATE of a row that is not there.
const codeNoData = "02000"

const mostReasonBytes = 2000

func shortened(text string) string {
	if len(text) > mostReasonBytes {
		text = text[:mostReasonBytes] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
}
