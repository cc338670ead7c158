package changelog

import (
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/change"
)

// TestRetentionKeepsWhatIsNeeded purges by size and age with somebody at each place in the log, and with each limit on what is kept
// for him.
func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	history := wideHistory(12)
	for behind := range history {
		for _, cap := range []int64{0, 1, 1 << 20, 3 << 20, 1 << 40} {
			for _, r := range []Retention{{MaxBytes: 600_000}, {MaxAge: time.Nanosecond}} {
				l := newLog(t)
				must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), history))
				before := int64(l.Ranges().Bytes)
				plain := newLog(t)
				must(t, feedAll(t.Context(), openAppender(t, plain), put(t, plain), history))
				must(t, plain.SetRetention(r))
				first := checkStart(t, plain, history) // without anybody

				r.KeepBytes = cap
				r.Needed = func() (change.Position, bool) {
					return change.Position{LogID: testMeta.LogID, LSN: history[behind].end}, true
				}
				must(t, l.SetRetention(r))
				start, bytes := checkStart(t, l, history), int64(l.Ranges().Bytes)
				needs := min(behind+1, first)
				switch {
				case cap == 0 && start != first:
					t.Errorf("transaction %d was applied, nothing is kept for anybody: the log begins with %d instead of %d", behind, start, first)
				case start < needs && behind < len(history)-1:
					t.Errorf("transaction %d was applied: the log begins with %d, and only from %d on is it needed", behind, start, needs)
				case start > first:
					t.Errorf("transaction %d was applied: the log begins with %d, and age and size let it begin with %d", behind, start, first)
				case cap >= before && start > needs:
					t.Errorf("transaction %d was applied and there is room: the log begins with %d", behind, start)
				case bytes > max(cap, int64(plain.Ranges().Bytes)):
					t.Errorf("transaction %d was applied: %d bytes are kept with a limit of %d", behind, bytes, cap)
				}
				must(t, l.Close(), plain.Close())
			}
		}
	}
}

// TestRetentionIgnoresWhoIsLost keeps nothing for a position that cannot be served any more, or is of another log.
func TestRetentionIgnoresWhoIsLost(t *testing.T) {
	history := wideHistory(12)
	for name, position := range map[string]change.Position{
		"before the log": {LogID: testMeta.LogID, LSN: 1}, "another log": {LogID: change.LogID{9}, LSN: history[1].end},
	} {
		l := newLog(t)
		must(t, feedAll(t.Context(), openAppender(t, l), put(t, l), history))
		must(t, l.SetRetention(Retention{MaxAge: time.Nanosecond, KeepBytes: 1 << 40, Needed: func() (change.Position, bool) { return position, true }}))
		if start := checkStart(t, l, history); start != 11 {
			t.Errorf("%s: the log begins with transaction %d", name, start)
		}
	}
}

func TestStoredAfter(t *testing.T) {
	l := newLog(t)
	history := wideHistory(6)
	a, hash := openAppender(t, l), put(t, l)
	must(t, feedAll(t.Context(), a, hash, history[:3]))
	between := time.Now()
	must(t, feedAll(t.Context(), a, hash, history[3:]))
	for i := range history[:5] {
		at, ok, err := l.StoredAfter(t.Context(), history[i].end)
		if err != nil || !ok || at.Before(between.Truncate(time.Microsecond)) != (i < 2) {
			t.Errorf("after transaction %d: %v, %v, %v; the fourth was stored after %v", i, at, ok, err, between)
		}
	}
	if at, ok, err := l.StoredAfter(t.Context(), history[5].end); ok || err != nil {
		t.Errorf("at the end: %v, %v", at, err)
	}
}
