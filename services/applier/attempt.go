package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// attempt connects, checks, copies and applies until something ends it. goesOn tells that the last one ended for the turns of others.
func (r *runner) attempt(ctx context.Context, goesOn bool) error {
	r.status.trying(goesOn)
	r.planned, r.noForeignKeys = nil, false
	spec := r.snapshot()
	session, err := apply.OpenSession(ctx, r.config.PostgresURL, spec.name)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := endRest(ctx, session.Conn(), r.name, r.getUp()); err != nil {
		return err
	}
	fresh, err := r.refresh(ctx)
	if err != nil {
		return err
	}
	switch fresh.wanted {
	case wantedRunning:
	case wantedCompleted:
		return errCompleted // the last attempt, or another applier, has stored that, and was not told so
	default:
		return errEnded
	}
	if err := r.store.own(ctx, fresh, r.config.Instance); err != nil {
		return err
	}
	src, err := r.reachSource(ctx, fresh)
	if err != nil {
		return err
	}
	defer src.close()
	if err := r.showTables(ctx, session.Conn()); err != nil {
		return err
	}
	src.set.version = fresh.setVersion
	switch {
	case r.setChanged && fresh.phase != phaseNew && !fresh.pending.all(): // it looks for tables to add, too
		if err := r.adoptSet(ctx, session, src, fresh); err != nil {
			return err
		}
		r.setChanged = false
	case fresh.phase == phaseNew || fresh.pending != pendingNothing:
		if err := r.prepare(ctx, session, src, fresh); err != nil {
			return err
		}
	}
	for {
		if err := r.copyTables(ctx, session, src); err != nil {
			return err
		}
		err := r.applyStream(ctx, session, src)
		var newTable *apply.NewTableError
		if !errors.As(err, &newTable) {
			return err
		}
		// The engine has left its session inside a transaction.
		session.Close()
		if session, err = apply.OpenSession(ctx, r.config.PostgresURL, spec.name); err != nil {
			return err
		}
		defer session.Close()
		r.status.engineEnded()
		r.log.Info("tables are captured anew and copied", "tables", newTable.Tables, "from", newTable.LSN)
		if err := r.addTables(ctx, session, src, newTable); err != nil {
			return err
		}
	}
}

// reachSource connects to the source, which has to be the one that the rows came from.
func (r *runner) reachSource(ctx context.Context, fresh *stored) (*source, error) {
	src, err := r.config.dialSource(ctx, r.name, fresh.spec)
	if err != nil {
		return nil, err
	}
	if id := src.server.GetServerId(); id != fresh.sourceServerID {
		src.close()
		return nil, failed(reasonSourceChanged, "the source at %s is now another server (%s instead of %s); its rows are not a continuation of what was applied: point the address to the right server, or, if it has taken the former one's place, run `syncline replication update %s --accept-source`", fresh.spec.GetSource(), id, fresh.sourceServerID, fresh.name)
	}
	return src, nil
}

// prepare checks both sides and creates what is missing, before the first copy, before one of all tables, or of some that were
// added.
func (r *runner) prepare(ctx context.Context, session *apply.Session, src *source, fresh *stored) error {
	all := fresh.pending.all()
	if all {
		r.ignored, r.looked = map[schema.Name]ignored{}, 0 // of another log, maybe
		src.set.version, r.setChanged = 0, false           // the present one is taken over
	}
	p, err := r.plan(ctx, session, src, fresh.spec, planOptions{all: all, mend: fresh.pending == pendingMend})
	if err != nil {
		return err
	}
	return r.carryOut(ctx, session, p)
}

// plan fills in what the options do not say.
func (r *runner) plan(ctx context.Context, session *apply.Session, src *source, spec *applierv1.ReplicationSpec, o planOptions) (*plan, error) {
	var err error
	if o.selection, err = schema.ParseSelection(spec.GetIncludeTables(), spec.GetExcludeTables()); err != nil {
		return nil, err
	}
	if o.renaming, err = renamingOf(spec); err != nil {
		return nil, err
	}
	tables, err := listTables(ctx, session.Conn(), r.name)
	if err != nil {
		return nil, err
	}
	o.shared = spec.GetShared()
	o.replication, o.replace, o.incremental, o.unguarded, o.known = r.name, spec.GetReplace(), mends(spec), session.Unguarded, byName(tables)
	if len(tables) == 0 && o.again == nil && !o.all {
		if o.restored, err = findRestored(ctx, session.Conn(), src, spec); err != nil {
			return nil, err
		}
	}
	return makePlan(ctx, session.Conn(), src, o)
}

func byName(tables []*storedTable) map[schema.Name]*storedTable {
	known := make(map[schema.Name]*storedTable, len(tables))
	for _, t := range tables {
		known[t.name] = t
	}
	return known
}

func (r *runner) carryOut(ctx context.Context, session *apply.Session, p *plan) error {
	for _, w := range p.warnings {
		r.log.Warn("note on the first copy", "note", w)
	}
	r.status.update(func(s *status) {
		s.sync.phase, s.warnings = "creating tables", p.warnings
	})
	if err := p.carryOut(ctx, session.Conn(), r.name); err != nil {
		return err
	}
	fresh, err := r.refresh(ctx)
	if err != nil {
		return err
	}
	if fresh.phase != phaseSyncing {
		return fmt.Errorf("replication %s is in phase %s, expected %s", fresh.name, fresh.phase, phaseSyncing)
	}
	r.planned = p
	return r.showTables(ctx, session.Conn())
}

// addTables makes tables that appeared in the stream part of the replication, or ignores those that are gone again.
func (r *runner) addTables(ctx context.Context, session *apply.Session, src *source, appeared *apply.NewTableError) error {
	src.after = appeared.XID
	p, err := r.plan(ctx, session, src, r.snapshot().spec, planOptions{again: appeared, streamed: true})
	if err != nil {
		return err
	}
	for _, name := range appeared.Tables {
		delete(r.ignored, name)
		if !slices.ContainsFunc(p.tables, func(t *storedTable) bool { return t.name == name }) {
			r.ignored[name] = ignored{appeared.LSN, appeared.OIDs[name]} // it is gone, or partitioned, or not captured by now
		}
	}
	return r.carryOut(ctx, session, p)
}

// removed notes that the source captures tables no longer.
func (r *runner) removed(names []schema.Name) {
	for _, name := range names {
		r.log.Warn("the source captures a table no longer", "table", name.String())
		r.status.update(func(s *status) {
			s.warn(fmt.Sprintf("table %s is not captured by the source any more, so its rows here stand still; the source's `syncline status` says why", name))
		})
	}
}

// showTables takes the stored state of the tables over into the status.
func (r *runner) showTables(ctx context.Context, q querier) error {
	tables, err := listTables(ctx, q, r.name)
	if err != nil {
		return err
	}
	spec := r.snapshot()
	r.status.update(func(s *status) {
		s.sync.started, s.sync.ended = spec.syncStarted, spec.syncEnded
		s.tables = make(map[schema.Name]*tableProgress, len(tables))
		for _, t := range tables {
			p := s.table(t.name)
			p.state, p.copyLSN, p.rows, p.bytes = t.state, t.position.LSN, t.rows, t.bytes
			p.estimatedRows, p.weight, p.target = t.estimatedRows, t.bytesExpected, t.target
		}
	})
	return nil
}

// readTargets reads the tables that the replication writes.
func readTargets(ctx context.Context, session *apply.Session, replication string) error {
	tables, err := listTables(ctx, session.Conn(), replication)
	if err != nil {
		return err
	}
	names := make([]schema.Name, len(tables))
	for i, t := range tables {
		names[i] = t.target
	}
	return session.Read(ctx, names)
}

// copyTables copies what is not copied, finishes the tables and stores the position that following begins at.
func (r *runner) copyTables(ctx context.Context, session *apply.Session, src *source) error {
	spec := r.snapshot()
	if spec.phase != phaseSyncing {
		return nil
	}
	r.status.setState(applierv1.State_STATE_SYNCING)
	if err := readTargets(ctx, session, spec.name); err != nil {
		return err
	}
	o := r.config.options(spec.spec)
	c := &copier{
		runner: r, replication: spec.name, url: r.config.PostgresURL, workers: o.copyWorkers, joining: o.copyJoining, conn: session.Conn(),
		source: src, targets: session.Catalog, replace: spec.spec.GetReplace(), parameters: spec.spec.GetParameters(), status: r.status,
	}
	if p := r.planned; p != nil {
		c.database, c.indexes, r.planned = p.described, p.indexes(), nil
	} else {
		var err error
		if c.database, err = src.describeFor(ctx, spec.spec); err != nil {
			return err
		}
	}
	before, began := r.status.uncopied(), time.Now()
	if err := c.run(ctx); err != nil {
		return err
	}
	if err := r.finish(ctx, session, src); err != nil {
		return err
	}
	fault.Point(FaultPositioned)
	if err := r.setPhase(ctx, phaseCatchingUp); err != nil {
		return err
	}
	r.status.update(func(s *status) {
		if len(before) > 0 {
			s.tell(s.copiedEvent(before, time.Since(began)))
		}
	})
	return nil
}

// applyStream follows the source from the stored position until something ends it.
func (r *runner) applyStream(ctx context.Context, session *apply.Session, src *source) error {
	r.config.turns.copied(r.place)
	spec, err := r.refresh(ctx)
	if err != nil {
		return err
	}
	position, found, err := session.ReadPosition(ctx)
	if err != nil {
		return err
	}
	if !found {
		return rpc.Errorf(codes.FailedPrecondition, reasonInternal, "replication %s has no position although its tables are copied; delete it and create it again", spec.name)
	}
	tables, err := listTables(ctx, session.Conn(), spec.name)
	if err != nil {
		return err
	}
	selection, err := schema.ParseSelection(spec.spec.GetIncludeTables(), spec.spec.GetExcludeTables())
	if err != nil {
		return err
	}
	left := r.stillLeftOut(tables)
	if err := capturedBy(ctx, src, left); err != nil {
		return err
	}
	routes := newRoutes(tables, selection, r.ignored, spec.spec.GetParameters())
	routes.everything = src.set.selects()
	catchUp := &catchUp{runner: r, session: session, source: src, until: routes.lastCopy, pending: spec.phase == phaseCatchingUp}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if catchUp.pending {
		r.status.setState(applierv1.State_STATE_CATCHING_UP)
	} else {
		r.status.setState(applierv1.State_STATE_RUNNING)
	}
	o := r.config.options(spec.spec)
	r.status.update(func(s *status) {
		s.restore(spec)
		s.healthyAfter = o.healthyAfter
	})
	if err := catchUp.reached(ctx, position.LSN); err != nil {
		return err
	}
	if err := r.setRunEnd(ctx, src, spec.spec, position); err != nil {
		return err
	}
	held, err := apply.LoadHeld(ctx, session.Conn(), spec.name)
	if err != nil {
		return err
	}
	holds := apply.NewHolds()
	r.setEngine(holds, held, session.Conn().PgConn().PID(), cancel)
	defer r.setEngine(nil, nil, 0, nil)
	o.quarantine.Held = held
	engine := apply.NewEngine(apply.Config{
		Holds: holds, Replication: spec.name, Session: session, SourceID: spec.sourceServerID, Position: position,
		Table: routes.table, Captured: routes.captured, Removed: r.removed,
		Reader: r.store.pool, Options: o.apply, Quarantine: o.quarantine,
		Applied: func(p apply.Progress) error {
			r.status.progressed(p)
			return catchUp.reached(ctx, p.Position.LSN)
		},
	})
	var reporting sync.WaitGroup
	reporting.Go(func() { r.report(ctx, src) })
	reporting.Go(func() { r.watchLeftOut(ctx, src, left, cancel) })
	reporting.Go(func() { r.endResyncRow(ctx) })
	leaving := &leaving{runner: r, source: src, holds: holds, end: cancel, from: position, began: time.Now(), place: r.place, left: left}
	reporting.Go(func() { leaving.watch(ctx) })
	defer reporting.Wait()
	defer cancel(nil)
	err = causeOr(ctx, engine.Run(ctx, follow(ctx, src.logger, src.set, r.followRequest(position, heartbeat, 0), o.sourceTimeout, r.status.heard)))
	cancel(nil)
	reporting.Wait() // so that it is known whether the engine was left
	return leaving.or(err)
}
