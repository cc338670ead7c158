package applier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// chunk copies one page range in one target transaction, with the record that it is done.
func (c *copier) chunk(ctx context.Context, conn *pgx.Conn, snapshot copySnapshot, j job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.source.inventoryClient().Dump(ctx, &inventoryv1.DumpRequest{
		SnapshotId: snapshot.id, Schema: j.table.name.Schema, Table: j.table.name.Name, Columns: j.table.columns,
		FromPage: j.from, ToPage: j.to, Format: inventoryv1.DumpFormat_DUMP_FORMAT_COPY_TEXT,
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
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, reader, copyInto(j))
		if reader.err != nil {
			return reader.err // the cause of what COPY says
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() != reader.end.GetRows() {
			return fmt.Errorf("%d rows arrived of %d that the source sent", tag.RowsAffected(), reader.end.GetRows())
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

func copyInto(j job) string {
	if len(j.table.columns) == 0 {
		return "COPY " + j.table.target.SQL() + " FROM STDIN"
	}
	return "COPY " + j.table.target.SQL() + " (" + postgres.Idents(j.table.columns) + ") FROM STDIN"
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
		// In COPY's text format a newline is always the end of a row.
		rows, size := int64(bytes.Count(r.rest, []byte{'\n'})), int64(len(r.rest))
		r.rows += rows
		r.bytes += size
		r.read(rows, size)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
