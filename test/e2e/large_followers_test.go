package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// How far the primary's CPU may differ between one follower and eight: the same load alone differs by as much from run to run.
const (
	cpuTolerance = 1.15
	cpuSlack     = 100 * time.Millisecond
)

// eightFollowers has the same load captured for one follower and for eight, several times in turn. The walsender and the other
// processes of PostgreSQL take the same CPU, and there is one slot.
func eightFollowers(t *testing.T) {
	source, _ := largeServers(t)
	url := source.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE load (id bigserial PRIMARY KEY, v text)")
	primary := startPrimary(t, url)
	cost := map[int][2][]time.Duration{}
	f := &figures{t: t, lines: []string{"followers\twalsender's CPU\tPostgreSQL's CPU\tbytes to each follower"}}
	defer f.print()
	for range 3 {
		for _, n := range []int{1, 8} {
			walsender, all, bytes := loadWithFollowers(t, source, conn, primary, n)
			c := cost[n]
			c[0], c[1] = append(c[0], walsender), append(c[1], all)
			cost[n] = c
			f.add("%d\t%v\t%v\t%d", n, walsender, all, bytes)
		}
	}
	for i, what := range []string{"walsender", "PostgreSQL"} {
		one, eight := slices.Min(cost[1][i]), slices.Min(cost[8][i])
		f.add("least of the %s's\t%v with 1\t%v with 8\t%+.1f%%", what, one, eight, 100*(float64(eight)/float64(one)-1))
		if eight > time.Duration(float64(one)*cpuTolerance)+cpuSlack {
			t.Errorf("the CPU of the %s grows from %v to %v with seven more followers", what, one, eight)
		}
	}
}

// loadWithFollowers writes the same load with n followers connected, waits until each has got all of it, and returns what CPU
// the walsender and the whole server took.
func loadWithFollowers(t testing.TB, source *pgtest.Server, conn *pgx.Conn, primary *node, n int) (walsender, all time.Duration, bytes int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	got := make([]chan int64, n)
	begun := make(chan error, n)
	reached := make(chan uint64) // closed, after target is set
	var target uint64
	for i := range got {
		got[i] = make(chan int64, 1)
		following.Go(func() {
			stream, err := primary.logger().Follow(ctx, &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Follower: fmt.Sprintf("follower %d", i)})
			if err == nil {
				_, err = stream.Recv()
			}
			begun <- err
			var size int64
			var through uint64
			for err == nil {
				var answer *loggerv1.FollowResponse
				if answer, err = stream.Recv(); err != nil {
					break
				}
				for _, record := range answer.GetBlock().GetRecords() {
					for _, value := range record.GetChange().GetNew().GetValues() {
						size += int64(len(value))
					}
				}
				through = max(through, answer.GetBlock().GetThroughLsn())
				select {
				case <-reached:
					if through >= target {
						got[i] <- size
						return
					}
				default:
				}
			}
			if ctx.Err() == nil {
				t.Errorf("follower %d: %s", i, rpc.Message(err))
			}
			got[i] <- -1
		})
	}
	for range n {
		if err := <-begun; err != nil {
			t.Fatal(rpc.Message(err))
		}
	}
	pid := pgtest.QueryRow[int](t, conn, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'syncline'")
	before, allBefore := cpuOf(t, pid), cpuOfServer(t, source.PID())
	for range 200 {
		pgtest.Exec(t, conn, "INSERT INTO load (v) SELECT md5(n::text) FROM generate_series(1, 2500) n")
	}
	for range 1000 {
		pgtest.Exec(t, conn, "INSERT INTO load (v) VALUES ('small')")
	}
	barrier, err := primary.logger().EmitBarrier(ctx, &loggerv1.EmitBarrierRequest{})
	if err != nil {
		t.Fatal(err)
	}
	target = barrier.GetPosition().GetLsn()
	close(reached)
	for i := range got {
		size := <-got[i]
		if i > 0 && size != bytes {
			t.Errorf("follower %d got %d bytes of values and the first one %d", i, size, bytes)
		}
		bytes = size
	}
	walsender, all = cpuOf(t, pid)-before, cpuOfServer(t, source.PID())-allBefore
	if slots := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_replication_slots"); slots != 1 {
		t.Errorf("%d slots with %d followers", slots, n)
	}
	if senders := pgtest.QueryRow[int](t, conn, "SELECT count(*) FROM pg_stat_replication"); senders != 1 {
		t.Errorf("%d walsenders with %d followers", senders, n)
	}
	pgtest.Exec(t, conn, "TRUNCATE load")
	return walsender, all, bytes
}

// clockTick is the unit of times in /proc, which is the same on every Linux.
const clockTick = time.Second / 100

// cpuOf is the time that a process has used, in the kernel too.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	own, _, _ := procStat(t, pid)
	return own
}

// procStat returns the time that a process and its ended children have used, and its parent.
func procStat(t testing.TB, pid int) (own, children time.Duration, parent int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0 // it has ended; what it used counts for its parent
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := func(i int) time.Duration {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n) * clockTick
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		t.Fatal(err)
	}
	return ticks(11) + ticks(12), ticks(13) + ticks(14), parent
}

// cpuOfServer is the time that a postmaster and all its children, the ended ones too, have used.
func cpuOfServer(t testing.TB, postmaster int) time.Duration {
	t.Helper()
	own, ended, _ := procStat(t, postmaster)
	total := own + ended
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if own, _, parent := procStat(t, pid); parent == postmaster {
			total += own
		}
	}
	return total
}
