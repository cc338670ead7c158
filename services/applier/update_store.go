package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// update stores a change, all of it or nothing.
func (s *store) update(ctx context.Context, fresh *stored, u *update) error {
	spec, err := protojson.Marshal(withoutSecrets(u.spec))
	if err != nil {
		return fmt.Errorf("store replication %s: %w", fresh.name, err)
	}
	return s.write(ctx, u.event(fresh), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE syncline.replications SET spec = $2, source_server_id = $3, pending = $4, revision = revision + 1
			WHERE name = $1 AND revision = $5`, fresh.name, string(spec), u.sourceServerID, string(u.pending), fresh.revision)
		if err != nil {
			return fmt.Errorf("store replication %s: %w", fresh.name, err)
		}
		if tag.RowsAffected() != 1 {
			return rpc.Errorf(codes.Aborted, reasonETag, "replication %s has been changed by somebody else meanwhile; look at it and decide again", fresh.name)
		}
		if slices.Contains(u.changed, "schedule") {
			if _, err := tx.Exec(ctx, "UPDATE syncline.replications SET scheduled_runs = 0 WHERE name = $1", fresh.name); err != nil {
				return fmt.Errorf("store replication %s: %w", fresh.name, err)
			}
			if err := planRuns(ctx, tx, fresh.name, u.spec); err != nil {
				return err
			}
		}
		if err := storeSecrets(ctx, tx, fresh.name, u.spec); err != nil {
			return fmt.Errorf("store replication %s: %w", fresh.name, err)
		}
		gone := &drops{replication: fresh.name}
		for _, name := range u.removed {
			if err := removeTable(ctx, tx, fresh.name, name, gone); err != nil {
				return err
			}
		}
		return gone.store(ctx, tx)
	})
}

func (u *update) event(fresh *stored) *event {
	e := &event{replication: fresh.name, kind: kindUpdated, position: fresh.position, hasPosition: fresh.hasPosition, tables: int32(len(u.removed))}
	var said []string
	if len(u.changed) > 0 {
		said = append(said, "changed "+strings.Join(u.changed, ", "))
	}
	if u.accepted {
		e.kind = kindSourceAccepted
		said = append(said, fmt.Sprintf("bound to server %s instead of %s", u.sourceServerID, fresh.sourceServerID))
	}
	if len(u.removed) > 0 {
		said = append(said, fmt.Sprintf("removed %d tables, whose rows stay", len(u.removed)))
	}
	if u.plan != nil && len(u.plan.tables) > 0 {
		e.tables += int32(len(u.plan.tables))
		said = append(said, fmt.Sprintf("%d tables are to be copied", len(u.plan.tables)))
	}
	e.text = strings.Join(said, "; ")
	return e
}

func (u *update) proto() *applierv1.ReplicationPlan {
	out := &applierv1.ReplicationPlan{}
	if u.plan != nil {
		out = u.plan.proto()
	}
	out.ChangedFields, out.Restarts, out.Resyncs = u.changed, u.restarts, u.pending.all()
	for _, name := range u.removed {
		out.Tables = append(out.Tables, &applierv1.PlannedTable{Schema: name.Schema, Name: name.Name, Action: applierv1.TableAction_TABLE_ACTION_REMOVE})
	}
	return out
}

func (p *plan) proto() *applierv1.ReplicationPlan {
	out := &applierv1.ReplicationPlan{Warnings: p.warnings}
	for _, t := range p.tables {
		one := &applierv1.PlannedTable{
			Schema: t.name.Schema, Name: t.name.Name, Action: applierv1.TableAction_TABLE_ACTION_COPY, EstimatedRows: t.estimatedRows, EstimatedBytes: t.bytesExpected,
			TargetSchema: t.target.Schema, TargetName: t.target.Name,
		}
		if slices.Contains(p.create, t.target) {
			one.Action = applierv1.TableAction_TABLE_ACTION_CREATE
		}
		out.Tables = append(out.Tables, one)
		out.EstimatedRows += max(t.estimatedRows, 0)
		out.EstimatedBytes += t.bytesExpected
	}
	return out
}
