package changelog

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

var testMeta = Meta{LogID: change.LogID{0xab, 1}, Start: 1000, SystemIdentifier: "7123", Timeline: 3, Database: "shop", Slot: "syncline"}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func openLog(t testing.TB, opts Options) *Log {
	t.Helper()
	l, err := Open(opts)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// newLog opens a log that has begun.
func newLog(t testing.TB) *Log {
	t.Helper()
	l := openLog(t, Options{Dir: t.TempDir()})
	must(t, l.Reset(t.Context(), testMeta))
	return l
}

func openAppender(t testing.TB, l *Log) *Appender {
	t.Helper()
	a, err := l.Appender(t.Context())
	must(t, err)
	return a
}

func tuple(values ...string) pgoutput.Tuple {
	t := pgoutput.Tuple{N: len(values)}
	for _, v := range values {
		t.Raw = binary.BigEndian.AppendUint32(append(t.Raw, 't'), uint32(len(v)))
		t.Raw = append(t.Raw, v...)
	}
	return t
}

var testRelation = &change.Relation{OID: 5, Schema: "public", Name: "t", Identity: change.IdentityDefault, Columns: []change.Column{
	{Name: "id", TypeOID: 23, TypeModifier: -1, Key: true}, {Name: "v", TypeOID: 25, TypeModifier: -1},
}}

// transaction is one of the made-up histories that tests feed.
type transaction struct {
	commit, end change.LSN
	xid         uint32
	origin      string
	rows        []string // 'M' in front makes a message
	mark        change.LSN
}

func (x *transaction) time() change.Timestamp { return change.Timestamp(x.commit) * 1000 }

func feedOne(ctx context.Context, a *Appender, hash change.RelationHash, x *transaction) error {
	if err := a.Begin(ctx, x.commit, x.time(), x.xid); err != nil {
		return err
	}
	if x.origin != "" {
		if err := a.Origin(ctx, block.Origin{Name: x.origin}); err != nil {
			return err
		}
	}
	for i, row := range x.rows {
		var err error
		if strings.HasPrefix(row, "M") {
			err = a.Message(ctx, "m", []byte(row), x.commit)
		} else {
			err = a.Change(ctx, block.Insert, hash, pgoutput.OldNone, pgoutput.Tuple{}, tuple(fmt.Sprint(i), row))
		}
		if err != nil {
			return err
		}
	}
	if err := a.Commit(ctx, x.commit, x.end, x.time(), x.xid); err != nil {
		return err
	}
	if x.mark > 0 {
		return a.Mark(ctx, x.mark)
	}
	return nil
}

func feedAll(ctx context.Context, a *Appender, hash change.RelationHash, history []transaction) error {
	for i := range history {
		if err := feedOne(ctx, a, hash, &history[i]); err != nil {
			return err
		}
	}
	return a.Flush(ctx)
}

// lines renders a history as read renders a log.
func lines(history []transaction) []string {
	var out []string
	for i := range history {
		x := &history[i]
		out = append(out, fmt.Sprintf("begin %v %d %d", x.commit, x.time(), x.xid))
		if x.origin != "" {
			out = append(out, "origin "+x.origin)
		}
		for j, row := range x.rows {
			if strings.HasPrefix(row, "M") {
				out = append(out, "message "+short(row))
			} else {
				out = append(out, fmt.Sprintf("insert %d %s", j, short(row)))
			}
		}
		out = append(out, fmt.Sprintf("commit %v %v %d %d", x.commit, x.end, x.time(), x.xid))
	}
	return out
}

func short(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%d bytes %08x", len(s), block.Checksum([]byte(s)))
	}
	return s
}

// read returns what the log holds after a position, up to its head, and checks the chain.
func read(t testing.TB, l *Log, after change.Position) []string {
	t.Helper()
	number, err := l.Find(t.Context(), after)
	must(t, err)
	a := block.NewAssembler(after)
	var out []string
	var rec block.Record
	for head := l.Head(); number <= head.Number; number++ {
		b, err := l.Read(t.Context(), number)
		must(t, err)
		must(t, a.Push(b))
		for {
			ok, err := a.Next(&rec)
			must(t, err)
			if !ok {
				break
			}
			switch rec.Kind {
			case block.KindBegin:
				out = append(out, fmt.Sprintf("begin %v %d %d", rec.Begin.CommitLSN, rec.Begin.CommitTime, rec.Begin.XID))
			case block.KindOrigin:
				out = append(out, "origin "+rec.Origin.Name)
			case block.KindChange:
				c := rec.Change.New.Columns()
				_, id := c.Next()
				_, v := c.Next()
				out = append(out, fmt.Sprintf("%v %s %s", rec.Change.Operation, id, short(string(v))))
			case block.KindMessage:
				out = append(out, "message "+short(string(rec.Message.Content)))
			case block.KindCommit:
				out = append(out, fmt.Sprintf("commit %v %v %d %d", rec.Commit.CommitLSN, rec.Commit.EndLSN, rec.Commit.CommitTime, rec.Commit.XID))
			}
		}
	}
	return out
}

func requireLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("%s: line %d is missing: %s", what, i, want[i])
		case i >= len(want):
			t.Fatalf("%s: line %d is too many: %s", what, i, got[i])
		case got[i] != want[i]:
			t.Fatalf("%s: line %d is %s, want %s", what, i, got[i], want[i])
		}
	}
}

func start() change.Position { return change.Position{LogID: testMeta.LogID, LSN: testMeta.Start} }

// smallHistory is a few transactions with marks between them, from 1000 on.
func smallHistory(n int) []transaction {
	history := make([]transaction, n)
	for i := range history {
		lsn := change.LSN(1000 + 100*i)
		history[i] = transaction{commit: lsn, end: lsn + 40, xid: uint32(i + 1), rows: []string{fmt.Sprint("row ", i), "M message"}}
		if i%3 == 0 {
			history[i].mark = lsn + 60
		}
		if i%4 == 0 {
			history[i].origin = "elsewhere"
		}
	}
	return history
}

func put(t testing.TB, l *Log) change.RelationHash {
	t.Helper()
	hash, err := l.PutRelation(testRelation)
	must(t, err)
	return hash
}
