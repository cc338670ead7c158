package inventory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Dump implements the method of that name.
func (s *Service) Dump(request *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) (err error) {
	plan, err := planDump(request)
	if err != nil {
		return err
	}
	ctx, end := span(stream.Context(), "dump", attribute.String("db.collection.name", plan.name.String()))
	defer end(&err)
	only, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), request.GetSetVersion())
	if err != nil {
		return err
	}
	if err := s.reading(ctx, request.GetSnapshotId(), func(ctx context.Context, l *lease) error { return s.dump(ctx, l, plan, only, stream.Send) }); err != nil {
		return fmt.Errorf("dump table %s: %w", plan.name, err)
	}
	return nil
}

// dump sends the rows and then the end.
func (s *Service) dump(ctx context.Context, l *lease, plan dumpPlan, only *set, send func(*inventoryv1.DumpResponse) error) (err error) {
	began := time.Now()
	binary := plan.format == inventoryv1.DumpFormat_DUMP_FORMAT_COPY_BINARY
	out := &chunks{size: plan.chunkBytes, unescape: plan.format == inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES, binary: binary}
	sent := int64(0) // rows
	out.send = func(data []byte) error {
		rows := out.rows - sent
		sent = out.rows
		return send(&inventoryv1.DumpResponse{Data: data, Rows: rows})
	}
	s.metrics.dumping.Add(context.WithoutCancel(ctx), 1)
	defer func() { s.metrics.dumped(context.WithoutCancel(ctx), time.Since(began), out.rows, out.bytes, err) }()

	conn, t, err := s.openTable(ctx, l, plan.name, only)
	if err != nil {
		return err
	}
	defer closeSession(conn.PgConn())
	plan.rows = t.rows
	columns, err := t.choose(plan.columns)
	if err != nil {
		return err
	}
	if err := checkTypes(columns, plan.types); err != nil {
		return err
	}
	if binary {
		if err := checkBinary(columns); err != nil {
			return err
		}
	}
	if err := checkColumns(ctx, conn, plan.name, columns); err != nil {
		return err
	}
	for _, step := range plan.steps(t.pages, resumePages) {
		before := out.rows
		if _, err = conn.PgConn().CopyTo(ctx, out, step.copyStatement(columns)); err == nil {
			err = out.flush()
		}
		if err != nil {
			return s.copyError(ctx, conn, l, step, out.rows-before, err)
		}
		if step.to == plan.to {
			break
		}
		if err := send(&inventoryv1.DumpResponse{ResumePage: step.to}); err != nil {
			return err
		}
	}
	if err := fault.Error(FaultDumpCopied); err != nil {
		return err
	}
	return send(&inventoryv1.DumpResponse{End: &inventoryv1.DumpEnd{Rows: out.rows, Bytes: out.bytes}})
}

// copyError explains why a COPY broke off after some rows.
func (s *Service) copyError(ctx context.Context, conn *pgx.Conn, l *lease, plan dumpPlan, rows int64, err error) error {
	var sending *sendError
	switch {
	case errors.As(err, &sending):
		return sending.err
	case ctx.Err() != nil:
		return ended(ctx)
	case postgres.Code(err) == codeNoPrivilege:
		return noSelect(plan.name, conn.Config().User, err)
	case tooLarge(err):
		return fmt.Errorf("%w: %s cannot be printed: PostgreSQL prints rows of up to 1 GB of text (bytea takes two letters a byte): %s",
			ErrRowTooLarge, s.locate(ctx, conn, l, plan, rows), serverText(err))
	}
	return explain(ctx, err)
}

// locate names the row after the first n that a plan reads. The session's transaction has failed.
func (s *Service) locate(ctx context.Context, conn *pgx.Conn, l *lease, plan dumpPlan, n int64) string {
	unknown := fmt.Sprintf("row %d of those asked for", n+1)
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		return unknown
	}
	if err := l.enter(ctx, conn); err != nil {
		return unknown
	}
	var ctid string
	if err := conn.QueryRow(ctx, "SELECT ctid::text FROM ONLY "+plan.name.SQL()+plan.where()+" OFFSET $1 LIMIT 1", n).Scan(&ctid); err != nil {
		return unknown
	}
	return "the row at ctid " + ctid
}

// tooLarge tells whether PostgreSQL could not print a row.
func tooLarge(err error) bool {
	code := postgres.Code(err)
	return code == codeTooLarge || code == codeInternal && strings.Contains(serverText(err), "invalid memory alloc request size")
}
