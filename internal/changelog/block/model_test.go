package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

var testLog = change.LogID{0xaa, 1, 2, 3}

// tuple encodes values as pgoutput does: nil is null, "\x00u" unchanged.
func tuple(values ...any) pgoutput.Tuple {
	t := pgoutput.Tuple{N: len(values)}
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			t.Raw = append(t.Raw, 'n')
		case byte:
			t.Raw = append(t.Raw, v)
		case string:
			t.Raw = binary.BigEndian.AppendUint32(append(t.Raw, 't'), uint32(len(v)))
			t.Raw = append(t.Raw, v...)
		}
	}
	return t
}

func text(b []byte) string {
	if len(b) > 64 {
		return fmt.Sprintf("%d bytes %08x", len(b), Checksum(b))
	}
	return fmt.Sprintf("%q", b)
}

func renderRow(r Row) string {
	var parts []string
	for c := r.Columns(); c.More(); {
		kind, value := c.Next()
		if kind == ValueText {
			parts = append(parts, text(value))
		} else {
			parts = append(parts, string(kind))
		}
	}
	return "(" + strings.Join(parts, " ") + ")"
}

func renderTuple(t pgoutput.Tuple) string {
	var parts []string
	for c := t.Columns(); c.More(); {
		kind, value := c.Next()
		if kind == ValueText {
			parts = append(parts, text(value))
		} else {
			parts = append(parts, string(kind))
		}
	}
	return "(" + strings.Join(parts, " ") + ")"
}

func renderProtoRow(r *changev1.Row) string {
	var parts []string
	i := 0
	for _, kind := range r.GetKinds() {
		if kind == ValueText {
			parts = append(parts, text(r.GetValues()[i]))
			i++
		} else {
			parts = append(parts, string(kind))
		}
	}
	return "(" + strings.Join(parts, " ") + ")"
}

func render(rec *Record, relations []change.RelationHash) string {
	switch rec.Kind {
	case KindBegin:
		return fmt.Sprintf("begin %v %d %d", rec.Begin.CommitLSN, rec.Begin.CommitTime, rec.Begin.XID)
	case KindCommit:
		return fmt.Sprintf("commit %v %v %d %d", rec.Commit.CommitLSN, rec.Commit.EndLSN, rec.Commit.CommitTime, rec.Commit.XID)
	case KindChange:
		c := &rec.Change
		s := fmt.Sprintf("change %d %x %v", c.Operation, relations[c.Relation], c.OldIsKey)
		if c.HasOld {
			s += " old" + renderRow(c.Old)
		}
		if c.HasNew {
			s += " new" + renderRow(c.New)
		}
		return s
	case KindTruncate:
		s := fmt.Sprintf("truncate %v %v", rec.Truncate.Cascade, rec.Truncate.RestartIdentity)
		for _, r := range rec.Truncate.Relations {
			s += fmt.Sprintf(" %x", relations[r])
		}
		return s
	case KindMessage:
		return fmt.Sprintf("message %q %s %v", rec.Message.Prefix, text(rec.Message.Content), rec.Message.LSN)
	case KindOrigin:
		o := &rec.Origin
		return fmt.Sprintf("origin %q %v %d %q", o.ServerID, o.Position, o.CommitTime, o.Name)
	}
	return rec.Kind.String()
}

func renderProto(rec *changev1.Record, relations [][]byte) string {
	switch {
	case rec.GetBegin() != nil:
		m := rec.GetBegin()
		return fmt.Sprintf("begin %v %d %d", change.LSN(m.GetCommitLsn()), m.GetCommitTime(), m.GetXid())
	case rec.GetCommit() != nil:
		m := rec.GetCommit()
		return fmt.Sprintf("commit %v %v %d %d", change.LSN(m.GetCommitLsn()), change.LSN(m.GetEndLsn()), m.GetCommitTime(), m.GetXid())
	case rec.GetChange() != nil:
		c := rec.GetChange()
		s := fmt.Sprintf("change %d %x %v", c.GetOperation(), relations[c.GetRelation()], c.GetOldIsKey())
		if c.Old != nil {
			s += " old" + renderProtoRow(c.GetOld())
		}
		if c.New != nil {
			s += " new" + renderProtoRow(c.GetNew())
		}
		return s
	case rec.GetTruncate() != nil:
		m := rec.GetTruncate()
		s := fmt.Sprintf("truncate %v %v", m.GetCascade(), m.GetRestartIdentity())
		for _, r := range m.GetRelations() {
			s += fmt.Sprintf(" %x", relations[r])
		}
		return s
	case rec.GetMessage() != nil:
		m := rec.GetMessage()
		return fmt.Sprintf("message %q %s %v", m.GetPrefix(), text(m.GetContent()), change.LSN(m.GetLsn()))
	case rec.GetOrigin() != nil:
		o := rec.GetOrigin()
		p := change.Position{LSN: change.LSN(o.GetPosition().GetLsn())}
		if id := o.GetPosition().GetLogId(); id != "" {
			p.LogID, _ = change.ParseLogID(id)
		}
		return fmt.Sprintf("origin %q %v %d %q", o.GetServerId(), p, o.GetCommitTime(), o.GetName())
	}
	return "fragment"
}

// feeder makes up a stream of transactions, tells a builder, and keeps what was told.
type feeder struct {
	rnd    *rand.Rand
	lsn    change.LSN
	hashes []change.RelationHash
	want   []string
	steps  []func(*Builder) error
}

func newFeeder(seed uint64, relations int) *feeder {
	f := &feeder{rnd: rand.New(rand.NewPCG(seed, 7)), lsn: 1000}
	for i := range relations {
		f.hashes = append(f.hashes, change.RelationHash{byte(i), byte(i >> 8), 0xff})
	}
	return f
}

func (f *feeder) step(want string, do func(*Builder) error) {
	if want != "" {
		f.want = append(f.want, want)
	}
	f.steps = append(f.steps, do)
}

func (f *feeder) value(limit int) any {
	switch f.rnd.IntN(8) {
	case 0:
		return nil
	case 1:
		return byte('u')
	case 2:
		return ""
	}
	n := f.rnd.IntN(40)
	if limit > 0 && f.rnd.IntN(3) == 0 {
		n = f.rnd.IntN(limit)
	}
	return strings.Repeat(string(rune('a'+f.rnd.IntN(26))), n)
}

func (f *feeder) row(limit int) pgoutput.Tuple {
	values := make([]any, f.rnd.IntN(6))
	for i := range values {
		values[i] = f.value(limit)
	}
	return tuple(values...)
}

func (f *feeder) event(limit int) {
	hash := f.hashes[f.rnd.IntN(len(f.hashes))]
	switch f.rnd.IntN(12) {
	case 0:
		tables := []change.RelationHash{hash, f.hashes[f.rnd.IntN(len(f.hashes))]}[:f.rnd.IntN(3)]
		cascade, restart := f.rnd.IntN(2) == 0, f.rnd.IntN(2) == 0
		want := fmt.Sprintf("truncate %v %v", cascade, restart)
		for _, h := range tables {
			want += fmt.Sprintf(" %x", h)
		}
		f.step(want, func(b *Builder) error { return b.Truncate(tables, cascade, restart) })
	case 1:
		m := Message{Prefix: "p", Content: bytes.Repeat([]byte("m"), f.rnd.IntN(limit+1)), LSN: f.lsn}
		f.step(render(&Record{Kind: KindMessage, Message: m}, nil), func(b *Builder) error { return b.Message(m) })
	default:
		s := Source{Operation: Operation(1 + f.rnd.IntN(3)), Relation: hash}
		s.HasOld = s.Operation == Delete || s.Operation == Update && f.rnd.IntN(2) == 0
		s.OldIsKey = s.HasOld && f.rnd.IntN(2) == 0
		want := fmt.Sprintf("change %d %x %v", s.Operation, hash, s.OldIsKey)
		if s.HasOld {
			s.Old = f.row(limit)
			want += " old" + renderTuple(s.Old)
		}
		if s.Operation != Delete {
			s.New = f.row(limit)
			want += " new" + renderTuple(s.New)
		}
		f.step(want, func(b *Builder) error { return b.Change(&s) })
	}
}

func (f *feeder) transaction(events, limit int) {
	f.lsn += change.LSN(1 + f.rnd.IntN(1000))
	begin := Begin{CommitLSN: f.lsn, CommitTime: change.Timestamp(f.rnd.IntN(3) - 1), XID: f.rnd.Uint32N(3)}
	f.step(render(&Record{Kind: KindBegin, Begin: begin}, nil), func(b *Builder) error { return b.Begin(begin) })
	if f.rnd.IntN(3) == 0 {
		o := Origin{ServerID: "s", Position: change.Position{LogID: testLog, LSN: f.lsn}, CommitTime: -5, Name: ""}
		if f.rnd.IntN(2) == 0 {
			o = Origin{Name: "pg"}
		}
		f.step(render(&Record{Kind: KindOrigin, Origin: o}, nil), func(b *Builder) error { return b.Origin(o) })
	}
	for range events {
		f.event(limit)
	}
	f.lsn += change.LSN(1 + f.rnd.IntN(100))
	commit := Commit{CommitLSN: begin.CommitLSN, EndLSN: f.lsn, CommitTime: begin.CommitTime, XID: begin.XID}
	f.step(render(&Record{Kind: KindCommit, Commit: commit}, nil), func(b *Builder) error { return b.Commit(commit) })
	if f.rnd.IntN(4) == 0 {
		f.lsn += change.LSN(f.rnd.IntN(50))
		through := f.lsn
		f.step("", func(b *Builder) error { return b.Mark(through) })
	}
}

// mixed makes up small, large and huge transactions.
func mixed(seed uint64) *feeder {
	f := newFeeder(seed, 1+int(seed%40))
	for range 30 {
		switch f.rnd.IntN(6) {
		case 0:
			f.transaction(f.rnd.IntN(3000), 500)
		case 1:
			f.transaction(f.rnd.IntN(8), 3*MaxRecord)
		default:
			f.transaction(f.rnd.IntN(20), 50)
		}
	}
	return f
}

// build feeds a builder and cuts when it must, and sometimes when it may.
func (f *feeder) build(t testing.TB, b *Builder) []*Block {
	t.Helper()
	var blocks []*Block
	for i, step := range f.steps {
		if err := step(b); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for b.Full() || b.Ready() && f.rnd.IntN(10) == 0 {
			blocks = append(blocks, b.Cut())
		}
	}
	for b.Full() || b.Ready() {
		blocks = append(blocks, b.Cut())
	}
	if !b.Empty() {
		t.Fatal("something is left in the builder")
	}
	return blocks
}

func assemble(t testing.TB, a *Assembler, blocks []*Block) []string {
	t.Helper()
	var got []string
	var rec Record
	for _, b := range blocks {
		parsed, err := Parse(b.Data())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Push(parsed); err != nil {
			t.Fatal(err)
		}
		for {
			ok, err := a.Next(&rec)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got = append(got, render(&rec, parsed.Relations))
		}
	}
	return got
}

func requireSame(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("%s: record %d is missing: %s", what, i, want[i])
		case i >= len(want):
			t.Fatalf("%s: record %d is too many: %s", what, i, got[i])
		case got[i] != want[i]:
			t.Fatalf("%s: record %d is %s, want %s", what, i, got[i], want[i])
		}
	}
}

// checkGenerated reads a block with generated code: it must be canonical and say the same.
func checkGenerated(t testing.TB, b *Block) *changev1.Block {
	t.Helper()
	var m changev1.Block
	if err := proto.Unmarshal(b.Data(), &m); err != nil {
		t.Fatalf("block %d: %v", b.Number, err)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
	if err != nil || m.GetCrc32C() != 0 && !bytes.Equal(again, b.Data()) {
		t.Fatalf("block %d is not canonical (%v)", b.Number, err)
	}
	var part *Part
	if p := m.GetPart(); p != nil {
		part = &Part{FirstBlock: p.GetFirstBlock(), EventsBefore: p.GetEventsBefore(), XID: p.GetXid(), CommitLSN: change.LSN(p.GetCommitLsn()), Last: p.GetLast()}
	}
	got := Header{
		Number: m.GetNumber(), LogID: change.LogID(m.GetLogId()), Previous: change.LSN(m.GetPreviousLsn()), Through: change.LSN(m.GetThroughLsn()),
		LastCommitTime: change.Timestamp(m.GetLastCommitTime()), HasCommit: m.LastCommitTime != nil, Transactions: m.GetTransactions(), Part: part,
	}
	for _, hash := range m.GetRelations() {
		got.Relations = append(got.Relations, change.RelationHash(hash))
	}
	if !sameHeader(&got, &b.Header) {
		t.Fatalf("block %d: generated code reads %+v %+v, want %+v %+v", b.Number, got, part, b.Header, b.Part)
	}
	return &m
}

func sameHeader(a, b *Header) bool {
	samePart := a.Part == nil && b.Part == nil || a.Part != nil && b.Part != nil && *a.Part == *b.Part
	x, y := *a, *b
	x.Part, y.Part, x.Relations, y.Relations = nil, nil, nil, nil
	return samePart && fmt.Sprint(x) == fmt.Sprint(y) && slices.Equal(a.Relations, b.Relations)
}
