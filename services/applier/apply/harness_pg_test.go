package apply

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// asIsValue in a row stands for a large value that an update did not touch; nil stands for NULL.
type asIsValue struct{}

var asIs asIsValue

// testRow is a row as pgoutput sends it.
func testRow(values ...any) pgoutput.Tuple {
	var raw []byte
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			raw = append(raw, pgoutput.ValueNull)
		case asIsValue:
			raw = append(raw, pgoutput.ValueUnchanged)
		default:
			text := fmt.Sprint(v)
			raw = append(raw, pgoutput.ValueText)
			raw = binary.BigEndian.AppendUint32(raw, uint32(len(text)))
			raw = append(raw, text...)
		}
	}
	return pgoutput.Tuple{Raw: raw, N: len(values)}
}

// testLog is a change log that a test writes by hand. Blocks and relations come out as the events that a follower gets.
type testLog struct {
	t       testing.TB
	id      change.LogID
	start   change.LSN
	lsn     change.LSN // end of the last transaction or mark
	xid     uint32
	every   int // whole transactions per block; 0: a block is cut only when it is full
	waiting int
	builder *block.Builder
	sent    map[change.RelationHash]bool
	// noise is how many rows go into the table noise at the beginning of every transaction, so that it is written set-wise.
	noise, noised int
	fallbacks     int64 // of the last engine that applied the log
	emit          func(Event)
	events        []Event // what emit collects, unless a test replaces it
}

const testStart = change.LSN(0x1000)

func newTestLog(t testing.TB) *testLog {
	l := &testLog{
		t: t, id: change.LogID{0xa, 0xb}, start: testStart, lsn: testStart, xid: 700, every: 1,
		sent: map[change.RelationHash]bool{},
	}
	l.builder = block.NewBuilder(block.State{LogID: l.id, Number: 4, Through: testStart})
	l.emit = func(e Event) { l.events = append(l.events, e) }
	return l
}

// testRelation describes a table: "schema.name" or a name in public, and its columns, those of the identity marked with *.
func testRelation(name string, identity change.Identity, columns ...string) *change.Relation {
	r := &change.Relation{OID: 20000, Schema: "public", Name: name, Identity: identity}
	if schemaName, table, found := strings.Cut(name, "."); found {
		r.Schema, r.Name = schemaName, table
	}
	for _, b := range []byte(r.Schema + "." + r.Name) {
		r.OID = r.OID*31%1e8 + uint32(b)
	}
	for _, c := range columns {
		bare, key := strings.CutSuffix(c, "*")
		r.Columns = append(r.Columns, change.Column{Name: bare, TypeOID: 25, TypeModifier: -1, Key: key || identity == change.IdentityFull})
	}
	return r
}

func (l *testLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLog) use(r *change.Relation) change.RelationHash {
	hash := r.Hash()
	if !l.sent[hash] {
		l.sent[hash] = true
		l.emit(Event{Relation: r})
	}
	return hash
}

// cutFull takes blocks out that have to go before the next record.
func (l *testLog) cutFull() {
	for l.builder.Full() {
		l.cut()
	}
}

func (l *testLog) cut() {
	l.t.Helper()
	b, err := block.Parse(l.builder.Cut().Data())
	l.must(err)
	l.emit(Event{Block: b})
}

// flush cuts what is whole.
func (l *testLog) flush() {
	l.cutFull()
	if l.builder.Ready() {
		l.cut()
	}
	l.waiting = 0
}

func (l *testLog) commitTime() change.Timestamp {
	return change.TimestampOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) + change.Timestamp(l.xid)*1_000_000
}

// begin starts a transaction; its end LSN will be 0x40 after its commit LSN.
func (l *testLog) begin() {
	l.t.Helper()
	l.cutFull()
	l.xid++
	l.must(l.builder.Begin(block.Begin{CommitLSN: l.lsn + 0x20, CommitTime: l.commitTime(), XID: l.xid}))
}

// commit ends the transaction and returns its position.
func (l *testLog) commit() change.LSN {
	l.t.Helper()
	l.cutFull()
	commitLSN := l.lsn + 0x20
	l.lsn = commitLSN + 0x40
	l.must(l.builder.Commit(block.Commit{CommitLSN: commitLSN, EndLSN: l.lsn, CommitTime: l.commitTime(), XID: l.xid}))
	if l.waiting++; l.every > 0 && l.waiting >= l.every {
		l.flush()
	}
	return l.lsn
}

var noiseTable = testRelation("noise", change.IdentityDefault, "id*")

// tx is a whole transaction.
func (l *testLog) tx(changes func()) change.LSN {
	l.t.Helper()
	l.begin()
	for range l.noise {
		l.noised++
		l.insert(noiseTable, l.noised)
	}
	changes()
	return l.commit()
}

func (l *testLog) change(s block.Source) {
	l.t.Helper()
	l.cutFull()
	l.must(l.builder.Change(&s))
}

func (l *testLog) insert(r *change.Relation, row ...any) {
	l.t.Helper()
	l.change(block.Source{Operation: block.Insert, Relation: l.use(r), New: testRow(row...)})
}

// update is an update whose old row is not sent.
func (l *testLog) update(r *change.Relation, row ...any) {
	l.t.Helper()
	l.change(block.Source{Operation: block.Update, Relation: l.use(r), New: testRow(row...)})
}

// updateFrom is an update with an old row: the old key, or the whole row under REPLICA IDENTITY FULL.
func (l *testLog) updateFrom(r *change.Relation, old, row []any) {
	l.t.Helper()
	l.change(block.Source{
		Operation: block.Update, Relation: l.use(r), HasOld: true, OldIsKey: r.Identity != change.IdentityFull,
		Old: testRow(old...), New: testRow(row...),
	})
}

func (l *testLog) delete(r *change.Relation, old ...any) {
	l.t.Helper()
	l.change(block.Source{
		Operation: block.Delete, Relation: l.use(r), HasOld: true, OldIsKey: r.Identity != change.IdentityFull, Old: testRow(old...),
	})
}

func (l *testLog) truncate(cascade, restart bool, relations ...*change.Relation) {
	l.t.Helper()
	l.cutFull()
	var hashes []change.RelationHash
	for _, r := range relations {
		hashes = append(hashes, l.use(r))
	}
	l.must(l.builder.Truncate(hashes, cascade, restart))
}

// padding is a message that means nothing to the applier and fills a block, so that the transaction goes on in another one.
func (l *testLog) padding(bytes int) {
	l.t.Helper()
	l.cutFull()
	l.must(l.builder.Message(block.Message{Prefix: "padding", Content: make([]byte, bytes), LSN: l.lsn}))
}

// message is a logical message in the transaction.
func (l *testLog) message(prefix, content string) {
	l.t.Helper()
	l.cutFull()
	l.must(l.builder.Message(block.Message{Prefix: prefix, Content: []byte(content), LSN: l.lsn}))
}

// origin says that the transaction first happened elsewhere. It comes first in a transaction.
func (l *testLog) origin(server string, lsn change.LSN, at change.Timestamp) {
	l.t.Helper()
	l.must(l.builder.Origin(block.Origin{
		ServerID: server, Position: change.Position{LogID: change.LogID{0xe}, LSN: lsn}, CommitTime: at,
	}))
}

// mark moves the log on without a transaction.
func (l *testLog) mark() change.LSN {
	l.t.Helper()
	l.cutFull()
	l.lsn += 0x100
	l.must(l.builder.Mark(l.lsn))
	l.flush()
	return l.lsn
}

// after is what a follower that follows after a position gets: all relations that it may need, and the blocks.
func (l *testLog) after(position change.LSN) []Event {
	first := len(l.events)
	for i, e := range l.events {
		if e.Block != nil && e.Block.Through > position {
			first = i
			if p := e.Block.Part; p != nil {
				for l.events[first].Block == nil || l.events[first].Block.Number != p.FirstBlock {
					first--
				}
			}
			break
		}
	}
	var events []Event
	for _, e := range l.events[:first] {
		if e.Relation != nil {
			events = append(events, e)
		}
	}
	return append(events, l.events[first:]...)
}
