package applier

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// TestDefaultsAreValid: a spec that says nothing, and one that says the defaults, mean the same.
func TestDefaultsAreValid(t *testing.T) {
	config, engine := DefaultConfig(), apply.DefaultOptions()
	said := &applierv1.ReplicationSpec{
		Source: "db1:7400", CopyWorkers: DefaultCopyWorkers, RetryBase: durationpb.New(DefaultRetryBase), RetryCap: durationpb.New(DefaultRetryCap),
		SourceTimeout: durationpb.New(DefaultSourceTimeout), GroupBytes: int64(engine.GroupBytes), GroupTime: durationpb.New(engine.GroupTime),
		AutoResync: applierv1.AutoResync_AUTO_RESYNC_OFF, AutoResyncLimit: DefaultAutoResyncLimit,
	}
	silent := &applierv1.ReplicationSpec{Source: "db1:7400"}
	for _, spec := range []*applierv1.ReplicationSpec{said, silent} {
		if err := config.validate("shop", spec); err != nil {
			t.Error(err)
		}
	}
	if o := config.options(&applierv1.ReplicationSpec{CopyWorkers: 9}); o.copyWorkers != 9 || o.copyJoining != 9 {
		t.Errorf("of nine sessions %d copy, and %d one table", o.copyWorkers, o.copyJoining)
	}
	if a, b := fmt.Sprintf("%+v", config.options(said)), fmt.Sprintf("%+v", config.options(silent)); a != b {
		t.Errorf("%s is not %s", a, b)
	}
	for _, d := range []time.Duration{DefaultRetryBase, DefaultRetryCap, DefaultSourceTimeout, engine.GroupTime} {
		if d%time.Millisecond != 0 {
			t.Errorf("%s cannot be documented", d)
		}
	}
}

func TestEachFieldIsNamed(t *testing.T) {
	config := DefaultConfig()
	for field, edit := range map[string]func(*applierv1.ReplicationSpec){
		"spec.source":            func(s *applierv1.ReplicationSpec) { s.Source = "db1" },
		"spec.inventory":         func(s *applierv1.ReplicationSpec) { s.Inventory = "x" },
		"spec.include_tables":    func(s *applierv1.ReplicationSpec) { s.IncludeTables = []string{"orders"} },
		"spec.exclude_tables":    func(s *applierv1.ReplicationSpec) { s.ExcludeTables = []string{`"a`} },
		"spec.copy_workers":      func(s *applierv1.ReplicationSpec) { s.CopyWorkers = 65 },
		"spec.description":       func(s *applierv1.ReplicationSpec) { s.Description = strings.Repeat("ä", 1001) },
		"spec.retry_base":        func(s *applierv1.ReplicationSpec) { s.RetryBase = durationpb.New(-1) },
		"spec.retry_cap":         func(s *applierv1.ReplicationSpec) { s.RetryCap = durationpb.New(20 * time.Millisecond) }, // less than retry_base
		"spec.retry_limit":       func(s *applierv1.ReplicationSpec) { s.RetryLimit = -1 },
		"spec.source_timeout":    func(s *applierv1.ReplicationSpec) { s.SourceTimeout = durationpb.New(2 * time.Second) },
		"spec.group_bytes":       func(s *applierv1.ReplicationSpec) { s.GroupBytes = 1 },
		"spec.group_time":        func(s *applierv1.ReplicationSpec) { s.GroupTime = &durationpb.Duration{Seconds: 1, Nanos: -1} },
		"spec.auto_resync_limit": func(s *applierv1.ReplicationSpec) { s.AutoResyncLimit = 101 },
	} {
		spec := &applierv1.ReplicationSpec{Source: "db1:7400", RetryBase: durationpb.New(time.Second)}
		edit(spec)
		err := config.validate("shop", spec)
		if err == nil || rpc.Reason(err) != rpc.ReasonInvalid || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := config.validate("Shop", &applierv1.ReplicationSpec{CopyWorkers: 65}); len(rpc.Fields(err)) != 3 {
		t.Errorf("not all at once: %v", err)
	}
}

func TestMerge(t *testing.T) {
	spec := &applierv1.ReplicationSpec{Source: "a:1", CopyWorkers: 2, IncludeTables: []string{"x.a"}, RetryCap: durationpb.New(time.Second), Replace: true}
	from := &applierv1.ReplicationSpec{CopyWorkers: 2, IncludeTables: []string{"x.a", "x.b"}, RetryCap: durationpb.New(time.Second)}
	changed, err := merge(spec, from, &fieldmaskpb.FieldMask{Paths: []string{"retry_cap", "replace", "include_tables", "copy_workers", "replace"}})
	if err != nil || fmt.Sprint(changed) != "[include_tables replace]" {
		t.Errorf("changed %v, %v", changed, err)
	}
	if spec.GetReplace() || len(spec.GetIncludeTables()) != 2 || spec.GetSource() != "a:1" {
		t.Errorf("merged to %v", spec)
	}
}

// TestFaultsInARow: of many alike the 1st, 2nd, 4th, … are told, and all are counted.
func TestFaultsInARow(t *testing.T) {
	var told []*event
	s := newStatus(&stored{name: "shop"}, func(e *event) { told = append(told, e) })
	fail := func(code, text string) {
		s.update(func(s *status) {
			s.state = applierv1.State_STATE_RETRYING
			s.happened(failure{code, true}, text)
		})
	}
	for range 9 {
		fail(reasonNoSource, "nobody there")
	}
	fail(reasonTarget, "full")
	s.progressed(apply.Progress{})
	fail(reasonTarget, "full")
	var counts []int32
	for _, e := range told {
		if e.kind == kindRetried {
			counts = append(counts, e.count)
		}
	}
	if fmt.Sprint(counts) != "[1 2 4 8 1 1]" {
		t.Errorf("told %v", counts)
	}
	out := s.proto(&stored{spec: &applierv1.ReplicationSpec{}}, false)
	faults := out.GetRecentFaults()
	if len(faults) != 3 || faults[0].GetCount() != 1 || faults[2].GetCount() != 9 || faults[2].GetSide() != applierv1.FaultSide_FAULT_SIDE_REMOTE || faults[1].GetSide() != applierv1.FaultSide_FAULT_SIDE_LOCAL {
		t.Errorf("faults %v", faults)
	}
	if len(out.GetHistory()) != 1 || out.GetErrorCount() != 1 {
		t.Errorf("history %v, %d errors", out.GetHistory(), out.GetErrorCount())
	}
	for n := range 15 {
		fail(fmt.Sprint(n), "")
	}
	if got := s.proto(&stored{spec: &applierv1.ReplicationSpec{}}, false).GetRecentFaults(); len(got) != keptFaults || got[0].GetCode() != "14" {
		t.Errorf("%d faults, first %v", len(got), got[0])
	}
}

// TestRunLogNeverWaits: what cannot be taken is counted, and told when something is written again.
func TestRunLogNeverWaits(t *testing.T) {
	config := DefaultConfig()
	l := newRunLog(nil, &config)
	for range eventQueue + 12 {
		l.note(&event{})
	}
	taken := 0
	for taken < eventQueue {
		batch := l.batch(<-l.queue)
		if taken == 0 {
			if last := batch[len(batch)-1]; last.kind != kindLost || last.count != 12 {
				t.Errorf("the first batch ends with %+v", last)
			}
			taken--
		}
		taken += len(batch)
	}
	if taken != eventQueue || l.lost != 0 {
		t.Errorf("%d taken, %d lost", taken, l.lost)
	}
}

// TestGapIsLeftToTheUser: without auto_resync nothing is touched, and the way out is named.
func TestGapIsLeftToTheUser(t *testing.T) {
	config := DefaultConfig()
	r := newRunner(&config, &store{runLog: newRunLog(nil, &config)}, &stored{name: "shop", spec: &applierv1.ReplicationSpec{}})
	for _, f := range []failure{{reasonPositionTooOld, false}, {reasonPositionAhead, false}, {reasonLogIDMismatch, false}} {
		if !f.isGap() {
			t.Errorf("%s is no gap", f.code)
		}
		resynced, same, text := r.closeGap(context.Background(), f, "the position was purged")
		if resynced || same != f || !strings.Contains(text, "`syncline replication resync shop`") || !strings.Contains(text, "--auto-resync copy") {
			t.Errorf("%v %v %s", resynced, same, text)
		}
	}
	// The limit holds while the copies do not help; the health of the last one is asked before the database is.
	r.stored.spec.AutoResync, r.stored.autoResyncs = applierv1.AutoResync_AUTO_RESYNC_COPY, DefaultAutoResyncLimit
	if resynced, _, text := r.closeGap(context.Background(), failure{reasonPositionTooOld, false}, "purged"); resynced || !strings.Contains(text, "3 times in a row") {
		t.Errorf("%v %s", resynced, text)
	}
}

func TestPageToken(t *testing.T) {
	if after, err := readToken(writeToken("name", "shop"), "name"); err != nil || after != "shop" {
		t.Errorf("got %q, %v", after, err)
	}
	for _, bad := range []string{"x", "shop", writeToken("oldest", "7"), "****", writeToken("name", "")} {
		if _, err := readToken(bad, "name"); rpc.Reason(err) != rpc.ReasonInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMovementNamesTheDanger(t *testing.T) {
	log, other := change.LogID{1}, change.LogID{2}
	fresh := &stored{position: change.Position{LogID: log, LSN: 100}, hasPosition: true}
	for _, test := range []struct {
		to     change.Position
		reason string
	}{
		{change.Position{LogID: log, LSN: 101}, reasonSkips}, {change.Position{LogID: log, LSN: 99}, reasonRepeats}, {change.Position{LogID: other, LSN: 100}, reasonOtherLog},
	} {
		if _, refused := movement(fresh, test.to); refused == nil || refused.Reason != test.reason {
			t.Errorf("%v: %v", test.to, refused)
		}
	}
}
