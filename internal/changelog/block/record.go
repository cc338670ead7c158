package block

import (
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

// Kind says what a record is, and so which field of the [Record] holds it.
type Kind uint8

// The kinds of record. Their numbers are those of the fields of the protobuf message Record.
const (
	KindBegin Kind = iota + 1
	KindCommit
	KindChange
	KindTruncate
	KindMessage
	KindOrigin
	// KindFragment is a piece of a record larger than [MaxRecord]. The [Assembler] joins the pieces and never yields one.
	KindFragment
)

var kindNames = [...]string{"none", "begin", "commit", "change", "truncate", "message", "origin", "fragment"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Event tells whether a record of this kind counts in [Part].EventsBefore: changes, truncates and messages do.
func (k Kind) Event() bool { return k == KindChange || k == KindTruncate || k == KindMessage }

// Operation is what happened to a row.
type Operation uint8

// The row operations. Their numbers are those of the protobuf enum Operation.
const (
	Insert Operation = iota + 1
	Update
	Delete
)

// String returns the operation's name in lower case.
func (o Operation) String() string {
	switch o {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Record is one entry of a block. It is made to be used again and again: reading fills the field that Kind names and
// leaves the others as they were. Rows, contents and fragments are views of the block's bytes and valid as long as these
// are; after an [Assembler] joined a fragmented record its views are valid until the next call of Next.
type Record struct {
	Kind     Kind
	Begin    Begin
	Commit   Commit
	Change   Change
	Truncate Truncate
	Message  Message
	Origin   Origin
	Fragment Fragment
}

// Begin starts a transaction. Its changes follow up to Commit.
type Begin struct {
	CommitLSN  change.LSN // start of the commit record
	CommitTime change.Timestamp
	XID        uint32
}

// Commit ends a transaction.
type Commit struct {
	CommitLSN  change.LSN // start of the commit record
	EndLSN     change.LSN // end of the commit record: the transaction's position
	CommitTime change.Timestamp
	XID        uint32
}

// Change is one row operation.
type Change struct {
	Operation Operation
	Relation  uint32 // index into Relations of the block; checked by the reader
	OldIsKey  bool   // Old holds the identity's columns only, with null for the others
	HasOld    bool
	HasNew    bool
	Old       Row // the row before, if HasOld
	New       Row // the row after, if HasNew
}

// Truncate empties tables.
type Truncate struct {
	Relations       []uint32 // indexes into Relations of the block; the slice is used again by the next read
	Cascade         bool
	RestartIdentity bool
}

// Message is a transactional logical decoding message.
type Message struct {
	Prefix  string
	Content []byte
	LSN     change.LSN // where it stands in the WAL
}

// Origin tells where a transaction first happened, when that was not on this primary.
type Origin struct {
	ServerID string          // server id of the Syncline node; empty for PostgreSQL's own replication origins
	Position change.Position // commit position there; the log id is zero where only the LSN is known
	// CommitTime is the commit time there; zero where it is not known.
	CommitTime change.Timestamp
	Name       string // name of the PostgreSQL replication origin, if that is what named it
}

// Fragment is a piece of a serialized record.
type Fragment struct {
	Data       []byte
	Last       bool
	TotalBytes uint64 // size of the whole record, in its first piece; else 0
}
