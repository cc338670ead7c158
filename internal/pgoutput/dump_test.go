package pgoutput

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// dump prints the message that d holds, one line and one more for each column of a relation.
func dump(d *Decoder, kind Kind) string {
	var b strings.Builder
	stamp := func(micros int64) string { return Time(micros).Format(time.RFC3339Nano) }
	switch kind {
	case KindBegin:
		fmt.Fprintf(&b, "begin xid=%d final=%s time=%s", d.Begin.XID, d.Begin.FinalLSN, stamp(d.Begin.CommitTime))
	case KindCommit:
		fmt.Fprintf(&b, "commit lsn=%s end=%s time=%s", d.Commit.CommitLSN, d.Commit.EndLSN, stamp(d.Commit.CommitTime))
	case KindOrigin:
		fmt.Fprintf(&b, "origin lsn=%s name=%q", d.Origin.CommitLSN, d.Origin.Name)
	case KindRelation:
		m := d.Relation
		fmt.Fprintf(&b, "relation oid=%d %q.%q identity=%c", m.OID, m.Schema, m.Name, m.Identity)
		for _, c := range m.Columns {
			fmt.Fprintf(&b, "\n  column %q type=%d mod=%d key=%t", c.Name, c.TypeOID, c.TypeModifier, c.Key)
		}
	case KindType:
		fmt.Fprintf(&b, "type oid=%d %q.%q", d.Type.OID, d.Type.Schema, d.Type.Name)
	case KindInsert:
		fmt.Fprintf(&b, "insert oid=%d new=%s", d.Insert.RelationOID, dumpTuple(d.Insert.New))
	case KindUpdate:
		fmt.Fprintf(&b, "update oid=%d", d.Update.RelationOID)
		if d.Update.OldKind != OldNone {
			fmt.Fprintf(&b, " old(%c)=%s", d.Update.OldKind, dumpTuple(d.Update.Old))
		}
		fmt.Fprintf(&b, " new=%s", dumpTuple(d.Update.New))
	case KindDelete:
		fmt.Fprintf(&b, "delete oid=%d old(%c)=%s", d.Delete.RelationOID, d.Delete.OldKind, dumpTuple(d.Delete.Old))
	case KindTruncate:
		m := d.Truncate
		fmt.Fprintf(&b, "truncate cascade=%t restart_identity=%t", m.Cascade, m.RestartIdentity)
		for _, oid := range m.RelationOIDs {
			fmt.Fprintf(&b, " oid=%d", oid)
		}
	case KindMessage:
		m := d.Message
		fmt.Fprintf(&b, "message transactional=%t lsn=%s prefix=%q content=%q", m.Transactional, m.LSN, m.Prefix, m.Content)
	default:
		b.WriteString(kind.String())
	}
	return b.String()
}

// dumpTuple prints (1 NULL UNCHANGED), values quoted and long ones cut.
func dumpTuple(t Tuple) string {
	var out []string
	for c := t.Columns(); c.More(); {
		switch kind, value := c.Next(); {
		case kind == ValueNull:
			out = append(out, "NULL")
		case kind == ValueUnchanged:
			out = append(out, "UNCHANGED")
		case len(value) > 100:
			out = append(out, fmt.Sprintf("%q…%d bytes", value[:20], len(value)))
		default:
			out = append(out, fmt.Sprintf("%q", value))
		}
	}
	return "(" + strings.Join(out, " ") + ")"
}

// dumpAll decodes and prints messages one per line.
func dumpAll(t testing.TB, messages [][]byte) string {
	t.Helper()
	var d Decoder
	var b strings.Builder
	for i, data := range messages {
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatalf("message %d, %x: %v", i+1, data, err)
		}
		b.WriteString(dump(&d, kind) + "\n")
	}
	return b.String()
}

const (
	transcriptHex  = "testdata/stream.hex"
	transcriptText = "testdata/stream.txt"
)

// transcript returns the messages of a stream recorded from PostgreSQL 15 by TestSlot with SYNCLINE_RECORD=1.
func transcript(t testing.TB) [][]byte {
	t.Helper()
	file, err := os.ReadFile(transcriptHex)
	if err != nil {
		t.Fatalf("read recorded stream: %v", err)
	}
	var messages [][]byte
	lines := bufio.NewScanner(bytes.NewReader(file))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatalf("read recorded stream: line %d: %v", len(messages)+1, err)
		}
		messages = append(messages, data)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("read recorded stream: %v", err)
	}
	return messages
}

// The recorded stream of a real server reads as the text beside it, and pglogrepl agrees on every message.
func TestTranscript(t *testing.T) {
	messages := transcript(t)
	want, err := os.ReadFile(transcriptText)
	if err != nil {
		t.Fatal(err)
	}
	requireText(t, dumpAll(t, messages), string(want))
	for _, data := range messages {
		var d Decoder
		kind, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := encode(&d, kind); !bytes.Equal(got, data) {
			t.Errorf("recorded %x\nencoded  %x", data, got)
		}
		requireAgreement(t, &d, kind, data)
	}
}

// requireText names the first line that differs.
func requireText(t *testing.T, got, want string) {
	t.Helper()
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Fatalf("line %d:\ngot  %s\nwant %s\n\nall that was read:\n%s", i+1, g, w, got)
		}
	}
}
