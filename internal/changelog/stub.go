package changelog

import (
	"context"
	"errors"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

var errStub = errors.New("the change log is being written")

// Log is a change log.
type Log struct{}

// Open opens the log in a directory, which may hold none yet. It finishes a Reset that was interrupted.
func Open(context.Context, Options) (*Log, error) { return nil, errStub }

// Close stops everything. Calls under way fail with ErrClosed.
func (l *Log) Close() error { return nil }

// Meta returns what the log is a log of; false before the first Reset.
func (l *Log) Meta() (Meta, bool) { return Meta{}, false }

// Reset begins a new incarnation: everything that the log held goes.
func (l *Log) Reset(context.Context, Meta) error { return errStub }

// Head returns the durable end.
func (l *Log) Head() Head { return Head{} }

// Ranges returns what the log holds.
func (l *Log) Ranges() Ranges { return Ranges{} }

// Find returns the number of the first block to read to follow after the position. It returns ErrTooOld, ErrAhead,
// ErrOtherLog or ErrNoLog.
func (l *Log) Find(context.Context, change.Position) (uint64, error) { return 0, errStub }

// Read returns a block; it waits until that one is durable. The block is shared by all readers. It returns ErrPurged.
func (l *Log) Read(context.Context, uint64) (*block.Block, error) { return nil, errStub }

// PutRelation makes a relation version durable.
func (l *Log) PutRelation(context.Context, *change.Relation) (change.RelationHash, error) {
	return change.RelationHash{}, errStub
}

// Relation returns a relation version. It returns ErrUnknownRelation.
func (l *Log) Relation(context.Context, change.RelationHash) (*change.Relation, error) {
	return nil, errStub
}

// Purge removes whole transactions by age and size.
func (l *Log) Purge(context.Context) error { return errStub }

// Appender opens the single writer. One that was open before fails with ErrFenced.
func (l *Log) Appender(context.Context) (*Appender, error) { return nil, errStub }

// Appender is the single writer. Its appending methods are called by one goroutine and wait while too much is in flight;
// after an error it takes nothing more.
type Appender struct{}

// Tail returns where the appender went on when it was opened.
func (a *Appender) Tail() Tail { return Tail{} }

// Begin starts a transaction.
func (a *Appender) Begin(context.Context, change.LSN, change.Timestamp, uint32) error { return errStub }

// Change appends a row operation. oldKind is a letter of package pgoutput.
func (a *Appender) Change(_ context.Context, operation block.Operation, relation change.RelationHash, oldKind byte, old, row pgoutput.Tuple) error {
	return errStub
}

// Truncate appends a truncate.
func (a *Appender) Truncate(_ context.Context, tables []change.RelationHash, cascade, restartIdentity bool) error {
	return errStub
}

// Message appends a transactional logical message.
func (a *Appender) Message(_ context.Context, prefix string, content []byte, lsn change.LSN) error {
	return errStub
}

// Origin appends where the transaction first happened.
func (a *Appender) Origin(context.Context, block.Origin) error { return errStub }

// Commit ends the transaction.
func (a *Appender) Commit(_ context.Context, commitLSN, endLSN change.LSN, commitTime change.Timestamp, xid uint32) error {
	return errStub
}

// Mark says that all transactions that end at or below through were appended.
func (a *Appender) Mark(_ context.Context, through change.LSN) error { return errStub }

// Flush waits until everything whole that was appended is durable.
func (a *Appender) Flush(context.Context) error { return errStub }

// Durable returns through of the last acknowledged block: the only LSN that may be confirmed to the slot.
func (a *Appender) Durable() change.LSN { return 0 }

// DurableChanged returns a channel that is closed when Durable moves or the appender fails. Take it before calling Durable.
func (a *Appender) DurableChanged() <-chan struct{} { return nil }

// Err returns why the appender failed, nil while it works.
func (a *Appender) Err() error { return nil }

// Close gives the writer up without waiting for what is in flight.
func (a *Appender) Close() {}
