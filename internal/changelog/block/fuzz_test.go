package block

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// seal gives bytes the end that Parse asks for, so that a fuzzer gets past the checksum.
func seal(body []byte) []byte {
	body = slices.Clone(body)
	return binary.LittleEndian.AppendUint32(append(body, tagCRC), Checksum(body))
}

// FuzzParse reads arbitrary bytes: what is taken is exactly what generated code reads, and is canonical.
func FuzzParse(f *testing.F) {
	for seed := range uint64(3) {
		m := newFeeder(seed, 3)
		for range 3 {
			m.transaction(6, 60)
		}
		for _, b := range m.build(f, NewBuilder(State{LogID: testLog, Number: 1, Through: 900})) {
			f.Add(b.Data()[:len(b.Data())-crcField])
		}
	}
	header := NewMark(testLog, 1, 4, 5).Data()
	header = header[:len(header)-crcField]
	for _, evil := range []string{
		"", "\x4a", "\x4a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x4a\x80\x00", "\x4a\x04\x3a\x02\x0a\x00", "\x4a\x06\x1a\x04\x08\x01\x2a\x00",
		"\x42\x10aaaaaaaaaaaaaaaa\x4a\x06\x1a\x04\x08\x01\x2a\x00", "\x42\x10aaaaaaaaaaaaaaaa\x4a\x0a\x1a\x08\x08\x01\x2a\x04\x0a\x02tt",
		"\x4a\x05\x22\x03\x0a\x01\x00", "\x4a\x0d\x3a\x0b\x0a\x01x\x18\xff\xff\xff\xff\xff\xff\x01",
	} {
		f.Add(append(slices.Clone(header), evil...))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body)
		b, err := Parse(data)
		if err != nil {
			return
		}
		h, err := ParseHeader(data)
		if err != nil || !sameHeader(&h, &b.Header) {
			t.Fatalf("ParseHeader: %+v, %v; Parse: %+v", h, err, b.Header)
		}
		var lazy []string
		var rec Record
		for r := b.Reader(); ; {
			ok, err := r.Next(&rec)
			if err != nil {
				return
			}
			if !ok {
				break
			}
			lazy = append(lazy, render(&rec, b.Relations))
		}
		m := checkGenerated(t, b)
		var generated []string
		for _, rec := range m.GetRecords() {
			generated = append(generated, renderProto(rec, m.GetRelations()))
		}
		requireSame(t, "generated code", generated, lazy)
		a := &Assembler{}
		for ok := a.Push(b) == nil; ok; {
			if ok, err = a.Next(&rec); err != nil {
				return
			}
		}
	})
}

// FuzzGenerated takes what generated code takes: where that is canonical and makes sense, the hand-written reader takes it.
func FuzzGenerated(f *testing.F) {
	f.Add([]byte("value"), []byte("tnu"), uint32(1), uint64(77), int64(-4), "prefix")
	f.Add([]byte{}, []byte{}, uint32(0), uint64(1<<63), int64(0), "")
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte("ttt"), uint32(3), uint64(1), int64(1<<62), "\xff")
	f.Fuzz(func(t *testing.T, value, kinds []byte, number uint32, lsn uint64, at int64, name string) {
		if number == 0 || lsn == 0 || lsn > 1<<62 || !utf8String(name) {
			return
		}
		row := &changev1.Row{Kinds: kinds}
		for _, kind := range kinds {
			switch kind {
			case ValueText:
				row.Values = append(row.Values, value)
			case ValueNull, ValueUnchanged:
			default:
				return
			}
		}
		hash := change.RelationHash{1, 2}
		records := []*changev1.Record{
			{Record: &changev1.Record_Begin{Begin: &changev1.Begin{CommitLsn: lsn, CommitTime: at, Xid: number}}},
			{Record: &changev1.Record_Origin{Origin: &changev1.Origin{ServerId: name, CommitTime: at, Name: name, Position: &changev1.Position{Lsn: lsn}}}},
			{Record: &changev1.Record_Change{Change: &changev1.Change{Operation: changev1.Operation_OPERATION_INSERT, New: row}}},
			{Record: &changev1.Record_Change{Change: &changev1.Change{Operation: changev1.Operation_OPERATION_UPDATE, New: row, Old: row, OldIsKey: true}}},
			{Record: &changev1.Record_Message{Message: &changev1.Message{Prefix: name, Content: value, Lsn: lsn}}},
			{Record: &changev1.Record_Truncate{Truncate: &changev1.Truncate{Relations: []uint32{0, 0}, Cascade: true}}},
			{Record: &changev1.Record_Commit{Commit: &changev1.Commit{CommitLsn: lsn, EndLsn: lsn + 1, CommitTime: at, Xid: number}}},
		}
		m := &changev1.Block{
			Number: uint64(number), LogId: testLog[:], PreviousLsn: lsn, ThroughLsn: lsn + 1, LastCommitTime: &at, Transactions: 1,
			Relations: [][]byte{hash[:]}, Records: records,
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(seal(data))
		if err != nil {
			t.Fatal(err)
		}
		var generated []string
		for _, rec := range records {
			generated = append(generated, renderProto(rec, m.GetRelations()))
		}
		requireSame(t, "hand-written reader", assemble(t, &Assembler{}, []*Block{b}), generated)
	})
}

func utf8String(s string) bool { return validText(s) == s }
