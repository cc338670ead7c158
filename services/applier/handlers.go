package applier

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

const (
	defaultWatch    = time.Second
	minWatch        = 100 * time.Millisecond
	defaultWait     = time.Minute
	maxNameBytes    = 63
	maxPatternCount = 1000
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// CreateReplication checks source and target before anything is stored.
func (s *Service) CreateReplication(ctx context.Context, in *applierv1.CreateReplicationRequest) (*applierv1.CreateReplicationResponse, error) {
	return s.create(ctx, in, false)
}

func (s *Service) create(ctx context.Context, in *applierv1.CreateReplicationRequest, transient bool) (*applierv1.CreateReplicationResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	if err := s.config.validate(in.GetName(), in.GetSpec()); err != nil {
		return nil, err
	}
	selection, err := schema.ParseSelection(in.GetSpec().GetIncludeTables(), in.GetSpec().GetExcludeTables())
	if err != nil {
		return nil, rpc.Invalid("spec.include_tables", "%v", err)
	}
	if err := comesDue(in.GetSpec(), time.Now()); err != nil {
		return nil, err
	}
	if err := s.unused(in.GetName()); err != nil {
		return nil, err
	}
	src, err := s.config.dialSource(ctx, in.GetName(), in.GetSpec())
	if err != nil {
		return nil, err
	}
	defer src.close()
	if err := s.notMyself(src, in.GetSpec()); err != nil {
		return nil, err
	}
	if err := s.notTwice(in.GetName(), in.GetSpec(), src.server.GetServerId()); err != nil {
		return nil, err
	}
	p, err := s.check(ctx, in, src, selection)
	if err != nil {
		return nil, refusal(err)
	}
	fresh := &stored{name: in.GetName(), spec: in.GetSpec(), wanted: wantedRunning, phase: phaseNew, sourceServerID: src.server.GetServerId(), transient: transient, applier: s.config.Instance}
	if fresh.spec.GetSchedule() != nil {
		fresh.wanted = wantedCompleted // until the first run is due
	}
	if in.GetValidateOnly() {
		would := &applierv1.Replication{Name: fresh.name, Spec: withoutSecrets(fresh.spec), SourceServerId: fresh.sourceServerID}
		found, err := s.shakeHands(ctx, &stored{name: fresh.name, spec: fresh.spec}, false)
		return &applierv1.CreateReplicationResponse{Replication: would, Plan: p.proto(), Handshake: found}, err
	}
	if err := s.store.insert(ctx, fresh); err != nil {
		return nil, err
	}
	r, err := s.store.get(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	one := s.runners[r.name]
	if one == nil { // a look may have found it already
		one = newRunner(&s.config, s.store, r)
		s.runners[r.name] = one
	}
	one.begin(s.runCtx, r)
	s.mu.Unlock()
	s.results.remove(r.name) // the name is another one's now
	return &applierv1.CreateReplicationResponse{Replication: one.status.proto(one.snapshot(), true)}, nil
}

// notMyself refuses this replica's own database as a source.
func (s *Service) notMyself(src *source, spec *applierv1.ReplicationSpec) error {
	server := src.server
	if server.GetServerId() == s.config.ServerID ||
		server.GetSystemIdentifier() == s.config.SystemIdentifier && server.GetDatabase() == s.config.Database && s.config.SystemIdentifier != "" {
		return rpc.Errorf(codes.FailedPrecondition, reasonSourceIsTarget, "the source at %s is this replica's own database %s, and a replication needs two; if it is a physical copy of it, they cannot be told apart: "+
			"run `syncline server reset-id` on the copy and rename its database", spec.GetSource(), server.GetDatabase())
	}
	return nil
}

// refusal gives an error that has no status of its own the one that says whether it is worth while to try again.
func refusal(err error) error {
	if rpc.Reason(err) != "" {
		return err
	}
	f := classify(err)
	code := codes.FailedPrecondition
	if f.passes {
		code = codes.Unavailable
	}
	refused := rpc.Errorf(code, f.code, "%w", err)
	refused.Message = rpc.Message(err) // without the words that gRPC puts around another server's
	return refused
}

// validate refuses what can be told without asking anybody, every field at once.
func (c *Config) validate(name string, spec *applierv1.ReplicationSpec) error {
	p := &problems{}
	if len(name) > maxNameBytes || !nameForm.MatchString(name) {
		p.add("name", "%q is not a name of 1 to %d characters of a-z, 0-9, - and _ that begins with a letter", name, maxNameBytes)
	}
	c.checkSpec(p, spec)
	return p.result()
}

func (c *Config) checkSpec(p *problems, spec *applierv1.ReplicationSpec) {
	if spec.GetSource() == "" {
		p.add("spec.source", "the address (HOST:PORT) of a primary is needed")
	} else if _, pushed := pushOf(spec); pushed {
		checkPushed(p, spec)
	} else if _, err := rpc.CheckAddress(spec.GetSource()); err != nil {
		p.add("spec.source", "%v", err)
	}
	if spec.GetInventory() != "" {
		if _, err := rpc.CheckAddress(spec.GetInventory()); err != nil {
			p.add("spec.inventory", "%v", err)
		}
	}
	for _, list := range []struct {
		field    string
		patterns []string
	}{{"spec.include_tables", spec.GetIncludeTables()}, {"spec.exclude_tables", spec.GetExcludeTables()}} {
		if len(list.patterns) > maxPatternCount {
			p.add(list.field, "more than %d patterns; use schema.*", maxPatternCount)
		} else if _, err := schema.ParseSelection(list.patterns, nil); err != nil {
			p.add(list.field, "%v", err)
		}
	}
	p.include(validateSet(spec))
	validateNames(p, spec)
	if spec.GetReplace() && mends(spec) {
		p.add("spec.initial", "rows cannot be replaced and mended at once: choose one")
	}
	p.include(validateConnection(spec))
	if spec.GetFromRestore() && spec.GetSet() != "" {
		p.add("spec.from_restore", "a backup has all rows of its tables, and set %s is to have some of them: leave out one of set and from_restore", spec.GetSet())
	}
	if spec.GetFromRestore() && spec.GetReplace() {
		p.add("spec.replace", "restored rows cannot be followed on and be removed: leave out one of replace and from_restore")
	}
	c.checkOptions(p, spec)
}

func (s *Service) unused(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runners[name] != nil {
		return rpc.Errorf(codes.AlreadyExists, reasonExists, "there is a replication named %s already; choose another name, or delete that one", name).With("replication", name)
	}
	return nil
}

// notTwice refuses a second replication of the same source with some of the same tables.
func (s *Service) notTwice(self string, spec *applierv1.ReplicationSpec, sourceID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.runners {
		other := r.snapshot()
		if name == self || other.sourceServerID != sourceID || !sameTables(spec, other.spec) {
			continue
		}
		return rpc.Errorf(codes.AlreadyExists, reasonExists, "replication %s carries the same tables from the same source already", name).With("replication", name)
	}
	return nil
}

func sameTables(a, b *applierv1.ReplicationSpec) bool {
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	return a.GetSet() == b.GetSet() && slices.EqualFunc(a.GetRename(), b.GetRename(), func(x, y *applierv1.TableRename) bool { return proto.Equal(x, y) }) && maps.Equal(a.GetParameters(), b.GetParameters()) &&
		slices.Equal(sorted(a.GetIncludeTables()), sorted(b.GetIncludeTables())) && slices.Equal(sorted(a.GetExcludeTables()), sorted(b.GetExcludeTables()))
}

// check finds every reason to refuse before anything is stored or touched, and tables that another replication carries.
func (s *Service) check(ctx context.Context, in *applierv1.CreateReplicationRequest, src *source, selection schema.Selection) (*plan, error) {
	session, err := apply.OpenSession(ctx, s.config.PostgresURL, in.GetName())
	if err != nil {
		return nil, err
	}
	defer session.Close()
	o := planOptions{replication: in.GetName(), selection: selection, replace: in.GetSpec().GetReplace(), incremental: mends(in.GetSpec()), unguarded: session.Unguarded}
	if o.renaming, err = renamingOf(in.GetSpec()); err != nil {
		return nil, err
	}
	o.shared = in.GetSpec().GetShared()
	if o.restored, err = findRestored(ctx, session.Conn(), src, in.GetSpec()); err != nil {
		return nil, err
	}
	p, err := makePlan(ctx, session.Conn(), src, o)
	if err != nil {
		return nil, err
	}
	if unused := o.renaming.Unused(p.described); len(unused) > 0 {
		return nil, failed(reasonUnknownTable, "nothing that is replicated from the source is called %s, so it cannot be renamed: correct the name in --rename; `syncline inventory`, asked of the source, lists the tables", strings.Join(unused, ", "))
	}
	return p, p.restored.unchanged(ctx, session.Conn())
}

// GetReplication returns one replication.
func (s *Service) GetReplication(ctx context.Context, in *applierv1.GetReplicationRequest) (*applierv1.GetReplicationResponse, error) {
	r, err := s.runner(ctx, in.GetName())
	if errors.Is(err, errNotFound) {
		if result, found := s.results.get(in.GetName()); found {
			return &applierv1.GetReplicationResponse{Replication: result}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &applierv1.GetReplicationResponse{Replication: r.status.proto(r.snapshot(), true)}, nil
}

// farewell tells the source that this follower will not come again.
func (r *runner) farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	src, err := r.config.dialSource(ctx, r.name, r.snapshot().spec)
	if err == nil {
		defer src.close()
		err = src.forget(ctx, r.followerName())
	}
	if err != nil {
		r.log.Warn("the source may still list this replication as a follower", "follower", r.followerName(), "error", rpc.Message(err))
	}
}

// WatchReplication streams the state until the call ends or the replication is deleted.
func (s *Service) WatchReplication(in *applierv1.WatchReplicationRequest, stream grpc.ServerStreamingServer[applierv1.WatchReplicationResponse]) error {
	ctx := stream.Context()
	interval := between(in.GetInterval(), defaultWatch, minWatch)
	for {
		r, err := s.runner(ctx, in.GetName())
		if errors.Is(err, errNotFound) {
			if result, found := s.results.get(in.GetName()); found {
				return stream.Send(&applierv1.WatchReplicationResponse{Replication: brieflyOf(result)})
			}
		}
		if err != nil {
			return err
		}
		changed := r.status.watch()
		if err := stream.Send(&applierv1.WatchReplicationResponse{Replication: r.status.proto(r.snapshot(), false)}); err != nil {
			return err
		}
		// Not more often than every minWatch, however often it changes.
		pause, longest := time.NewTimer(minWatch), time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-longest.C:
		}
	}
}

func between(d *durationpb.Duration, byDefault, least time.Duration) time.Duration {
	if d == nil {
		return byDefault
	}
	return max(d.AsDuration(), least)
}

// WaitReplication has the source commit a message and waits until its position is applied.
func (s *Service) WaitReplication(ctx context.Context, in *applierv1.WaitReplicationRequest) (*applierv1.WaitReplicationResponse, error) {
	r, err := s.runner(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	if in.GetTimeout().AsDuration() < 0 {
		return nil, rpc.Invalid("timeout", "%s is negative", in.GetTimeout().AsDuration())
	}
	timeout := between(in.GetTimeout(), defaultWait, time.Millisecond)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if r.snapshot().spec.GetMode() == applierv1.Mode_MODE_ONCE {
		return r.waitCompleted(ctx, waiting, timeout)
	}
	src, err := s.config.dialSource(waiting, r.name, r.snapshot().spec)
	if err != nil {
		return nil, err
	}
	defer src.close()
	barrier, err := src.loggerClient().EmitBarrier(waiting, &loggerv1.EmitBarrierRequest{})
	if err != nil {
		return nil, err
	}
	target, err := positionOf(barrier.GetPosition())
	if err != nil {
		return nil, err
	}
	for {
		changed := r.status.watch()
		now := r.status.proto(r.snapshot(), false)
		reached := now.GetPosition().GetLogId() == target.LogID.String() && now.GetPosition().GetLsn() >= uint64(target.LSN)
		// One that waits for its turn may have been there in its last one.
		if reached && (now.GetState() == applierv1.State_STATE_RUNNING || now.GetState() == applierv1.State_STATE_WAITING && r.snapshot().phase == phaseRunning) {
			return &applierv1.WaitReplicationResponse{Position: barrier.GetPosition(), Replication: now}, nil
		}
		if err := mustRun(now); err != nil {
			return nil, err
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, rpc.Errorf(codes.DeadlineExceeded, reasonNotReached, "replication %s did not reach %s within %s: it is %s at LSN %d %s", in.GetName(), target.LSN, timeout,
				stateName(now.GetState()), now.GetPosition().GetLsn(), now.GetReason())
		case <-changed:
		}
	}
}

// waitCompleted waits for the end of the run of a replication of mode once.
func (r *runner) waitCompleted(ctx, waiting context.Context, timeout time.Duration) (*applierv1.WaitReplicationResponse, error) {
	for {
		changed := r.status.watch()
		now := r.status.proto(r.snapshot(), false)
		if isCompleted(now.GetState()) {
			return &applierv1.WaitReplicationResponse{Position: now.GetCompletedPosition(), Replication: now}, nil
		}
		if err := mustRun(now); err != nil {
			return nil, err
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, rpc.Errorf(codes.DeadlineExceeded, reasonNotReached, "the run of replication %s has not ended within %s: it is %s at LSN %d %s", r.name, timeout,
				stateName(now.GetState()), now.GetPosition().GetLsn(), now.GetReason())
		case <-changed:
		}
	}
}

// mustRun refuses to wait for a replication that does nothing.
func mustRun(now *applierv1.Replication) error {
	state := now.GetState()
	if state != applierv1.State_STATE_FAILED && state != applierv1.State_STATE_STOPPED && !isCompleted(state) {
		return nil
	}
	why := stateName(state)
	if now.GetReason() != "" {
		why += ": " + now.GetReasonCode() + ": " + now.GetReason()
	}
	return rpc.Errorf(codes.FailedPrecondition, reasonNotRunning, "replication %s is %s; start it with `syncline replication start %s`", now.GetName(), why, now.GetName())
}

// stateName is the state in lower case, as people read it.
func stateName(state applierv1.State) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(state.String(), "STATE_")), "_", " ")
}
