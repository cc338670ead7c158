package e2e

import (
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestRepairOfSet mends a replica of one organisation's rows: those of others are never shipped, and go where they are.
func TestRepairOfSet(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, orgTables)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	if _, err := primary.logger().CreateSet(t.Context(), &loggerv1.CreateSetRequest{Name: "by-org", Spec: byOrg()}); err != nil {
		t.Fatal(err)
	}
	acme := func(s *applierv1.ReplicationSpec) {
		s.Set, s.Parameters = "by-org", map[string]string{"org": "acme"}
	}
	replica.mustCreate("acme", primary.grpc, acme)
	replica.waitState("acme", time.Minute, applierv1.State_STATE_RUNNING)
	rows := orgRows("acme")
	delete(rows, "org.events_2")
	const spoil = `UPDATE org.orders SET note = 'x' WHERE id % 16 = 4; DELETE FROM org.items WHERE id % 9 = 0; INSERT INTO org.visits VALUES ('globex', now(), 'p'), ('acme', now(), 'p');
		INSERT INTO org.orders VALUES (1, 'acme', 5, 'too small', ''), (2, 'globex', 100, 'not mine', '') ON CONFLICT DO NOTHING; UPDATE org.countries SET name = 'x'`
	pgtest.Exec(t, here, spoil)
	replica.mustRepair("acme").requireEqual(t)
	requireSet(t, there, here, rows)

	pgtest.Exec(t, here, spoil)
	requireSync(t, replica.waitSync(replica.sync(&applierv1.SyncReplicationRequest{Name: "acme", Mode: syncCopy}).GetSyncId()), syncCompleted, true)
	requireSet(t, there, here, rows)

	if _, err := replica.applier().DeleteReplication(t.Context(), &applierv1.DeleteReplicationRequest{Name: "acme"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, here, spoil)
	replica.mustCreate("acme", primary.grpc, acme, initialIncremental)
	replica.waitState("acme", time.Minute, applierv1.State_STATE_RUNNING)
	requireSet(t, there, here, rows)
	replica.mustVerify("acme").requireEqual(t)
}
