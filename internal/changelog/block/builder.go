package block

import (
	"errors"
	"fmt"

	"github.com/seed0419d559/syncline/internal/change"
)

const (
	// TargetSize is the number of bytes of records and relations at which a block is full.
	TargetSize = 256 << 10
	// MaxRecord is the largest size in bytes of a record that is stored in one piece, and of the pieces of a larger one.
	MaxRecord = 512 << 10
	// MaxSize bounds the size in bytes of every block: an almost full one that takes one more record.
	MaxSize = 1<<20 - 64<<10
	// MaxTruncate is the largest number of tables in one truncate.
	MaxTruncate = 16 << 10
)

var (
	// ErrOrder says that a record came where none of its kind may stand: the stream that is fed is not one of whole
	// transactions in commit order.
	ErrOrder = errors.New("record out of order")

	// ErrTooManyTables says that one statement truncated more tables than a record can name.
	ErrTooManyTables = fmt.Errorf("one statement truncated more than %d tables", MaxTruncate)

	// ErrOriginSize says that an origin's names are absurdly long: they are a server id and a name of 63 bytes.
	ErrOriginSize = errors.New("an origin is too large")

	// ErrResume says that a record is not the one whose beginning is in the log already.
	ErrResume = errors.New("a record differs from the one whose beginning is in the log")
)

// State is where a log ends, and so where a Builder goes on.
type State struct {
	LogID   change.LogID
	Number  uint64     // of the last block; 0 before the first
	Through change.LSN // of the last block; 0 before the first
	Open    *Open      // the large transaction inside which the log ends, if it does
}

// Open is a large transaction that the log holds the beginning of.
type Open struct {
	Begin
	FirstBlock uint64
	Events     uint64  // row events that are in the log
	Piece      Partial // what is in the log of one more record
}

// Partial is the beginning of a record that was cut into fragments. The zero Partial is none.
type Partial struct {
	Bytes uint64 // size of the beginning
	Total uint64 // size of the whole
	CRC   uint32 // CRC-32C of the beginning
}

// Builder collects records and cuts them into blocks. It knows nothing of what becomes of the blocks: whoever uses it takes
// a block with Cut whenever Full reports true, before the next record, and whenever Ready reports true, at will.
type Builder struct {
	logID    change.LogID
	number   uint64     // of the block that Cut took last
	previous change.LSN // Through of that block

	buf       []byte // encoded records
	relations relations
	whole     boundary
	open      transaction
	large     large
}

// boundary is the end of the last whole transaction, or the last mark, in the buffer.
type boundary struct {
	end            int // offset in the buffer
	relations      int // number of relations used up to there
	transactions   uint32
	through        change.LSN
	lastCommitTime change.Timestamp
}

// transaction is the one that has begun and not ended, or ended in the last block of a large one that has yet to be cut.
type transaction struct {
	active     bool
	ended      bool // only of a large one
	begin      Begin
	firstBlock uint64 // 0 until its first part was cut
	events     uint64 // row events so far
	before     uint64 // of them, those in blocks that were cut
}

// large is a record that is being cut into fragments.
type large struct {
	data     []byte // what is not in the buffer yet
	total    uint64 // stated with the first piece; 0 afterwards
	relation *change.RelationHash
	resume   Partial // what the next record has to begin with
}

// NewBuilder returns a Builder whose first block follows the state.
func NewBuilder(s State) *Builder {
	b := &Builder{logID: s.LogID, number: s.Number, previous: s.Through}
	b.whole.through = s.Through
	if s.Open != nil {
		b.open = transaction{active: true, begin: s.Open.Begin, firstBlock: s.Open.FirstBlock, events: s.Open.Events, before: s.Open.Events}
		b.large.resume = s.Open.Piece
	}
	return b
}

// Full tells that a block has to be cut before the next record.
func (b *Builder) Full() bool {
	return len(b.large.data) > 0 || b.open.ended || b.weight() >= TargetSize
}

// Ready tells that something whole can be cut: transactions, a mark, or the end of a large transaction.
func (b *Builder) Ready() bool { return b.whole.through > b.previous || b.open.ended }

// Empty tells that nothing waits to be cut.
func (b *Builder) Empty() bool { return len(b.buf) == 0 && !b.Full() && !b.Ready() }

// Through returns the position that the log reaches when everything whole has been cut.
func (b *Builder) Through() change.LSN { return b.whole.through }

func (b *Builder) weight() int { return len(b.buf) + relationField*len(b.relations.list) }

// Begin starts a transaction.
func (b *Builder) Begin(m Begin) error {
	if b.open.active || b.Full() || m.CommitLSN < b.whole.through {
		return fmt.Errorf("begin transaction %d at %v: %w", m.XID, m.CommitLSN, ErrOrder)
	}
	b.open = transaction{active: true, begin: m}
	b.buf = m.append(b.head(b.buf, KindBegin, m.size()))
	return nil
}

// Commit ends the transaction.
func (b *Builder) Commit(m Commit) error {
	if err := b.check(KindCommit); err != nil {
		return err
	}
	if m.CommitLSN != b.open.begin.CommitLSN || m.XID != b.open.begin.XID || m.EndLSN <= m.CommitLSN {
		return fmt.Errorf("commit transaction %d at %v: %w", m.XID, m.EndLSN, ErrOrder)
	}
	b.buf = m.append(b.head(b.buf, KindCommit, m.size()))
	b.whole.through, b.whole.lastCommitTime = m.EndLSN, m.CommitTime
	b.whole.transactions++
	b.whole.end, b.whole.relations = len(b.buf), len(b.relations.list)
	b.open.active = false
	b.open.ended = b.open.firstBlock != 0
	return nil
}

// Mark says that every transaction that ends at or below through is in the log once what waits is.
func (b *Builder) Mark(through change.LSN) error {
	if b.open.active || b.Full() || through < b.whole.through {
		return fmt.Errorf("mark %v: %w", through, ErrOrder)
	}
	b.whole.through = through
	return nil
}

// Change appends a row operation. The rows are copied.
func (b *Builder) Change(m *Source) error {
	if err := b.check(KindChange); err != nil {
		return err
	}
	index, added := b.relations.use(m.Relation)
	z, err := m.size(index)
	if err == nil && b.tooLarge(z.all) {
		b.relations.undo(added)
		if z, err = m.size(0); err == nil {
			return b.cut(KindChange, z.all, &m.Relation, func(buf []byte) []byte { return m.append(buf, &z) })
		}
	}
	if err != nil {
		b.relations.undo(added)
		return fmt.Errorf("encode %v: %w", m.Operation, err)
	}
	b.buf = m.append(b.head(b.buf, KindChange, z.all), &z)
	b.open.events++
	return nil
}

// Truncate appends a truncate of the tables.
func (b *Builder) Truncate(tables []change.RelationHash, cascade, restartIdentity bool) error {
	if err := b.check(KindTruncate); err != nil {
		return err
	}
	if len(tables) > MaxTruncate {
		return ErrTooManyTables
	}
	m := Truncate{Relations: make([]uint32, len(tables)), Cascade: cascade, RestartIdentity: restartIdentity}
	for i := range tables {
		m.Relations[i], _ = b.relations.use(tables[i])
	}
	b.buf = m.append(b.head(b.buf, KindTruncate, m.size()))
	b.open.events++
	return nil
}

// Message appends a logical message. Its content is copied.
func (b *Builder) Message(m Message) error {
	if err := b.check(KindMessage); err != nil {
		return err
	}
	m.Prefix = validText(m.Prefix)
	if b.tooLarge(m.size()) {
		return b.cut(KindMessage, m.size(), nil, m.append)
	}
	b.buf = m.append(b.head(b.buf, KindMessage, m.size()))
	b.open.events++
	return nil
}

// Origin appends where the transaction first happened.
func (b *Builder) Origin(m Origin) error {
	if err := b.check(KindOrigin); err != nil {
		return err
	}
	m.ServerID, m.Name = validText(m.ServerID), validText(m.Name)
	if m.size() > TargetSize {
		return fmt.Errorf("append origin of %d bytes: %w", m.size(), ErrOriginSize)
	}
	b.buf = m.append(b.head(b.buf, KindOrigin, m.size()))
	return nil
}

func (b *Builder) check(kind Kind) error {
	if !b.open.active || b.Full() || b.large.resume.Bytes > 0 && !kind.Event() {
		return fmt.Errorf("append %v: %w", kind, ErrOrder)
	}
	return nil
}

// head appends what stands before a record's content.
func (b *Builder) head(buf []byte, kind Kind, content int) []byte {
	buf = appendSized(buf, tagRecord, sizedSize(content))
	return appendSized(buf, byte(kind)<<3|bytesType, content)
}

// relations is the list of relation versions of the block that is being built.
type relations struct {
	list  []change.RelationHash
	index map[change.RelationHash]uint32
	last  uint32 // index of the one used last: most changes use it again
}

// use returns the index of a relation, and whether it was added for that.
func (r *relations) use(hash change.RelationHash) (index uint32, added bool) {
	if int(r.last) < len(r.list) && r.list[r.last] == hash {
		return r.last, false
	}
	if index, ok := r.index[hash]; ok {
		r.last = index
		return index, false
	}
	if r.index == nil {
		r.index = make(map[change.RelationHash]uint32)
	}
	r.last = uint32(len(r.list))
	r.list = append(r.list, hash)
	r.index[hash] = r.last
	return r.last, true
}

// undo takes back the relation that use added last.
func (r *relations) undo(added bool) {
	if !added {
		return
	}
	delete(r.index, r.list[len(r.list)-1])
	r.list = r.list[:len(r.list)-1]
	r.last = 0
}

func (r *relations) reset() {
	r.list, r.last = r.list[:0], 0
	clear(r.index)
}
