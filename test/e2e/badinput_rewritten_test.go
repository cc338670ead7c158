package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// rewrittenAgain has a table truncated all the time, so that no snapshot of it can be read: the state says so, the other tables
// are copied, and the copy is made as soon as it is left alone.
func (s *servers) rewrittenAgain(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop+"CREATE TABLE staging (id int PRIMARY KEY)")
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL, "--retry-max", "1s")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			conn, err := pgx.Connect(ctx, sourceURL)
			if err != nil {
				return err
			}
			defer conn.Close(context.Background())
			for ctx.Err() == nil {
				if _, err := conn.Exec(ctx, "BEGIN; TRUNCATE staging; INSERT INTO staging VALUES (1), (2); COMMIT"); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		}()
	}()
	replica.mustCreate("all", primary.grpc)
	pgtest.Eventually(t, 2*time.Minute, func() error {
		r, err := replica.get("all")
		if err != nil {
			return err
		}
		if r.GetState() != applierv1.State_STATE_RETRYING || r.GetReasonCode() != "TABLE_REWRITTEN" {
			return errors.New(r.GetState().String() + ": " + r.GetReasonCode() + " " + r.GetReason())
		}
		requireWords(t, r.GetReason(), "truncated or rewrote")
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}
