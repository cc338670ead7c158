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

// sendGrace is how long a dump that was cancelled may take to end by itself before its stream is cut: its client may have
// stopped reading.
const sendGrace = time.Second

// Dump implements the method of that name.
func (s *Service) Dump(request *inventoryv1.DumpRequest, stream grpc.ServerStreamingServer[inventoryv1.DumpResponse]) (err error) {
	plan, err := planDump(request)
	if err != nil {
		return err
	}
	ctx, end := span(stream.Context(), "dump", attribute.String("db.collection.name", plan.name.String()))
	defer end(&err)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, done, err := s.leases.use(request.GetSnapshotId(), cancel)
	if err != nil {
		return fmt.Errorf("dump table %s: %w", plan.name, err)
	}
	result := make(chan error, 1)
	go func() {
		defer done()
		result <- s.dump(ctx, l, plan, stream.Send)
	}()
	select {
	case err = <-result:
	case <-ctx.Done():
		timer := time.NewTimer(sendGrace)
		defer timer.Stop()
		select {
		case err = <-result:
		case <-timer.C:
			err = ended(ctx) // returning ends the stream, and with it the blocked sending
		}
	}
	if err != nil {
		return fmt.Errorf("dump table %s: %w", plan.name, err)
	}
	return nil
}

// dump sends the rows and then the end.
func (s *Service) dump(ctx context.Context, l *lease, plan dumpPlan, send func(*inventoryv1.DumpResponse) error) (err error) {
	select {
	case s.dumpPlaces <- struct{}{}:
		defer func() { <-s.dumpPlaces }()
	case <-ctx.Done():
		return ended(ctx)
	}
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

	conn, err := connect(ctx, s.config.PostgresURL)
	if err != nil {
		return err
	}
	defer closeSession(conn.PgConn())
	if err := l.enter(ctx, conn); err != nil {
		return err
	}
	if err := fault.Error(FaultDumpImported); err != nil {
		return err
	}
	t, err := lockTable(ctx, conn, plan.name, s.config.LockTimeout)
	if err != nil {
		return err
	}
	if err := fault.Error(FaultDumpLocked); err != nil {
		return err
	}
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
	sql := plan.copyStatement(columns)
	if _, err = conn.PgConn().CopyTo(ctx, out, sql); err == nil {
		err = out.flush()
	}
	if err != nil {
		return s.copyError(ctx, conn, l, plan, out, err)
	}
	if err := fault.Error(FaultDumpCopied); err != nil {
		return err
	}
	return send(&inventoryv1.DumpResponse{End: &inventoryv1.DumpEnd{Rows: out.rows, Bytes: out.bytes}})
}

// enter makes the session's transaction see the snapshot, and plan its reading predictably.
func (l *lease) enter(ctx context.Context, conn *pgx.Conn) error {
	seen, err := importSnapshot(ctx, conn.PgConn(), l.exported)
	switch {
	case err != nil && isServerError(err):
		return fmt.Errorf("%w: %w", ErrSnapshotGone, err)
	case err != nil:
		return explain(ctx, err)
	case seen != l.seen:
		// Names of exported snapshots come back after a restart of the server, and then mean another one.
		return fmt.Errorf("%w: PostgreSQL has restarted", ErrSnapshotGone)
	}
	// One backend, from the first page to the last.
	_, err = conn.Exec(ctx, "SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_tidscan = on")
	return explain(ctx, err)
}

// copyError explains why a COPY broke off.
func (s *Service) copyError(ctx context.Context, conn *pgx.Conn, l *lease, plan dumpPlan, out *chunks, err error) error {
	var sending *sendError
	switch code := postgres.Code(err); {
	case errors.As(err, &sending):
		return sending.err
	case ctx.Err() != nil:
		return ended(ctx)
	case code == codeNoPrivilege:
		return noSelect(plan.name, conn.Config().User, err)
	case code == codeTooLarge, code == codeInternal && strings.Contains(serverText(err), "invalid memory alloc request size"):
		return fmt.Errorf("%w: %s cannot be printed: PostgreSQL prints rows of up to 1 GB of text (bytea takes two letters a byte): %s",
			ErrRowTooLarge, s.locate(ctx, conn, l, plan, out.rows), serverText(err))
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
	if err := conn.QueryRow(ctx, "SELECT ctid::text FROM ONLY "+plan.name.SQL()+plan.pages()+" OFFSET $1 LIMIT 1", n).Scan(&ctid); err != nil {
		return unknown
	}
	return "the row at ctid " + ctid
}
