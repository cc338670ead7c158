package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/gather"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Engine applies a stream: Run reads and groups transactions and prepares what is written, while the executor has the target
// write what was prepared before.
type Engine struct {
	config    Config
	executor  *executor
	tasks     chan task
	netting   netting
	assembler *block.Assembler
	relations map[change.RelationHash]*change.Relation
	routes    map[change.RelationHash]*route
	unrouted  map[change.RelationHash]bool // those of relations that came and have no route yet
	targets   Catalog
	known     knownTables
	looked    chan look
	looks     atomic.Int64 // at single tables
	taken     change.LSN   // end of what was handed to the executor to commit

	gather gather.Gather
	later  *time.Timer // when what is whole has been gathered for long enough

	group  group
	txn    txn
	slice  []op
	bytes  int // of slice
	tables int // whose changes are in slice
	slices int // taken so far

	hold    *hold
	holdAt  change.LSN // where the hold is to stand still; 0 before that is chosen
	through change.LSN // the mark that was cut off there, 0 for none
}

// route is a relation version's way to its target; plan is nil when its changes are not applied.
type route struct {
	plan    *Plan
	table   Table
	copyLSN change.LSN
	missing *change.Relation // set when there is no copy, or that of another table of this name
	err     error            // set when the target cannot take its rows
	slice   int              // the latest slice that has changes of it
}

// group is the open target transaction: whole source transactions, and perhaps the beginning of one.
type group struct {
	started      time.Time
	transactions int
	changes      int64
	bytes        int
	origin       origin     // of its latest transaction; all of them first happened at the same server
	end          change.LSN // of its last whole transaction; 0 when it has none
	commitTime   change.Timestamp
}

// txn is the source transaction being read.
type txn struct {
	open     bool
	resolved bool // its origin is known
	begin    block.Begin
	origin   origin
	number   int64      // of the latest change
	source   *sourceTxn // for its changes; nil before the first
}

// origin tells where a transaction first happened.
type origin struct {
	server     string
	position   change.Position
	commitTime change.Timestamp
}

// NewEngine makes an engine that continues after config.Position.
func NewEngine(config Config) *Engine {
	e := &Engine{
		config: config, tasks: make(chan task, tasksAhead), assembler: block.NewAssembler(config.Position),
		relations: map[change.RelationHash]*change.Relation{}, routes: map[change.RelationHash]*route{}, unrouted: map[change.RelationHash]bool{},
		taken:   config.Position.LSN,
		targets: Catalog{}, looked: make(chan look),
		gather: gather.Gather{Most: 100 * time.Millisecond, Each: 4 * time.Microsecond}, later: time.NewTimer(time.Hour),
	}
	e.executor = &executor{
		config: &e.config, writer: newWriter(&config), storedAt: time.Now(), idle: make(chan struct{}, 1),
		progress: Progress{Position: config.Position, Stored: config.Position.LSN},
	}
	return e
}

// Run applies events until the stream ends, something cannot be applied, or ctx is done. What was not committed is not
// applied; the session must be closed after an error.
func (e *Engine) Run(ctx context.Context, events <-chan Event) error {
	if e.config.Holds != nil {
		defer close(e.config.Holds.ended)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.executor.run(ctx, e.tasks) })
	group.Go(func() error { return e.read(ctx, events) })
	group.Go(func() error { return e.lookAround(ctx) })
	return group.Wait()
}

func (e *Engine) read(ctx context.Context, events <-chan Event) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case all := <-e.looked:
			if err := e.adopt(ctx, all); err != nil {
				return err
			}
		case e.hold = <-e.requests():
			if err := e.mayHold(ctx, e.taken); err != nil {
				return err
			}
		case <-e.executor.idle:
			if err := e.commitWhole(ctx, len(events) == 0); err != nil {
				return err
			}
		case <-e.later.C:
			if err := e.commitWhole(ctx, len(events) == 0); err != nil {
				return err
			}
		case event, ok := <-events:
			switch {
			case !ok:
				return errors.New("the stream ended")
			case event.Err != nil:
				return event.Err
			case event.Relation != nil:
				e.relation(event.Relation)
				if err := e.commitWhole(ctx, len(events) == 0); err != nil {
					return err
				}
			default:
				if err := e.block(ctx, event.Block, len(events) == 0); err != nil {
					return err
				}
				if err := e.mayHold(ctx, event.Block.Through); err != nil {
					return err
				}
			}
		}
	}
}

// commitWhole commits what is whole when no other event waits and the target does too.
func (e *Engine) commitWhole(ctx context.Context, last bool) error {
	if e.txn.open || !e.due(last) {
		return nil
	}
	return e.commit(ctx)
}

// due tells whether what is whole should be committed although the group has room. last tells that no other event waits.
func (e *Engine) due(last bool) bool {
	if !last || e.group.transactions == 0 || e.executor.outstanding.Load() > 0 {
		return false
	}
	wait := e.gather.Wait(time.Now())
	if wait > 0 {
		e.later.Reset(wait)
	}
	return wait <= 0
}

// block takes one block. last tells that no other event waits: then, unless the target is busy, what is whole is committed at
// once.
func (e *Engine) block(ctx context.Context, b *block.Block, last bool) error {
	if b.LogID != e.config.Position.LogID {
		return fmt.Errorf("%w: a block of log %s came, expected %s", ErrStreamOrder, b.LogID, e.config.Position.LogID)
	}
	if err := e.assembler.Push(b); err != nil {
		return err
	}
	var rec block.Record
	for {
		ok, err := e.assembler.Next(&rec)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := e.record(ctx, b, &rec); err != nil {
			return err
		}
	}
	if e.txn.open {
		return nil
	}
	through := e.upTo(b.Through)
	if e.group.transactions > 0 {
		// A mark behind the last transaction moves the position with it.
		e.group.end = max(e.group.end, through)
		if e.groupFull() || e.due(last) {
			return e.commit(ctx)
		}
		return nil
	}
	return e.takeThrough(ctx, through)
}

func (e *Engine) groupFull() bool {
	o := &e.config.Options
	return e.group.bytes >= o.GroupBytes*e.times() || e.group.transactions >= o.GroupTransactions || time.Since(e.group.started) >= o.GroupTime
}

// times is how much larger a slice may be for the tables in it: each table costs statements of its own, whose cost is small beside that of
// its rows only if it has many.
func (e *Engine) times() int { return min(1+e.tables/tablesForMore, mostTimes) }

const (
	tablesForMore = 64
	mostTimes     = 3
)

// hand gives a task to the executor, waiting for a place.
func (e *Engine) hand(ctx context.Context, t task) error {
	e.executor.outstanding.Add(1)
	select {
	case e.tasks <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Engine) record(ctx context.Context, b *block.Block, rec *block.Record) error {
	if rec.Kind == block.KindBegin {
		if before := max(e.taken, e.group.end); rec.Begin.CommitLSN < before {
			return fmt.Errorf("%w: a transaction with commit LSN %s came after %s", ErrStreamOrder, rec.Begin.CommitLSN, before)
		}
		if e.holdAt != 0 && rec.Begin.CommitLSN >= e.holdAt { // so it ends after it
			if err := e.reach(ctx); err != nil {
				return err
			}
		}
		if e.group.transactions == 0 {
			e.group.started = time.Now()
		}
		e.txn = txn{open: true, begin: rec.Begin, origin: origin{
			server: e.config.SourceID, position: change.Position{LogID: e.config.Position.LogID, LSN: rec.Begin.CommitLSN}, commitTime: rec.Begin.CommitTime,
		}}
		return nil
	}
	if rec.Kind == block.KindOrigin && rec.Origin.ServerID != "" {
		e.txn.origin = origin{rec.Origin.ServerID, rec.Origin.Position, rec.Origin.CommitTime}
		return nil
	}
	if !e.txn.resolved {
		if err := e.resolveOrigin(ctx); err != nil {
			return err
		}
	}
	switch rec.Kind {
	case block.KindChange:
		e.txn.number++
		return e.change(ctx, b, &rec.Change)
	case block.KindTruncate:
		return e.truncate(ctx, b, &rec.Truncate)
	case block.KindMessage:
		return e.message(&rec.Message)
	case block.KindCommit:
		return e.endTransaction(ctx, &rec.Commit)
	}
	return nil
}

// resolveOrigin keeps transactions of different origins out of one target transaction.
func (e *Engine) resolveOrigin(ctx context.Context) error {
	e.txn.resolved = true
	if e.group.transactions > 0 && e.group.origin.server != e.txn.origin.server {
		if err := e.commit(ctx); err != nil {
			return err
		}
		e.group.started = time.Now()
	}
	e.group.origin = e.txn.origin
	return nil
}

// endTransaction makes the transaction part of the group and commits a group that is full.
func (e *Engine) endTransaction(ctx context.Context, c *block.Commit) error {
	e.txn.open = false
	e.group.transactions++
	e.gather.Committed(time.Now())
	e.group.end, e.group.commitTime = c.EndLSN, c.CommitTime
	if e.groupFull() {
		return e.commit(ctx)
	}
	return nil
}

// relation takes a relation version that changes are about to come for.
func (e *Engine) relation(relation *change.Relation) {
	hash := relation.Hash()
	if e.relations[hash] = relation; e.routes[hash] == nil {
		e.unrouted[hash] = true
	}
}

// route returns the way of a relation version's changes.
func (e *Engine) route(ctx context.Context, hash change.RelationHash) (*route, error) {
	if r, ok := e.routes[hash]; ok {
		return r, nil
	}
	if e.relations[hash] == nil {
		return nil, fmt.Errorf("%w: a change came before its relation", ErrStreamOrder)
	}
	e.unrouted[hash] = true
	if err := e.makeRoutes(ctx); err != nil {
		return nil, err
	}
	return e.routes[hash], nil
}

// makeRoutes makes all routes that are missing: their tables are looked at together, which takes as long as one does.
func (e *Engine) makeRoutes(ctx context.Context) error {
	made := make(map[change.RelationHash]*route, len(e.unrouted))
	wanted := map[schema.Name]bool{}
	for hash := range e.unrouted {
		relation := e.relations[hash]
		name := schema.Name{Schema: relation.Schema, Name: relation.Name}
		table, missing := e.lookUp(name, relation.OID)
		r := &route{table: table, copyLSN: table.CopyLSN}
		switch {
		case missing:
			r.missing = relation
		case table.Apply:
			wanted[table.Target] = true
		}
		made[hash] = r
	}
	if err := e.lookAt(ctx, slices.Collect(maps.Keys(wanted))); err != nil {
		return err
	}
	for hash, r := range made {
		if r.missing == nil && r.table.Apply {
			if target := e.targets[r.table.Target]; target == nil {
				r.err = &MismatchError{r.table.Target, "the replica does not have it; create it there, then start the replication again"}
			} else {
				r.plan, r.err = NewPlan(e.relations[hash], target)
			}
		}
		e.routes[hash] = r
	}
	clear(e.unrouted)
	return nil
}

// lookUp returns what to do with a table's changes, and whether it has no copy.
func (e *Engine) lookUp(name schema.Name, oid uint32) (Table, bool) {
	table, known := e.config.Table(name, oid)
	return table, !known || table.Apply && table.OID != 0 && table.OID != oid
}

// newTable is the error that asks for copies of tables, which the open transaction names.
func (e *Engine) newTable() *NewTableError {
	return &NewTableError{OIDs: map[schema.Name]uint32{}, XID: e.txn.begin.XID, LSN: e.txn.begin.CommitLSN}
}

func (err *NewTableError) add(name schema.Name, oid uint32) {
	if _, twice := err.OIDs[name]; !twice {
		err.Tables, err.OIDs[name] = append(err.Tables, name), oid
	}
}

// skips tells whether the open transaction is in a table's copy: its commit record ends at or before a position, which is
// always the end of a record, exactly when it begins before it.
func (e *Engine) skips(r *route) (bool, error) {
	switch {
	case e.txn.begin.CommitLSN < r.copyLSN:
		return true, nil
	case r.missing != nil:
		err := e.newTable()
		err.add(schema.Name{Schema: r.missing.Schema, Name: r.missing.Name}, r.missing.OID)
		return true, err
	}
	return r.plan == nil, r.err
}

func (e *Engine) change(ctx context.Context, b *block.Block, c *block.Change) error {
	r, err := e.route(ctx, b.Relations[c.Relation])
	if err != nil {
		return err
	}
	if skip, err := e.skips(r); skip {
		return err
	}
	if e.txn.source == nil {
		e.txn.source = &sourceTxn{e.txn.begin.CommitLSN, e.txn.begin.CommitTime, e.txn.begin.XID, e.txn.origin}
	}
	o := op{plan: r.plan, hasOld: c.HasOld, old: c.Old, new: c.New, from: e.txn.source, number: e.txn.number}
	switch c.Operation {
	case block.Insert:
		o.operation = Insert
	case block.Update:
		o.operation = Update
	case block.Delete:
		o.operation = Delete
	}
	if columns := len(r.plan.Relation.Columns); c.HasNew && len(c.New.Kinds) != columns || c.HasOld && len(c.Old.Kinds) != columns {
		return fmt.Errorf("a row of table %s does not have the relation's %d columns", r.plan.Relation.Name, columns)
	}
	if r.slice <= e.slices {
		r.slice = e.slices + 1
		e.tables++
	}
	size := o.size()
	e.slice = append(e.slice, o)
	e.bytes += size
	e.group.bytes += size
	e.group.changes++
	// A large row is written at once, so that no more than one is held.
	if e.sliceFull() || size >= block.MaxRecord/2 {
		return e.writeSlice(ctx)
	}
	return nil
}

// sliceFull tells whether what waits is to be written. By default a group is full when a slice is, and ends with the transaction that is being
// read then: with a little more room the rest of that needs no slice of its own, unless it is large.
func (e *Engine) sliceFull() bool {
	most := e.config.Options.SliceBytes * e.times()
	if e.group.transactions > 0 {
		most += most / 4
	}
	return e.bytes >= most
}

// writeSlice hands what waits to the executor.
func (e *Engine) writeSlice(ctx context.Context) error {
	w, err := e.takeSlice()
	if w == nil || err != nil {
		return err
	}
	return e.hand(ctx, task{write: w})
}

// takeSlice prepares what waits, nil when nothing does.
func (e *Engine) takeSlice() (*write, error) {
	if len(e.slice) == 0 {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	origin, err := e.originMessage()
	if err != nil {
		return nil, err
	}
	w := &write{origin: origin, steps: e.netting.steps(e.slice)}
	// The next one is likely to be about as large; room for much more would cost more than a small one does.
	e.slice, e.bytes, e.tables = make([]op, 0, min(cap(e.slice), 2*len(e.slice))), 0, 0
	e.slices++
	return w, nil
}

// originMessage is the content of the logical message syncline.origin for the group.
func (e *Engine) originMessage() ([]byte, error) {
	o := e.group.origin
	return OriginMessage(o.server, o.position, o.commitTime)
}

// commit hands the end of the group to the executor, if it has whole transactions.
func (e *Engine) commit(ctx context.Context) error {
	if e.group.transactions == 0 {
		return nil
	}
	w, err := e.takeSlice()
	if err != nil {
		return err
	}
	e.gather.Sent(time.Now())
	c := &commitPoint{
		position: e.group.end, commitTime: e.group.commitTime, hasCommit: true,
		transactions: e.group.transactions, changes: e.group.changes,
	}
	e.taken = e.group.end
	e.group = group{}
	return e.hand(ctx, task{write: w, commit: c})
}
