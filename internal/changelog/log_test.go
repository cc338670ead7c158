package changelog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

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
	l, err := Open(t.Context(), opts)
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
	hash, err := l.PutRelation(t.Context(), testRelation)
	must(t, err)
	return hash
}

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), Options{Dir: dir})
	must(t, err)
	if _, ok := l.Meta(); ok || l.Head() != (Head{}) {
		t.Fatal("a new directory holds a log")
	}
	if _, err := l.Appender(t.Context()); !errors.Is(err, ErrNoLog) {
		t.Fatalf("appender without a log: %v", err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("open twice: %v", err)
	}
	must(t, l.Reset(t.Context(), testMeta))
	if head := l.Head(); head.Position != start() || head.HasCommit {
		t.Fatalf("head %+v", head)
	}
	history := smallHistory(50)
	hash := put(t, l)
	must(t, feedAll(t.Context(), openAppender(t, l), hash, history))
	requireLines(t, "log", read(t, l, start()), lines(history))
	must(t, l.Close(), l.Close())

	l = openLog(t, Options{Dir: dir})
	meta, ok := l.Meta()
	if meta.Created = (time.Time{}); !ok || meta != testMeta {
		t.Fatalf("meta %+v", meta)
	}
	requireLines(t, "log opened again", read(t, l, start()), lines(history))
	last := history[len(history)-1]
	if head := l.Head(); head.Position.LSN != max(last.end, last.mark) || !head.HasCommit || head.LastCommitTime != last.time() {
		t.Fatalf("head %+v, want %v", head, last.end)
	}
	r, err := l.Relation(t.Context(), hash)
	must(t, err)
	if r.Hash() != hash {
		t.Fatalf("relation %+v", r)
	}
	if _, err := l.Relation(t.Context(), change.RelationHash{9}); !errors.Is(err, ErrUnknownRelation) {
		t.Fatalf("unknown relation: %v", err)
	}
	for i := range history { // from each position
		after := change.Position{LogID: testMeta.LogID, LSN: history[i].end}
		requireLines(t, fmt.Sprint("after ", after.LSN), read(t, l, after), lines(history[i+1:]))
	}
}

func TestPositionsThatCannotBeServed(t *testing.T) {
	l := newLog(t)
	must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), smallHistory(5)))
	for _, c := range []struct {
		at   change.Position
		want error
	}{
		{change.Position{LogID: testMeta.LogID, LSN: 999}, ErrTooOld},
		{change.Position{LogID: testMeta.LogID, LSN: 5000}, ErrAhead},
		{change.Position{LogID: change.LogID{1}, LSN: 1000}, ErrOtherLog},
	} {
		if _, err := l.Find(t.Context(), c.at); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.at, err, c.want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Read(ctx, l.Head().Number+1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for the next block: %v", err)
	}
}

// Feeding again from anywhere gives the same log.
func TestFeedAgain(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := smallHistory(30)
	for n := range len(history) + 1 {
		a := openAppender(t, l)
		must(t, feedAll(t.Context(), a, hash, history[max(0, n-10):n]))
		a.Close()
	}
	requireLines(t, "log", read(t, l, start()), lines(history))

	for name, edit := range map[string]func(*transaction){
		"xid": func(x *transaction) { x.xid++ }, "end": func(x *transaction) { x.end++ },
		"commit":      func(x *transaction) { x.commit++; x.end++ },
		"commit time": func(x *transaction) { x.commit-- },
	} {
		a := openAppender(t, l)
		must(t, feedOne(t.Context(), a, hash, &history[9]))
		other := history[10]
		other.mark = 0
		edit(&other)
		if err := feedOne(t.Context(), a, hash, &other); !errors.Is(err, ErrDiverged) {
			t.Errorf("other %s: %v, want ErrDiverged", name, err)
		}
		if err := a.Begin(t.Context(), 9000, 1, 1); !errors.Is(err, ErrDiverged) {
			t.Errorf("other %s: the error does not stick: %v", name, err)
		}
		a.Close()
	}
	requireLines(t, "log", read(t, l, start()), lines(history))
}

// largeHistory has transactions of many parts, and records of many fragments.
func largeHistory() []transaction {
	big := func(c string, n int) string { return strings.Repeat(c, n) }
	many := make([]string, 3000)
	for i := range many {
		many[i] = big("x", i%500)
	}
	return []transaction{
		{commit: 1000, end: 1040, xid: 1, rows: []string{"a"}},
		{commit: 1100, end: 1140, xid: 2, origin: "o", rows: many},
		{commit: 1200, end: 1240, xid: 3, rows: []string{"b", big("y", 1_900_000), "Mm", "M" + big("z", 1_200_000), "c"}},
		{commit: 1300, end: 1340, xid: 4, origin: "p", rows: []string{big("w", 1_500_000)}},
		{commit: 1400, end: 1440, xid: 5, rows: []string{"d"}, mark: 1500},
	}
}

// A log that ends after any of the blocks is continued exactly, whatever is fed again.
func TestContinueAfterEachBlock(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := largeHistory()
	must(t, feedAll(t.Context(), openAppender(t, l), hash, history))
	want := lines(history)
	requireLines(t, "log", read(t, l, start()), want)
	var blocks [][]byte
	for number := l.Ranges().FirstBlock + 1; number <= l.Head().Number; number++ {
		b, err := l.Read(t.Context(), number)
		must(t, err)
		blocks = append(blocks, b.Data())
	}
	for stop := range blocks {
		// The numbers of blocks go on after a Reset, so the prefix is built again rather than copied.
		must(t, l.Reset(t.Context(), testMeta))
		a := openAppender(t, l)
		builder := block.NewBuilder(block.State{LogID: testMeta.LogID, Number: l.Head().Number, Through: testMeta.Start})
		feedPrefix(t, a.store, builder, hash, history, stop+1)
		a = openAppender(t, l)
		tail := a.Tail()
		if got := l.Head(); got.Number != tail.Number || got.Position.LSN != tail.Through {
			t.Fatalf("after %d blocks: tail %+v, head %+v", stop+1, tail, got)
		}
		must(t, feedAll(t.Context(), a, hash, history))
		requireLines(t, fmt.Sprintf("after %d blocks", stop+1), read(t, l, start()), want)

		if tail.Open {
			// Find and Read serve the transaction from its beginning.
			after := change.Position{LogID: testMeta.LogID, LSN: tail.Through}
			number, err := l.Find(t.Context(), after)
			must(t, err)
			b, err := l.Read(t.Context(), number)
			must(t, err)
			if b.Part == nil || b.Part.FirstBlock != number || b.Part.XID != tail.XID {
				t.Fatalf("after %d blocks: block %d does not begin transaction %d: %+v", stop+1, number, tail.XID, b.Header)
			}
		}
	}
}

// feedPrefix stores the first n blocks of a history, as if the process had been killed after them.
func feedPrefix(t testing.TB, s *store, b *block.Builder, hash change.RelationHash, history []transaction, n int) {
	t.Helper()
	cut := func() bool {
		for n > 0 && b.Full() || n > 0 && b.Ready() {
			next := b.Cut()
			future, err := s.publish(next.Number, next.Data())
			must(t, err)
			_, err = s.await(future, nil)
			must(t, err)
			n--
		}
		return n > 0
	}
	for i := range history {
		x := &history[i]
		must(t, b.Begin(block.Begin{CommitLSN: x.commit, CommitTime: x.time(), XID: x.xid}))
		if x.origin != "" {
			must(t, b.Origin(block.Origin{Name: x.origin}))
		}
		for j, row := range x.rows {
			if strings.HasPrefix(row, "M") {
				must(t, b.Message(block.Message{Prefix: "m", Content: []byte(row), LSN: x.commit}))
			} else {
				must(t, b.Change(&block.Source{Operation: block.Insert, Relation: hash, New: tuple(fmt.Sprint(j), row)}))
			}
			if b.Full() && !cut() {
				return
			}
		}
		must(t, b.Commit(block.Commit{CommitLSN: x.commit, EndLSN: x.end, CommitTime: x.time(), XID: x.xid}))
		if !cut() {
			return
		}
		if x.mark > 0 {
			must(t, b.Mark(x.mark))
			if !cut() {
				return
			}
		}
	}
}

func TestDivergedInsideTransaction(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	history := largeHistory()[1:3]
	for name, c := range map[string]struct {
		blocks int
		edit   func(*transaction)
	}{
		"other xid":             {2, func(x *transaction) { x.xid++ }},
		"other commit":          {2, func(x *transaction) { x.commit++ }},
		"fewer changes":         {2, func(x *transaction) { x.rows = x.rows[:3] }},
		"other large row":       {2, nil},
		"ends before its row":   {2, nil},
		"other transaction":     {2, func(x *transaction) { x.commit, x.end, x.xid = 2000, 2040, 99 }},
		"small for a large one": {2, nil},
	} {
		must(t, l.Reset(t.Context(), testMeta))
		a := openAppender(t, l)
		builder := block.NewBuilder(block.State{LogID: testMeta.LogID, Number: l.Head().Number, Through: testMeta.Start})
		x := history[0]
		if c.edit == nil {
			x = history[1]
		}
		feedPrefix(t, a.store, builder, hash, []transaction{x}, c.blocks)
		a = openAppender(t, l)
		if !a.Tail().Open {
			t.Fatalf("%s: the log does not end inside the transaction", name)
		}
		switch name {
		case "other large row":
			x.rows = append([]string{x.rows[0], strings.Repeat("Y", len(x.rows[1]))}, x.rows[2:]...)
		case "ends before its row":
			x.rows = x.rows[:1]
		case "small for a large one":
			x.rows = []string{x.rows[0], "small"}
		default:
			c.edit(&x)
		}
		if err := feedOne(t.Context(), a, hash, &x); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: %v, want ErrDiverged", name, err)
		}
	}
}

func TestReset(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	a := openAppender(t, l)
	must(t, feedAll(t.Context(), a, hash, smallHistory(5)))
	old := l.Head()
	waiting := make(chan *block.Block)
	go func() {
		b, err := l.Read(context.Background(), old.Number+1)
		if err != nil {
			b = nil
		}
		waiting <- b
	}()
	other := testMeta
	other.LogID, other.Start = change.LogID{0xcd}, 7000
	must(t, l.Reset(t.Context(), other))
	if b := <-waiting; b != nil && b.LogID != other.LogID {
		t.Errorf("a follower of the old log got %+v", b.Header)
	}
	if err := a.Begin(t.Context(), 8000, 1, 1); !errors.Is(err, ErrFenced) {
		t.Errorf("the old appender: %v", err)
	}
	if _, err := l.Find(t.Context(), old.Position); !errors.Is(err, ErrOtherLog) {
		t.Errorf("find in the old log: %v", err)
	}
	if _, err := l.Read(t.Context(), old.Number); !errors.Is(err, ErrPurged) {
		t.Errorf("read the old log: %v", err)
	}
	if head := l.Head(); head.Position.LogID != other.LogID || head.Position.LSN != 7000 || head.HasCommit {
		t.Errorf("head %+v", head)
	}
	if _, err := l.Relation(t.Context(), hash); err != nil {
		t.Errorf("relations outlive a reset: %v", err)
	}
	if err := l.Reset(t.Context(), Meta{LogID: other.LogID}); err == nil {
		t.Error("a log without a start was begun")
	}
}

// A writer that does not know the newest block changes nothing.
func TestFencing(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	a := openAppender(t, l)
	history := smallHistory(3)
	must(t, feedOne(t.Context(), a, hash, &history[0]), a.Flush(t.Context()))
	// Another writer appends behind this one's back.
	head := l.Head()
	mark := block.NewMark(testMeta.LogID, head.Number+1, head.Position.LSN, head.Position.LSN+1)
	future, err := a.store.publish(mark.Number, mark.Data())
	must(t, err)
	_, err = a.store.await(future, nil)
	must(t, err)

	err = errors.Join(feedOne(t.Context(), a, hash, &history[1]), a.Flush(t.Context()))
	if !errors.Is(err, ErrFenced) {
		t.Fatalf("stale writer: %v", err)
	}
	a = openAppender(t, l)
	if a.Tail().Number != mark.Number {
		t.Fatalf("tail %+v", a.Tail())
	}
	must(t, feedAll(t.Context(), a, hash, history))
	requireLines(t, "log", read(t, l, start()), lines(history))
	second := openAppender(t, l)
	if err := a.Mark(t.Context(), 99_000); !errors.Is(err, ErrFenced) {
		t.Errorf("first of two appenders: %v", err)
	}
	must(t, second.Mark(t.Context(), 99_000), second.Flush(t.Context()))
}

func TestFollowersAreWoken(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	a := openAppender(t, l)
	history := smallHistory(200)
	want := lines(history)
	var followers sync.WaitGroup
	for range 8 {
		followers.Go(func() {
			assembler := block.NewAssembler(start())
			var rec block.Record
			seen := 0
			for number := l.Ranges().FirstBlock; seen < len(want); number++ {
				b, err := l.Read(context.Background(), number)
				if err != nil {
					t.Error(err)
					return
				}
				if err := assembler.Push(b); err != nil {
					t.Error(err)
					return
				}
				for {
					ok, err := assembler.Next(&rec)
					if err != nil {
						t.Error(err)
						return
					}
					if !ok {
						break
					}
					seen++
				}
			}
		})
	}
	for i := range history {
		must(t, feedOne(t.Context(), a, hash, &history[i]))
	}
	must(t, a.Flush(t.Context()))
	followers.Wait()
}

func TestOrder(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	for name, do := range map[string]func(*Appender) error{
		"change outside": func(a *Appender) error {
			return a.Change(t.Context(), block.Insert, hash, pgoutput.OldNone, pgoutput.Tuple{}, tuple("a"))
		},
		"commit outside": func(a *Appender) error { return a.Commit(t.Context(), 2000, 2001, 1, 1) },
		"origin outside": func(a *Appender) error { return a.Origin(t.Context(), block.Origin{Name: "o"}) },
		"begin inside": func(a *Appender) error {
			return errors.Join(a.Begin(t.Context(), 2000, 1, 1), a.Begin(t.Context(), 2000, 1, 1))
		},
		"mark inside": func(a *Appender) error {
			return errors.Join(a.Begin(t.Context(), 2000, 1, 1), a.Mark(t.Context(), 3000))
		},
		"other commit": func(a *Appender) error {
			return errors.Join(a.Begin(t.Context(), 2000, 1, 1), a.Commit(t.Context(), 2002, 2003, 1, 1))
		},
	} {
		a := openAppender(t, l)
		if err := do(a); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v, want ErrOrder", name, err)
		}
	}
	if got := read(t, l, start()); len(got) > 0 {
		t.Errorf("the log holds %q", got)
	}
}
