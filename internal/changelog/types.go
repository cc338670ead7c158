package changelog

import (
	"log/slog"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// Options say where a log is and how long it is kept.
type Options struct {
	Dir string // made if missing; one process at a time
	// Retention is how much is kept from the beginning on; all when zero. SetRetention replaces it.
	Retention Retention
	// PurgeInterval is the time between two looks at what may be purged. 10 s when not set.
	PurgeInterval time.Duration
	// CacheBytes is how much of the log's end is kept in memory for followers that are close. 16 MiB when not set.
	CacheBytes int
	// Stored is called with the size of each block that an appender has made durable. It must not wait.
	Stored func(bytes int)
	Logger *slog.Logger // nil is silent
}

// Meta says what a log is a log of.
type Meta struct {
	LogID            change.LogID
	Start            change.LSN // everything that ends at or below was before the log
	SystemIdentifier string
	Timeline         int32 // of the primary when the log was begun
	Database         string
	Slot             string
	Created          time.Time // set by Reset when zero
}

// Head is the durable end of a log.
type Head struct {
	Position       change.Position // through of the last block
	Number         uint64          // of the last block
	LastCommitTime change.Timestamp
	HasCommit      bool // LastCommitTime is known: there is a transaction in the log
}

// Ranges says what a log holds.
type Ranges struct {
	LogID                 change.LogID
	First                 change.LSN // following may start at or after it
	Last                  change.LSN // through of the last block
	FirstBlock, LastBlock uint64
	Bytes                 uint64    // on disk
	FirstTime, LastTime   time.Time // when the oldest and the newest block were stored
}

// Tail is where an appender goes on.
type Tail struct {
	Through change.LSN // all transactions that end at or below are in the log
	Number  uint64     // of the last block
	Open    bool       // the log ends inside a large transaction, the next one after Through
	XID     uint32     // of that transaction
	Events  uint64     // row events of it that are in the log
}
