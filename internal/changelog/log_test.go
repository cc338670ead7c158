package changelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/pgoutput"
)

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir})
	must(t, err)
	if _, ok := l.Meta(); ok || l.Head() != (Head{}) {
		t.Fatal("a new directory holds a log")
	}
	if _, err := l.Appender(t.Context()); !errors.Is(err, ErrNoLog) {
		t.Fatalf("appender without a log: %v", err)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
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
	r, err := l.Relation(hash)
	must(t, err)
	if r.Hash() != hash {
		t.Fatalf("relation %+v", r)
	}
	if _, err := l.Relation(change.RelationHash{9}); !errors.Is(err, ErrUnknownRelation) {
		t.Fatalf("unknown relation: %v", err)
	}
	for i := range history { // from each position
		after := change.Position{LogID: testMeta.LogID, LSN: history[i].end}
		requireLines(t, fmt.Sprint("after ", after.LSN), read(t, l, after), lines(history[i+1:]))
	}
}

func TestOpenLogOfEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, formerDir, "x"), 0o700))
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("open: %v", err)
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
	if _, err := l.Relation(hash); err != nil {
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
	must(t, a.store.append(mark.Number, mark.Data()))

	err := errors.Join(feedOne(t.Context(), a, hash, &history[1]), a.Flush(t.Context()))
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
