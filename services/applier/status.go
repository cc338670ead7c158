package applier

import (
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// status is what is known of a replication now. It is written by its runner and read by anyone.
type status struct {
	replication string
	note        func(*event) // tells the run log; it never waits

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something changes

	state      applierv1.State
	reason     string
	reasonCode string
	errors     int32
	nextRetry  time.Time

	position    change.Position
	hasPosition bool
	durable     change.Position // the part of position that the target's row says
	commitTime  *change.Timestamp
	applied     totals    // of engines that have ended, and of the one that runs
	engine      totals    // of the engine that runs
	appliedAt   time.Time // when an engine last applied a transaction
	unsynced    apply.Unsynced
	rate        rate

	head        change.Position
	heads       headTimes
	lastContact time.Time

	waiting      *turn // its place among those that wait for their turn, nil while it does not; state is what it was before
	place        func(*turn) int
	healthyAfter time.Duration // see ReplicationSpec
	version      uint64        // grows with each change that is worth telling

	sync     syncProgress
	warnings []string
	standing []string // warnings that stand until all is copied anew
	tables   map[schema.Name]*tableProgress
	copied   copied // by copies that are forgotten

	record
}

// totals counts what was applied.
type totals struct{ transactions, changes int64 }

// syncProgress is the first copy.
type syncProgress struct {
	phase, detail string
	started       *time.Time
	ended         *time.Time
}

// tableProgress is one table's copy.
type tableProgress struct {
	target        schema.Name
	state         string
	copyLSN       change.LSN
	rows, bytes   int64
	estimatedRows int64
	weight        int64 // bytes expected
	chunks, done  int
}

// fraction is the estimated share of the table that is copied; 1 only when all of it is.
func (t *tableProgress) fraction() float64 {
	const almost = 0.99
	switch {
	case t.state == tableCopied:
		return 1
	case t.state == tableWaiting:
		return 0
	case t.estimatedRows > 0:
		return min(float64(t.rows)/float64(t.estimatedRows), almost)
	case t.chunks > 0:
		return min(float64(t.done)/float64(t.chunks), almost)
	}
	return 0
}

// table returns a table's progress, making it when there is none. The caller holds the lock.
func (s *status) table(name schema.Name) *tableProgress {
	t := s.tables[name]
	if t == nil {
		t = &tableProgress{state: tableWaiting}
		s.tables[name] = t
	}
	return t
}

func newStatus(r *stored, note func(*event)) *status {
	s := &status{
		replication: r.name, note: note, changed: make(chan struct{}), tables: map[schema.Name]*tableProgress{},
	}
	s.restore(r)
	return s
}

// restore takes over what is stored of the position and the counts. The caller holds the lock, or is the only one.
func (s *status) restore(r *stored) {
	s.position, s.hasPosition, s.durable = r.position, r.hasPosition, r.position
	s.applied, s.engine, s.unsynced = r.applied, totals{}, r.unsynced
	s.copied, s.standing = r.copied, r.standing
}

// update changes the status under its lock and wakes those who watch it.
func (s *status) update(edit func(*status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state
	edit(s)
	s.version++
	if s.state != before {
		s.entered()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// quietly changes the status without waking anyone: for counters that move all the time.
func (s *status) quietly(edit func(*status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(s)
}

// watch returns a channel that is closed at the next change.
func (s *status) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// maxWarnings bounds the warnings that are kept, so that a source whose tables come and go cannot fill the memory.
const maxWarnings = 1000

// warn adds a warning unless it is there. The caller holds the lock.
func (s *status) warn(text string) {
	if len(s.warnings) < maxWarnings && !slices.Contains(s.warnings, text) {
		s.warnings = append(s.warnings[:len(s.warnings):len(s.warnings)], text)
	}
}

func (s *status) setState(state applierv1.State) {
	s.update(func(s *status) {
		s.state, s.reason, s.reasonCode, s.nextRetry = state, "", "", time.Time{}
		switch state {
		case applierv1.State_STATE_SYNCING, applierv1.State_STATE_CATCHING_UP, applierv1.State_STATE_RUNNING:
			s.works(time.Now())
		default:
		}
	})
}

// waits shows that the replication waits for its turn; nil says that this has come. What it did before stays noted, and the run log is
// told nothing: turns are no news.
func (s *status) waits(one *turn, place func(*turn) int) {
	s.update(func(s *status) { s.waiting, s.place = one, place })
}

// trying notes a new attempt. What the last one failed with stays until this one has got somewhere; goesOn tells that it has only been
// interrupted for the turns of others.
func (s *status) trying(goesOn bool) {
	s.update(func(s *status) {
		s.nextRetry = time.Time{}
		if s.state != applierv1.State_STATE_RETRYING && !goesOn {
			s.state, s.reason, s.reasonCode = applierv1.State_STATE_INITIALIZING, "", ""
		}
	})
}

// progressed takes over what an engine has applied.
func (s *status) progressed(p apply.Progress) {
	now := time.Now()
	s.update(func(s *status) {
		s.position, s.hasPosition = p.Position, true
		s.durable = change.Position{LogID: p.Position.LogID, LSN: p.Stored}
		if p.HasCommit {
			s.commitTime = &p.CommitTime
		}
		if p.Transactions != s.engine.transactions {
			s.appliedAt = now
		}
		s.engine, s.unsynced = totals{p.Transactions, p.Changes}, p.Unsynced
		for _, text := range p.Told {
			s.tell(&event{kind: kindQuarantined, text: text, side: sideLocal})
		}
		s.rate.add(now, s.applied.changes+p.Changes)
		s.works(now)
	})
}

func (s *status) heard(h *loggerv1.Heartbeat) {
	head, err := positionOf(h.GetHead())
	if err != nil {
		return
	}
	now := time.Now()
	s.quietly(func(s *status) {
		if head != s.head {
			s.version++
		}
		s.head, s.lastContact = head, now
		s.works(now)
		s.heads.add(now, head.LSN)
	})
}

// engineEnded adds what the engine that ran has applied to the totals.
func (s *status) engineEnded() {
	s.quietly(func(s *status) {
		s.applied.transactions += s.engine.transactions
		s.applied.changes += s.engine.changes
		s.engine = totals{}
	})
}

func (s *status) appliedSoFar() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied.transactions + s.engine.transactions
}

func (s *status) lastApplied() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appliedAt
}

// positionNow is zero while there is no position.
func (s *status) positionNow() change.LSN {
	position, _ := s.positionIfAny()
	return position.LSN
}

// storedPosition is what the target's row says; zero while that is not known.
func (s *status) storedPosition() change.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

func (s *status) positionIfAny() (change.Position, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.hasPosition
}

// proto returns the status as the API shows it; the tables only where they are asked for.
func (s *status) proto(r *stored, withTables bool) *applierv1.Replication {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := &applierv1.Replication{
		Name: r.name, Spec: withoutSecrets(r.spec), State: s.state, Reason: s.reason, ReasonCode: s.reasonCode, SourceServerId: r.sourceServerID,
		Transactions: s.applied.transactions + s.engine.transactions, Changes: s.applied.changes + s.engine.changes,
		ChangesPerSecond: s.rate.perSecond(now), ErrorCount: s.errors, CreateTime: timestamppb.New(r.createdAt),
		Warnings: slices.Concat(s.standing, s.warnings), Etag: r.etag(), AutoResyncs: int32(r.autoResyncs), Pending: string(r.pending),
		NextRetryTime: timeProto(&s.nextRetry), LastContactTime: timeProto(&s.lastContact),
	}
	s.showUnsynced(out)
	if s.hasPosition {
		out.Position = positionProto(s.position)
	}
	if s.waiting != nil {
		out.State, out.WaitingSince, out.WaitingPlace = applierv1.State_STATE_WAITING, timestamppb.New(s.waiting.since), int32(s.place(s.waiting))
	}
	if out.Transient = r.transient; r.completedAt != nil {
		out.CompletedPosition, out.CompleteTime = positionProto(r.completed), timeProto(r.completedAt)
	}
	out.NextRunTime, out.ScheduledRuns, out.LastRun, out.Applier = timeProto(r.nextRun), r.scheduled, r.lastRun.proto(), r.applier
	if s.commitTime != nil {
		out.LastCommitTime = timestamppb.New(s.commitTime.Time())
	}
	if !s.head.LogID.IsZero() {
		out.SourcePosition = positionProto(s.head)
		if s.hasPosition && s.head.LSN > s.position.LSN {
			out.LagBytes = int64(s.head.LSN - s.position.LSN)
		} else if s.hasPosition && s.head.LogID == s.position.LogID { // the head is told now and then only
			out.SourcePosition = positionProto(s.position)
		}
	}
	if s.hasPosition {
		if lag, known := s.heads.lag(now, s.position.LSN); known {
			seconds := max(lag, s.unheard(now)).Seconds()
			out.LagSeconds = &seconds
		}
	}
	out.Sync = s.syncProto()
	out.CopiedRows, out.CopiedBytes = s.copied.rows+out.GetSync().GetRows(), s.copied.bytes+out.GetSync().GetBytes()
	s.showRecord(out)
	if withTables {
		out.Tables = s.tablesProto()
	}
	return out
}

// unheard is for how long it is not known what the source commits; zero while it is followed.
func (s *status) unheard(now time.Time) time.Duration {
	switch s.state {
	case applierv1.State_STATE_RETRYING, applierv1.State_STATE_FAILED, applierv1.State_STATE_STOPPED:
		if !s.lastContact.IsZero() {
			return now.Sub(s.lastContact)
		}
	}
	return 0
}

func (s *status) syncProto() *applierv1.SyncProgress {
	p := &applierv1.SyncProgress{
		Tables: int32(len(s.tables)), Phase: s.sync.phase, Detail: s.sync.detail,
		StartTime: timeProto(s.sync.started), EndTime: timeProto(s.sync.ended),
	}
	var weight, done float64
	for _, t := range s.tables {
		if t.state == tableCopied {
			p.TablesDone++
		}
		p.Rows += t.rows
		p.Bytes += t.bytes
		p.EstimatedRows += max(t.estimatedRows, t.rows)
		weight += float64(t.weight + 1)
		done += float64(t.weight+1) * t.fraction()
	}
	switch {
	case s.sync.ended != nil:
		p.Fraction = 1
	case weight > 0:
		p.Fraction = min(done/weight, 0.999)
	}
	return p
}

func (s *status) tablesProto() []*applierv1.TableProgress {
	names := slices.SortedFunc(maps.Keys(s.tables), func(a, b schema.Name) int {
		if a.Schema != b.Schema {
			return compareText(a.Schema, b.Schema)
		}
		return compareText(a.Name, b.Name)
	})
	list := make([]*applierv1.TableProgress, len(names))
	for i, name := range names {
		t := s.tables[name]
		state := t.state
		if state == tableCopied && s.hasPosition && s.position.LSN >= t.copyLSN {
			state = "ready"
		}
		list[i] = &applierv1.TableProgress{Schema: name.Schema, Name: name.Name, TargetSchema: t.target.Schema, TargetName: t.target.Name, State: state, CopyLsn: uint64(t.copyLSN), Rows: t.rows, Bytes: t.bytes}
	}
	return list
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func timeProto(t *time.Time) *timestamppb.Timestamp {
	if t == nil || t.IsZero() {
		return nil
	}
	return timestamppb.New(*t)
}

func (s *status) stateNow() applierv1.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != nil {
		return applierv1.State_STATE_WAITING
	}
	return s.state
}
