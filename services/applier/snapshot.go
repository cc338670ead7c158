package applier

import (
	"context"
	"fmt"
	"time"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// copySnapshot is a leased view of the source and its place in the change log.
type copySnapshot struct {
	id       string
	position change.Position
}

// openSnapshot opens a snapshot of the source; waiting is told what it waits for.
func (s *source) openSnapshot(ctx context.Context, request *inventoryv1.OpenSnapshotRequest, waiting func(reason string)) (copySnapshot, error) {
	stream, err := s.inventoryClient().OpenSnapshot(ctx, request)
	if err != nil {
		return copySnapshot{}, fmt.Errorf("open snapshot: %w", err)
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return copySnapshot{}, fmt.Errorf("open snapshot: %w", err)
		}
		if w := answer.GetWaiting(); w != nil {
			waiting(w.GetReason())
			continue
		}
		position, err := positionOf(answer.GetSnapshot().GetPosition())
		if err != nil {
			return copySnapshot{}, fmt.Errorf("open snapshot: %w", err)
		}
		return copySnapshot{answer.GetSnapshot().GetSnapshotId(), position}, nil
	}
}

// renew keeps a snapshot until ctx ends, and calls lost when it is gone before.
func (s *source) renew(ctx context.Context, snapshotID string, lost context.CancelCauseFunc) {
	tick := time.NewTicker(snapshotTTL / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := s.inventoryClient().RenewSnapshot(ctx, &inventoryv1.RenewSnapshotRequest{SnapshotId: snapshotID})
		if err != nil && rpc.Reason(err) == reasonSnapshotGone {
			lost(fmt.Errorf("renew snapshot: %w", err))
			return
		}
	}
}

// closeSnapshot gives a snapshot back. If that fails its lease ends by itself.
func (s *source) closeSnapshot(ctx context.Context, snapshotID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handshakeTimeout)
	defer cancel()
	_, _ = s.inventoryClient().CloseSnapshot(ctx, &inventoryv1.CloseSnapshotRequest{SnapshotId: snapshotID})
}
