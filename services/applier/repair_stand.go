package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/checksum"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	// batchKeys and batchHashes are how many rows one target transaction mends. For hashes a whole table is read.
	batchKeys   = 2_000
	batchHashes = 10_000
	// maxBatchBytes bounds the rows of a batch on either side; one that is beyond is mended in parts.
	maxBatchBytes = 32 << 20
	// maxStanding is about how long applying stands still for batches, of which one at least is mended each time.
	maxStanding = 2 * time.Second
)

// errTooLarge says that a batch's rows are more than should be held.
var errTooLarge = errors.New("the rows of a batch are too large")

// batch is some rows of a table, mended in one target transaction.
type batch struct {
	table  *differingTable
	keys   [][]string
	hashes []checksum.Hash
	asText bool // some of the keys are no values of the source's types
	// hereAsText says so of the target's types: a change in quarantine may have a key that the target cannot hold.
	hereAsText bool
}

func (b *batch) size() int { return len(b.keys) + len(b.hashes) }

// halves cuts a batch in two.
func (b *batch) halves() []*batch {
	k, h := len(b.keys)/2, len(b.hashes)/2
	return []*batch{{b.table, b.keys[:k], b.hashes[:h], b.asText, b.hereAsText}, {b.table, b.keys[k:], b.hashes[h:], b.asText, b.hereAsText}}
}

// batches cuts what differs into batches.
func batches(tables []*differingTable) []*batch {
	var list []*batch
	for _, d := range tables {
		for keys := d.keys; len(keys) > 0; {
			n := min(batchKeys, len(keys))
			list = append(list, &batch{table: d, keys: keys[:n]})
			keys = keys[n:]
		}
		for hashes := d.hashes; len(hashes) > 0; {
			n := min(batchHashes, len(hashes))
			list = append(list, &batch{table: d, hashes: hashes[:n]})
			hashes = hashes[n:]
		}
	}
	return list
}

// mend mends what differs, some batches each time that applying stands still.
func (p *repair) mend(ctx context.Context, tables []*differingTable) error {
	todo := batches(tables)
	for len(todo) > 0 {
		left := 0
		for _, b := range todo {
			left += b.size()
		}
		if err := p.tell(true, func(now *applierv1.RepairProgress) { now.Phase, now.Detail, now.ToMend = "mending", "", int64(left) }); err != nil {
			return err
		}
		var err error
		if todo, err = p.stand(ctx, todo); err != nil {
			return err
		}
	}
	return nil
}

// stand has applying stand still and mends batches as of there. It returns those that are left.
func (p *repair) stand(ctx context.Context, todo []*batch) (left []*batch, err error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(conn)
	var snapshot copySnapshot
	var renewing sync.WaitGroup
	defer func() {
		cancel(nil)
		renewing.Wait()
		if snapshot.id != "" {
			p.source.closeSnapshot(outer, snapshot.id)
		}
	}()
	v := p.verification(func(*applierv1.VerifyReplicationResponse) error { return nil })
	err = v.standStill(ctx, cancel, &renewing, func(s copySnapshot) { snapshot = s }, func() error {
		fault.Point(FaultRepairStanding)
		there, stop := context.WithTimeout(ctx, p.maxHold)
		defer stop()
		left, err = p.there(there, conn, snapshot, todo)
		return errors.Join(err, p.runner.reloadHeld(ctx))
	})
	return left, causeOr(ctx, err)
}

// connect opens the session that writes. It ends before another session applies this replication: until then the target stays
// where applying stands still.
func (p *repair) connect(ctx context.Context) (*pgx.Conn, error) {
	r := p.runner
	r.mu.Lock()
	holder := r.holder
	r.mu.Unlock()
	if holder == 0 {
		return nil, r.notApplying()
	}
	conn, err := apply.ConnectLoader(ctx, r.config.PostgresURL, r.snapshot().name, holder)
	if err != nil {
		return nil, err
	}
	// What was told as mended stays so, whatever crashes.
	if _, err = conn.Exec(ctx, "SET synchronous_commit = on; "+mendingSettings); err != nil {
		closeQuietly(conn)
		return nil, fmt.Errorf("set up repair session: %w", err)
	}
	return conn, nil
}

// mendingSettings are those of sessions that mend rows: somebody else may have locked them.
var mendingSettings = fmt.Sprintf("SET jit = off; SET lock_timeout = %d", verifyLockTimeout.Milliseconds())

func closeQuietly(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// there mends batches until enough time has passed or the session is of no more use.
func (p *repair) there(ctx context.Context, conn *pgx.Conn, s copySnapshot, todo []*batch) (left []*batch, err error) {
	began := time.Now()
	for len(todo) > 0 {
		b := todo[0]
		t := p.tables[b.table.unit.target]
		if t.failed != "" {
			todo = todo[1:]
			continue
		}
		err := p.mendBatch(ctx, conn, s, b)
		inTime := !errors.Is(context.Cause(ctx), context.DeadlineExceeded)
		var cannot *cannotCompareError
		switch {
		case err == nil:
			todo = todo[1:]
		case !inTime || errors.Is(err, errTooLarge):
			if b.size() > 1 {
				todo = append(b.halves(), todo[1:]...)
				break
			}
			todo = todo[1:]
			t.failed = fmt.Sprintf("mending a row takes longer than the %v for which applying may stand still; a longer time is --max-hold", p.maxHold)
		case errors.As(err, &cannot) && cannot.passes: // the next comparison finds it again, and tries again
			todo = withoutTable(todo, b.table)
		case errors.As(err, &cannot):
			t.failed = rpc.Message(cannot.err)
		default:
			return nil, err
		}
		if err := p.tell(false, func(now *applierv1.RepairProgress) {
			now.Phase, now.Detail, now.ToMend = "mending", "applying stands still meanwhile", 0
			for _, b := range todo {
				now.ToMend += int64(b.size())
			}
		}); err != nil {
			return nil, err
		}
		if !inTime || conn.IsClosed() || time.Since(began) > maxStanding {
			break
		}
	}
	return todo, nil
}

func withoutTable(todo []*batch, table *differingTable) (left []*batch) {
	for _, b := range todo {
		if b.table != table {
			left = append(left, b)
		}
	}
	return left
}

// mendError tells failures of one table of the replica from those of the whole repair.
func mendError(u *verifyUnit, err error) error {
	code := postgres.Code(err)
	switch {
	case strings.HasPrefix(code, "40"), strings.HasPrefix(code, "55"): // a deadlock, a lock that was not to be had
		return &cannotCompareError{err: fmt.Errorf("table %s of the replica: %w", u.target, err), passes: true}
	case code == "" || postgres.IsTransient(err):
		return err
	}
	return &cannotCompareError{err: fmt.Errorf("table %s of the replica refuses a row of the source: %w", u.target, err)}
}
