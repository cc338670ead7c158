package applier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	// snapshotTTL is how long a snapshot outlives an applier that is gone; a restarted one goes on with it until then.
	snapshotTTL = time.Minute
	// chunkPages is how much of a table is copied in one target transaction: 32 MiB of its main storage.
	chunkPages = 4096
	// maxRounds bounds how often tables are begun anew at once because the source rewrote them during the copy.
	maxRounds = 5
)

// copier makes the first copy of a replication's tables. What it has finished is durable in the target chunk by chunk,
// each with its rows, so a copy that breaks off goes on where it was while its snapshot lives, and with the tables not
// yet whole afterwards.
type copier struct {
	runner      *runner
	replication string
	url         string
	workers     int
	joining     int       // sessions up to which they join in a table that another one copies
	conn        *pgx.Conn // the session that holds the replication's lock
	source      *source
	database    schema.Database // of the source
	targets     apply.Catalog
	parameters  map[string]string // of the set
	replace     bool              // rows that were in the targets before the first copy are removed
	// indexes are those to build as soon as their table is whole. What is not among them is built when all tables are.
	indexes map[schema.Name][]schema.Statement
	status  *status
}

// run copies every table that is not copied yet.
func (c *copier) run(ctx context.Context) error {
	for range maxRounds {
		tables, err := listTables(ctx, c.conn, c.replication)
		if err != nil {
			return err
		}
		units := unitsOf(tables)
		if len(units) == 0 {
			return nil
		}
		if err := c.round(ctx, tables, units); err != nil {
			return err
		}
	}
	// It may never end, but it need not be mended by anybody either: it goes on as the pauses become longer.
	return rpc.Errorf(codes.Aborted, reasonTableRewritten, "the source truncated or rewrote tables during each of %d copies; they are copied again", maxRounds)
}

// unit is the tables that share one target table: they are begun anew together, because the target is emptied as a whole.
type unit struct {
	target schema.Name
	tables []*storedTable
}

// incremental tells whether what the target holds is mended instead of replaced. A table that comes to the others of its target
// later is not mended among their rows.
func (u *unit) incremental() bool {
	return !slices.ContainsFunc(u.tables, func(t *storedTable) bool { return !t.incremental })
}

// unitsOf returns the units that are not wholly copied.
func unitsOf(tables []*storedTable) []*unit {
	byTarget := map[schema.Name]*unit{}
	var units []*unit
	for _, t := range tables {
		u := byTarget[t.target]
		if u == nil {
			u = &unit{target: t.target}
			byTarget[t.target] = u
			units = append(units, u)
		}
		u.tables = append(u.tables, t)
	}
	return slices.DeleteFunc(units, func(u *unit) bool {
		return !slices.ContainsFunc(u.tables, func(t *storedTable) bool { return t.state != tableCopied })
	})
}

// round copies from one snapshot. Tables that the source has rewritten since are left for the next round.
func (c *copier) round(ctx context.Context, all []*storedTable, units []*unit) error {
	snapshot, err := c.openSnapshot(ctx, units)
	if err != nil {
		return err
	}
	if err := c.sameLog(ctx, all, snapshot); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var renewing sync.WaitGroup
	copied := make(chan struct{})
	renewing.Go(func() { c.lease(ctx, snapshot, copied, stop) })
	defer renewing.Wait()
	defer stop(nil)

	jobs, err := c.begin(ctx, units, snapshot)
	if err == nil {
		err = c.mendUnits(ctx, units, snapshot)
	}
	if err == nil {
		c.say("copying", "")
		err = c.work(ctx, snapshot, jobs, copied)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err == nil {
		renewing.Wait()
	}
	return err
}

// openSnapshot goes on with the snapshot of a copy that broke off, or opens a fresh one.
func (c *copier) openSnapshot(ctx context.Context, units []*unit) (copySnapshot, error) {
	for _, u := range units {
		for _, t := range u.tables {
			if t.state != tableCopying || t.snapshotID == "" {
				continue
			}
			_, err := c.source.inventoryClient().RenewSnapshot(ctx, &inventoryv1.RenewSnapshotRequest{SnapshotId: t.snapshotID})
			if err == nil {
				return copySnapshot{t.snapshotID, t.position}, nil
			}
			if rpc.Reason(err) != reasonSnapshotGone {
				return copySnapshot{}, fmt.Errorf("renew snapshot: %w", err)
			}
		}
	}
	return c.newSnapshot(ctx)
}

func (c *copier) newSnapshot(ctx context.Context) (copySnapshot, error) {
	c.say("waiting for a snapshot", "")
	snapshot, err := c.source.openSnapshot(ctx, &inventoryv1.OpenSnapshotRequest{Ttl: durationpb.New(snapshotTTL)}, func(reason string) {
		c.say("waiting for a snapshot", reason)
	})
	if err == nil {
		fault.Point(FaultSnapshotOpened)
	}
	return snapshot, err
}

// sameLog makes sure that all copies lie on one change log: those of another one begin anew.
func (c *copier) sameLog(ctx context.Context, tables []*storedTable, snapshot copySnapshot) error {
	for _, t := range tables {
		if t.state != tableCopied || t.position.LogID == snapshot.position.LogID {
			continue
		}
		if err := setTableState(ctx, c.conn, c.replication, t.name, tableWaiting); err != nil {
			return err
		}
		return fmt.Errorf("table %s: %w: the source began a new change log", t.name, errSuperseded)
	}
	return nil
}

// lease keeps the snapshot until ctx ends, or until all is copied, when it gives it back: what is left to do then holds up no
// vacuum on the source. Losing the lease before stops the copy.
func (c *copier) lease(ctx context.Context, snapshot copySnapshot, copied <-chan struct{}, stop context.CancelCauseFunc) {
	tick := time.NewTicker(snapshotTTL / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-copied:
			c.say("building indexes", "")
			closing, cancel := context.WithTimeout(ctx, handshakeTimeout)
			defer cancel()
			// If this fails the lease ends by itself.
			_, _ = c.source.inventoryClient().CloseSnapshot(closing, &inventoryv1.CloseSnapshotRequest{SnapshotId: snapshot.id})
			return
		case <-tick.C:
		}
		_, err := c.source.inventoryClient().RenewSnapshot(ctx, &inventoryv1.RenewSnapshotRequest{SnapshotId: snapshot.id})
		if err != nil && rpc.Reason(err) == reasonSnapshotGone {
			stop(fmt.Errorf("renew snapshot: %w", err))
			return
		}
	}
}

// job is one chunk: a page range of a table.
type job struct {
	table    *tableCopy
	from, to int64 // pages; to 0 means the end
}

// tableCopy is a table being copied.
type tableCopy struct {
	name    schema.Name
	target  schema.Name
	columns []string
	types   []uint32 // of the columns on either side, by OID, if rows travel in the binary format
	binary  bool     // rows travel in COPY's binary format

	mu        sync.Mutex
	open      int // chunks not finished
	rewritten bool
}

// begin starts or resumes each unit's tables and returns the chunks to copy, those of the largest tables first.
func (c *copier) begin(ctx context.Context, units []*unit, snapshot copySnapshot) ([]job, error) {
	var copies [][]job
	for _, u := range units {
		resumed := !slices.ContainsFunc(u.tables, func(t *storedTable) bool { return t.state == tableWaiting || t.snapshotID != snapshot.id })
		if !resumed {
			if err := c.beginUnit(ctx, u, snapshot); err != nil {
				return nil, err
			}
		}
		if u.incremental() {
			continue
		}
		for _, t := range u.tables {
			if resumed && t.state == tableCopied {
				continue
			}
			jobs, err := c.chunks(ctx, t, resumed)
			if err != nil {
				return nil, err
			}
			copies = append(copies, jobs)
		}
	}
	slices.SortStableFunc(copies, func(a, b []job) int { return cmp.Compare(len(b), len(a)) })
	return slices.Concat(copies...), nil
}

// beginUnit empties the target table and makes its source tables 'copying', all or nothing.
func (c *copier) beginUnit(ctx context.Context, u *unit, snapshot copySnapshot) error {
	err := pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		gone := &drops{replication: c.replication}
		for _, t := range u.tables {
			if err := beginTable(ctx, tx, c.replication, t.name, snapshot, gone); err != nil {
				return err
			}
		}
		if err := c.emptyUnit(ctx, tx, u); err != nil {
			return err
		}
		return gone.store(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("begin the copy into table %s: %w", u.target, err)
	}
	fault.Point(FaultTableBegun)
	c.status.update(func(s *status) {
		for _, t := range u.tables {
			s.table(t.name).copyLSN = snapshot.position.LSN
		}
	})
	return nil
}

// emptyUnit removes what the target holds, unless that is mended.
func (c *copier) emptyUnit(ctx context.Context, tx pgx.Tx, u *unit) error {
	if u.incremental() {
		return nil
	}
	mayRemove := c.replace || slices.ContainsFunc(u.tables, func(t *storedTable) bool { return t.snapshotID != "" })
	condition, err := c.own(u, c.targets[u.target])
	if err != nil {
		return err
	}
	if condition != "" {
		return emptyShared(ctx, tx, c.targets[u.target], u.target, condition, mayRemove)
	}
	return empty(ctx, tx, c.targets[u.target], u.target, mayRemove)
}

// empty removes a target table's rows, by TRUNCATE where nothing refers to it. Rows that came since the replication was
// created, and that no copy of ours wrote, are refused instead.
func empty(ctx context.Context, tx pgx.Tx, target *apply.Target, name schema.Name, mayRemove bool) error {
	if target == nil {
		return failed(reasonMismatch, "table %s is gone from the replica; create it again, then start the replication", name)
	}
	var rows bool
	only := "ONLY " + name.SQL()
	if target.Partitioned {
		only = name.SQL()
	}
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+only+")").Scan(&rows); err != nil {
		return err
	}
	if !rows {
		return nil
	}
	if !mayRemove {
		return failed(reasonNotEmpty, "table %s of the replica holds rows that did not come from the source; empty it, then start the replication again", name)
	}
	var referenced bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1 AND conrelid <> $1)", target.OID).Scan(&referenced); err != nil {
		return err
	}
	command := "TRUNCATE " + only
	if referenced {
		command = "DELETE FROM " + only
	}
	_, err := tx.Exec(ctx, command)
	return err
}

// chunks returns a table's page ranges that are not finished.
func (c *copier) chunks(ctx context.Context, t *storedTable, resumed bool) ([]job, error) {
	done := map[int64]bool{}
	if resumed {
		var err error
		if done, err = finishedChunks(ctx, c.conn, c.replication, t.name); err != nil {
			return nil, err
		}
	}
	described, ok := c.database.Table(t.name)
	if !ok {
		return nil, failed(reasonUnknownTable, "table %s was dropped on the source during the copy; leave it out with --exclude-table, or delete the replication and create it again", t.name)
	}
	tc := &tableCopy{name: t.name, target: t.target, binary: binary(described, c.targets[t.target])}
	for _, column := range described.Columns {
		if column.Generated == "" {
			tc.columns = append(tc.columns, column.Name)
			if tc.binary {
				tc.types = append(tc.types, column.TypeOID)
			}
		}
	}
	var jobs []job
	total := 0
	for from := int64(0); from == 0 || from < t.pages; from += chunkPages {
		total++
		to := from + chunkPages
		if to >= t.pages {
			to = 0 // pages that were added since belong to the last chunk
		}
		if !done[from] {
			jobs = append(jobs, job{tc, from, to})
		}
	}
	tc.open = len(jobs)
	c.status.update(func(s *status) {
		p := s.table(t.name)
		p.state, p.chunks, p.done = tableCopying, total, total-len(jobs)
		if !resumed {
			p.rows, p.bytes = 0, 0
		}
	})
	if len(jobs) == 0 {
		return nil, c.tableDone(ctx, tc)
	}
	return jobs, nil
}

// work copies the chunks and builds indexes with several sessions. copied is closed when all chunks are dealt with.
func (c *copier) work(ctx context.Context, snapshot copySnapshot, jobs []job, copied chan struct{}) error {
	todo := newBacklog(jobs, copied, c.joining)
	group, ctx := errgroup.WithContext(ctx)
	for range min(c.workers, todo.most(c.indexes)) {
		group.Go(func() error { return c.worker(ctx, snapshot, todo, copied) })
	}
	return group.Wait()
}

func (c *copier) worker(ctx context.Context, snapshot copySnapshot, todo *backlog, copied <-chan struct{}) error {
	conn, err := apply.ConnectLoader(ctx, c.url, c.replication, c.conn.PgConn().PID())
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	for {
		w := todo.next(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.chunk != nil:
			indexes, err := c.copyChunk(ctx, conn, snapshot, *w.chunk)
			if err != nil {
				return err
			}
			todo.done(w, indexes)
		case w.index != nil:
			phase := "copying"
			select {
			case <-copied:
				phase = "building indexes"
			default:
			}
			c.say(phase, describe(*w.index))
			if err := buildOne(ctx, conn, *w.index, c.workers/(w.others+1)); err != nil {
				return err
			}
			todo.built()
		default:
			return nil
		}
	}
}

// copyChunk copies a chunk, unless its table is left to the next round. It returns the indexes of a table that has become whole.
func (c *copier) copyChunk(ctx context.Context, conn *pgx.Conn, snapshot copySnapshot, j job) ([]schema.Statement, error) {
	j.table.mu.Lock()
	rewritten := j.table.rewritten
	j.table.mu.Unlock()
	if rewritten {
		return nil, nil
	}
	if err := c.chunk(ctx, conn, snapshot, j); err != nil {
		if rpc.Reason(err) != reasonTableRewritten {
			return nil, fmt.Errorf("copy table %s: %w", j.table.name, err)
		}
		return nil, c.forget(ctx, conn, j.table)
	}
	j.table.mu.Lock()
	j.table.open--
	whole := j.table.open == 0 && !j.table.rewritten
	j.table.mu.Unlock()
	if !whole {
		return nil, nil
	}
	return c.indexes[j.table.name], c.finishTable(ctx, conn, j.table)
}

// forget leaves a table that the source has rewritten to the next round.
func (c *copier) forget(ctx context.Context, conn *pgx.Conn, t *tableCopy) error {
	t.mu.Lock()
	t.rewritten = true
	t.mu.Unlock()
	c.say("copying", fmt.Sprintf("the source rewrote table %s; it is copied again from a fresh snapshot", t.name))
	return setTableState(ctx, conn, c.replication, t.name, tableWaiting)
}

func (c *copier) finishTable(ctx context.Context, conn *pgx.Conn, t *tableCopy) error {
	if err := setTableState(ctx, conn, c.replication, t.name, tableCopied); err != nil {
		return err
	}
	fault.Point(FaultTableDone)
	c.status.update(func(s *status) { s.table(t.name).state = tableCopied })
	return nil
}

func (c *copier) tableDone(ctx context.Context, t *tableCopy) error {
	return c.finishTable(ctx, c.conn, t)
}

func (c *copier) say(phase, detail string) {
	c.status.update(func(s *status) { s.sync.phase, s.sync.detail = phase, detail })
}
