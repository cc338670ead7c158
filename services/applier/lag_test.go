package applier

import (
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/change"
)

// TestLagWhileTheSourceIsNotHeardOf grows: a source that is down must not look like one that has nothing new.
func TestLagWhileTheSourceIsNotHeardOf(t *testing.T) {
	log := change.LogID{1}
	s := &status{position: change.Position{LogID: log, LSN: 200}, hasPosition: true, head: change.Position{LogID: log, LSN: 100}}
	heard := time.Now().Add(-time.Hour)
	s.heads.add(heard, 100)
	for state, behind := range map[applierv1.State]bool{
		applierv1.State_STATE_RUNNING: false, applierv1.State_STATE_CATCHING_UP: false, applierv1.State_STATE_COMPLETED: false,
		applierv1.State_STATE_RETRYING: true, applierv1.State_STATE_FAILED: true, applierv1.State_STATE_STOPPED: true,
	} {
		s.state, s.lastContact = state, heard
		shown := s.proto(&stored{spec: &applierv1.ReplicationSpec{}}, false)
		if got := shown.GetLagSeconds() >= 3600; got != behind || shown.LagSeconds == nil {
			t.Errorf("%v: %v seconds", state, shown.LagSeconds)
		}
		if shown.GetSourcePosition().GetLsn() != 200 || shown.GetLagBytes() != 0 {
			t.Errorf("%v: the source is at %v, %d bytes ahead", state, shown.GetSourcePosition(), shown.GetLagBytes())
		}
		if s.lastContact = (time.Time{}); s.proto(&stored{spec: &applierv1.ReplicationSpec{}}, false).GetLagSeconds() != 0 {
			t.Errorf("%v: a time is told that is not known", state)
		}
	}
}
