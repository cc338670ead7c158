package changelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog/block"
	"github.com/seed0419d559/syncline/internal/fault"
)

// limitFiles makes every write beyond a file size fail until the returned function is called, as a full disk does.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}))
	lift = func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)) }
	t.Cleanup(lift)
	return lift
}

// A store that cannot write fails the appender with the cause; followers go on; once there is room the next appender
// continues, without a restart of the process.
func TestStoreCannotWrite(t *testing.T) {
	l := openLog(t, Options{Dir: t.TempDir(), CacheBytes: 1}) // followers read from the store
	must(t, l.Reset(t.Context(), testMeta))
	hash := put(t, l)
	a := openAppender(t, l)
	history := smallHistory(3)
	must(t, feedAll(t.Context(), a, hash, history))
	lift := limitFiles(t, 3_000_000) // the test binary's own log has to stay below too
	for i := range 60 {
		lsn := change.LSN(10_000 + 100*i)
		history = append(history, transaction{commit: lsn, end: lsn + 40, xid: uint32(100 + i), rows: []string{strings.Repeat("v", 100_000)}})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := feedAll(ctx, a, hash, history[3:])
	if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "file too large") {
		t.Fatalf("fed to a full disk: %v, want ErrStore with the cause", err)
	}
	durable := a.Durable()
	if durable >= history[len(history)-1].end || l.Head().Position.LSN != durable {
		t.Fatalf("durable %v, head %+v", durable, l.Head())
	}
	if got := read(t, l, start()); len(got) < 10 {
		t.Fatalf("followers read %q", got)
	}
	if _, err := l.Appender(ctx); !errors.Is(err, ErrStore) {
		t.Fatalf("open appender on a full disk: %v", err)
	}
	if got := read(t, l, start()); len(got) < 10 {
		t.Fatalf("followers read %q", got)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Read(t.Context(), l.Head().Number+1)
		waiting <- err
	}()
	lift()
	a = openAppender(t, l)
	if a.Tail().Through < durable {
		t.Fatalf("%v was durable, and the tail is %+v", durable, a.Tail())
	}
	must(t, feedAll(t.Context(), a, hash, history), <-waiting)
	requireLines(t, "log", read(t, l, start()), lines(history))
}

func TestPublishFails(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	for n := range 4 {
		must(t, fault.Arm(fmt.Sprintf("%s:%d:error", FaultPublish, n+1)))
		a := openAppender(t, l)
		err := feedAll(t.Context(), a, hash, smallHistory(5*n+5))
		must(t, fault.Arm(""))
		if n == 0 && !errors.Is(err, ErrStore) {
			t.Fatalf("%v, want ErrStore", err)
		}
	}
	l2 := openAppender(t, l)
	history := smallHistory(23)
	must(t, feedAll(t.Context(), l2, hash, history))
	requireLines(t, "log", read(t, l, start()), lines(history))
}

// An appender whose context ends while the log is blocked, and one that is closed, leave the log as durable says.
func TestAppenderGivesUp(t *testing.T) {
	l := newLog(t)
	hash := put(t, l)
	a := openAppender(t, l)
	for range maxInFlight {
		a.slots <- struct{}{} // as if as many blocks were on their way
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	x := transaction{commit: 2000, end: 2040, xid: 1, rows: []string{strings.Repeat("v", block.MaxRecord)}}
	if err := feedOne(ctx, a, hash, &x); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("fed while blocked: %v", err)
	}
	for range maxInFlight {
		<-a.slots
	}
	if a.Err() == nil {
		t.Fatal("the appender goes on after it gave up inside a record")
	}
	a = openAppender(t, l)
	must(t, a.Begin(t.Context(), x.commit, x.time(), x.xid))
	a.Close()
	if err := a.Commit(t.Context(), x.commit, x.end, x.time(), x.xid); !errors.Is(err, ErrClosed) {
		t.Fatalf("commit after close: %v", err)
	}
	must(t, feedAll(t.Context(), openAppender(t, l), hash, []transaction{x}))
	requireLines(t, "log", read(t, l, start()), lines([]transaction{x}))
}

func TestCloseEndsEverything(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir()})
	must(t, err, l.Reset(t.Context(), testMeta))
	a := openAppender(t, l)
	waiting := make(chan error)
	go func() {
		_, err := l.Read(context.Background(), l.Head().Number+1)
		waiting <- err
	}()
	must(t, l.Close())
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("a waiting follower got %v", err)
	}
	if err := a.Begin(t.Context(), 5000, 1, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("appender: %v", err)
	}
	if _, err := l.Find(t.Context(), start()); !errors.Is(err, ErrClosed) {
		t.Errorf("find: %v", err)
	}
	if err := errors.Join(l.Reset(t.Context(), testMeta)); !errors.Is(err, ErrClosed) {
		t.Errorf("reset: %v", err)
	}
	if _, err := l.Appender(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("appender: %v", err)
	}
}

// Blocks of which the acknowledgement was not seen are taken over, and damaged ones are refused.
func TestDamagedBlock(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, CacheBytes: 1})
	must(t, err, l.Reset(t.Context(), testMeta))
	a := openAppender(t, l)
	must(t, feedAll(t.Context(), a, put(t, l), smallHistory(10)))
	head := l.Head()
	bad := block.NewMark(testMeta.LogID, head.Number+1, head.Position.LSN, head.Position.LSN+5).Data()
	bad[len(bad)-1] ^= 1
	must(t, a.store.append(head.Number+1, bad))
	if _, err := l.Appender(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("appender behind a damaged block: %v", err)
	}
	must(t, l.Close())
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open with a damaged block: %v", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
