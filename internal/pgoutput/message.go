// Package pgoutput decodes the logical replication messages of PostgreSQL 15 to 18: output plugin pgoutput, protocol
// version 1, and what version 2 adds for transactions that are sent while they run, see [Frame]. A message is either decoded whole and exactly, or refused with an error; no length read from it is
// trusted, and decoding a row allocates nothing.
//
// All integers are big endian, an LSN or a time takes 8 bytes, a string ends with a zero byte:
//
//	Begin    'B' finalLSN commitTime xid:4
//	Commit   'C' flags:1 (0) commitLSN endLSN commitTime
//	Origin   'O' commitLSN name:string
//	Relation 'R' oid:4 schema:string name:string identity:1 n:2 n×(flags:1 name:string typeOID:4 typeModifier:4)
//	Type     'Y' oid:4 schema:string name:string
//	Insert   'I' oid:4 'N' tuple
//	Update   'U' oid:4 [('K'|'O') tuple] 'N' tuple
//	Delete   'D' oid:4 ('K'|'O') tuple
//	Truncate 'T' n:4 flags:1 (1 cascade, 2 restart identity) n×oid:4
//	Message  'M' flags:1 (1 transactional) lsn prefix:string size:4 content
//	Abort    'A' xid:4 subxid:4 [lsn time]                            ignored, see [KindIgnored]
//
//	tuple    n:2 n×('n' | 'u' | ('t'|'b') size:4 value)
//
// Source: src/backend/replication/logical/proto.c of PostgreSQL. The package does no I/O.
package pgoutput

import (
	"fmt"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// Types of the domain that stand in messages.
type (
	LSN      = change.LSN
	Relation = change.Relation
	Column   = change.Column
)

// Kind says which message was decoded, and so which field of the [Decoder] holds it.
type Kind byte

// The kinds of message. The zero Kind comes with every error and stands for no message.
const (
	KindBegin Kind = iota + 1
	KindCommit
	KindOrigin
	KindRelation
	KindType
	KindInsert
	KindUpdate
	KindDelete
	KindTruncate
	KindMessage
	// KindIgnored is a message that means nothing to a client of protocol 1 and changes nothing: a STREAM ABORT. PostgreSQL
	// 18 (seen with 18.4) sends one, between transactions, for each subtransaction of a rolled back transaction that was
	// larger than logical_decoding_work_mem, although streaming was never asked for.
	KindIgnored
)

var kindNames = [...]string{
	"none", "begin", "commit", "origin", "relation", "type", "insert", "update", "delete", "truncate", "message", "ignored",
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Begin opens a transaction. Every message up to the next Commit belongs to it.
type Begin struct {
	FinalLSN   LSN   // start of the commit record: CommitLSN of the Commit that will follow
	CommitTime int64 // microseconds since 2000-01-01 UTC, see [Time]
	XID        uint32
}

// Commit closes a transaction.
type Commit struct {
	Flags      byte  // reserved: Decode refuses anything but 0, as PostgreSQL's own subscriber does
	CommitLSN  LSN   // start of the commit record
	EndLSN     LSN   // end of the commit record: the transaction's position
	CommitTime int64 // microseconds since 2000-01-01 UTC, see [Time]
}

// Origin follows a Begin when the transaction was written under a replication origin session.
type Origin struct {
	CommitLSN LSN // on the server where the transaction first happened
	Name      string
}

// Type names a type that is not built in. It comes before the Relation that uses it. A domain comes under its own OID
// with the schema and name of the type beneath it.
type Type struct {
	OID    uint32
	Schema string
	Name   string
}

// Letters of the old tuple in an Update or Delete.
const (
	OldNone byte = 0   // no old tuple: the key did not change
	OldKey  byte = 'K' // only the columns of the replica identity have values, the others are null
	OldFull byte = 'O' // the whole row, under REPLICA IDENTITY FULL
)

// Insert is a new row.
type Insert struct {
	RelationOID uint32
	New         Tuple
}

// Update is a changed row. When OldKind is OldNone the key is found in New.
type Update struct {
	RelationOID uint32
	OldKind     byte // OldNone, OldKey or OldFull
	Old         Tuple
	New         Tuple
}

// Delete is a deleted row.
type Delete struct {
	RelationOID uint32
	OldKind     byte // OldKey or OldFull
	Old         Tuple
}

// Truncate empties tables together. PostgreSQL lists published tables only, those reached by CASCADE included.
type Truncate struct {
	Cascade         bool
	RestartIdentity bool
	RelationOIDs    []uint32
}

// Message is what pg_logical_emit_message wrote. One that is not transactional comes between transactions, whatever became
// of the transaction that wrote it.
type Message struct {
	Transactional bool
	LSN           LSN // end of the message's record, what pg_logical_emit_message returned
	Prefix        string
	Content       []byte // view of the decoded data
}

const postgresEpoch = 946684800 // 2000-01-01 00:00:00 UTC in seconds of Unix time

// Time turns microseconds since 2000-01-01 UTC, as Begin and Commit carry them, into a time in UTC.
func Time(micros int64) time.Time {
	return time.Unix(postgresEpoch+micros/1e6, micros%1e6*1e3).UTC()
}
