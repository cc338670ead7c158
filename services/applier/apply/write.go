package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

const (
	// sliceRows is the smallest slice that is written set-wise at all: below it one round trip less counts more.
	sliceRows = 64
	// setRows is the smallest number of operations on one table that is written set-wise.
	setRows = 8
	// copyRows is the smallest number of inserts into one table that is written with COPY.
	copyRows = 16
)

// step is a part of a slice: operations that are written set-wise, or one by one.
type step struct {
	ops  []op
	sets *sets // nil: one by one
}

// steps cuts a slice into parts that are written set-wise, and between them what has to run in its place. Operations on
// different tables do not see one another, for neither triggers nor foreign keys fire, so each table has parts of its own;
// where triggers do fire, everything runs in its order.
func (n *netting) steps(ops []op) []step {
	if len(ops) < sliceRows || slices.ContainsFunc(ops, func(o op) bool { return o.plan.Target.RowTriggers }) {
		return []step{{ops: ops}}
	}
	var list []step
	for _, table := range byTarget(ops) {
		list = n.tableSteps(list, table)
	}
	return list
}

// byTarget sorts operations by their tables and keeps the order of each.
func byTarget(ops []op) [][]op {
	index := map[*Target]int{}
	var counts []int
	for i := range ops {
		at, ok := index[ops[i].plan.Target]
		if !ok {
			at = len(counts)
			index[ops[i].plan.Target] = at
			counts = append(counts, 0)
		}
		counts[at]++
	}
	if len(counts) == 1 {
		return [][]op{ops}
	}
	all := make([]op, len(ops))
	tables := make([][]op, len(counts))
	for at, count := range counts {
		tables[at], all = all[:0:count], all[count:]
	}
	for i := range ops {
		at := index[ops[i].plan.Target]
		tables[at] = append(tables[at], ops[i])
	}
	return tables
}

// tableSteps appends the parts of one table's operations.
func (n *netting) tableSteps(list []step, ops []op) []step {
	single := 0 // length of the run of operations at the front that are written one by one
	for single < len(ops) {
		taken := n.take(ops[single:])
		if taken < ops[single].plan.fewest() {
			single += max(taken, 1)
			continue
		}
		if single > 0 {
			list = append(list, step{ops: ops[:single]})
		}
		s := n.build()
		list = append(list, step{ops: ops[single : single+taken], sets: &s})
		ops, single = ops[single+taken:], 0
	}
	if len(ops) > 0 {
		list = append(list, step{ops: ops})
	}
	return list
}

// writer writes slices in the session's open transaction.
type writer struct {
	pipe     pipe
	points   [2]savepoint // of parts that are written set by set, in turn
	parts    int          // so far
	old, new []value
	params   [][]byte
	key      []byte
	aside    aside
	joins    map[joins]*statement // that let the planner do something else
	usual    joins                // what it may do between them
	// fallbacks counts the slices that had to be replayed row by row.
	fallbacks int64
}

func newWriter(c *Config) writer {
	return writer{pipe: pipe{conn: c.Session.conn}, aside: newAside(c), points: [2]savepoint{newSavepoint("syncline_a"), newSavepoint("syncline_b")},
		usual: lookUp, joins: map[joins]*statement{lookUp: {sql: "SELECT " + lookUp.sql()}, walk: {sql: "SELECT " + walk.sql()}, anything: {sql: "SELECT " + anything.sql()}}}
}

// savepoint is one whose setting and release are sent with what comes next. Two take turns: should the server have read neither the release of
// the one before nor the setting of this one, then to roll back to this one fails, and what was written before does not go with it.
type savepoint struct {
	set, release statement
	rollback     string
}

func newSavepoint(name string) savepoint {
	return savepoint{
		set: statement{sql: "SAVEPOINT " + name}, release: statement{sql: "RELEASE SAVEPOINT " + name},
		rollback: "ROLLBACK TO SAVEPOINT " + name + "; RELEASE SAVEPOINT " + name,
	}
}

// write writes the parts of a slice in their order. Everything is checked when it returns.
func (w *writer) write(ctx context.Context, steps []step, fixed *fixedStatements) error {
	for _, s := range steps {
		if err := w.step(ctx, s, fixed); err != nil {
			return err
		}
	}
	return w.pipe.flush(ctx)
}

func (w *writer) step(ctx context.Context, s step, fixed *fixedStatements) error {
	if w.usual != anything && slices.ContainsFunc(s.ops, func(o op) bool { return o.plan.Target.RowTriggers }) {
		// A trigger's statements are no business of ours; it may run as late as at COMMIT.
		w.usual = anything
		w.pipe.sendLater(w.joins[anything], setJoins)
	}
	switch {
	case w.aside.waits(s.ops):
		return w.carefully(ctx, s.ops, fixed)
	case s.sets != nil:
		return w.setWise(ctx, s, fixed)
	case w.aside.on:
		return w.carefully(ctx, s.ops, fixed)
	}
	return w.queueAll(ctx, s.ops)
}

func (w *writer) queueAll(ctx context.Context, ops []op) error {
	for i := range ops {
		if err := w.queue(ctx, &ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// setWise writes a part set by set. If a statement fails or touches another number of rows than it should, nothing of the part
// stands, and its operations run one by one in their order: that is what they mean, and it shows which one is wrong.
func (w *writer) setWise(ctx context.Context, s step, fixed *fixedStatements) error {
	point := &w.points[w.parts%len(w.points)]
	w.parts++
	w.pipe.sendLater(&point.set, "set savepoint")
	err := w.sets(ctx, s.sets)
	if err == nil {
		w.pipe.sendLater(&point.release, "release savepoint")
		return nil
	}
	if w.pipe.conn.IsClosed() || postgres.IsTransient(err) || ctx.Err() != nil {
		return err
	}
	if unsent := w.pipe.flush(ctx); unsent != nil && w.pipe.conn.IsClosed() { // what it says besides is rolled back
		return errors.Join(err, unsent)
	}
	if _, rollback := w.pipe.conn.Exec(ctx, point.rollback, pgx.QueryExecModeSimpleProtocol); rollback != nil {
		return errors.Join(err, rollback)
	}
	fault.Point(FaultSetWiseFailed)
	w.fallbacks++
	if w.aside.on {
		return w.carefully(ctx, s.ops, fixed)
	}
	if err := w.queueAll(ctx, s.ops); err != nil {
		return err
	}
	return w.pipe.flush(ctx)
}

func (w *writer) sets(ctx context.Context, s *sets) error {
	for _, list := range [][]set{s.deletes, s.updates} {
		for i := range list {
			one := &list[i]
			if one.joins != w.usual {
				w.pipe.sendLater(w.joins[one.joins], setJoins)
			}
			if err := w.pipe.sendFormats(ctx, one.sql, one.params, one.formats, expectation{rows: int64(one.rows)}); err != nil {
				return err
			}
			if one.joins != w.usual {
				w.pipe.sendLater(w.joins[w.usual], setJoins)
			}
		}
	}
	if err := w.pipe.settle(); err != nil {
		return err
	}
	for i := range s.inserts {
		if err := w.inserts(ctx, &s.inserts[i]); err != nil {
			return err
		}
	}
	return w.pipe.settle()
}

func (w *writer) inserts(ctx context.Context, in *inserts) error {
	if len(in.rows) >= copyRows {
		return w.copy(ctx, in)
	}
	for i := range in.rows {
		row := &in.rows[i]
		o := &in.ops[row.op]
		values := row.merged
		if values == nil {
			w.new = o.decodeNew(w.new[:0])
			values = w.new
		}
		if err := w.execute(ctx, o, Insert, nil, values); err != nil {
			return err
		}
	}
	return nil
}

// queue sends one operation as a prepared statement.
func (w *writer) queue(ctx context.Context, o *op) error {
	w.old, w.new = o.decodeOld(w.old[:0]), o.decodeNew(w.new[:0])
	if o.operation == Insert {
		for i, v := range w.new {
			if v.kind == block.ValueUnchanged {
				return describe(fmt.Errorf("column %q has no value in the change", o.plan.Relation.Columns[i].Name), o)
			}
		}
	}
	return w.execute(ctx, o, o.operation, w.old, w.new)
}

func (w *writer) execute(ctx context.Context, o *op, operation Operation, oldRow, newRow []value) error {
	s, key, err := o.plan.statementFor(operation, oldRow, newRow, w.key)
	w.key = key
	if err != nil {
		return describe(err, o)
	}
	w.params = w.params[:0]
	for _, p := range s.params {
		v := newRow
		if p.old {
			v = oldRow
		}
		if v[p.column].kind == block.ValueNull {
			w.params = append(w.params, nil)
		} else {
			w.params = append(w.params, v[p.column].text)
		}
	}
	return w.pipe.send(ctx, s, w.params, expectation{rows: 1, op: o})
}

// exec runs a statement without parameters in the open transaction.
func (w *writer) exec(ctx context.Context, sql string) (pgconn.CommandTag, error) {
	if err := w.pipe.flush(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return w.pipe.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
}
