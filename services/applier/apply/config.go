package apply

import (
	"errors"
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/filter"
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
	// OID is the table's on the source when it was copied: under the same name another OID is another table. 0 is any.
	OID uint32
	// CopyLSN is the position of the table's copy: changes of transactions that end at or below it are in the copy.
	CopyLSN change.LSN
	// Target is the table its rows go to.
	Target schema.Name
	// Own says that the target is this table's, under whatever name, and not one that takes the rows of several partitions.
	Own bool
	// Rows is the condition in SQL for the rows of a target with these columns that a truncate of the table removes; nil for all.
	Rows func([]filter.Column) (string, error)
}

// NewTableError says that the source replicates a table that belongs to this replication and has no copy yet, because it is
// new, or was dropped and made again. Nothing of
// the transaction that names it was applied: give the table a copy, then go on from the same position.
type NewTableError struct {
	Tables []schema.Name
	OIDs   map[schema.Name]uint32 // of those of the tables whose OID is known
	XID    uint32                 // of the transaction, 0 when none named them
	LSN    change.LSN             // of the commit record: copies at or before it do not have what happened while nothing was captured
}

func (e *NewTableError) Error() string {
	return fmt.Sprintf("tables %v have no copy as of %s yet", e.Tables, e.LSN)
}

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
	Fallbacks    int64 // slices that were replayed row by row since the engine began
	// Unsynced counts the changes that are set aside. Told are some of what was set aside, or thrown away by a truncate, since the
	// last time.
	Unsynced Unsynced
	Told     []string
}

// Options of an engine. DefaultOptions gives the values used when nothing is said.
type Options struct {
	// GroupBytes, GroupTransactions and GroupTime bound how many source transactions share one target transaction.
	GroupBytes        int
	GroupTransactions int
	GroupTime         time.Duration
	// SliceBytes bounds the changes that are held before they are written. Where they concern many tables, it and GroupBytes are up to
	// three times as much; behind whole transactions of the same group, a slice has a quarter more.
	SliceBytes int
	// StoreInterval bounds how far the stored position lags behind when nothing that concerns the target happens.
	StoreInterval time.Duration
	// LookInterval is the time between two looks at all of the target's tables, to notice what was altered.
	LookInterval time.Duration
	// LookShare makes looks rarer where they take long: one takes at most this part (1 ÷ LookShare) of the time.
	LookShare int
}

// DefaultOptions returns the options that suit most targets.
func DefaultOptions() Options {
	return Options{
		GroupBytes: 4 << 20, GroupTransactions: 10_000, GroupTime: 500 * time.Millisecond, SliceBytes: 4 << 20,
		StoreInterval: time.Second, LookInterval: 10 * time.Second, LookShare: 100,
	}
}

// Config is what an engine needs.
type Config struct {
	Replication string
	Session     *Session
	SourceID    string          // server id of the source
	Position    change.Position // as stored in the target
	// Table says what to do with a source table, of a name and an OID, of which a change comes; known is false for one that has no copy.
	Table func(schema.Name, uint32) (table Table, known bool)
	// Captured tells whether a table that the source captures from the commit LSN on needs a copy.
	Captured func(schema.Name, change.LSN) bool
	// Reader is where the engine looks at the target's tables again, over other sessions than its own. Without it the session's
	// catalog stands.
	Reader reader
	// Removed is called when the source captures tables no longer.
	Removed func([]schema.Name)
	// Applied is called after each commit of the target, and whenever the position moved without one. No target transaction
	// is open then, and the session may be used until it returns. An error stops the engine.
	Applied func(Progress) error
	// Quarantine is what becomes of changes that the target refuses.
	Quarantine Quarantine
	// Holds is how others have the engine stand still; it may be nil.
	Holds   *Holds
	Options Options
}
