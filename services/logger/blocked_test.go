package logger

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestDiskFull lets the change log's writes fail as on a full disk: the state says so and how much WAL is kept, PostgreSQL can
// be stopped and started meanwhile, and capture goes on by itself when there is room again.
func TestDiskFull(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	url := server.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id bigserial PRIMARY KEY, v text)")
	cfg := testConfig(t, url)
	c := startChild(t, cfg)
	awaitLog(t, c)
	w := newWitness(t, url, cfg)
	limit := func(bytes uint64) {
		t.Helper()
		if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(what string, ok func(*loggerv1.GetStateResponse) bool) *loggerv1.GetStateResponse {
		t.Helper()
		var state *loggerv1.GetStateResponse
		pgtest.Eventually(t, patience, func() error {
			var err error
			if state, err = c.client.GetState(t.Context(), &loggerv1.GetStateRequest{}); err == nil && !ok(state) {
				err = fmt.Errorf("not %s: %v\n%s", what, state, c.log)
			}
			return err
		})
		return state
	}
	insert := "INSERT INTO a (v) SELECT repeat(md5(i::text), 40) FROM generate_series(1, 2000) i"
	const tooSmall = 64 << 10
	limit(tooSmall)
	pgtest.Exec(t, pgtest.Connect(t, url), insert)
	state := wait("blocked", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseBlocked })
	if state.GetReasonCode() != CodeLogBlocked || !strings.Contains(state.GetReason(), "the primary keeps") {
		t.Errorf("state %v", state)
	}
	wait("with WAL kept", func(s *loggerv1.GetStateResponse) bool { return s.GetRetainedWalBytes() > 0 && s.GetLagBytes() > 0 })
	server.Restart(t)
	pgtest.Exec(t, pgtest.Connect(t, url), insert)
	wait("blocked again", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseBlocked })
	limit(unix.RLIM_INFINITY)
	wait("capturing", func(s *loggerv1.GetStateResponse) bool { return s.GetState() == PhaseCapturing })
	pgtest.Exec(t, pgtest.Connect(t, url), insert)
	c.kill()

	i := start(t, cfg)
	to := i.barrier(t)
	w.requireSame(t, url, follow(t, i, nil, to).history.done, to.GetLsn())
}
