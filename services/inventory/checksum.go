package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// Checksum implements the method of that name.
func (s *Service) Checksum(request *inventoryv1.ChecksumRequest, stream grpc.ServerStreamingServer[inventoryv1.ChecksumResponse]) (err error) {
	plan, err := planChecksum(request)
	if err != nil {
		return err
	}
	ctx, end := span(stream.Context(), "checksum", attribute.String("db.collection.name", plan.name.String()))
	defer end(&err)
	only, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), request.GetSetVersion())
	if err != nil {
		return err
	}
	err = s.reading(ctx, request.GetSnapshotId(), func(ctx context.Context, l *lease) error { return s.checksum(ctx, l, plan, only, stream.Send) })
	if err != nil {
		return fmt.Errorf("checksum of table %s: %w", plan.name, err)
	}
	return nil
}

// checksum sends what was asked for and then the end.
func (s *Service) checksum(ctx context.Context, l *lease, plan checksumPlan, only *set, send func(*inventoryv1.ChecksumResponse) error) error {
	conn, t, err := s.openTable(ctx, l, plan.name, only)
	if err != nil {
		return err
	}
	defer closeSession(conn.PgConn())
	reading, err := plan.resolve(ctx, conn, t)
	if err != nil {
		return err
	}
	reading = reading.Where(t.rows)
	out := &batches{send: send}
	if err := plan.run(ctx, conn, reading, out); err != nil {
		return checksumError(ctx, conn, plan, err)
	}
	return out.end()
}

// resolve finds the columns in the snapshot and makes sure that they are what the parser finds now.
func (p checksumPlan) resolve(ctx context.Context, conn *pgx.Conn, t table) (checksum.Table, error) {
	names := p.columns
	if len(names) > 0 {
		names = slices.Concat(p.key, slices.DeleteFunc(slices.Clone(names), func(c string) bool { return slices.Contains(p.key, c) }))
	}
	columns, err := t.choose(names)
	if err != nil {
		return checksum.Table{}, err
	}
	if len(p.columns) == 0 {
		if _, err := t.choose(p.key); err != nil {
			return checksum.Table{}, err
		}
		names = names[:0]
		for _, c := range columns {
			names = append(names, c.name)
		}
	}
	if p.order == checksum.ByKey {
		for _, c := range columns {
			if slices.Contains(p.key, c.name) && !checksum.SortsAlike(c.typeOID) {
				return checksum.Table{}, fmt.Errorf("%w %q: not every server sorts its type alike: ask for the order of the digest", ErrColumn, c.name)
			}
		}
	}
	return checksum.NewTable(p.name, false, p.key, names, p.order), checkColumns(ctx, conn, p.name, columns)
}

func (p checksumPlan) run(ctx context.Context, conn *pgx.Conn, reading checksum.Table, out *batches) error {
	if p.order == checksum.ByKey && !p.whole() {
		if _, err := conn.Exec(ctx, checksum.RangesByIndex); err != nil {
			return err
		}
	}
	switch {
	case p.rows:
		return reading.Rows(ctx, conn.PgConn(), p.ranges, out.row)
	case p.order == checksum.ByKey:
		for _, r := range p.ranges {
			if err := reading.Split(ctx, conn.PgConn(), r, p.rowsPerChunk, out.chunk); err != nil {
				return err
			}
		}
		return nil
	}
	sums, err := reading.Sums(ctx, conn.PgConn(), p.ranges)
	if err != nil {
		return err
	}
	for i, sum := range sums {
		if err := out.chunk(checksum.Chunk{Range: p.ranges[i], Sum: sum}); err != nil {
			return err
		}
	}
	return nil
}

func checksumError(ctx context.Context, conn *pgx.Conn, plan checksumPlan, err error) error {
	var sending *sendError
	switch {
	case errors.As(err, &sending):
		return sending.err
	case ctx.Err() != nil:
		return ended(ctx)
	case postgres.Code(err) == codeNoPrivilege:
		return noSelect(plan.name, conn.Config().User, err)
	case tooLarge(err):
		return fmt.Errorf("%w: PostgreSQL prints rows of up to 1 GB of text (bytea takes two letters a byte): %s", ErrRowTooLarge, serverText(err))
	case isDataError(err):
		return fmt.Errorf("%w: %s", checksum.ErrRange, serverText(err))
	}
	return explain(ctx, err)
}

// batches sends chunks and rows, several in one answer.
type batches struct {
	send func(*inventoryv1.ChecksumResponse) error

	now   *inventoryv1.ChecksumResponse
	bytes int
	rows  int64
}

// batchBytes is the size of an answer, about.
const batchBytes = 64 << 10

func (b *batches) chunk(c checksum.Chunk) error {
	b.rows += c.Sum.Rows
	return b.add(placesBytes(c.Range.Through), func(now *inventoryv1.ChecksumResponse) {
		now.Chunks = append(now.Chunks, &inventoryv1.ChecksumChunk{
			Range: &inventoryv1.KeyRange{After: c.Range.After, Through: c.Range.Through}, Rows: c.Sum.Rows, Hash: c.Sum.Hash(),
		})
	})
}

func (b *batches) row(r checksum.Row) error {
	b.rows += r.Count
	return b.add(placesBytes(r.Key)+8*len(r.Columns), func(now *inventoryv1.ChecksumResponse) {
		now.Rows = append(now.Rows, &inventoryv1.ChecksumRow{Key: r.Key, Hash: r.Hash[:], ColumnHashes: r.Columns, Count: r.Count})
	})
}

func placesBytes(place []string) int {
	n := 0
	for _, v := range place {
		n += len(v)
	}
	return n
}

func (b *batches) add(bytes int, put func(*inventoryv1.ChecksumResponse)) error {
	if b.now == nil {
		b.now = &inventoryv1.ChecksumResponse{}
	}
	put(b.now)
	b.bytes += bytes + 2*checksum.HashBytes
	if b.bytes < batchBytes {
		return nil
	}
	err := b.send(b.now)
	b.now, b.bytes = nil, 0
	if err != nil {
		return &sendError{err}
	}
	return nil
}

func (b *batches) end() error {
	if b.now == nil {
		b.now = &inventoryv1.ChecksumResponse{}
	}
	b.now.End = &inventoryv1.ChecksumEnd{Rows: b.rows}
	return b.send(b.now)
}
