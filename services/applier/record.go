package applier

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

const (
	keptFaults = 10
	keptStates = 20
)

// record is what a replication has been through, as its status shows it. The run log holds more of it, and from further back.
type record struct {
	faults  []faultRecord // the newest last, at most keptFaults
	states  []stateRecord // the newest last, at most keptStates
	working time.Time     // since when it copies or applies without a fault; zero while it does not
	healthy time.Time     // since when it runs without a fault; zero while it does not
	ongoing bool          // nothing has gone well since the last of faults
}

type faultRecord struct {
	at         time.Time
	code, text string
	side       string
	count      int32
	retried    bool
}

type stateRecord struct {
	at           time.Time
	state        applierv1.State
	code, reason string
}

// entered notes a new state and tells the run log. The caller holds the lock.
func (s *status) entered() {
	now := time.Now()
	s.healthy = time.Time{}
	if last := len(s.states) - 1; last >= 0 && s.states[last].state == s.state && s.states[last].code == s.reasonCode && s.isIdle() {
		return // it had stopped before the process did
	}
	if s.state == applierv1.State_STATE_RUNNING {
		s.healthy = now
	}
	s.addState(stateRecord{now, s.state, s.reasonCode, s.reason})
	s.tell(&event{kind: kindState, code: s.reasonCode, text: s.reason})
}

// isIdle tells whether the state is one that nothing leaves by itself, so that it stands over the end of a process. The caller holds the lock.
func (s *status) isIdle() bool {
	switch s.state {
	case applierv1.State_STATE_STOPPED, applierv1.State_STATE_COMPLETED, applierv1.State_STATE_FAILED, applierv1.State_STATE_WAITING:
		return true
	default:
		return false
	}
}

func (c *record) addState(one stateRecord) {
	c.states = append(c.states, one)
	c.states = c.states[max(0, len(c.states)-keptStates):]
}

// tell fills in what the run log says of every event. The caller holds the lock.
func (s *status) tell(e *event) {
	e.replication, e.state = s.replication, s.state
	e.position, e.hasPosition = s.position, s.hasPosition
	s.note(e)
}

// happened notes a fault, and tells the run log of the 1st, 2nd, 4th, 8th, … of those that are alike and in a row. The caller holds the
// lock and has set the state.
func (s *status) happened(f failure, text string) {
	last := len(s.faults) - 1
	if s.ongoing && last >= 0 && s.faults[last].code == f.code && s.faults[last].retried == f.passes {
		s.faults[last].count++
		s.faults[last].at, s.faults[last].text = time.Now(), text
	} else {
		s.faults = append(s.faults, faultRecord{time.Now(), f.code, text, f.side(), 1, f.passes})
		s.faults = s.faults[max(0, len(s.faults)-keptFaults):]
		last = len(s.faults) - 1
	}
	s.ongoing, s.working = true, time.Time{}
	s.errors++
	if count := s.faults[last].count; !f.passes || count&(count-1) == 0 {
		kind := kindFailed
		if f.passes {
			kind = kindRetried
		}
		s.tell(&event{kind: kind, code: f.code, text: text, side: f.side(), count: count})
	}
}

// recovered ends the row of faults. The caller holds the lock.
func (s *status) recovered() { s.errors, s.ongoing = 0, false }

// works notes that the replication does its work: it copies or applies. The caller holds the lock.
func (s *status) works(now time.Time) {
	if s.working.IsZero() {
		s.working = now
	}
	if s.errors > 0 && now.Sub(s.working) >= s.healthyAfter {
		s.recovered()
	}
}

// endStreak tells whether the replication has worked for long enough without a fault for those before to be forgotten.
func (s *status) endStreak(healthyAfter time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working.IsZero() || time.Since(s.working) < healthyAfter {
		return false
	}
	s.recovered()
	return true
}

// remember takes over what the run log holds of an earlier process.
func (s *status) remember(events []*event) {
	for _, e := range events {
		if e.kind == kindState {
			s.addState(stateRecord{e.at, e.state, e.code, e.text})
			continue
		}
		s.faults = append(s.faults, faultRecord{e.at, e.code, e.text, e.side, e.count, e.kind == kindRetried})
		s.faults = s.faults[max(0, len(s.faults)-keptFaults):]
	}
}

// healthyFor is how long it has been running without a fault.
func (s *status) healthyFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.healthy.IsZero() {
		return 0
	}
	return time.Since(s.healthy)
}

// show fills in the record, the newest first.
func (c *record) showRecord(out *applierv1.Replication) {
	out.HealthySince = timeProto(&c.healthy)
	for _, f := range slices.Backward(c.faults) {
		out.RecentFaults = append(out.RecentFaults, &applierv1.Fault{
			Time: timestamppb.New(f.at), Code: f.code, Text: f.text, Side: faultSides[f.side], Count: f.count, Retried: f.retried,
		})
	}
	for _, one := range slices.Backward(c.states) {
		out.History = append(out.History, &applierv1.StateChange{Time: timestamppb.New(one.at), State: one.state, ReasonCode: one.code, Reason: one.reason})
	}
}
