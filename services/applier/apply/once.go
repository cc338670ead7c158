package apply

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// A small group goes to the target in one round trip: BEGIN, the origin, its rows, the position and COMMIT. Nobody looks at the
// row counts before COMMIT then, so the server does: a statement that touches another number of rows than one fails, and what
// follows it up to the end of the round trip is not run. Looking costs the server more than a statement alone, so larger groups, for
// which a round trip counts little, leave it to the client.

const (
	onceRows  = 8
	onceBytes = 64 << 10
)

// exactlyOne makes a statement fail unless it touches one row. It returns "" for one that cannot be made so.
func exactlyOne(sql string) string {
	for _, verb := range []string{"INSERT ", "UPDATE ", "DELETE "} {
		if strings.HasPrefix(sql, verb) {
			return "WITH touched AS (" + sql + " RETURNING 1) SELECT 1 / (pg_catalog.count(*) = 1)::int FROM touched"
		}
	}
	return ""
}

// alone returns the statement that touches one row or fails, nil if there is none. It has the same parameters.
func (s *statement) alone() *statement {
	if s.exact == nil {
		s.exact = &statement{sql: exactlyOne(s.sql), params: s.params}
	}
	if s.exact.sql == "" {
		return nil
	}
	return s.exact
}

// once applies a group in one round trip. done is false when that is not possible, or when the server refused it: then nothing of
// it stands, and the exact way shows what is wrong.
func (x *executor) once(ctx context.Context, w *write, c *commitPoint) (done bool, err error) {
	if x.begun || !x.preparedOnce(ctx, w) {
		return false, nil
	}
	if err = x.sendOnce(ctx, w, c); err == nil {
		// Nothing of this has an effect before COMMIT, which is sent with it.
		fault.Point(FaultSliceWritten)
		fault.Point(FaultBeforeCommit)
		err = x.writer.pipe.flush(ctx)
	}
	conn := x.writer.pipe.conn
	switch {
	case err == nil:
		fault.Point(FaultAfterCommit)
		return true, nil
	case conn.IsClosed() || postgres.IsTransient(err) || ctx.Err() != nil:
		return false, err
	}
	if _, rollback := x.exec(ctx, "ROLLBACK"); rollback != nil {
		return false, errors.Join(err, rollback)
	}
	return false, nil
}

// preparedOnce tells whether a slice is small and simple enough, and makes all its statements known to the server. What cannot be
// prepared is left to the exact way.
func (x *executor) preparedOnce(ctx context.Context, w *write) bool {
	if len(w.steps) != 1 || w.steps[0].sets != nil || len(w.steps[0].ops) > onceRows || x.writer.aside.waits(w.steps[0].ops) {
		return false
	}
	fixed := &x.config.Session.statements
	needed := append(x.needed[:0], &fixed.begin, &fixed.origin, fixed.position.alone(), &fixed.commit)
	bytes := 0
	for i := range w.steps[0].ops {
		o := &w.steps[0].ops[i]
		if bytes += o.size(); bytes > onceBytes || o.plan.Target.RowTriggers {
			return false // a rule cannot stand inside WITH
		}
		s, err := x.writer.statement(o)
		if err != nil || s.alone() == nil {
			return false
		}
		needed = append(needed, s.alone())
	}
	x.needed = needed
	for _, s := range needed {
		if s.name == "" && x.writer.pipe.prepare(ctx, s) != nil {
			return false
		}
	}
	for _, s := range needed { // preparing one may have dropped all
		if s.name == "" {
			return false
		}
	}
	return true
}

// sendOnce queues everything.
func (x *executor) sendOnce(ctx context.Context, w *write, c *commitPoint) error {
	p, fixed := &x.writer.pipe, &x.config.Session.statements
	if err := p.send(ctx, &fixed.begin, nil, expectation{rows: -1, what: "begin"}); err != nil {
		return err
	}
	if err := p.send(ctx, &fixed.origin, [][]byte{w.origin}, expectation{rows: -1, what: "write origin"}); err != nil {
		return err
	}
	for i := range w.steps[0].ops {
		o := &w.steps[0].ops[i]
		s, err := x.writer.statement(o)
		if err != nil {
			return err
		}
		x.writer.bind(s)
		if err := p.send(ctx, s.alone(), x.writer.params, expectation{rows: 1, op: o}); err != nil {
			return err
		}
	}
	return x.queueCommit(ctx, c)
}

// queueCommit queues the position and COMMIT. Unless the position is still where this session left it, nothing is committed.
func (x *executor) queueCommit(ctx context.Context, c *commitPoint) error {
	p, fixed := &x.writer.pipe, &x.config.Session.statements
	params := x.positionParams(c)
	if err := p.send(ctx, fixed.position.alone(), params, expectation{rows: 1, what: storePosition}); err != nil {
		return err
	}
	return p.send(ctx, &fixed.commit, nil, expectation{rows: -1, what: "commit"})
}

// statement decodes an operation's rows into old and new and returns its statement.
func (w *writer) statement(o *op) (*statement, error) {
	w.old, w.new = o.decodeOld(w.old[:0]), o.decodeNew(w.new[:0])
	if o.operation == Insert && !complete(o.new) {
		return nil, errNoLocator // the exact way says which column it is
	}
	s, key, err := o.plan.statementFor(o.operation, w.old, w.new, w.key)
	w.key = key
	return s, err
}

// bind takes a statement's parameters out of old and new.
func (w *writer) bind(s *statement) {
	w.params = w.params[:0]
	for _, p := range s.params {
		v := w.new
		if p.old {
			v = w.old
		}
		if v[p.column].kind == 'n' {
			w.params = append(w.params, nil)
		} else {
			w.params = append(w.params, v[p.column].text)
		}
	}
}

// committed notes that a group is in the target.
func (x *executor) committed(c *commitPoint) {
	x.begun = false
	x.progress.Stored, x.storedAt, x.uncounted = c.position, time.Now(), 0
}
