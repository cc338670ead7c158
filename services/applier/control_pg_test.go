package applier

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// storedReplication makes a database with one replication, and the service's store of it.
func storedReplication(t *testing.T, config *Config) (*store, *stored) {
	t.Helper()
	url := pgtest.Shared(t).Database(t)
	if _, err := node.Prepare(t.Context(), url, node.Replica); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := &store{pool, newRunLog(pool, config)}
	spec := &applierv1.ReplicationSpec{Source: "db1:7400", AutoResync: applierv1.AutoResync_AUTO_RESYNC_COPY, AutoResyncLimit: 1}
	err = s.insert(t.Context(), &stored{name: "shop", spec: spec, wanted: wantedRunning, phase: phaseNew, sourceServerID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.get(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// TestHealthEndsTheRow: a copy after which the replication ran for long enough does not count any more.
func TestHealthEndsTheRow(t *testing.T) {
	config := DefaultConfig()
	config.HealthyAfter = 1200 * time.Millisecond
	s, r := storedReplication(t, &config)
	gap := failure{reasonPositionTooOld, false}
	one := newRunner(&config, s, r)
	if resynced, _, text := one.closeGap(t.Context(), gap, "purged"); !resynced {
		t.Fatal(text)
	}
	r, err := s.get(t.Context(), "shop")
	if err != nil || r.pending != pendingResync || r.autoResyncs != 1 {
		t.Fatalf("stored %+v, %v", r, err)
	}
	one.adopt(r)
	if resynced, _, _ := one.closeGap(t.Context(), gap, "purged"); resynced {
		t.Error("it was not healthy, and was copied once more than is allowed")
	}
	one.status.setState(applierv1.State_STATE_RUNNING)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	one.endResyncRow(ctx)
	if r, err = s.get(t.Context(), "shop"); err != nil || r.autoResyncs != 0 || one.snapshot().autoResyncs != 0 {
		t.Errorf("stored %+v, %v", r, err)
	}
	if resynced, _, text := one.closeGap(t.Context(), gap, "purged"); !resynced {
		t.Error(text)
	}
}

// TestUpdateLosesTheRace: of two updates of one revision the second is refused, and nothing of it is stored.
func TestUpdateLosesTheRace(t *testing.T) {
	config := DefaultConfig()
	s, r := storedReplication(t, &config)
	change := func(workers int32) error {
		return s.update(t.Context(), r, &update{spec: &applierv1.ReplicationSpec{Source: "db1:7400", CopyWorkers: workers}, changed: []string{"copy_workers"}, sourceServerID: "x"})
	}
	if err := change(2); err != nil {
		t.Fatal(err)
	}
	if err := change(3); rpc.Reason(err) != reasonETag {
		t.Errorf("got %v", err)
	}
	now, err := s.get(t.Context(), "shop")
	if err != nil || now.spec.GetCopyWorkers() != 2 || now.etag() == r.etag() {
		t.Errorf("stored %+v, %v", now, err)
	}
	list, err := s.events(t.Context(), eventFilter{replication: "shop", limit: 10})
	if err != nil || len(list) != 2 || list[1].kind != kindUpdated {
		t.Errorf("%d events, %v", len(list), err)
	}
}

// TestRunLogIsBounded writes more than is kept, of several replications.
func TestRunLogIsBounded(t *testing.T) {
	config := DefaultConfig()
	config.EventsMaxCount = 5
	s, _ := storedReplication(t, &config)
	batch := []*event{{replication: "old", kind: kindState, at: time.Now().Add(-config.EventsMaxAge - time.Hour), text: "text with \x00 and \xff"}}
	for n := range 20 {
		batch = append(batch, &event{replication: fmt.Sprint("r", n%2), kind: kindState, count: int32(n)})
	}
	if err := s.runLog.write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	s.runLog.prune(t.Context())
	for name, want := range map[string]int{"old": 0, "r0": 5, "r1": 5, "shop": 1} {
		list, err := s.events(t.Context(), eventFilter{replication: name, limit: 100})
		if err != nil || len(list) != want {
			t.Errorf("%s: %d events, %v", name, len(list), err)
		}
		if want == 5 && list[4].count < 18 {
			t.Errorf("%s: the newest is %+v", name, list[4])
		}
	}
}

// TestEventsBecomeVisibleInOrder: a reader who has seen an id has seen all before it, whoever writes.
func TestEventsBecomeVisibleInOrder(t *testing.T) {
	config := DefaultConfig()
	s, _ := storedReplication(t, &config)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer cancel()
	for range 3 {
		writing.Go(func() {
			for ctx.Err() == nil {
				_ = s.write(ctx, &event{replication: "shop", kind: kindState}, func(pgx.Tx) error { return nil })
			}
		})
	}
	seen, last := 0, int64(0)
	for seen < 400 {
		list, err := s.events(t.Context(), eventFilter{after: last, limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		seen += len(list)
		for _, e := range list {
			last = e.id
		}
	}
	cancel()
	writing.Wait()
	var before int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM syncline.events WHERE id <= $1", last).Scan(&before); err != nil || before != seen {
		t.Errorf("%d events are there up to the last one seen, of which %d were seen; %v", before, seen, err)
	}
}
