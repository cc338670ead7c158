package logger

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed0419d559/syncline/services/logger/publish"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

// Config is what a logger needs to know. DefaultConfig gives every field its default.
type Config struct {
	// PostgresURL leads to the primary's database.
	PostgresURL string
	// Dir holds the change log.
	Dir string
	// ServerID is the node's, as internal/node has prepared it: the schema syncline with its tables has to be there.
	ServerID string
	// Slot is the name of the replication slot, Publication that of the publication; the one for tables of which only
	// inserts are captured is Publication + "_insert". Both are created when missing.
	Slot, Publication string
	// Include and Exclude are table patterns (schema.table, with *). Without Include every table is captured.
	Include, Exclude []string
	// InsertOnly are patterns of the tables of which only inserts and truncates are captured, so that they need no identity.
	InsertOnly []string
	// MaxRowBytes bounds one row event: the new row and, as far as PostgreSQL logs it, the old one.
	MaxRowBytes int64
	// DecodingMemory is how much memory the walsender may use for transactions that have not been sent, 0 for what the server has by itself (64 MiB): one that is
	// larger goes over the primary's disk, or is sent in pieces while it runs. It is used where nobody has set logical_decoding_work_mem for the server, the
	// database or the role.
	DecodingMemory int64
	// MaxAge is how long transactions stay in the change log at least before they are purged, 0 for ever.
	MaxAge time.Duration
	// MaxBytes is the size from which the change log's oldest transactions are purged, 0 for no limit.
	MaxBytes int64
	// KeepBytes is the size of the change log up to which what registered followers have not applied is kept beyond MaxAge and MaxBytes,
	// 0 to keep nothing for them.
	KeepBytes int64
	// FollowerTimeout is how long a registered follower that is not connected counts after it was last heard of.
	FollowerTimeout time.Duration
	// LogRemoteChanges says that transactions with an origin are captured too.
	LogRemoteChanges bool
	// MaxFollowers bounds the streams that are served at the same time.
	MaxFollowers int
	// CatalogInterval is the time between two looks for new tables and lost identities. It grows when a look is slow.
	CatalogInterval time.Duration
	// LockTimeout bounds each wait of an ALTER PUBLICATION for a table.
	LockTimeout time.Duration
	// RetryMax is the longest time between two attempts to connect, FailedRetry the time until something is tried again
	// that only a person can mend.
	RetryMax, FailedRetry time.Duration
	// SilenceLimit is how long the server may say nothing until the connection is looked after.
	SilenceLimit time.Duration
	// Logger takes the log; slog.Default() when nil.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Slot:            "syncline",
		Publication:     "syncline",
		MaxRowBytes:     256 << 20,
		DecodingMemory:  256 << 20,
		MaxAge:          7 * 24 * time.Hour,
		MaxBytes:        64 << 30,
		KeepBytes:       64 << 30, // no more than MaxBytes: a follower never makes the log larger by default
		FollowerTimeout: 14 * 24 * time.Hour,

		LogRemoteChanges: true,

		MaxFollowers:    1000,
		CatalogInterval: 500 * time.Millisecond,
		LockTimeout:     3 * time.Second,
		RetryMax:        5 * time.Second,
		FailedRetry:     30 * time.Second,
		SilenceLimit:    30 * time.Second,
	}
}

// ErrConfig says that a configuration cannot be used. Its text names the field and what it takes.
var ErrConfig = errors.New("invalid configuration")

const (
	minRowBytes = 1 << 20
	maxRowBytes = 1 << 30 // PostgreSQL's own limit for a message
	// PostgreSQL's least, and what is surely a mistake.
	minDecodingMemory = 64 << 10
	maxDecodingMemory = 64 << 30
	// messageOverhead is what a row event has around its values: headers, and five bytes for each of 1,600 columns, old and new.
	messageOverhead = 64 << 10
)

// checkNames checks what is called in PostgreSQL by a configured name.
func (c Config) checkNames() error {
	for name, value := range map[string]string{"slot": c.Slot, "publication": c.Publication} {
		if !walsender.NamePattern.MatchString(value) {
			return fmt.Errorf("%w: %s name %q: use 1 to 55 lower-case letters, digits and underscores, with no digit first", ErrConfig, name, value)
		}
	}
	return nil
}

// check checks the configuration and returns its part for package publish.
func (c Config) check() (publish.Config, error) {
	if err := c.checkNames(); err != nil {
		return publish.Config{}, err
	}
	switch {
	case c.Dir == "":
		return publish.Config{}, fmt.Errorf("%w: a directory for the change log is needed", ErrConfig)
	case c.MaxRowBytes < minRowBytes || c.MaxRowBytes > maxRowBytes:
		return publish.Config{}, fmt.Errorf("%w: max row bytes %d: use 1 MiB to 1 GiB", ErrConfig, c.MaxRowBytes)
	case c.DecodingMemory != 0 && (c.DecodingMemory < minDecodingMemory || c.DecodingMemory > maxDecodingMemory):
		return publish.Config{}, fmt.Errorf("%w: decoding memory %d: use 64 KiB to 64 GiB, or 0 for the server's own setting", ErrConfig, c.DecodingMemory)
	case c.MaxAge < 0 || c.MaxBytes < 0 || c.KeepBytes < 0:
		return publish.Config{}, fmt.Errorf("%w: retention cannot be below zero", ErrConfig)
	case c.FollowerTimeout < minFollowerTimeout:
		return publish.Config{}, fmt.Errorf("%w: follower timeout %v: use %v or longer", ErrConfig, c.FollowerTimeout, minFollowerTimeout)
	case c.MaxFollowers < 1 || c.CatalogInterval <= 0 || c.LockTimeout <= 0 || c.RetryMax <= 0 || c.FailedRetry <= 0 || c.SilenceLimit <= 0:
		return publish.Config{}, fmt.Errorf("%w: intervals and the number of followers have to be above zero", ErrConfig)
	}
	p, err := publication(c, newSettings(c).defaults)
	if err != nil {
		return publish.Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return p, nil
}
