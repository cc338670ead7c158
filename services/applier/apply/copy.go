package apply

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/copytext"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Rows are written with COPY, in its binary format where every column has a binary form. The binary rows are made while the server
// works on what came before: a value without a form is met before COPY has begun.

const (
	copySignature = "PGCOPY\n\xff\r\n\x00"
	copyHead      = copySignature + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // flags, size of an extension
	copyTrailer   = "\xff\xff"
	// mostEncoded bounds what is held encoded. More is in a slice only if a huge row is, which should not be held twice.
	mostEncoded = 16 << 20
	// copyChunk is about how much is encoded as text at once.
	copyChunk = 64 << 10
)

// copyBuffers are those of rows that were written.
var copyBuffers = sync.Pool{New: func() any { return new([]byte) }}

// copyStatement is COPY FROM STDIN for the plan's columns.
func copyStatement(p *Plan, options string) string {
	table := postgres.Ident(p.Target.Schema, p.Target.Name)
	if len(p.copyFields) == 0 {
		return "COPY " + table + " FROM STDIN" + options
	}
	return "COPY " + table + " (" + p.columnList() + ") FROM STDIN" + options
}

// copyGuard fails when the table is not as the plan knows it: the binary format does not say what a value is, so eight bytes of a bigint
// would be taken for a double precision. After lock nobody can change the table any more, and check divides by zero if somebody has. They go
// out with COPY, and cost no round trip.
type copyGuard struct {
	lock  string
	check statement
	used  bool // before
}

func binaryGuard(p *Plan) copyGuard {
	target := postgres.Ident(p.Target.Schema, p.Target.Name)
	var columns []string
	for _, i := range p.copyFields {
		columns = append(columns, fmt.Sprintf("(%s, %d)", postgres.Literal(p.columns[i].Name), p.columns[i].TypeOID))
	}
	return copyGuard{
		lock: "LOCK TABLE ONLY " + target + " IN ROW EXCLUSIVE MODE",
		check: statement{sql: fmt.Sprintf("SELECT 1 / (pg_catalog.count(*) = %d)::int FROM pg_catalog.pg_attribute WHERE attrelid = %d AND NOT attisdropped AND (attname, atttypid::bigint) IN (%s)",
			len(columns), p.Target.OID, strings.Join(columns, ", "))},
	}
}

// encode makes the rows binary if it can.
func (in *inserts) encode() {
	for _, i := range in.plan.copyFields {
		if in.plan.binary[i] == nil {
			return
		}
	}
	size := 0
	for i := range in.rows {
		size += in.ops[in.rows[i].op].size()
	}
	if size > mostEncoded || len(in.plan.copyFields) == 0 {
		return
	}
	buffer := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
	rows, ok := in.appendBinary((*buffer)[:0])
	*buffer = rows
	if !ok {
		copyBuffers.Put(buffer)
		return
	}
	in.binary = buffer
}

// appendBinary reports false when there is too much, or a value without a binary form: its column has none from then on.
func (in *inserts) appendBinary(dst []byte) ([]byte, bool) {
	p := in.plan
	dst = append(dst, copyHead...)
	for i := range in.rows {
		if len(dst) > mostEncoded {
			return dst, false
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.copyFields)))
		ok := true
		add := func(c int, kind byte, text []byte) {
			switch {
			case p.columns[c] == nil || !ok:
			case kind == block.ValueNull:
				dst = appendBinaryNull(dst)
			default:
				if dst, ok = appendBinaryElement(dst, text, p.binary[c]); !ok {
					p.binary[c] = nil
				}
			}
		}
		if row := &in.rows[i]; row.merged != nil {
			for c, v := range row.merged {
				add(c, v.kind, v.text)
			}
		} else {
			columns := in.ops[row.op].new.Columns()
			for c := 0; columns.More(); c++ {
				kind, text := columns.Next()
				add(c, kind, text)
			}
		}
		if !ok {
			return dst, false
		}
	}
	return append(dst, copyTrailer...), true
}

// copy writes inserts of one plan with COPY.
func (w *writer) copy(ctx context.Context, in *inserts) error {
	var reader io.Reader = &copyReader{in: in}
	sql, guard := in.plan.copySQL, (*copyGuard)(nil)
	if in.binary != nil {
		defer copyBuffers.Put(in.binary)
		reader, sql, guard = bytes.NewReader(*in.binary), in.plan.copyBinarySQL, &in.plan.copyGuard
	}
	tag, err := w.pipe.copyFrom(ctx, reader, guard, sql)
	if err == nil && tag.RowsAffected() != int64(len(in.rows)) {
		err = &RowCountError{Want: int64(len(in.rows)), Got: tag.RowsAffected()}
	}
	return err
}

// copyReader gives inserts as COPY text, some rows at a time.
type copyReader struct {
	in     *inserts
	next   int
	buffer []byte
	rest   []byte
}

func (r *copyReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		r.buffer = r.buffer[:0]
		for len(r.buffer) < copyChunk && r.next < len(r.in.rows) {
			row := &r.in.rows[r.next]
			if row.merged != nil {
				r.buffer = appendCopyValues(r.buffer, r.in.plan, row.merged)
			} else {
				r.buffer = appendCopyRow(r.buffer, &r.in.ops[row.op])
			}
			r.next++
		}
		r.rest = r.buffer
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// appendCopyRow appends the row of an insert in COPY text format.
func appendCopyRow(dst []byte, o *op) []byte {
	first := true
	i := 0
	for c := o.new.Columns(); c.More(); i++ {
		kind, text := c.Next()
		if o.plan.columns[i] == nil {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if kind == block.ValueNull {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = copytext.Escape(dst, text)
	}
	return append(dst, '\n')
}

// appendCopyValues appends a row whose values come from several operations.
func appendCopyValues(dst []byte, p *Plan, values []value) []byte {
	first := true
	for i, v := range values {
		if p.columns[i] == nil {
			continue
		}
		if !first {
			dst = append(dst, '\t')
		}
		first = false
		if v.kind == block.ValueNull {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = copytext.Escape(dst, v.text)
	}
	return append(dst, '\n')
}
