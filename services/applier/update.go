package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// update is what changing a replication means, found out before anything is stored or stopped.
type update struct {
	spec           *applierv1.ReplicationSpec
	changed        []string // fields of the spec
	restarts       bool     // what runs has to be interrupted
	sourceServerID string
	accepted       bool // the source is another server than before
	pending        pending
	removed        []schema.Name
	plan           *plan // of the tables that are added; nil for none
}

// readAtOnce are the fields that a running replication reads whenever it needs them; for the others it is interrupted.
var readAtOnce = []string{"description", "replace", "retry_base", "retry_cap", "retry_limit", "auto_resync", "auto_resync_limit", "healthy_after"}

// UpdateReplication checks everything, then interrupts what runs, stores the change and goes on with it. A process that is killed in
// between goes on with the one or the other.
func (s *Service) UpdateReplication(ctx context.Context, in *applierv1.UpdateReplicationRequest) (*applierv1.UpdateReplicationResponse, error) {
	r, fresh, release, err := s.decide(ctx, in.GetName(), in.GetEtag())
	if err != nil {
		return nil, err
	}
	defer release()
	if fresh.transient {
		return nil, refuseTransient(in.GetName())
	}
	u, err := s.planUpdate(ctx, fresh, in)
	if err != nil {
		return nil, err
	}
	answer := func() *applierv1.UpdateReplicationResponse {
		return &applierv1.UpdateReplicationResponse{Replication: r.status.proto(r.snapshot(), true), Plan: u.proto()}
	}
	if in.GetValidateOnly() || len(u.changed) == 0 && !u.accepted {
		return answer(), nil
	}
	if u.restarts && r.active() {
		r.stop()
		defer s.resume(r) // whatever comes of it
	}
	if err := s.store.update(ctx, fresh, u); err != nil {
		return nil, err
	}
	fault.Point(FaultUpdated)
	if u.accepted && u.spec.GetSource() != fresh.spec.GetSource() {
		r.farewell(ctx) // to the former one, if it still answers
	}
	after, err := s.store.get(context.WithoutCancel(ctx), fresh.name)
	if err != nil {
		return nil, err
	}
	r.decided(after)
	if after.wanted == wantedRunning {
		s.resume(r)
	}
	return answer(), nil
}

// decided takes over what the user decided, also while an engine runs, whose counts stay.
func (r *runner) decided(fresh *stored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stored = fresh
}

// planUpdate finds every reason to refuse.
func (s *Service) planUpdate(ctx context.Context, fresh *stored, in *applierv1.UpdateReplicationRequest) (*update, error) {
	if len(in.GetUpdateMask().GetPaths()) == 0 && !in.GetAcceptSource() {
		return nil, rpc.Invalid("update_mask", "name the fields of the spec that shall change, as in copy_workers,retry_cap")
	}
	u := &update{spec: proto.CloneOf(fresh.spec), sourceServerID: fresh.sourceServerID, pending: fresh.pending}
	var err error
	if u.changed, err = merge(u.spec, in.GetSpec(), in.GetUpdateMask()); err != nil {
		return nil, err
	}
	for _, field := range []string{"set", "parameters", "from_restore", "initial", "rename", "shared"} {
		if slices.Contains(u.changed, field) {
			return nil, rpc.Invalid("spec."+field, "is decided when a replication is created; delete this one and create it again, with --replace for the rows that are there")
		}
	}
	if err := keepsToken(fresh.spec, u.changed, in.GetUpdateMask()); err != nil {
		return nil, err
	}
	p := &problems{}
	s.config.checkSpec(p, u.spec)
	if err := p.result(); err != nil {
		return nil, err
	}
	u.restarts = slices.ContainsFunc(u.changed, func(field string) bool { return !slices.Contains(readAtOnce, field) })
	tables := slices.Contains(u.changed, "include_tables") || slices.Contains(u.changed, "exclude_tables")
	if !tables && !in.GetAcceptSource() && !slices.Contains(u.changed, "source") && !slices.Contains(u.changed, "inventory") {
		return u, nil
	}
	src, err := s.config.dialSource(ctx, fresh.name, u.spec)
	if err != nil {
		return nil, err
	}
	defer src.close()
	if err := s.notMyself(src, u.spec); err != nil {
		return nil, err
	}
	if err := u.acceptSource(ctx, src, fresh, in.GetAcceptSource()); err != nil {
		return nil, err
	}
	if err := s.notTwice(fresh.name, u.spec, u.sourceServerID); err != nil {
		return nil, err
	}
	if tables || u.pending.all() {
		if err := s.planTables(ctx, src, fresh, u, tables); err != nil {
			return nil, refusal(err)
		}
	}
	return u, nil
}

// merge sets the fields that the mask names and returns those whose values changed.
func merge(spec, from *applierv1.ReplicationSpec, mask *fieldmaskpb.FieldMask) (changed []string, err error) {
	if from == nil {
		from = &applierv1.ReplicationSpec{}
	}
	to, source := spec.ProtoReflect(), from.ProtoReflect()
	fields := to.Descriptor().Fields()
	p := &problems{}
	named := map[protoreflect.Name]bool{}
	for _, path := range mask.GetPaths() {
		field := fields.ByName(protoreflect.Name(path))
		if field == nil {
			p.add("update_mask", "%q is no field of a replication's spec", path)
			continue
		}
		named[field.Name()] = true
		if sameValue(to, source, field) {
			continue
		}
		changed = append(changed, path)
		if source.Has(field) {
			to.Set(field, source.Get(field))
		} else {
			to.Clear(field)
		}
	}
	for i := range fields.Len() { // what is set and not named is likely a mistake
		if field := fields.Get(i); source.Has(field) && !named[field.Name()] {
			p.add("spec."+string(field.Name()), "is set, but update_mask does not name it")
		}
	}
	slices.Sort(changed)
	return slices.Compact(changed), p.result()
}

func sameValue(a, b protoreflect.Message, field protoreflect.FieldDescriptor) bool {
	if a.Has(field) != b.Has(field) {
		return false
	}
	return !a.Has(field) || a.Get(field).Equal(b.Get(field))
}

// acceptSource refuses another server than before, unless it is to be accepted and there is a way to go on with it.
func (u *update) acceptSource(ctx context.Context, src *source, fresh *stored, accept bool) error {
	id := src.server.GetServerId()
	if id == fresh.sourceServerID {
		return nil
	}
	if !accept {
		return rpc.Errorf(codes.FailedPrecondition, reasonSourceChanged, "the server at %s is another one (%s) than the source of replication %s (%s); if it has taken that one's place, say so with --accept-source (accept_source)",
			u.spec.GetSource(), id, fresh.name, fresh.sourceServerID)
	}
	u.sourceServerID, u.accepted, u.restarts = id, true, true
	if fresh.phase == phaseNew || u.pending.all() {
		return nil // nothing is applied yet, or nothing of it counts
	}
	if !fresh.hasPosition {
		u.pending = pendingResync // what is copied so far is another server's
		return nil
	}
	err := src.holds(ctx, fresh.position)
	var gap *rpc.Error
	if err == nil || !errors.As(err, &gap) || !(failure{code: gap.Reason}).isGap() {
		return err
	}
	how := resyncOf(u.spec.GetAutoResync())
	if how == pendingNothing {
		gap.Message += ", so the replica cannot go on there, and would have to be copied anew; --auto-resync copy (auto_resync) beside this says that it may"
		return gap
	}
	u.pending = how
	return nil
}

// planTables finds out what happens to tables. Those that are added have to fit; those that are removed stand still.
func (s *Service) planTables(ctx context.Context, src *source, fresh *stored, u *update, selected bool) error {
	selection, err := schema.ParseSelection(u.spec.GetIncludeTables(), u.spec.GetExcludeTables())
	if err != nil {
		return err
	}
	conn, err := s.store.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("plan the update of replication %s: %w", fresh.name, err)
	}
	defer conn.Release()
	tables, err := listTables(ctx, conn, fresh.name)
	if err != nil {
		return err
	}
	if selected {
		if u.removed, err = removedTables(ctx, src, fresh, selection, tables); err != nil {
			return err
		}
		tables = slices.DeleteFunc(tables, func(t *storedTable) bool { return slices.Contains(u.removed, t.name) })
	}
	o := planOptions{replication: fresh.name, selection: selection, replace: u.spec.GetReplace(), known: byName(tables), all: u.pending.all(), shared: u.spec.GetShared()}
	if o.renaming, err = renamingOf(u.spec); err != nil {
		return err
	}
	if o.unguarded, err = unguarded(ctx, conn.Conn()); err != nil {
		return err
	}
	if u.plan, err = makePlan(ctx, conn.Conn(), src, o); err != nil {
		return err
	}
	if len(u.plan.tables) > 0 && fresh.phase != phaseNew && u.pending == pendingNothing {
		u.pending = pendingPlan
	}
	return nil
}

// removedTables are those that the former selection took from the source and the new one does not. One whose rows go into a table that
// others fill too is refused: its rows would be lost with theirs when that is copied again.
func removedTables(ctx context.Context, src *source, fresh *stored, selection schema.Selection, tables []*storedTable) ([]schema.Name, error) {
	former, err := schema.ParseSelection(fresh.spec.GetIncludeTables(), fresh.spec.GetExcludeTables())
	if err != nil {
		return nil, err
	}
	before, err := src.describe(ctx, former)
	if err != nil {
		return nil, err
	}
	after, err := src.describe(ctx, selection)
	if err != nil {
		return nil, err
	}
	var removed []schema.Name
	for _, t := range tables {
		_, was := before.Table(t.name)
		if _, is := after.Table(t.name); was && !is {
			removed = append(removed, t.name)
		}
	}
	for _, t := range tables {
		if slices.Contains(removed, t.name) {
			continue
		}
		for _, other := range tables {
			if other.target == t.target && slices.Contains(removed, other.name) {
				return nil, failed(reasonSharedTarget, "table %s cannot be removed from replication %s alone, because its rows are in table %s of the replica together with those of %s; remove both, or neither",
					other.name, fresh.name, t.target, t.name)
			}
		}
	}
	return removed, nil
}

// unguarded tells whether the role may not set session_replication_role.
func unguarded(ctx context.Context, conn *pgx.Conn) (bool, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("try session_replication_role: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing of it stays
	_, err = tx.Exec(ctx, "SET LOCAL session_replication_role = replica")
	if postgres.Code(err) == "42501" {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("try session_replication_role: %w", err)
	}
	return false, nil
}
