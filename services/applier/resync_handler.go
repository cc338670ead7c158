package applier

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// ResyncReplication has tables copied anew. What is asked for is durable before what runs is interrupted for it; one that was stopped by a
// user stays so, and copies when it is started.
func (s *Service) ResyncReplication(ctx context.Context, in *applierv1.ResyncReplicationRequest) (*applierv1.ResyncReplicationResponse, error) {
	selection, err := schema.ParseSelection(in.GetIncludeTables(), nil)
	if err != nil {
		return nil, rpc.Invalid("include_tables", "%v", err)
	}
	r, fresh, release, err := s.decide(ctx, in.GetName(), in.GetEtag())
	if err != nil {
		return nil, err
	}
	defer release()
	if fresh.phase == phaseNew {
		return nil, rpc.Errorf(codes.FailedPrecondition, reasonNotCopied, "replication %s has copied nothing yet: %s; there is nothing to copy anew", fresh.name, stateName(r.status.stateNow()))
	}
	var names []schema.Name
	if len(in.GetIncludeTables()) > 0 {
		if names, err = s.chosen(ctx, fresh, selection); err != nil {
			return nil, err
		}
	}
	if r.active() {
		r.stop()
		defer s.resume(r) // whatever comes of it
	}
	e := &event{replication: fresh.name, kind: kindResync, position: fresh.position, hasPosition: fresh.hasPosition, tables: int32(len(names))}
	if names == nil {
		e.text = "all tables are copied anew, asked for by a user"
		err = s.store.askResync(ctx, fresh.name, fresh.autoResyncs, e)
	} else {
		e.text = fmt.Sprintf("%d tables are copied anew, asked for by a user", len(names))
		err = s.store.askCopies(ctx, fresh, names, e)
	}
	if err != nil {
		return nil, err
	}
	fault.Point(FaultResyncAsked)
	if _, err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if fresh.wanted == wantedRunning {
		s.resume(r)
	}
	return &applierv1.ResyncReplicationResponse{Replication: r.status.proto(r.snapshot(), true)}, nil
}

// chosen are the tables of a replication that a selection names, with those whose rows share a table of the replica with them.
func (s *Service) chosen(ctx context.Context, fresh *stored, selection schema.Selection) ([]schema.Name, error) {
	src, err := dialSource(ctx, fresh.spec, s.config.Dial)
	if err != nil {
		return nil, err
	}
	defer src.close()
	if fresh.hasPosition {
		if err := src.holds(ctx, fresh.position); err != nil {
			return nil, rpc.Errorf(codes.FailedPrecondition, rpc.Reason(err), "%w; so only all tables can be copied anew: leave out the tables", err)
		}
	}
	described, err := src.describe(ctx, selection)
	if err != nil {
		return nil, err
	}
	tables, err := listTables(ctx, s.store.pool, fresh.name)
	if err != nil {
		return nil, err
	}
	targets := map[schema.Name]bool{}
	for _, t := range tables {
		if _, ok := described.Table(t.name); ok {
			targets[t.target] = true
		}
	}
	if len(targets) == 0 {
		return nil, rpc.Invalid("include_tables", "no table of replication %s is meant; `syncline replication show %s` lists them", fresh.name, fresh.name)
	}
	tables = slices.DeleteFunc(tables, func(t *storedTable) bool { return !targets[t.target] })
	names := make([]schema.Name, len(tables))
	for i, t := range tables {
		names[i] = t.name
	}
	return names, nil
}

// askCopies has the next attempt copy some tables anew.
func (s *store) askCopies(ctx context.Context, fresh *stored, names []schema.Name, e *event) error {
	return s.write(ctx, e, func(tx pgx.Tx) error {
		for _, name := range names {
			if err := setTableState(ctx, tx, fresh.name, name, tableWaiting); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "UPDATE syncline.replications SET pending = CASE pending WHEN 'resync' THEN pending ELSE 'plan' END WHERE name = $1", fresh.name)
		if err != nil {
			return fmt.Errorf("ask for copies of tables of replication %s: %w", fresh.name, err)
		}
		return nil
	})
}
