package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/copytext"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// maxRowsAsked bounds the keys or hashes of one call.
const maxRowsAsked = 10_000

// rowsPlan is what a valid request for rows asks for.
type rowsPlan struct {
	name    schema.Name
	columns []string // empty for all
	key     []string
	pick    checksum.Pick
	where   string // a condition for the rows, "" for all
}

// planRows checks a request as far as that can be done without the database.
func planRows(request *inventoryv1.ReadRowsRequest) (rowsPlan, error) {
	plan := rowsPlan{name: schema.Name{Schema: request.GetSchema(), Name: request.GetTable()}, columns: request.GetColumns(), key: request.GetKey()}
	switch {
	case request.GetSnapshotId() == "":
		return plan, rpc.Invalid("snapshot_id", "is missing: open a snapshot first")
	case plan.name.Schema == "":
		return plan, rpc.Invalid("schema", "is missing")
	case plan.name.Name == "":
		return plan, rpc.Invalid("table", "is missing")
	case strings.ContainsRune(plan.name.Schema+plan.name.Name, 0):
		return plan, rpc.Invalid("table", "no name in PostgreSQL holds a zero byte")
	case schema.IsSystemSchema(plan.name.Schema):
		return plan, fmt.Errorf("read rows of table %s: %w: schema %s belongs to PostgreSQL or Syncline itself", plan.name, ErrNotATable, plan.name.Schema)
	case len(plan.key) == 0 && len(request.GetKeys()) > 0:
		return plan, rpc.Invalid("key", "is needed to ask for keys")
	case len(plan.key) > 0 && len(request.GetHashes()) > 0:
		return plan, rpc.Invalid("hashes", "are of tables without a key")
	case len(request.GetKeys())+len(request.GetHashes()) == 0:
		return plan, rpc.Invalid("keys", "are missing, and so are hashes")
	case len(request.GetKeys())+len(request.GetHashes()) > maxRowsAsked:
		return plan, rpc.Invalid("keys", "are more than %d: ask again for the others", maxRowsAsked)
	}
	for _, list := range [][]string{plan.columns, plan.key} {
		for i, column := range list {
			if slices.Contains(list[:i], column) {
				return plan, fmt.Errorf("read rows of table %s: %w %q: it is asked for twice", plan.name, ErrColumn, column)
			}
		}
	}
	for _, column := range plan.key {
		if len(plan.columns) > 0 && !slices.Contains(plan.columns, column) {
			return plan, rpc.Invalid("key", "column %q is not among the columns", column)
		}
	}
	return plan, plan.takeRows(request)
}

func (p *rowsPlan) takeRows(request *inventoryv1.ReadRowsRequest) error {
	for i, key := range request.GetKeys() {
		if len(key.GetValues()) != len(p.key) {
			return rpc.Invalid("keys", "key %d has %d values, and the key has %d columns", i, len(key.GetValues()), len(p.key))
		}
		if strings.Contains(strings.Join(key.GetValues(), ""), "\x00") {
			return rpc.Invalid("keys", "no value in PostgreSQL holds a zero byte")
		}
		p.pick.Keys = append(p.pick.Keys, key.GetValues())
	}
	p.pick.AsText = request.GetKeysAsText()
	p.pick.Hashes = map[checksum.Hash]bool{}
	for i, hash := range request.GetHashes() {
		if len(hash) != checksum.HashBytes {
			return rpc.Invalid("hashes", "hash %d has %d bytes instead of %d", i, len(hash), checksum.HashBytes)
		}
		p.pick.Hashes[checksum.Hash(hash)] = true
	}
	return nil
}

// ReadRows implements the method of that name.
func (s *Service) ReadRows(request *inventoryv1.ReadRowsRequest, stream grpc.ServerStreamingServer[inventoryv1.ReadRowsResponse]) (err error) {
	plan, err := planRows(request)
	if err != nil {
		return err
	}
	ctx, end := span(stream.Context(), "read rows", attribute.String("db.collection.name", plan.name.String()))
	defer end(&err)
	only, err := s.usedSet(ctx, request.GetSet(), request.GetParameters(), request.GetSetVersion())
	if err != nil {
		return err
	}
	err = s.reading(ctx, request.GetSnapshotId(), func(ctx context.Context, l *lease) error { return s.readRows(ctx, l, plan, only, stream.Send) })
	if err != nil {
		return fmt.Errorf("read rows of table %s: %w", plan.name, err)
	}
	return nil
}

// readRows sends the rows and then the end.
func (s *Service) readRows(ctx context.Context, l *lease, plan rowsPlan, only *set, send func(*inventoryv1.ReadRowsResponse) error) error {
	conn, t, err := s.openTable(ctx, l, plan.name, only)
	if err != nil {
		return err
	}
	defer closeSession(conn.PgConn())
	plan.where = t.rows
	columns, err := t.choose(plan.columns)
	if err != nil {
		return err
	}
	if err := checkColumns(ctx, conn, plan.name, columns); err != nil {
		return err
	}
	if len(plan.columns) == 0 {
		if _, err := t.choose(plan.key); err != nil {
			return err
		}
		for _, c := range columns {
			plan.columns = append(plan.columns, c.name)
		}
	}
	out := &chunks{size: DefaultChunkBytes, send: func(data []byte) error { return send(&inventoryv1.ReadRowsResponse{Data: data}) }}
	if err = plan.run(ctx, conn, out); err == nil {
		err = out.flush()
	}
	if err != nil {
		return rowsError(ctx, conn, plan, err)
	}
	return send(&inventoryv1.ReadRowsResponse{End: &inventoryv1.ReadRowsEnd{Lines: out.rows}})
}

func (p rowsPlan) run(ctx context.Context, conn *pgx.Conn, out *chunks) error {
	reading := checksum.NewTable(p.name, false, p.key, p.columns, checksum.ByDigest).Where(p.where)
	order := make([]int, len(p.columns)) // where each column that was asked for is among those that are read
	for i, name := range p.columns {
		order[i] = slices.Index(reading.Columns(), name)
	}
	var line []byte
	write := func(first [][]byte, values [][]byte) error {
		row := first
		for _, at := range order {
			row = append(row, values[at])
		}
		line = copytext.Append(line[:0], row)
		_, err := out.Write(line)
		return err
	}
	if len(p.key) > 0 {
		return reading.Pick(ctx, conn.PgConn(), p.pick, func(row checksum.Picked) error { return write(nil, row.Values) })
	}
	// There may be any number of equal rows, so they are counted; each is held once.
	held := map[checksum.Hash]*countedRow{}
	bytes := 0
	flush := func() error {
		for _, r := range held {
			if err := write([][]byte{strconv.AppendInt(nil, r.count, 10)}, r.values); err != nil {
				return err
			}
		}
		clear(held)
		bytes = 0
		return nil
	}
	err := reading.Pick(ctx, conn.PgConn(), p.pick, func(row checksum.Picked) error {
		if r := held[row.Hash]; r != nil {
			r.count++
			return nil
		}
		r := &countedRow{values: make([][]byte, len(row.Values)), count: 1}
		for i, v := range row.Values {
			r.values[i] = slices.Clone(v)
			bytes += len(v)
		}
		held[row.Hash] = r
		if bytes > maxHeldBytes {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// maxHeldBytes bounds the different rows that are counted before they are sent; the same row may come again then.
const maxHeldBytes = 8 << 20

type countedRow struct {
	values [][]byte
	count  int64
}

func rowsError(ctx context.Context, conn *pgx.Conn, plan rowsPlan, err error) error {
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
