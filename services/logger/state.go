package logger

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// Phases of capture: the state's state.
const (
	PhaseStarting     = "starting"
	PhaseCapturing    = "capturing"
	PhaseReconnecting = "reconnecting"
	PhaseBlocked      = "blocked"
	PhaseStopped      = "stopped"
	// PhaseStopping is told by StopCapture only.
	PhaseStopping = "stopping"
	PhaseFailed   = "failed"
)

// status is what is known of capture. It is written by capture and its watchers, and read by the service.
type status struct {
	transactions atomic.Int64
	changes      atomic.Int64
	leftOut      atomic.Int64 // transactions with an origin
	logBytes     atomic.Int64
	confirmed    atomic.Uint64 // last confirmed to the slot, after the change log had it durably
	contact      atomic.Int64  // Unix nanoseconds of the last message from the primary

	mu       sync.Mutex
	phase    string
	reason   string
	code     string
	since    time.Time // of PhaseStopped
	tables   publish.State
	standing []string // warnings that hold for the process's life, such as a new change log
	server   serverStats
	limits   []string // warnings about the slot's limits, from serverStats
}

// serverStats is what a look at the primary tells, at most once a second.
type serverStats struct {
	walLSN   change.LSN
	retained int64 // bytes of WAL that the slot keeps
	// limit is how many it keeps at most, left how many more until the slot is in danger; nil without a limit.
	limit, left *int64
	walStatus   string // of the slot; empty when there is none
}

func (s *status) set(phase, code, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.code, s.reason = phase, code, fmt.Sprintf(format, args...)
}

// setStopped says that capture is stopped; how much WAL is kept meanwhile is told when somebody asks.
func (s *status) setStopped(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.code, s.reason, s.since = PhaseStopped, ReasonStopped, "", since
}

func (s *status) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase
}

func (s *status) setTables(tables publish.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables = tables
}

// insertOnlyTables are the tables of which no updates and deletes are captured.
func (s *status) insertOnlyTables() []schema.Name {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables.InsertOnly
}

// warn adds a warning that stays.
func (s *status) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.standing, text) {
		s.standing = append(s.standing, text)
	}
}

func (s *status) setServer(stats serverStats, limits []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.limits = stats, limits
}

func (s *status) walLSN() change.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server.walLSN
}

// heard notes that the primary has just been heard of.
func (s *status) heard() { s.contact.Store(time.Now().UnixNano()) }

// describe fills in what the status knows, of the tables of a set only if there is one.
func (s *status) describe(answer *loggerv1.GetStateResponse, only *set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer.State, answer.Reason, answer.ReasonCode = s.phase, s.reason, s.code
	if s.phase == PhaseStopped {
		answer.Reason = stoppedText(s.since, s.server)
	}
	answer.ConfirmedLsn = s.confirmed.Load()
	answer.CurrentWalLsn = uint64(s.server.walLSN)
	answer.RetainedWalBytes = s.server.retained
	answer.Transactions, answer.Changes, answer.LogBytes = s.transactions.Load(), s.changes.Load(), s.logBytes.Load()
	answer.WalLimitBytes, answer.WalLeftBytes, answer.SlotWalStatus = s.server.limit, s.server.left, s.server.walStatus
	answer.RemoteTransactionsLeftOut = s.leftOut.Load()
	entry := func(name schema.Name) (*sets.Entry, bool) {
		if only == nil {
			return nil, true
		}
		return only.definition.Entry(name, s.tables.Above[name])
	}
	in := func(name schema.Name) bool {
		_, in := entry(name)
		return in
	}
	inserts := slices.Clone(s.tables.InsertOnly)
	for _, name := range s.tables.Captured {
		if in(name) {
			answer.Tables = append(answer.Tables, name.SQL())
		}
		if e, in := entry(name); in && e != nil && e.OnlyInserts() && !slices.Contains(inserts, name) {
			answer.InsertOnlyTables = append(answer.InsertOnlyTables, name.SQL())
		}
	}
	answer.Warnings = slices.Concat(s.standing, s.limits)
	if only == nil {
		answer.Warnings = append(answer.Warnings, s.tables.Pending...)
	}
	for _, refusal := range s.tables.Refused {
		if !in(refusal.Table) {
			continue
		}
		answer.Warnings = append(answer.Warnings, refusal.String())
		answer.UncapturedTables = append(answer.UncapturedTables, &loggerv1.UncapturedTable{
			Schema: refusal.Table.Schema, Name: refusal.Table.Name, Reason: refusal.Reason, Mend: refusal.Mend, Sql: refusal.SQL,
		})
	}
	for _, name := range inserts {
		if !in(name) {
			continue
		}
		answer.InsertOnlyTables = append(answer.InsertOnlyTables, name.SQL())
		answer.Warnings = append(answer.Warnings, fmt.Sprintf("table %s: only inserts and truncates are captured, its updates and deletes are not", name))
	}
	if contact := s.contact.Load(); contact != 0 {
		answer.LastContactTime = timestamppb.New(time.Unix(0, contact))
	}
}
