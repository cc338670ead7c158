package changelog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/fault"
)

// The crash tests run this test binary again as a process of its own, told by variables what to do.
const (
	childDir   = "CHANGELOG_TEST_DIR"
	childUpTo  = "CHANGELOG_TEST_UPTO"  // index of the transaction to end with
	childKill  = "CHANGELOG_TEST_KILL"  // microseconds until it kills itself
	childPurge = "CHANGELOG_TEST_PURGE" // purge to so many bytes at the end
	childReset = "CHANGELOG_TEST_RESET" // begin another log at the end
)

var otherMeta = Meta{LogID: change.LogID{0xcd, 2}, Start: 5_000_000, SystemIdentifier: "8", Timeline: 1, Database: "d", Slot: "s"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashHistory is the i-th transaction of an endless history: mostly small, some of many blocks, some with rows of several
// fragments.
func crashHistory(i int) transaction {
	rnd := rand.New(rand.NewPCG(uint64(i), 42))
	lsn := change.LSN(1000 + 100*i)
	x := transaction{commit: lsn, end: lsn + 40, xid: uint32(i + 1)}
	rows, limit := rnd.IntN(6), 100
	switch {
	case i%17 == 5:
		rows, limit = 2500, 600
	case i%23 == 7:
		rows, limit = 3, 1_600_000
	}
	for range rows {
		x.rows = append(x.rows, strings.Repeat(string(rune('a'+rnd.IntN(26))), 1+rnd.IntN(limit)))
	}
	if rnd.IntN(3) == 0 {
		x.origin = "o"
	}
	if rnd.IntN(4) == 0 {
		x.mark = lsn + 60
	}
	return x
}

func child(ctx context.Context, dir string) error {
	upTo, err := strconv.Atoi(os.Getenv(childUpTo))
	if err != nil {
		return err
	}
	if text := os.Getenv(childKill); text != "" {
		after, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		time.AfterFunc(time.Duration(after)*time.Microsecond, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	}
	limit, _ := strconv.Atoi(os.Getenv(childPurge)) // 0 without
	l, err := Open(Options{Dir: dir, Retention: Retention{MaxBytes: int64(limit)}, PurgeInterval: time.Hour})
	if err != nil {
		return err
	}
	meta, begun := l.Meta()
	if !begun {
		if err := l.Reset(ctx, testMeta); err != nil {
			return err
		}
	}
	if begun && meta.LogID == otherMeta.LogID {
		return l.Close()
	}
	if err := childAppend(ctx, l, upTo); err != nil {
		return err
	}
	if limit > 0 {
		if err := l.Purge(); err != nil {
			return err
		}
	}
	if os.Getenv(childReset) != "" {
		if err := l.Reset(ctx, otherMeta); err != nil {
			return err
		}
	}
	return l.Close()
}

// childAppend feeds the history from a little before the log's end, and says what is durable.
func childAppend(ctx context.Context, l *Log, upTo int) error {
	a, err := l.Appender(ctx)
	if err != nil {
		return err
	}
	hash, err := l.PutRelation(testRelation)
	if err != nil {
		return err
	}
	go func() {
		for a.Err() == nil {
			changed := a.DurableChanged()
			fmt.Println("durable", uint64(a.Durable()))
			<-changed
		}
	}()
	// The first transaction that is not in the log as a whole, and up to 30 before.
	from := max(0, firstAfter(a.Tail().Through)-rand.IntN(30))
	for i := from; i < upTo; i++ {
		x := crashHistory(i)
		if err := feedOne(ctx, a, hash, &x); err != nil {
			return err
		}
	}
	return a.Flush(ctx)
}

// runChild runs a child and returns the last LSN that it said to be durable, and whether it was killed.
func runChild(t *testing.T, dir string, env ...string) (durable change.LSN, killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childDir+"="+dir)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	for scan := bufio.NewScanner(out); scan.Scan(); {
		if text, ok := strings.CutPrefix(scan.Text(), "durable "); ok {
			if lsn, err := strconv.ParseUint(text, 10, 64); err == nil {
				durable = change.LSN(lsn)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, _ := exit.Sys().(syscall.WaitStatus)
		killed = status.Signal() == syscall.SIGKILL
	}
	if err != nil && !killed {
		t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	return durable, killed
}

// checkCrashed opens what a child left: it must hold exactly the beginning of the history, and all that was durable. What it
// holds after a position is compared. It returns the index of the first transaction that is not in the log as a whole, and
// whether the log ends inside that.
func checkCrashed(t *testing.T, dir string, after, durable change.LSN) (index int, inside bool) {
	t.Helper()
	l, err := Open(Options{Dir: dir})
	must(t, err)
	defer func() { must(t, l.Close()) }()
	meta, ok := l.Meta()
	if !ok {
		if durable > 0 {
			t.Fatalf("%v was durable, and there is no log", durable)
		}
		return 0, false
	}
	ranges := l.Ranges()
	if meta.LogID == otherMeta.LogID {
		if ranges.First != otherMeta.Start || ranges.Last != otherMeta.Start || ranges.FirstBlock != ranges.LastBlock {
			t.Fatalf("the other log is not new: %+v", ranges)
		}
		return 0, false
	}
	if ranges.Last < durable {
		t.Fatalf("%v was durable, and the log ends at %v", durable, ranges.Last)
	}
	after = max(after, ranges.First)
	got := read(t, l, change.Position{LogID: meta.LogID, LSN: after})
	var want []string
	for index = firstAfter(after); ; index++ {
		x := crashHistory(index)
		text := lines([]transaction{x})
		if x.end > ranges.Last { // the log may hold the beginning of it
			rest := len(got) - len(want)
			if rest < 0 || rest >= len(text) {
				t.Fatalf("%d lines, and the whole transactions up to %v have %d", len(got), ranges.Last, len(want))
			}
			want = append(want, text[:rest]...)
			last := l.ledger.view().last
			inside = last.Open()
			break
		}
		want = append(want, text...)
	}
	requireLines(t, "log after a crash", got, want)
	return index, inside
}

// firstAfter returns the index of the first transaction that ends after a position.
func firstAfter(lsn change.LSN) int { return max(0, (int(lsn)-1000+100-40)/100) }

// Nothing that was durable is ever lost, and feeding again leaves no hole and doubles nothing, whenever the process is killed.
func TestKilledAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SYNCLINE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("SYNCLINE_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	kills, insides, index := 0, 0, 0
	var durable, checked change.LSN
	for round := 0; kills < 30; round++ {
		if round > 200 {
			t.Fatalf("only %d kills in %d rounds", kills, round)
		}
		lsn, killed := runChild(t, dir, childUpTo+"="+strconv.Itoa(index+400), childKill+"="+strconv.Itoa(20_000+rnd.IntN(300_000)))
		durable = max(durable, lsn)
		var inside bool
		index, inside = checkCrashed(t, dir, checked, durable)
		checked = max(checked, crashHistory(max(0, index-40)).commit)
		if killed {
			kills++
		}
		if inside {
			insides++
		}
	}
	runChild(t, dir, childUpTo+"="+strconv.Itoa(index+20))
	if end, _ := checkCrashed(t, dir, 0, durable); end != index+20 {
		t.Errorf("the log ends with transaction %d, want %d", end, index+20)
	}
	t.Logf("%d kills, %d of them left a log that ends inside a transaction, %d transactions", kills, insides, index+20)
}

// Each named point is hit, and a kill there leaves a log that goes on.
func TestKilledAtEachPoint(t *testing.T) {
	const upTo = 30
	for _, c := range []struct {
		point    string
		passages []int
		env      []string
	}{
		{FaultMetaStored, []int{1}, nil},
		{FaultBlocksPurged, []int{1}, nil},
		{FaultBegun, []int{1}, nil},
		{FaultMetaStored, []int{2}, []string{childReset + "=1"}},
		{FaultBlocksPurged, []int{2}, []string{childReset + "=1"}},
		{FaultBegun, []int{2}, []string{childReset + "=1"}},
		{FaultRelationStored, []int{1}, nil},
		{FaultPublish, []int{1, 5, 12}, nil},
		{FaultPublished, []int{1, 6, 13}, nil},
		{FaultAcknowledged, []int{1, 7, 14}, nil},
		{FaultPurge, []int{1}, []string{childPurge + "=500000"}},
		{FaultPurged, []int{1}, []string{childPurge + "=500000"}},
	} {
		for _, n := range c.passages {
			name := fmt.Sprintf("%s:%d", c.point, n)
			t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
				dir, hits := t.TempDir(), filepath.Join(t.TempDir(), "hits")
				env := append(slices.Clone(c.env), childUpTo+"="+strconv.Itoa(upTo))
				durable, killed := runChild(t, dir, append(slices.Clone(env), fault.Variable+"="+name, fault.LogVariable+"="+hits)...)
				text, err := os.ReadFile(hits)
				if must(t, err); !killed || strings.TrimSpace(string(text)) != c.point {
					t.Fatalf("killed %v, hits %q", killed, text)
				}
				if c.point == FaultMetaStored || c.point == FaultBlocksPurged || c.point == FaultBegun {
					durable = 0 // the other log takes its place
				}
				checkCrashed(t, dir, 0, durable)
				again, killed := runChild(t, dir, env...)
				if killed {
					t.Fatal("killed without a fault")
				}
				index, _ := checkCrashed(t, dir, 0, again)
				if len(c.env) == 0 && index != upTo {
					t.Errorf("the log ends with transaction %d, want %d", index, upTo)
				}
			})
		}
	}
}
