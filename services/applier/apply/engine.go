package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/schema"
)

// Event is one thing that the stream from the source brings. Exactly one field is set.
type Event struct {
	Relation *change.Relation
	Block    *block.Block
	Err      error // the stream ended
}

// Table says what to do with the changes of one source table.
type Table struct {
	Apply bool // false: not part of this replication
	// CopyLSN is the position of the table's copy: changes of transactions that end at or below it are in the copy.
	CopyLSN change.LSN
	// Target is the table its rows go to.
	Target schema.Name
}

// NewTableError says that the source replicates a table that belongs to this replication and has no copy yet. Nothing of
// the transaction that names it was applied: give the table a copy, then go on from the same position.
type NewTableError struct{ Table schema.Name }

func (e *NewTableError) Error() string { return fmt.Sprintf("table %s has no copy yet", e.Table) }

// ErrStreamOrder says that the stream brought a transaction at or before the position, or another log. Nothing was applied.
var ErrStreamOrder = errors.New("the stream is not the continuation of what was applied")

// Progress is what has been applied.
type Progress struct {
	Position     change.Position  // every source transaction at or below it is committed in the target
	Stored       change.LSN       // what the target's row says: behind Position only by what does not concern the target
	CommitTime   change.Timestamp // of the last applied transaction
	HasCommit    bool
	Transactions int64 // since the engine began
	Changes      int64
}

// Options of an engine. DefaultOptions gives the values used when nothing is said.
type Options struct {
	// GroupBytes, GroupTransactions and GroupTime bound how many source transactions share one target transaction.
	GroupBytes        int
	GroupTransactions int
	GroupTime         time.Duration
	// SliceBytes bounds the changes that are held before they are written.
	SliceBytes int
	// StoreInterval bounds how far the stored position lags behind when nothing that concerns the target happens.
	StoreInterval time.Duration
}

// DefaultOptions returns the options that suit most targets.
func DefaultOptions() Options {
	return Options{GroupBytes: 8 << 20, GroupTransactions: 10_000, GroupTime: 500 * time.Millisecond, SliceBytes: 4 << 20, StoreInterval: time.Second}
}

// Config is what an engine needs.
type Config struct {
	Replication string
	Session     *Session
	SourceID    string          // server id of the source
	Position    change.Position // as stored in the target
	// Table says what to do with a source table; a *NewTableError stops the engine before the transaction that names it.
	Table func(schema.Name) (Table, error)
	// Applied is called after each commit of the target, and whenever the position moved without one.
	Applied func(Progress)
	Options Options
}

// Engine applies a stream. It is used by one goroutine.
type Engine struct {
	config    Config
	writer    writer
	assembler *block.Assembler
	relations map[change.RelationHash]*change.Relation
	routes    map[change.RelationHash]*route
	progress  Progress
	storedAt  time.Time

	group group
	txn   txn
	slice []op
	bytes int // of slice
}

// route is a relation version's way to its target; plan is nil when its changes are not applied.
type route struct {
	plan    *Plan
	copyLSN change.LSN
}

// group is the open target transaction: whole source transactions, and perhaps the beginning of one.
type group struct {
	begun        bool // BEGIN was sent
	started      time.Time
	transactions int
	changes      int64
	bytes        int
	origin       string     // server id at which all of its transactions first happened
	end          change.LSN // of its last whole transaction; 0 when it has none
	commitTime   change.Timestamp
}

// txn is the source transaction being read.
type txn struct {
	open     bool
	resolved bool // its origin is known
	begin    block.Begin
	origin   origin
}

// origin tells where a transaction first happened.
type origin struct {
	server     string
	position   change.Position
	commitTime change.Timestamp
}

// NewEngine makes an engine that continues after config.Position.
func NewEngine(config Config) *Engine {
	return &Engine{
		config: config, writer: writer{pipe: pipe{conn: config.Session.conn}},
		assembler: block.NewAssembler(config.Position),
		relations: map[change.RelationHash]*change.Relation{}, routes: map[change.RelationHash]*route{},
		progress: Progress{Position: config.Position, Stored: config.Position.LSN}, storedAt: time.Now(),
	}
}

// Run applies events until the stream ends, something cannot be applied, or ctx is done. What was not committed is not
// applied; the session must be closed after an error.
func (e *Engine) Run(ctx context.Context, events <-chan Event) error {
	tick := time.NewTicker(e.config.Options.StoreInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := e.storeIdle(ctx); err != nil {
				return err
			}
		case event, ok := <-events:
			switch {
			case !ok:
				return errors.New("the stream ended")
			case event.Err != nil:
				return event.Err
			case event.Relation != nil:
				e.relations[event.Relation.Hash()] = event.Relation
			default:
				if err := e.block(ctx, event.Block, len(events) == 0); err != nil {
					return err
				}
			}
		}
	}
}

// block takes one block. idle tells that no other event waits, so that what is whole is committed at once.
func (e *Engine) block(ctx context.Context, b *block.Block, idle bool) error {
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
	if e.group.transactions > 0 && (idle || e.groupFull()) {
		if err := e.commit(ctx); err != nil {
			return err
		}
	}
	if e.group.transactions == 0 && b.Through > e.progress.Position.LSN {
		e.progress.Position.LSN = b.Through
		e.config.Applied(e.progress)
	}
	return nil
}

func (e *Engine) groupFull() bool {
	o := &e.config.Options
	return e.group.bytes >= o.GroupBytes || e.group.transactions >= o.GroupTransactions || time.Since(e.group.started) >= o.GroupTime
}

func (e *Engine) record(ctx context.Context, b *block.Block, rec *block.Record) error {
	if rec.Kind == block.KindBegin {
		if rec.Begin.CommitLSN < e.progress.Position.LSN || rec.Begin.CommitLSN < e.group.end {
			return fmt.Errorf("%w: a transaction with commit LSN %s came after %s", ErrStreamOrder, rec.Begin.CommitLSN, max(e.progress.Position.LSN, e.group.end))
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
		return e.change(ctx, b, &rec.Change)
	case block.KindTruncate:
		return e.truncate(ctx, b, &rec.Truncate)
	case block.KindCommit:
		return e.endTransaction(ctx, &rec.Commit)
	}
	return nil
}

// resolveOrigin keeps transactions of different origins out of one target transaction.
func (e *Engine) resolveOrigin(ctx context.Context) error {
	e.txn.resolved = true
	if e.group.transactions > 0 && e.group.origin != e.txn.origin.server {
		if err := e.commit(ctx); err != nil {
			return err
		}
		e.group.started = time.Now()
	}
	e.group.origin = e.txn.origin.server
	return nil
}

// endTransaction makes the transaction part of the group and commits a group that is full.
func (e *Engine) endTransaction(ctx context.Context, c *block.Commit) error {
	e.txn.open = false
	e.group.transactions++
	e.group.end, e.group.commitTime = c.EndLSN, c.CommitTime
	if e.groupFull() {
		return e.commit(ctx)
	}
	return nil
}

// route returns the way of a relation version's changes.
func (e *Engine) route(hash change.RelationHash) (*route, error) {
	if r, ok := e.routes[hash]; ok {
		return r, nil
	}
	relation := e.relations[hash]
	if relation == nil {
		return nil, fmt.Errorf("%w: a change came before its relation", ErrStreamOrder)
	}
	name := schema.Name{Schema: relation.Schema, Name: relation.Name}
	table, err := e.config.Table(name)
	if err != nil {
		return nil, err
	}
	r := &route{copyLSN: table.CopyLSN}
	if table.Apply {
		target := e.config.Session.Catalog[table.Target]
		if target == nil {
			return nil, &MismatchError{table.Target, "the replica does not have it; create it there, then start the replication again"}
		}
		if r.plan, err = NewPlan(relation, target); err != nil {
			return nil, err
		}
	}
	e.routes[hash] = r
	return r, nil
}

// skips tells whether the open transaction is in a table's copy: its commit record ends at or before a position, which is
// always the end of a record, exactly when it begins before it.
func (e *Engine) skips(r *route) bool { return r.plan == nil || e.txn.begin.CommitLSN < r.copyLSN }

func (e *Engine) change(ctx context.Context, b *block.Block, c *block.Change) error {
	r, err := e.route(b.Relations[c.Relation])
	if err != nil {
		return err
	}
	if e.skips(r) {
		return nil
	}
	o := op{plan: r.plan, hasOld: c.HasOld, old: c.Old, new: c.New}
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
	size := o.size()
	e.slice = append(e.slice, o)
	e.bytes += size
	e.group.bytes += size
	e.group.changes++
	// A large row is written at once, so that no more than one is held.
	if e.bytes >= e.config.Options.SliceBytes || size >= block.MaxRecord/2 {
		return e.writeSlice(ctx)
	}
	return nil
}

// writeSlice writes what waits into the open target transaction, beginning one if there is none.
func (e *Engine) writeSlice(ctx context.Context) error {
	if len(e.slice) == 0 {
		return nil
	}
	if err := e.begin(ctx); err != nil {
		return err
	}
	if err := e.writer.write(ctx, e.slice); err != nil {
		return err
	}
	if err := e.writer.pipe.flush(ctx); err != nil {
		return err
	}
	clear(e.slice)
	e.slice, e.bytes = e.slice[:0], 0
	fault.Point("apply/slice written")
	return nil
}

// begin queues BEGIN and the origin message: the message is the first thing the transaction writes.
func (e *Engine) begin(ctx context.Context) error {
	if e.group.begun {
		return nil
	}
	e.group.begun = true
	message, err := json.Marshal(originMessage{
		ServerID: e.txn.origin.server, LogID: e.txn.origin.position.LogID.String(),
		LSN: strconv.FormatUint(uint64(e.txn.origin.position.LSN), 10), CommitTime: strconv.FormatInt(int64(e.txn.origin.commitTime), 10),
	})
	if err != nil {
		return fmt.Errorf("write origin: %w", err)
	}
	s := &e.config.Session.statements
	if err := e.writer.pipe.send(ctx, &s.begin, nil, expectation{rows: -1, what: "begin"}); err != nil {
		return err
	}
	return e.writer.pipe.send(ctx, &s.origin, [][]byte{message}, expectation{rows: -1, what: "write origin"})
}

// originMessage is the content of the logical message syncline.origin. Numbers are strings, as in the API's JSON.
type originMessage struct {
	ServerID   string `json:"server_id"`
	LogID      string `json:"log_id"`
	LSN        string `json:"lsn"`
	CommitTime string `json:"commit_time"`
}

// commit ends the group. Afterwards its transactions are applied and the position says so, both or neither.
func (e *Engine) commit(ctx context.Context) error {
	if e.group.end == 0 {
		return nil
	}
	if err := e.writeSlice(ctx); err != nil {
		return err
	}
	if e.group.begun {
		if err := e.commitTarget(ctx); err != nil {
			return err
		}
	}
	e.progress.Position.LSN = e.group.end
	e.progress.CommitTime, e.progress.HasCommit = e.group.commitTime, true
	e.progress.Transactions += int64(e.group.transactions)
	e.progress.Changes += e.group.changes
	e.group = group{}
	e.config.Applied(e.progress)
	return nil
}

func (e *Engine) commitTarget(ctx context.Context) error {
	if err := e.sendPosition(ctx, e.group.end, e.group.commitTime); err != nil {
		return err
	}
	fault.Point("apply/before commit")
	if _, err := e.writer.exec(ctx, commitSQL); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	fault.Point("apply/after commit")
	e.progress.Stored, e.storedAt = e.group.end, time.Now()
	return nil
}

// sendPosition moves the stored position, provided that it still is where this engine left it.
func (e *Engine) sendPosition(ctx context.Context, to change.LSN, commitTime change.Timestamp) error {
	params := [][]byte{
		[]byte(e.config.Replication), []byte(e.progress.Stored.String()), []byte(to.String()), strconv.AppendInt(nil, int64(commitTime), 10),
	}
	err := e.writer.pipe.send(ctx, &e.config.Session.statements.position, params, expectation{rows: 1, what: "store position"})
	if err == nil {
		err = e.writer.pipe.flush(ctx)
	}
	var count *RowCountError
	if errors.As(err, &count) {
		return fmt.Errorf("%w (expected %s)", ErrMoved, e.progress.Stored)
	}
	return err
}

// storeIdle stores a position that moved without anything to write.
func (e *Engine) storeIdle(ctx context.Context) error {
	if e.group.begun || e.progress.Position.LSN <= e.progress.Stored || time.Since(e.storedAt) < e.config.Options.StoreInterval {
		return nil
	}
	if err := e.sendPosition(ctx, e.progress.Position.LSN, e.progress.CommitTime); err != nil {
		return err
	}
	e.progress.Stored, e.storedAt = e.progress.Position.LSN, time.Now()
	e.config.Applied(e.progress)
	return nil
}
