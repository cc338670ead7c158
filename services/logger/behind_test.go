package logger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func (i *instance) follower(t testing.TB, name string) *loggerv1.Follower {
	t.Helper()
	answer, err := i.client.ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range answer.GetFollowers() {
		if f.GetName() == name {
			return f
		}
	}
	t.Fatalf("%s is not among %v", name, answer)
	return nil
}

func (i *instance) applied(t testing.TB, name string, at *changev1.Position) {
	t.Helper()
	if _, err := i.client.ReportApplied(t.Context(), &loggerv1.ReportAppliedRequest{Follower: name, Position: at}); err != nil {
		t.Fatal(err)
	}
}

// warned tells whether a warning of the state names a follower and has the words.
func (i *instance) warned(t testing.TB, name string, words ...string) bool {
	t.Helper()
	for _, w := range i.state(t).GetWarnings() {
		if strings.HasPrefix(w, "follower "+name+": ") {
			for _, word := range words {
				if !strings.Contains(w, word) {
					t.Errorf("%q lacks %q", w, word)
				}
			}
			return true
		}
	}
	return false
}

// TestKeptForFollowers keeps for a follower that is away what age and size would purge, also over a restart, until there is no room
// for that: it is named before it loses its place, and after. One that was silent for too long does not count.
func TestKeptForFollowers(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id serial PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	cfg.MaxBytes, cfg.KeepBytes, cfg.FollowerTimeout = 1<<20, 10<<20, time.Hour
	i := start(t, cfg)
	i.waitCapturing(t)
	away := i.barrier(t)
	i.applied(t, "slow", away)
	i.applied(t, "quick", away)
	grow := func() { // by about 4 MB, and the log is purged after it
		t.Helper()
		for range 20 {
			pgtest.Exec(t, conn, "INSERT INTO a (v) SELECT repeat('x', 1000) FROM generate_series(1, 200)")
		}
		i.applied(t, "quick", i.barrier(t))
		if err := i.changes.Purge(); err != nil {
			t.Fatal(err)
		}
	}
	grow()
	if r := rangesOf(t, i); r.GetFirstLsn() > away.GetLsn() || r.GetRetentionLsn() <= r.GetFirstLsn() {
		t.Errorf("the log holds %v, and %v is needed", r, away)
	}
	if !i.warned(t, "slow", "beyond their time", fmt.Sprint(cfg.KeepBytes)) || i.warned(t, "quick") {
		t.Errorf("warnings %q", i.state(t).GetWarnings())
	}
	if f := i.follower(t, "slow"); f.GetState() != FollowerAway || f.GetLagBytes() < 4<<20 || f.GetLagSeconds() <= 0 || f.LagSeconds == nil {
		t.Errorf("slow is %v", f)
	}
	i.stop()
	i = start(t, cfg)
	i.waitCapturing(t)
	if r := rangesOf(t, i); r.GetFirstLsn() > away.GetLsn() {
		t.Errorf("after a restart the log holds %v, and %v is needed", r, away)
	}
	if f := i.follower(t, "slow"); f.GetState() != FollowerAway || f.GetLagSeconds() <= 0 {
		t.Errorf("after a restart slow is %v", f)
	}
	grow()
	grow() // this is too much
	if r := rangesOf(t, i); r.GetFirstLsn() <= away.GetLsn() || r.GetBytes() > cfg.KeepBytes {
		t.Errorf("the log holds %v, beyond its room", r)
	}
	if f := i.follower(t, "slow"); f.GetState() != FollowerLost || f.GetReason() == "" {
		t.Errorf("slow is %v", f)
	}
	if !i.warned(t, "slow", "copied anew") || i.warned(t, "quick") {
		t.Errorf("warnings %q", i.state(t).GetWarnings())
	}
	err := new(reader).read(t.Context(), i.client, &loggerv1.FollowRequest{Position: away, Wait: durationpb.New(0)})
	if rpc.Reason(err) != ReasonPositionTooOld {
		t.Errorf("slow is served %v", err)
	}
	// Nothing is kept for who is lost, nor for who was silent for too long.
	silent := i.barrier(t)
	i.applied(t, "quiet", silent)
	i.configure(t, &loggerv1.LoggerConfig{FollowerTimeout: durationpb.New(time.Second)}, "follower_timeout")
	pgtest.Eventually(t, patience, func() error {
		if f := i.follower(t, "quiet"); f.GetState() != FollowerSilent {
			return fmt.Errorf("quiet is %v", f)
		}
		return nil
	})
	grow()
	if r := rangesOf(t, i); r.GetFirstLsn() <= silent.GetLsn() || r.GetBytes() > 2<<20 {
		t.Errorf("the log holds %v, and nobody needs it", r)
	}
	i.configure(t, &loggerv1.LoggerConfig{MaxBytes: 1 << 40}, "max_bytes")
	if f := i.follower(t, "quiet"); f.GetState() != FollowerLost {
		t.Errorf("quiet is %v", f)
	}
}

// TestRates looks at what the state and a connected follower say while something happens.
func TestRates(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id serial PRIMARY KEY, v text)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	stream, err := i.client.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Follower: "f"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	pgtest.Eventually(t, patience, func() error {
		pgtest.Exec(t, conn, "INSERT INTO a (v) SELECT repeat('x', 100) FROM generate_series(1, 100)")
		s, f := i.state(t), i.follower(t, "f")
		if s.GetTransactionsPerSecond() < 0.5 || s.GetChangesPerSecond() < 50 || s.GetLogBytesPerSecond() < 1000 || s.LagSeconds == nil ||
			s.GetStoredBytes() == 0 || s.GetFirstPosition().GetLsn() == 0 || s.GetFreeBytes() == 0 || s.GetSlotWalStatus() == "" || s.WalLimitBytes != nil {
			return fmt.Errorf("state %v", s)
		}
		if f.GetState() != FollowerFollowing || f.GetBytesPerSecond() < 1000 || f.GetConnectTime() == nil || f.LagSeconds == nil || f.GetReason() != "" {
			return fmt.Errorf("follower %v", f)
		}
		return nil
	})
	r := rangesOf(t, i)
	if r.GetBlocks() != int64(r.GetLastBlock()-r.GetFirstBlock()+1) || r.GetLastCommitTime() == nil || r.GetRetentionLsn() < r.GetFirstLsn() {
		t.Errorf("ranges %v", r)
	}
}
