package pgoutput

import (
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

var (
	// ErrUnknownMessage says that a message's type is not one of protocol 1. What it means is not known, so nothing after
	// it can be taken either: the replication has to be started with other options.
	ErrUnknownMessage = errors.New("unknown pgoutput message type " +
		"(start replication with proto_version '1' or '2', without two_phase)")

	// ErrMalformed says that a message's bytes do not fit its type. The stream cannot be trusted any further; receiving
	// the message again is safe and helps where the bytes were damaged on their way.
	ErrMalformed = errors.New("malformed pgoutput message (protocol versions 1 and 2 of PostgreSQL 15 to 18 are understood)")
)

// Decoder decodes messages into its fields; Decode says which one it filled. The zero Decoder is ready. It keeps no state
// between messages and must not be used by two goroutines at once.
//
// Tuples and Message.Content are views of the data passed to Decode: they are valid as long as that data is. Everything
// else that a message holds is its own copy and may be kept. A field stands until the next message of its kind; after an
// error no field has changed.
type Decoder struct {
	Begin    Begin
	Commit   Commit
	Origin   Origin
	Relation Relation
	Type     Type
	Insert   Insert
	Update   Update
	Delete   Delete
	Truncate Truncate
	Message  Message
}

// Decode decodes one message: the data of one XLogData ('w') message, no more and no less. It returns ErrUnknownMessage or
// ErrMalformed. It allocates nothing for Begin, Commit, Insert, Update, Delete and, while its name or prefix stays
// the same, for Origin and Message.
func (d *Decoder) Decode(data []byte) (Kind, error) {
	if len(data) == 0 {
		return 0, fmt.Errorf("decode message: %w: it is empty", ErrMalformed)
	}
	r := reader{buf: data, off: 1}
	var kind Kind
	switch data[0] {
	case 'I':
		kind = d.insert(&r)
	case 'U':
		kind = d.update(&r)
	case 'D':
		kind = d.delete(&r)
	case 'B':
		kind = d.begin(&r)
	case 'C':
		kind = d.commit(&r)
	case 'O':
		kind = d.origin(&r)
	case 'R':
		kind = d.relation(&r)
	case 'Y':
		kind = d.typ(&r)
	case 'T':
		kind = d.truncate(&r)
	case 'M':
		kind = d.message(&r)
	case 'A':
		kind = streamAbort(&r)
	default:
		return 0, fmt.Errorf("decode message: %w: %q (0x%02x)", ErrUnknownMessage, data[0], data[0])
	}
	if r.err != nil {
		return 0, fmt.Errorf("decode %s message: %w", kind, r.err)
	}
	return kind, nil
}

func (d *Decoder) begin(r *reader) Kind {
	m := Begin{FinalLSN: r.lsn(), CommitTime: r.time(), XID: r.uint32()}
	if r.end(); r.err == nil {
		d.Begin = m
	}
	return KindBegin
}

func (d *Decoder) commit(r *reader) Kind {
	m := Commit{Flags: r.flags(0), CommitLSN: r.lsn(), EndLSN: r.lsn(), CommitTime: r.time()}
	if r.end(); r.err == nil {
		d.Commit = m
	}
	return KindCommit
}

func (d *Decoder) origin(r *reader) Kind {
	lsn, name := r.lsn(), r.text()
	if r.end(); r.err == nil {
		d.Origin.CommitLSN = lsn
		keep(&d.Origin.Name, name)
	}
	return KindOrigin
}

// keep sets s to text and allocates only when it differs.
func keep(s *string, text []byte) {
	if *s != string(text) {
		*s = string(text)
	}
}

// minRelationColumn is the size of a column with an empty name.
const minRelationColumn = 1 + 1 + 4 + 4

// newTuple is the letter before the new row of an Insert or Update.
const newTuple byte = 'N'

func (d *Decoder) relation(r *reader) Kind {
	m := Relation{OID: r.uint32(), Schema: r.schema(), Name: string(r.text()), Identity: r.identity()}
	n := int(r.uint16())
	if n*minRelationColumn > r.left() {
		r.fail("%d columns should follow", n)
	}
	if r.err != nil {
		return KindRelation
	}
	m.Columns = make([]Column, n)
	for i := range m.Columns {
		key := r.flags(1) != 0
		m.Columns[i] = Column{Key: key, Name: string(r.text()), TypeOID: r.uint32(), TypeModifier: r.int32()}
	}
	if r.end(); r.err == nil {
		d.Relation = m
	}
	return KindRelation
}

func (r *reader) identity() change.Identity {
	switch id := change.Identity(r.byte()); id {
	case change.IdentityDefault, change.IdentityNothing, change.IdentityFull, change.IdentityIndex:
		return id
	default:
		r.fail("unknown replica identity %q", byte(id))
		return 0
	}
}

func (d *Decoder) typ(r *reader) Kind {
	m := Type{OID: r.uint32(), Schema: r.schema(), Name: string(r.text())}
	if r.end(); r.err == nil {
		d.Type = m
	}
	return KindType
}

func (d *Decoder) insert(r *reader) Kind {
	oid := r.uint32()
	r.letter(newTuple)
	row := r.tuple()
	if r.end(); r.err == nil {
		d.Insert = Insert{RelationOID: oid, New: row}
	}
	return KindInsert
}

func (d *Decoder) update(r *reader) Kind {
	m := Update{RelationOID: r.uint32()}
	switch letter := r.byte(); letter {
	case OldKey, OldFull:
		m.OldKind, m.Old = letter, r.tuple()
		r.letter(newTuple)
	case newTuple:
	default:
		r.fail("unknown tuple %q before the new row", letter)
	}
	m.New = r.tuple()
	if r.end(); r.err == nil {
		d.Update = m
	}
	return KindUpdate
}

func (d *Decoder) delete(r *reader) Kind {
	m := Delete{RelationOID: r.uint32(), OldKind: r.byte()}
	if m.OldKind != OldKey && m.OldKind != OldFull {
		r.fail("unknown tuple %q as the old row", m.OldKind)
	}
	m.Old = r.tuple()
	if r.end(); r.err == nil {
		d.Delete = m
	}
	return KindDelete
}

func (r *reader) letter(want byte) {
	if got := r.byte(); got != want {
		r.fail("tuple %q where %q should stand", got, want)
	}
}

func (d *Decoder) truncate(r *reader) Kind {
	const cascade, restartIdentity = 1, 2
	n := r.uint32()
	flags := r.flags(cascade | restartIdentity)
	if uint64(n)*4 != uint64(r.left()) {
		r.fail("%d relations should follow", n)
	}
	if r.err != nil {
		return KindTruncate
	}
	oids := make([]uint32, n)
	for i := range oids {
		oids[i] = r.uint32()
	}
	d.Truncate = Truncate{Cascade: flags&cascade != 0, RestartIdentity: flags&restartIdentity != 0, RelationOIDs: oids}
	return KindTruncate
}

func (d *Decoder) message(r *reader) Kind {
	const transactional = 1
	flags, lsn, prefix := r.flags(transactional), r.lsn(), r.text()
	size := r.uint32()
	if uint64(size) != uint64(r.left()) {
		r.fail("%d bytes of content should follow", size)
	}
	if r.err == nil {
		keep(&d.Message.Prefix, prefix)
		d.Message.Transactional = flags&transactional != 0
		d.Message.LSN = lsn
		d.Message.Content = r.take(int(size))
	}
	return KindMessage
}

// streamAbort checks and drops a message. Its LSN and time come from protocol 4 on.
func streamAbort(r *reader) Kind {
	const ids, parallel = 4 + 4, 8 + 8
	r.take(ids)
	if r.left() == parallel {
		r.take(parallel)
	}
	r.end()
	return KindIgnored
}
