// Package change holds the words that every part of Syncline shares: positions, relations and the kinds of change.
//
// It performs no I/O and depends on neither PostgreSQL nor gRPC, so that capture, change log, follow and apply can
// exchange its values without knowing one another.
package change

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN is a byte position in a PostgreSQL write-ahead log. Zero is no position: it never stands for "the beginning" or
// "everything so far".
type LSN uint64

// ErrInvalidLSN says that a text is not an LSN of the form PostgreSQL prints ("16/B374D848").
var ErrInvalidLSN = errors.New("invalid LSN")

// String prints the LSN as PostgreSQL does: two hexadecimal halves.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads the form that PostgreSQL prints. It returns ErrInvalidLSN for anything else.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	if !found {
		return 0, fmt.Errorf("%w %q: expected two hexadecimal numbers with a slash, like 16/B374D848", ErrInvalidLSN, s)
	}
	h, errHigh := strconv.ParseUint(high, 16, 32)
	l, errLow := strconv.ParseUint(low, 16, 32)
	if errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("%w %q: expected two hexadecimal numbers with a slash, like 16/B374D848", ErrInvalidLSN, s)
	}
	return LSN(h<<32 | l), nil
}

// LogID names one incarnation of a change log. A log gets a new one when continuity with its old content cannot be
// proved, so that a position of the old one is never mistaken for a position of the new.
type LogID [16]byte

// ErrInvalidLogID says that a text is not a log id.
var ErrInvalidLogID = errors.New("invalid log id")

// String prints the log id as 32 hexadecimal digits.
func (id LogID) String() string { return fmt.Sprintf("%x", id[:]) }

// IsZero tells whether no log id has been set.
func (id LogID) IsZero() bool { return id == LogID{} }

// ParseLogID reads 32 hexadecimal digits. It returns ErrInvalidLogID for anything else.
func ParseLogID(s string) (LogID, error) {
	var id LogID
	if len(s) != 2*len(id) {
		return LogID{}, fmt.Errorf("%w %q: expected 32 hexadecimal digits", ErrInvalidLogID, s)
	}
	for i := range id {
		b, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			return LogID{}, fmt.Errorf("%w %q: expected 32 hexadecimal digits", ErrInvalidLogID, s)
		}
		id[i] = byte(b)
	}
	return id, nil
}

// Position is a place in a change log: everything committed at or before LSN in the log LogID has been taken, and
// nothing after it. LSN is the commit end LSN of a transaction, or a mark between two transactions.
type Position struct {
	LogID LogID
	LSN   LSN
}

// ErrInvalidPosition says that a text is not a position.
var ErrInvalidPosition = errors.New("invalid position")

// String prints the position as LOGID@LSN.
func (p Position) String() string { return p.LogID.String() + "@" + p.LSN.String() }

// ParsePosition reads LOGID@LSN. It returns ErrInvalidPosition for anything else.
func ParsePosition(s string) (Position, error) {
	log, lsn, found := strings.Cut(s, "@")
	if !found {
		return Position{}, fmt.Errorf("%w %q: expected LOGID@LSN", ErrInvalidPosition, s)
	}
	id, err := ParseLogID(log)
	if err != nil {
		return Position{}, fmt.Errorf("%w %q: %w", ErrInvalidPosition, s, err)
	}
	l, err := ParseLSN(lsn)
	if err != nil {
		return Position{}, fmt.Errorf("%w %q: %w", ErrInvalidPosition, s, err)
	}
	return Position{LogID: id, LSN: l}, nil
}

// Timestamp is a time as PostgreSQL's wire protocol has it: microseconds since 2000-01-01 00:00:00 UTC. Zero is that
// instant; a missing time is said by the field that holds it.
type Timestamp int64

const microsecondsTo2000 = 946_684_800_000_000

// Time converts to a time in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMicro(int64(t) + microsecondsTo2000).UTC() }

// TimestampOf converts from a time, dropping what is below a microsecond.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMicro() - microsecondsTo2000) }
