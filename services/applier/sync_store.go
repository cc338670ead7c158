package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// syncsKept is how long a job that has ended can be read.
const syncsKept = 24 * time.Hour

// insertSync stores a job that begins. Only one of a replication runs at a time.
func (s *store) insertSync(ctx context.Context, job *applierv1.Sync) error {
	content, err := protojson.Marshal(job)
	if err != nil {
		return fmt.Errorf("store sync: %w", err)
	}
	var other string
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM syncline.syncs WHERE ended_at < now() - $1::interval", syncsKept); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "INSERT INTO syncline.syncs (sync_id, replication, running, content) VALUES ($1, $2, true, $3) ON CONFLICT DO NOTHING",
			job.GetSyncId(), job.GetReplication(), string(content))
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
		return tx.QueryRow(ctx, "SELECT coalesce(min(sync_id), '') FROM syncline.syncs WHERE replication = $1 AND running", job.GetReplication()).Scan(&other)
	})
	if err != nil {
		return fmt.Errorf("store sync: %w", err)
	}
	if other != "" {
		return rpc.Errorf(codes.Aborted, reasonSyncing, "replication %s is being synced already, by job %s; wait for it, or cancel it", job.GetReplication(), other).With("sync_id", other)
	}
	return nil
}

// endSync stores a job that has ended.
func (s *store) endSync(ctx context.Context, job *applierv1.Sync) error {
	content, err := protojson.Marshal(job)
	if err != nil {
		return fmt.Errorf("store sync: %w", err)
	}
	_, err = s.pool.Exec(ctx, "UPDATE syncline.syncs SET running = false, ended_at = now(), content = $2 WHERE sync_id = $1", job.GetSyncId(), string(content))
	if err != nil {
		return fmt.Errorf("store sync: %w", err)
	}
	return nil
}

// listSyncs returns the stored jobs, the latest first; of one replication, or of all.
func (s *store) listSyncs(ctx context.Context, replication string) ([]*applierv1.Sync, error) {
	rows, err := s.pool.Query(ctx, `SELECT content FROM syncline.syncs
		WHERE ($1 = '' OR replication = $1) AND (ended_at IS NULL OR ended_at > now() - $2::interval) ORDER BY created_at DESC, sync_id`, replication, syncsKept)
	if err != nil {
		return nil, fmt.Errorf("list syncs: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanSync)
	if err != nil {
		return nil, fmt.Errorf("list syncs: %w", err)
	}
	return list, nil
}

// getSync returns one stored job; SYNC_NOT_FOUND when there is none of that id.
func (s *store) getSync(ctx context.Context, id string) (*applierv1.Sync, error) {
	rows, err := s.pool.Query(ctx, "SELECT content FROM syncline.syncs WHERE sync_id = $1 AND (ended_at IS NULL OR ended_at > now() - $2::interval)", id, syncsKept)
	if err != nil {
		return nil, fmt.Errorf("read sync %s: %w", id, err)
	}
	list, err := pgx.CollectRows(rows, scanSync)
	if err != nil {
		return nil, fmt.Errorf("read sync %s: %w", id, err)
	}
	if len(list) == 0 {
		return nil, rpc.Errorf(codes.NotFound, "SYNC_NOT_FOUND", "there is no sync %q; `syncline sync list` shows those of the last day", id)
	}
	return list[0], nil
}

func scanSync(row pgx.CollectableRow) (*applierv1.Sync, error) {
	var content []byte
	if err := row.Scan(&content); err != nil {
		return nil, err
	}
	job := &applierv1.Sync{}
	// A newer version may have written fields that this one does not know.
	return job, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(content, job)
}

// interruptSyncs ends the jobs that a former process was at.
func (s *store) interruptSyncs(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, "SELECT content FROM syncline.syncs WHERE running")
	if err != nil {
		return fmt.Errorf("list syncs: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanSync)
	if err != nil {
		return fmt.Errorf("list syncs: %w", err)
	}
	for _, job := range list {
		job.State, job.EndTime = applierv1.SyncState_SYNC_STATE_INTERRUPTED, timestamppb.Now()
		job.Reason, job.ReasonCode = "the server ended while the job ran", "INTERRUPTED"
		if err := s.endSync(ctx, job); err != nil {
			return err
		}
	}
	return nil
}
