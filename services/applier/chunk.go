package applier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// chunk copies one page range in one target transaction, with the record that it is done.
func (c *copier) chunk(ctx context.Context, conn *pgx.Conn, snapshot copySnapshot, j job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	format := inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT
	if j.table.binary {
		format = inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY
	}
	stream, err := c.source.inventoryClient().Dump(ctx, &inventoryv1.DumpRequest{
		SnapshotId: snapshot.id, Schema: j.table.name.Schema, Table: j.table.name.Name, Columns: j.table.columns,
		FromPage: j.from, ToPage: j.to, Format: format, ColumnTypes: j.table.types,
		Set: c.source.set.name, Parameters: c.source.set.parameters, SetVersion: c.source.set.version,
	})
	if err != nil {
		return err
	}
	reader := &dumpReader{stream: stream, read: func(rows, size int64) {
		c.status.quietly(func(s *status) {
			t := s.table(j.table.name)
			t.rows += rows
			t.bytes += size
		})
	}}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, reader, copyInto(j.table))
		if reader.err != nil {
			return reader.err // the cause of what COPY says
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() != reader.end.GetRows() {
			return fmt.Errorf("%d rows arrived of %d that the source sent", tag.RowsAffected(), reader.end.GetRows())
		}
		if err := sameTypes(ctx, tx, j.table); err != nil {
			return err
		}
		if err := finishChunk(ctx, tx, c.replication, j.table.name, snapshot.id, j.from, reader.end.GetRows(), reader.end.GetBytes()); err != nil {
			return err
		}
		fault.Point(FaultChunkWritten)
		return nil
	})
	if err != nil {
		c.status.quietly(func(s *status) {
			t := s.table(j.table.name)
			t.rows -= reader.rows
			t.bytes -= reader.bytes
		})
		return err
	}
	fault.Point(FaultChunkDone)
	c.status.update(func(s *status) { s.table(j.table.name).done++ })
	return nil
}

func copyInto(t *tableCopy) string {
	sql := "COPY " + t.target.SQL()
	if len(t.columns) > 0 {
		sql += " (" + postgres.Idents(t.columns) + ")"
	}
	sql += " FROM STDIN"
	if t.binary {
		sql += " (FORMAT binary)"
	}
	return sql
}

// binary tells whether a table's rows can travel in COPY's binary format, which spares both servers the printing and parsing of
// values: every column is of a type whose bytes are the same on all servers, and of the same one on both sides. COPY does not
// look at the type that was sent; it would take the bytes for those of its own.
func binary(described schema.Table, target *apply.Target) bool {
	if target == nil {
		return false
	}
	columns := 0
	for _, c := range described.Columns {
		if c.Generated != "" {
			continue
		}
		columns++
		i := slices.IndexFunc(target.Columns, func(t apply.TargetColumn) bool { return t.Name == c.Name })
		if !schema.BinaryCopy(c.TypeOID) || i < 0 || target.Columns[i].TypeOID != c.TypeOID {
			return false
		}
	}
	return columns > 0
}

// sameTypes makes sure that a table into which binary rows were copied still has the types that they were made for: it is locked
// by now. What was retyped since the catalog was read is seen by the next attempt.
func sameTypes(ctx context.Context, tx pgx.Tx, t *tableCopy) error {
	if !t.binary {
		return nil
	}
	var same int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM unnest($2::text[], $3::oid[]) AS expected(name, type)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = $1::regclass AND NOT a.attisdropped AND a.attname = expected.name AND a.atttypid = expected.type`,
		t.target.SQL(), t.columns, t.types).Scan(&same)
	if err != nil {
		return fmt.Errorf("read the types of table %s: %w", t.target, err)
	}
	if same != len(t.columns) {
		return failed(reasonMismatch, "columns of table %s of the replica have been altered since the copy began", t.target)
	}
	return nil
}

// dumpReader gives a dump's bytes to COPY. It ends with io.EOF only after the dump has said that it is whole.
type dumpReader struct {
	stream      grpc.ServerStreamingClient[inventoryv1.DumpResponse]
	read        func(rows, size int64)
	rest        []byte
	rows, bytes int64
	end         *inventoryv1.DumpEnd
	err         error
}

func (r *dumpReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.end != nil {
			return 0, io.EOF
		}
		answer, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the dump broke off: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			r.err = err
			return 0, err
		}
		r.rest, r.end = answer.GetData(), answer.GetEnd()
		rows, size := answer.GetRows(), int64(len(r.rest))
		r.rows += rows
		r.bytes += size
		r.read(rows, size)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
