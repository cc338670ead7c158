package logger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestStopCapture stops capture, also over a restart: followers are served what there is, the state tells what waits, and nothing is
// missing or doubled when it goes on.
func TestStopCapture(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (1)")
	before := i.barrier(t)
	for range 2 { // the second time it is no error
		answer, err := i.client.StopCapture(t.Context(), &loggerv1.StopCaptureRequest{})
		if err != nil || answer.GetState().GetState() != PhaseStopped || answer.GetState().GetReasonCode() != ReasonStopped || answer.GetState().GetStopTime() == nil {
			t.Fatalf("stopped: %v, %v", answer, err)
		}
	}
	pgtest.Eventually(t, patience, func() error {
		if pgtest.QueryRow[bool](t, conn, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", cfg.Slot) {
			return fmt.Errorf("the slot is in use")
		}
		return nil
	})
	pgtest.Exec(t, conn, "INSERT INTO a SELECT n FROM generate_series(2, 20000) n")
	_, err := i.client.EmitBarrier(t.Context(), &loggerv1.EmitBarrierRequest{})
	if rpc.Code(err) != codes.FailedPrecondition || rpc.Reason(err) != ReasonStopped || !strings.Contains(err.Error(), "syncline logger start") {
		t.Errorf("barrier: %v", err)
	}
	if got := withoutBarriers(follow(t, i, from, before).history.done); len(got) != 1 {
		t.Errorf("a follower gets %v", got)
	}
	i.stop()

	pgtest.Exec(t, conn, "INSERT INTO a VALUES (30000)")
	i = start(t, cfg)
	state := i.waitFor(t, "stopped, with the WAL that waits", func(s *loggerv1.GetStateResponse) bool {
		return s.GetState() == PhaseStopped && s.GetRetainedWalBytes() > 1<<20
	})
	if !strings.Contains(state.GetReason(), "syncline logger start") || !strings.Contains(state.GetReason(), "max_slot_wal_keep_size") || state.GetLagBytes() == 0 {
		t.Errorf("state %v", state)
	}
	bounded := &loggerv1.FollowRequest{Position: from, Wait: durationpb.New(0)}
	r := &reader{t: t}
	if err := r.read(t.Context(), i.client, bounded); err != nil || len(withoutBarriers(r.history.done)) != 1 {
		t.Errorf("a follower gets %v, %v", r.history.done, err)
	}
	if answer, err := i.client.StartCapture(t.Context(), &loggerv1.StartCaptureRequest{}); err != nil || answer.GetState().GetState() == PhaseStopped || answer.GetState().GetReasonCode() == ReasonStopped {
		t.Fatalf("started: %v, %v", answer, err)
	}
	if _, err := i.client.StartCapture(t.Context(), &loggerv1.StartCaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	i.waitCapturing(t)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (30001)")
	to := i.barrier(t)
	if to.GetLogId() != from.GetLogId() {
		t.Error("a new log was begun")
	}
	w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
}

// TestStopAtOnce stops capture that has never begun, and while the primary cannot be captured.
func TestStopAtOnce(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (v text)")
	i := start(t, testConfig(t, url))
	i.waitFor(t, "failed", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseFailed })
	answer, err := i.client.StopCapture(t.Context(), &loggerv1.StopCaptureRequest{})
	if err != nil || answer.GetState().GetState() != PhaseStopped {
		t.Fatalf("stopped: %v, %v", answer, err)
	}
	pgtest.Exec(t, conn, "ALTER TABLE a REPLICA IDENTITY FULL")
	if _, err := i.client.StartCapture(t.Context(), &loggerv1.StartCaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	i.waitCapturing(t)
}

// TestKillAroundStop kills the logger after each answer and each commit of a stop or start, under load: what was answered holds, and
// nothing is missing or doubled.
func TestKillAroundStop(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), loadTables)
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.unpublished"}
	i := start(t, cfg)
	i.waitCapturing(t)
	w := newWitness(t, url, cfg)
	from := i.barrier(t)
	i.stop()
	load := startLoad(t, url, seed(t), 3000)
	defer load.stop()
	for round := range 6 {
		c := startChild(t, cfg)
		stop := round%2 == 0
		pgtest.Eventually(t, patience, func() error {
			var err error
			if stop {
				_, err = c.client.StopCapture(t.Context(), &loggerv1.StopCaptureRequest{})
			} else {
				_, err = c.client.StartCapture(t.Context(), &loggerv1.StartCaptureRequest{})
			}
			return err
		})
		c.kill()
		c = startChild(t, cfg)
		want := PhaseCapturing
		if stop {
			want = PhaseStopped
		}
		pgtest.Eventually(t, patience, func() error {
			state, err := c.client.GetState(t.Context(), &loggerv1.GetStateRequest{})
			if err == nil && state.GetState() != want {
				err = fmt.Errorf("round %d: %v", round, state)
			}
			return err
		})
		c.kill()
	}
	load.stop()
	i = start(t, cfg)
	i.waitCapturing(t)
	to := i.barrier(t)
	if to.GetLogId() != from.GetLogId() {
		t.Fatal("a new log was begun")
	}
	w.requireSame(t, url, follow(t, i, from, to).history.done, to.GetLsn())
}

func TestStoppedText(t *testing.T) {
	limit, left := int64(50<<30), int64(7)
	since := time.Date(2026, 3, 1, 12, 30, 15, 0, time.UTC)
	for _, c := range []struct {
		server serverStats
		words  []string
	}{
		{serverStats{retained: 815}, []string{"2026-03-01T12:30:15Z", "815 bytes", "syncline logger start", "without a limit"}},
		{serverStats{retained: 815, limit: &limit, left: &left}, []string{"of at most 53687091200 (max_slot_wal_keep_size)", "copied anew", "7 are left"}},
	} {
		text := stoppedText(since, c.server)
		for _, word := range c.words {
			if !strings.Contains(text, word) {
				t.Errorf("%q lacks %q", text, word)
			}
		}
	}
}
