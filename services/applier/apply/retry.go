package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Pick says which changes in quarantine are meant: those of IDs, or of a source table, or all.
type Pick struct {
	IDs   []int64
	Table *schema.Name
}

func (p *Pick) takes(e *heldEntry, source schema.Name) bool {
	switch {
	case len(p.IDs) > 0:
		return slices.Contains(p.IDs, e.id)
	case p.Table != nil:
		return source == *p.Table
	}
	return true
}

// Edit gives a column of a change's new row another value.
type Edit struct {
	Column string
	Null   bool
	Text   string
}

// Refused is a change that stays in quarantine.
type Refused struct {
	ID      int64
	Table   schema.Name // of the target
	Behind  int64       // the entry that it waits behind; 0 where the target refused it
	Code    string      // SQLSTATE
	Message string
}

// Settled is what came of changes that were in quarantine.
type Settled struct {
	Applied   int64
	Discarded int64
	Left      int64 // of those that were tried, or wait behind one that was
	Refused   []Refused
}

// mostRefused bounds those that are named.
const mostRefused = 100

// NotInQuarantineError says that there is no such change.
type NotInQuarantineError struct{ ID int64 }

func (e *NotInQuarantineError) Error() string {
	return fmt.Sprintf("no change %d is in quarantine", e.ID)
}

// EditError says why an edit is no edit of the change.
type EditError struct{ Text string }

func (e *EditError) Error() string { return e.Text }

// Settle applies changes in quarantine again, or discards them. A change that is applied leaves the quarantine in the same target transaction;
// what waited behind it alone is tried next. While it works nothing else may be applied: Run is called while the engine stands still, or
// with its session.
type Settle struct {
	Replication string
	Pick        Pick
	Edits       []Edit // of the only change that is picked
	Discard     bool
	WithWaiting bool // discard what waits behind as well, else it is tried
	// Note writes what came of it into the transaction that does it.
	Note func(context.Context, pgx.Tx, Settled) error
	// Edited notes, in that transaction, that the change of an id was applied with the edits; its values are in the quarantine still.
	Edited func(ctx context.Context, tx pgx.Tx, id int64) error

	Settled Settled
	conn    *pgx.Conn
	writer  writer
	fixed   fixedStatements
	picked  map[int64]bool // by the user
	done    map[int64]bool // out of the quarantine
	cursor  int64          // what was looked at
	targets map[schema.Name]*Target
	plans   map[change.RelationHash]*Plan
	tx      pgx.Tx
	open    settling
}

// settling is the transaction that is open.
type settling struct {
	origin string
	ids    []int64
	bytes  int64
	told   bool // the origin is written
	before Settled
}

// What one target transaction settles at most, beyond its first change.
const (
	settleRows  = 200
	settleBytes = 8 << 20
)

// Run goes on until everything is settled or the time has come. It reports whether there is more to do: then it is to be called again.
func (s *Settle) Run(ctx context.Context, conn *pgx.Conn, until time.Time) (more bool, err error) {
	s.conn, s.writer, s.fixed = conn, writer{pipe: pipe{conn: conn}}, newFixedStatements()
	s.targets, s.plans = map[schema.Name]*Target{}, map[change.RelationHash]*Plan{}
	defer func() {
		if s.tx != nil {
			_ = s.tx.Rollback(context.WithoutCancel(ctx))
			s.tx, s.Settled = nil, s.open.before
		}
	}()
	list, err := heldEntries(ctx, conn, s.Replication)
	if err != nil {
		return false, err
	}
	if err := s.pick(ctx, list); err != nil {
		return false, err
	}
	rest, chain := heldTables{}, heldTables{}
	for _, e := range list {
		follows := chain.behind(e) != 0 || s.done[e.behind]
		if !s.picked[e.id] && !follows || e.id <= s.cursor {
			rest.add(e)
			continue
		}
		chain.add(e)
		if time.Now().After(until) {
			more = true
			break
		}
		left, err := s.one(ctx, e, rest.behind(e))
		if err != nil {
			return false, err
		}
		if left {
			rest.add(e)
		}
		s.cursor = e.id
	}
	return more, s.commit(ctx)
}

// heldTables is what entries hold, by the target's table.
type heldTables map[schema.Name]*heldTable

func (h heldTables) add(e *heldEntry) {
	all := Held{tables: h}
	all.add(e)
}

func (h heldTables) behind(e *heldEntry) int64 { return h[e.target].behind(&e.holds) }

// pick finds out once which entries the user means.
func (s *Settle) pick(ctx context.Context, list []*heldEntry) error {
	if s.picked != nil {
		return nil
	}
	s.picked, s.done = map[int64]bool{}, map[int64]bool{}
	sources, err := entrySources(ctx, s.conn, s.Replication)
	if err != nil {
		return err
	}
	for _, e := range list {
		if s.Pick.takes(e, sources[e.id]) {
			s.picked[e.id] = true
		}
	}
	for _, id := range s.Pick.IDs {
		if !s.picked[id] {
			return &NotInQuarantineError{id}
		}
	}
	return nil
}

func entrySources(ctx context.Context, conn querier, replication string) (map[int64]schema.Name, error) {
	rows, err := conn.Query(ctx, "SELECT id, schema_name, table_name FROM syncline.quarantine WHERE replication = $1", replication)
	if err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	sources := map[int64]schema.Name{}
	var id int64
	var name schema.Name
	if _, err := pgx.ForEachRow(rows, []any{&id, &name.Schema, &name.Name}, func() error { sources[id] = name; return nil }); err != nil {
		return nil, fmt.Errorf("read quarantine of replication %s: %w", replication, err)
	}
	return sources, nil
}

// one settles one entry. left says that it stays in quarantine, as when it waits behind another one.
func (s *Settle) one(ctx context.Context, e *heldEntry, behind int64) (left bool, err error) {
	if s.Discard && (s.picked[e.id] || s.WithWaiting) {
		if err := s.begin(ctx, e, ""); err != nil {
			return false, err
		}
		s.Settled.Discarded++
		s.out(e)
		return false, nil
	}
	if behind != 0 {
		if err := s.begin(ctx, e, s.open.origin); err != nil {
			return false, err
		}
		return true, s.stays(ctx, e, Refused{ID: e.id, Table: e.target, Behind: behind, Message: fmt.Sprintf("it waits behind change %d", behind)}, "")
	}
	return s.retry(ctx, e)
}

// out takes an entry out of the quarantine in the open transaction.
func (s *Settle) out(e *heldEntry) {
	s.open.ids, s.open.bytes = append(s.open.ids, e.id), s.open.bytes+e.bytes
}

// begin has a transaction open that may write changes of an origin.
func (s *Settle) begin(ctx context.Context, e *heldEntry, origin string) error {
	if s.tx != nil && s.open.origin == origin && len(s.open.ids) < settleRows && s.open.bytes+e.bytes <= settleBytes {
		return nil
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("settle the quarantine: %w", err)
	}
	s.tx, s.open = tx, settling{origin: origin, before: s.Settled}
	// Whoever applies this replication would have to move its position.
	if _, err := tx.Exec(ctx, "SELECT FROM syncline.positions WHERE replication = $1 FOR UPDATE", s.Replication); err != nil {
		return fmt.Errorf("settle the quarantine: %w", err)
	}
	return nil
}

// commit makes what was settled durable, with the note that says so.
func (s *Settle) commit(ctx context.Context) error {
	if s.tx == nil {
		return nil
	}
	if err := deleteEntries(ctx, s.tx, s.Replication, s.open.ids); err != nil {
		return err
	}
	now, before := s.Settled, s.open.before
	now.Applied, now.Discarded, now.Left = now.Applied-before.Applied, now.Discarded-before.Discarded, now.Left-before.Left
	if s.Note != nil {
		if err := s.Note(ctx, s.tx, now); err != nil {
			return err
		}
	}
	fault.Point(FaultRetryWritten)
	if err := s.tx.Commit(ctx); err != nil {
		return fmt.Errorf("settle the quarantine: %w", err)
	}
	for _, id := range s.open.ids {
		s.done[id] = true
	}
	s.tx = nil
	fault.Point(FaultRetryCommitted)
	return nil
}

// retry applies an entry's change.
func (s *Settle) retry(ctx context.Context, known *heldEntry) (left bool, err error) {
	e, old, now, err := readEntry(ctx, s.conn, s.Replication, known)
	if err != nil {
		return false, err
	}
	if now, err = s.edited(e, now); err != nil {
		return false, err
	}
	if err := s.begin(ctx, known, known.origin); err != nil {
		return false, err
	}
	plan, err := s.plan(ctx, e)
	if err != nil {
		return false, err
	}
	if !s.open.told {
		s.open.told = true
		if err := WriteOrigin(ctx, s.tx, e.from.origin.server, e.from.origin.position, e.from.origin.commitTime); err != nil {
			return false, err
		}
	}
	refused, err := s.try(ctx, &op{plan: plan, operation: e.operation}, old, now)
	if err != nil {
		return false, err
	}
	if refused == nil {
		s.Settled.Applied++
		s.out(known)
		return false, s.noteEdits(ctx, e)
	}
	if len(s.Edits) > 0 && s.picked[e.id] {
		return false, &EditError{fmt.Sprintf("the replica refuses the edited change too, so nothing was changed: %s", shortened(refused.Error()))}
	}
	code, constraint, text := reasonOf(refused)
	return true, s.stays(ctx, known, Refused{ID: e.id, Table: e.target, Code: code, Message: text}, constraint)
}

func (s *Settle) noteEdits(ctx context.Context, e *entry) error {
	if len(s.Edits) == 0 || !s.picked[e.id] || s.Edited == nil {
		return nil
	}
	return s.Edited(ctx, s.tx, e.id)
}

// edited is the new row with the values that the user gives.
func (s *Settle) edited(e *entry, now []value) ([]value, error) {
	if len(s.Edits) == 0 || !s.picked[e.id] {
		return now, nil
	}
	if e.operation == Delete {
		return nil, &EditError{fmt.Sprintf("change %d deletes a row, so there are no values to edit; discard it, or mend what it meets", e.id)}
	}
	for _, edit := range s.Edits {
		at := slices.IndexFunc(e.relation.Columns, func(c change.Column) bool { return c.Name == edit.Column })
		if at < 0 {
			return nil, &EditError{fmt.Sprintf("change %d has no column %q; it has %s", e.id, edit.Column, columnNames(e.relation))}
		}
		if now[at] = (value{block.ValueText, []byte(edit.Text)}); edit.Null {
			now[at] = value{kind: block.ValueNull}
		}
	}
	return now, nil
}

func columnNames(r *change.Relation) string {
	names := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// plan is how the entry's row goes to its table as that is now.
func (s *Settle) plan(ctx context.Context, e *entry) (*Plan, error) {
	hash := e.relation.Hash()
	if p := s.plans[hash]; p != nil && nameOf(p.Target) == e.target {
		return p, nil
	}
	target := s.targets[e.target]
	if target == nil {
		var err error
		if target, err = ReadTarget(ctx, s.tx, e.target); err != nil {
			return nil, err
		}
		if target == nil {
			return nil, &MismatchError{e.target, "the replica does not have it; create it there, or discard its changes that are in quarantine"}
		}
		s.targets[e.target] = target
	}
	p, err := NewPlan(e.relation, target)
	if err == nil {
		s.plans[hash] = p
	}
	return p, err
}

// try applies a change under a savepoint. refused is why the target does not take it; then nothing of it stands.
func (s *Settle) try(ctx context.Context, o *op, old, now []value) (refused, err error) {
	w := &s.writer
	if o.operation == Insert {
		for i, v := range now {
			if v.kind == block.ValueUnchanged {
				return fmt.Errorf("column %q has no value in the change; give it one", o.plan.Relation.Columns[i].Name), nil
			}
		}
	}
	if err := w.pipe.send(ctx, &s.fixed.savepoint, nil, expectation{rows: -1, what: "set savepoint"}); err != nil {
		return nil, err
	}
	if err = w.execute(ctx, o, o.operation, old, now); err == nil {
		err = w.pipe.flush(ctx)
	}
	if err == nil {
		if err := w.pipe.send(ctx, &s.fixed.release, nil, expectation{rows: -1, what: "release savepoint"}); err != nil {
			return nil, err
		}
		return nil, w.pipe.flush(ctx)
	}
	if !refusesData(err) || s.conn.IsClosed() || ctx.Err() != nil {
		return nil, err
	}
	if _, rollback := w.pipe.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT syncline; RELEASE SAVEPOINT syncline", pgx.QueryExecModeSimpleProtocol); rollback != nil {
		return nil, errors.Join(err, rollback)
	}
	return err, nil
}

// stays notes why an entry is in quarantine still.
func (s *Settle) stays(ctx context.Context, e *heldEntry, why Refused, constraint string) error {
	s.Settled.Left++
	if len(s.Settled.Refused) < mostRefused {
		s.Settled.Refused = append(s.Settled.Refused, why)
	}
	var err error
	if why.Behind != 0 {
		_, err = s.tx.Exec(ctx, "UPDATE syncline.quarantine SET waits_behind = $3 WHERE replication = $1 AND id = $2", s.Replication, e.id, why.Behind)
	} else {
		_, err = s.tx.Exec(ctx, `UPDATE syncline.quarantine SET waits_behind = NULL, attempts = attempts + 1, sqlstate = $3, constraint_name = $4, message = $5
			WHERE replication = $1 AND id = $2`, s.Replication, e.id, why.Code, constraint, why.Message)
	}
	if err != nil {
		return fmt.Errorf("settle the quarantine: %w", err)
	}
	return nil
}
