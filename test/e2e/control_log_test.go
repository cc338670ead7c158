package e2e

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// events are those of some kinds, the oldest first, read in small pages.
func (c *controlled) events(replication string, kinds ...applierv1.EventKind) []*applierv1.Event {
	c.t.Helper()
	var all []*applierv1.Event
	request := &applierv1.ListReplicationEventsRequest{Replication: replication, PageSize: 3}
	for {
		page, err := c.replica.applier().ListReplicationEvents(c.t.Context(), request)
		if err != nil {
			c.t.Fatal(rpc.Message(err))
		}
		for _, e := range page.GetEvents() {
			if len(kinds) == 0 || slices.Contains(kinds, e.GetKind()) {
				all = append(all, e)
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all
		}
	}
}

// logged looks at what the run log tells, over restarts and after the end.
func (c *controlled) logged() {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	stream, err := c.replica.applier().WatchReplicationEvents(ctx, &applierv1.WatchReplicationEventsRequest{})
	if err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.create()
	var told []string
	for !slices.Contains(told, "STATE running") {
		answer, err := stream.Recv()
		if err != nil {
			c.t.Fatal(rpc.Message(err))
		}
		e := answer.GetEvent()
		text := strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_")
		if e.GetKind() == applierv1.EventKind_EVENT_KIND_STATE {
			text += " " + strings.ToLower(strings.TrimPrefix(e.GetState().String(), "STATE_"))
		}
		if e.GetKind() == applierv1.EventKind_EVENT_KIND_COPIED && (e.GetRows() != 900 || e.GetTables() != 4) {
			c.t.Errorf("copied: %v", e)
		}
		told = append(told, text)
	}
	if got, want := strings.Join(told, ", "), "CREATED, STATE initializing, STATE syncing, COPIED, STATE catching_up, STATE running"; got != want {
		c.t.Errorf("told %s, expected %s", got, want)
	}
	cancel()
	r := c.get()
	if len(r.GetHistory()) != 4 || r.GetHistory()[0].GetState() != applierv1.State_STATE_RUNNING || r.GetHealthySince() == nil {
		c.t.Errorf("history %v", r.GetHistory())
	}

	// A row in the way is this replica's fault; it stays visible over a restart.
	pgtest.Exec(c.t, c.target, "INSERT INTO a VALUES (1000, 'in the way')")
	pgtest.Exec(c.t, c.conn, "INSERT INTO a VALUES (1000, 'new')")
	c.failed("ROW_EXISTS")
	pgtest.Eventually(c.t, time.Minute, func() error {
		if len(c.events("shop", applierv1.EventKind_EVENT_KIND_FAILED)) != 1 {
			return errStillThere
		}
		return nil
	})
	if list, err := c.replica.applier().ListReplications(c.t.Context(), &applierv1.ListReplicationsRequest{States: []applierv1.State{applierv1.State_STATE_FAILED}, NamePrefix: "sh", PageSize: 1}); err != nil || len(list.GetReplications()) != 1 || list.GetNextPageToken() != "" {
		c.t.Errorf("failed: %v, %v", list, err)
	}
	c.stop()
	if list, err := c.replica.applier().ListReplications(c.t.Context(), &applierv1.ListReplicationsRequest{States: []applierv1.State{applierv1.State_STATE_FAILED}}); err != nil || len(list.GetReplications()) != 0 {
		c.t.Errorf("failed: %v, %v", list, err)
	}
	c.replica.terminate(patience)
	c.replica.start()
	c.replica.waitHealthy(patience)
	r = c.get()
	if len(r.GetRecentFaults()) != 1 || r.GetRecentFaults()[0].GetCode() != "ROW_EXISTS" || r.GetRecentFaults()[0].GetSide() != applierv1.FaultSide_FAULT_SIDE_LOCAL || r.GetHistory()[0].GetState() != applierv1.State_STATE_STOPPED ||
		r.GetHistory()[1].GetReasonCode() != "ROW_EXISTS" {
		c.t.Errorf("after a restart: faults %v, history %v", r.GetRecentFaults(), r.GetHistory())
	}

	// A run log that cannot be written stops nobody.
	pgtest.Exec(c.t, c.target, "DELETE FROM a WHERE id = 1000; ALTER TABLE syncline.events RENAME TO hidden")
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.equal()
	pgtest.Exec(c.t, c.target, "ALTER TABLE syncline.hidden RENAME TO events")
	c.stop()
	pgtest.Eventually(c.t, time.Minute, func() error {
		if len(c.events("", applierv1.EventKind_EVENT_KIND_LOST)) != 1 {
			return errStillThere
		}
		return nil
	})
	if _, err := c.replica.applier().DeleteReplication(c.t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop", Etag: r.GetEtag()}); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	if e := c.events("shop"); len(e) == 0 || e[len(e)-1].GetKind() != applierv1.EventKind_EVENT_KIND_DELETED {
		c.t.Errorf("the end is not told: %v", e)
	}
	_, err = c.replica.applier().ListReplicationEvents(c.t.Context(), &applierv1.ListReplicationEventsRequest{Replication: "sop"})
	c.refused(err, codes.NotFound, "REPLICATION_NOT_FOUND")
	newest, err := c.replica.applier().ListReplicationEvents(c.t.Context(), &applierv1.ListReplicationEventsRequest{NewestFirst: true, PageSize: 1})
	if err != nil || len(newest.GetEvents()) != 1 || newest.GetEvents()[0].GetKind() != applierv1.EventKind_EVENT_KIND_DELETED {
		c.t.Fatalf("the newest event is %v, %v", newest, err)
	}
	_, err = c.replica.applier().ListReplicationEvents(c.t.Context(), &applierv1.ListReplicationEventsRequest{PageToken: newest.GetNextPageToken()})
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "page_token")
}
