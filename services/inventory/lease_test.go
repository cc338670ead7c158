package inventory

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// requireEnded waits until no snapshot is open and nothing of any is left.
func requireEnded(t *testing.T, b *bench) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		list, err := b.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
		if err == nil && len(list.GetSnapshots()) > 0 {
			err = fmt.Errorf("still open: %v", list)
		}
		return err
	})
	b.requireFreed(t)
}

func TestLeaseExpires(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	s, _, err := b.open(t.Context(), 300*time.Millisecond, 0)
	if err != nil {
		t.Fatal(err)
	}
	requireEnded(t, b)
	if now := time.Now(); now.Before(s.GetExpireTime().AsTime()) {
		t.Errorf("ended at %v, before %v", now, s.GetExpireTime().AsTime())
	}
	_, err = b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	_, _, err = b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
}

func TestLeaseIsRenewed(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	s, _, err := b.open(t.Context(), time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	var renewed *inventoryv1.RenewSnapshotResponse
	for time.Since(s.GetCreateTime().AsTime()) < 2500*time.Millisecond { // far beyond the first lease
		before := time.Now()
		if renewed, err = b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId()}); err != nil {
			t.Fatal(err)
		}
		if life := renewed.GetSnapshot().GetExpireTime().AsTime().Sub(before); life < time.Second || life > 5*time.Second {
			t.Fatalf("renewed for %v", life)
		}
		<-time.After(100 * time.Millisecond) // a client renews now and then
	}
	renewed, err = b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId(), Ttl: durationpb.New(time.Hour)})
	if err != nil || time.Until(renewed.GetSnapshot().GetExpireTime().AsTime()) < 59*time.Minute {
		t.Errorf("%v, %v", renewed, err)
	}
	// A renewal can shorten, too.
	if _, err = b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId(), Ttl: durationpb.New(MinTTL)}); err != nil {
		t.Fatal(err)
	}
	requireEnded(t, b)
}

func TestKeeperIsKilled(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.MaxSnapshots = 1 })
	for range 2 {
		s := b.mustOpen(t)
		pgtest.Exec(t, b.admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'syncline inventory' AND datname = current_database()`)
		requireEnded(t, b)
		_, _, err := b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
		requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	}
}

func TestServerRestarts(t *testing.T) {
	server := pgtest.New(t, pgtest.WithFsync(false))
	b := serve(t, server.Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a (n int)")
	for _, end := range []func(testing.TB){server.Stop, server.Kill9} {
		s := b.mustOpen(t)
		end(t)
		server.Start(t)
		requireEnded(t, b)
		_, _, err := b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
		requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
		b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: b.mustOpen(t).GetSnapshotId(), Schema: "public", Table: "a"})
	}
}

func TestTooManySnapshots(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.MaxSnapshots = 2 })
	first := b.mustOpen(t)
	b.mustOpen(t)
	_, _, err := b.open(t.Context(), 0, 0)
	requireStatus(t, err, codes.ResourceExhausted, "TOO_MANY_SNAPSHOTS")
	if _, err := b.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: first.GetSnapshotId()}); err != nil {
		t.Fatal(err)
	}
	b.mustOpen(t)
}

func TestShutdownClosesEverything(t *testing.T) {
	b := serve(t, own(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a AS SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 50000) n")
	s := b.mustOpen(t)
	dumping, err := b.Dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dumping.Recv(); err != nil { // it has begun, and nobody reads on
		t.Fatal(err)
	}
	writing(t, b.url, "w")
	opening, err := b.OpenSnapshot(t.Context(), &inventoryv1.OpenSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opening.Recv(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.requireFreed(t)
	_, err = opening.Recv()
	requireStatus(t, err, codes.Unavailable, rpc.ReasonStopping)
	for err = nil; err == nil; {
		_, err = dumping.Recv()
	}
	if code := rpc.Code(err); code != codes.Unavailable && code != codes.NotFound {
		t.Error(err)
	}
}

// TestExpiryEndsStalledDump: a client that stopped reading must not hold back vacuum beyond its lease.
func TestExpiryEndsStalledDump(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.MaxDumps = 1 })
	pgtest.Exec(t, b.admin, "CREATE TABLE a AS SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 50000) n")
	s, _, err := b.open(t.Context(), 700*time.Millisecond, 0)
	if err != nil {
		t.Fatal(err)
	}
	request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}
	stalled, err := b.Dump(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stalled.Recv(); err != nil {
		t.Fatal(err)
	}
	list, err := b.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
	if err != nil || len(list.GetSnapshots()) != 1 || list.GetSnapshots()[0].GetActiveDumps() != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
	waiting, err := b.Dump(t.Context(), request) // there is no place for it
	if err != nil {
		t.Fatal(err)
	}
	requireEnded(t, b)
	_, err = waiting.Recv()
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	for err = nil; err == nil; {
		_, err = stalled.Recv()
	}
	requireStatus(t, err, codes.NotFound, "SNAPSHOT_GONE")
	if got := b.mustDump(t, &inventoryv1.DumpRequest{SnapshotId: b.mustOpen(t).GetSnapshotId(), Schema: "public", Table: "a"}); len(got) < 50_000_000 {
		t.Errorf("%d bytes", len(got)) // and the place is free again
	}
}

func TestCancelledDump(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t))
	pgtest.Exec(t, b.admin, "CREATE TABLE a AS SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 50000) n")
	s := b.mustOpen(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.Dump(ctx, &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	b.requireSessions(t, 1) // the keeper: the dump's session has ended on the server
}

// TestFaultsLeaveNothing breaks the service between every two steps.
func TestFaultsLeaveNothing(t *testing.T) {
	b := serve(t, pgtest.Shared(t).Database(t), func(c *Config) { c.MaxSnapshots, c.MaxDumps = 1, 1 })
	pgtest.Exec(t, b.admin, "CREATE TABLE a AS SELECT 1 AS n")
	t.Cleanup(func() { _ = fault.Arm("") })
	for _, name := range Faults() {
		if name == FaultLeased { // nothing can fail there: the process can only die
			continue
		}
		if err := fault.Arm(name + ":1:error"); err != nil {
			t.Fatal(err)
		}
		s, _, err := b.open(t.Context(), 0, 0)
		if err == nil {
			_, _, err = b.dump(t.Context(), &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"})
			if _, err := b.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: s.GetSnapshotId()}); err != nil {
				t.Fatal(err)
			}
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		b.requireFreed(t)
	}
}

// TestKeeperFallsSilent: a connection that is dead without an end is noticed on both sides.
func TestKeeperFallsSilent(t *testing.T) {
	server := pgtest.Shared(t)
	url := server.Database(t)
	proxy := pgtest.NewProxy(t, server.Addr())
	b := serve(t, url, func(c *Config) { c.PostgresURL = proxy.URL(t, url) })
	b.leases.check = 300 * time.Millisecond
	s := b.mustOpen(t)
	pgtest.Eventually(t, patience, func() error { // it is asked, and answers
		var asked int
		err := b.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline inventory'
			AND datname = current_database() AND query = 'SELECT 1'`).Scan(&asked)
		if err == nil && asked == 0 {
			err = fmt.Errorf("not asked yet")
		}
		return err
	})
	if _, err := b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId()}); err != nil {
		t.Fatal(err)
	}
	proxy.Stall()
	pgtest.Eventually(t, patience, func() error {
		_, err := b.RenewSnapshot(t.Context(), &inventoryv1.RenewSnapshotRequest{SnapshotId: s.GetSnapshotId()})
		if rpc.Reason(err) != "SNAPSHOT_GONE" {
			return fmt.Errorf("renewing ends with %q", rpc.Reason(err))
		}
		return nil
	})
	b.requireFreed(t) // PostgreSQL has noticed, too, although it has not heard from the service
	proxy.Resume()
	requireEnded(t, b)
	b.mustOpen(t)
}

// TestConnectionBreaksInDump: a dump that broke off has no end.
func TestConnectionBreaksInDump(t *testing.T) {
	server := pgtest.Shared(t)
	url := server.Database(t)
	proxy := pgtest.NewProxy(t, server.Addr())
	b := serve(t, url, func(c *Config) { c.PostgresURL = proxy.URL(t, url) })
	pgtest.Exec(t, b.admin, "CREATE TABLE a AS SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 20000) n")
	s := b.mustOpen(t)
	request := &inventoryv1.DumpRequest{SnapshotId: s.GetSnapshotId(), Schema: "public", Table: "a"}
	proxy.CutAfter(pgtest.ToClient, 3<<20)
	_, end, err := b.dump(t.Context(), request)
	requireStatus(t, err, codes.Unavailable, "POSTGRES_UNAVAILABLE")
	if end != nil {
		t.Errorf("end %v", end)
	}
	if got := strings.Count(b.mustDump(t, request), "\n"); got != 20000 { // from the same snapshot
		t.Errorf("%d rows", got)
	}
}
