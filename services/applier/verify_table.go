package applier

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/schema"
)

const (
	// keyChunkRows is how many rows a chunk has in the order of the key, and digestChunkRows about how many by digest, where the
	// rows of many chunks that differ are found in one reading.
	keyChunkRows    = 10_000
	digestChunkRows = 1_000
	// maxDigestChunks bounds the chunks of one reading by digest.
	maxDigestChunks = 16_384
	// maxRowsHeld is how many rows' checksums of either side are in memory at a time.
	maxRowsHeld = 20_000
	// maxDigestDepth bounds how often chunks by digest are cut again. Equal rows without a key cannot be cut apart; they are counted.
	maxDigestDepth = 4
	// maxChunksKept bounds the chunks that are remembered as different; more of them are told as a number of rows.
	maxChunksKept = 10_000
)

// tableCheck compares the tables of one unit: first the checksums of chunks, then the rows of those chunks that differ.
type tableCheck struct {
	unit       *verifyUnit
	source     *source
	snapshotID string
	conn       *pgx.Conn // in a transaction that sees the target's snapshot
	limit      int       // differences that are described
	differing  *differing
	read       func(rows int64)

	reading     checksum.Table // of the target
	result      *applierv1.TableVerification
	differences []*applierv1.RowDifference
}

// chunkPair is the checksums of a range on both sides.
type chunkPair struct {
	within         checksum.Range
	source, target checksum.Sum
}

func (p chunkPair) rows() int64 { return max(p.source.Rows, p.target.Rows) }

func (c *tableCheck) different() bool {
	r := c.result
	return r.GetMissing()+r.GetExtra()+r.GetChanged()+r.GetUnexamined() > 0
}

func (c *tableCheck) run(ctx context.Context) error {
	c.reading = checksum.NewTable(c.unit.target, c.unit.partitioned, c.unit.key, c.unit.columns, c.unit.order).Where(c.unit.where)
	if c.unit.order == checksum.ByKey {
		return c.byKey(ctx)
	}
	chunks := int(min(max(c.unit.estimatedRows/digestChunkRows, 1), maxDigestChunks))
	parts, err := checksum.Range{}.Cut(chunks)
	if err != nil {
		return err
	}
	return c.byDigest(ctx, parts, 0)
}

// count adds a chunk to the table's totals.
func (c *tableCheck) count(p chunkPair) {
	c.result.SourceRows += p.source.Rows
	c.result.ReplicaRows += p.target.Rows
	c.read(p.source.Rows)
}

// byKey lets the source cut its rows into chunks and reads the same ranges of the target.
func (c *tableCheck) byKey(ctx context.Context) error {
	var differ []chunkPair
	err := c.sourceChunks(ctx, []checksum.Range{{}}, keyChunkRows, func(chunk checksum.Chunk) error {
		sums, err := c.reading.Sums(ctx, c.conn.PgConn(), []checksum.Range{chunk.Range})
		if err != nil {
			return err
		}
		p := chunkPair{chunk.Range, chunk.Sum, sums[0]}
		c.count(p)
		switch {
		case p.source == p.target:
		case len(differ) < maxChunksKept:
			differ = append(differ, p)
		default:
			c.result.Unexamined += p.rows()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range differ {
		if err := c.lookInto(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// full tells whether enough differences were described.
func (c *tableCheck) full() bool {
	if c.differing != nil {
		return c.differing.full()
	}
	return len(c.differences) >= c.limit
}

// lookInto compares the rows of a range of keys. Where the target has too many of them it is the target that cuts them.
func (c *tableCheck) lookInto(ctx context.Context, p chunkPair) error {
	switch {
	case c.full():
		c.result.Unexamined += p.rows()
		return nil
	case p.target.Rows <= maxRowsHeld:
		return c.rows(ctx, []checksum.Range{p.within})
	}
	var parts []checksum.Chunk
	err := c.reading.Split(ctx, c.conn.PgConn(), p.within, keyChunkRows, func(chunk checksum.Chunk) error {
		parts = append(parts, chunk)
		return nil
	})
	if err != nil {
		return err
	}
	for _, part := range parts {
		if c.full() {
			c.result.Unexamined += part.Sum.Rows
			continue
		}
		var sum checksum.Sum
		if err := c.sourceChunks(ctx, []checksum.Range{part.Range}, keyChunkRows, func(chunk checksum.Chunk) error {
			sum.Add(chunk.Sum)
			return nil
		}); err != nil {
			return err
		}
		if sum == part.Sum {
			continue
		}
		if err := c.rows(ctx, []checksum.Range{part.Range}); err != nil {
			return err
		}
	}
	return nil
}

// byDigest reads both sides once for the sums of all ranges, and again for the rows of those that differ.
func (c *tableCheck) byDigest(ctx context.Context, ranges []checksum.Range, depth int) error {
	sources := make([]checksum.Sum, len(ranges))
	var targets []checksum.Sum
	group, reading := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		targets, err = c.reading.Sums(reading, c.conn.PgConn(), ranges)
		return err
	})
	group.Go(func() error { return c.addSources(reading, ranges, sources) })
	if err := group.Wait(); err != nil {
		return err
	}
	var batch []checksum.Range
	held := int64(0)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := c.rows(ctx, batch)
		batch, held = nil, 0
		return err
	}
	for i, r := range ranges {
		p := chunkPair{r, sources[i], targets[i]}
		if depth == 0 {
			c.count(p)
		}
		switch {
		case p.source == p.target:
			continue
		case c.full():
			c.result.Unexamined += p.rows()
			continue
		case p.rows() > maxRowsHeld && depth < maxDigestDepth:
			parts, err := r.Cut(int(min(p.rows()/digestChunkRows, maxDigestChunks)))
			if err != nil {
				return err
			}
			if err := c.byDigest(ctx, parts, depth+1); err != nil {
				return err
			}
			continue
		case held+p.rows() > maxRowsHeld:
			if err := flush(); err != nil {
				return err
			}
			if c.full() {
				c.result.Unexamined += p.rows()
				continue
			}
		}
		batch = append(batch, r)
		held += p.rows()
	}
	return flush()
}

// addSources adds up the sums of all the source's tables.
func (c *tableCheck) addSources(ctx context.Context, ranges []checksum.Range, sums []checksum.Sum) error {
	for _, name := range c.unit.sources {
		i := 0
		err := c.checksum(ctx, c.request(name, ranges), func(answer *inventoryv1.ChecksumResponse) error {
			for _, chunk := range answer.GetChunks() {
				sum, ok := checksum.ParseSum(chunk.GetRows(), chunk.GetHash())
				if !ok || i == len(sums) {
					return errMalformedChecksum
				}
				sums[i].Add(sum)
				i++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if i != len(sums) {
			return errMalformedChecksum
		}
	}
	return nil
}

// errMalformedChecksum says that the source's inventory answered with something else than was asked for.
var errMalformedChecksum = errors.New("the source's answer is malformed")

func (c *tableCheck) request(name schema.Name, ranges []checksum.Range) *inventoryv1.ChecksumRequest {
	request := &inventoryv1.ChecksumRequest{
		SnapshotId: c.snapshotID, Schema: name.Schema, Table: name.Name, Columns: c.unit.columns, Key: c.unit.key,
		Order: inventoryv1.ChecksumOrder_CHECKSUM_ORDER_DIGEST,
	}
	if c.unit.order == checksum.ByKey {
		request.Order = inventoryv1.ChecksumOrder_CHECKSUM_ORDER_KEY
	}
	for _, r := range ranges {
		request.Ranges = append(request.Ranges, &inventoryv1.KeyRange{After: r.After, Through: r.Through})
	}
	return request
}

// sourceChunks gives the chunks of the unit's only table in the order of the key.
func (c *tableCheck) sourceChunks(ctx context.Context, ranges []checksum.Range, rows int64, give func(checksum.Chunk) error) error {
	request := c.request(c.unit.sources[0], ranges)
	request.RowsPerChunk = rows
	return c.checksum(ctx, request, func(answer *inventoryv1.ChecksumResponse) error {
		for _, chunk := range answer.GetChunks() {
			sum, ok := checksum.ParseSum(chunk.GetRows(), chunk.GetHash())
			if !ok {
				return errMalformedChecksum
			}
			r := checksum.Range{After: chunk.GetRange().GetAfter(), Through: chunk.GetRange().GetThrough()}
			if err := give(checksum.Chunk{Range: r, Sum: sum}); err != nil {
				return err
			}
		}
		return nil
	})
}

// checksum asks the source, and makes sure that the answer is whole.
func (c *tableCheck) checksum(ctx context.Context, request *inventoryv1.ChecksumRequest, take func(*inventoryv1.ChecksumResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request.Set, request.Parameters, request.SetVersion = c.source.set.name, c.source.set.parameters, c.source.set.version
	stream, err := c.source.inventoryClient().Checksum(ctx, request)
	if err != nil {
		return sourceError(err)
	}
	ended := false
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && ended:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read the source: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return sourceError(err)
		}
		if err := take(answer); err != nil {
			return err
		}
		ended = answer.GetEnd() != nil
	}
}
