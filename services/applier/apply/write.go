package apply

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed0419d559/syncline/internal/changelog/block"
)

// copyRunRows is the shortest run of inserts into one table that is written with COPY: below it the round trip costs more.
const copyRunRows = 16

// writer writes slices in the session's open transaction.
type writer struct {
	pipe     pipe
	old, new []value
	params   [][]byte
	key      []byte
}

// write queues or writes ops in their order. Results are checked at the latest by the next flush of the pipe.
func (w *writer) write(ctx context.Context, ops []op) error {
	for len(ops) > 0 {
		if run := insertRun(ops); run >= copyRunRows {
			if err := w.pipe.flush(ctx); err != nil {
				return err
			}
			if err := w.copy(ctx, ops[:run]); err != nil {
				return err
			}
			ops = ops[run:]
			continue
		}
		if err := w.queue(ctx, &ops[0]); err != nil {
			return err
		}
		ops = ops[1:]
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
	s, key, err := o.plan.statementFor(o.operation, w.old, w.new, w.key)
	w.key = key
	if err != nil {
		return describe(err, o)
	}
	w.params = w.params[:0]
	for _, p := range s.params {
		v := w.new
		if p.old {
			v = w.old
		}
		if v[p.column].kind == block.ValueNull {
			w.params = append(w.params, nil)
		} else {
			w.params = append(w.params, v[p.column].text)
		}
	}
	return w.pipe.send(ctx, s, w.params, expectation{rows: 1, op: o})
}

// copy writes a run of inserts of one plan with COPY.
func (w *writer) copy(ctx context.Context, ops []op) error {
	plan := ops[0].plan
	tag, err := w.pipe.conn.PgConn().CopyFrom(ctx, &copyReader{ops: ops}, plan.copySQL)
	if err == nil && tag.RowsAffected() != int64(len(ops)) {
		err = &RowCountError{Want: int64(len(ops)), Got: tag.RowsAffected()}
	}
	if err == nil {
		return nil
	}
	return describe(err, failedCopyOp(err, ops))
}

// failedCopyOp finds the row that COPY stopped at: PostgreSQL names the line in the error's context.
func failedCopyOp(err error, ops []op) *op {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		var table string
		var line int
		if n, _ := fmt.Sscanf(pg.Where, "COPY %s line %d", &table, &line); n == 2 && line >= 1 && line <= len(ops) {
			return &ops[line-1]
		}
	}
	return &ops[0]
}

// copyReader gives a run of inserts as COPY text, one row at a time.
type copyReader struct {
	ops  []op
	row  []byte
	rest []byte
}

func (r *copyReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(r.rest) == 0 {
			if len(r.ops) == 0 {
				break
			}
			r.row = appendCopyRow(r.row[:0], &r.ops[0])
			r.rest, r.ops = r.row, r.ops[1:]
		}
		c := copy(p[n:], r.rest)
		r.rest = r.rest[c:]
		n += c
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// exec runs a statement without parameters in the open transaction.
func (w *writer) exec(ctx context.Context, sql string) (pgconn.CommandTag, error) {
	if err := w.pipe.flush(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return w.pipe.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
}
