package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// told is all that a replica tells a caller of replication shop without being asked for rows.
func told(t *testing.T, client applierv1.ApplierServiceClient) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all strings.Builder
	add := func(answer proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(rpc.Message(err))
		}
		all.WriteString(prototext.Format(answer))
	}
	one, err := client.GetReplication(ctx, &applierv1.GetReplicationRequest{Name: "shop"})
	add(one, err)
	list, err := client.ListReplications(ctx, &applierv1.ListReplicationsRequest{})
	add(list, err)
	events, err := client.ListReplicationEvents(ctx, &applierv1.ListReplicationEventsRequest{PageSize: 1000})
	add(events, err)
	runs, err := client.ListRuns(ctx, &applierv1.ListRunsRequest{})
	add(runs, err)
	syncs, err := client.ListSyncs(ctx, &applierv1.ListSyncsRequest{})
	add(syncs, err)
	watch, err := client.WatchReplication(ctx, &applierv1.WatchReplicationRequest{Name: "shop"})
	add(received(watch, err, 1))
	every, err := client.WatchReplications(ctx, &applierv1.WatchReplicationsRequest{})
	add(received(every, err, 1))
	run, err := client.WatchRuns(ctx, &applierv1.WatchRunsRequest{})
	add(received(run, err, len(runs.GetRuns())))
	log, err := client.WatchReplicationEvents(ctx, &applierv1.WatchReplicationEventsRequest{})
	for range len(events.GetEvents()) {
		add(received(log, err, 1))
	}
	return all.String()
}

// received takes so many answers of a stream, and returns the last.
func received[M any](stream grpc.ServerStreamingClient[M], err error, n int) (proto.Message, error) {
	var last *M
	for range n {
		if err != nil {
			return nil, err
		}
		last, err = stream.Recv()
	}
	answer, ok := any(last).(proto.Message)
	if err == nil && !ok {
		err = errors.New("no message")
	}
	return answer, err
}

// TestValuesAreForOperators: whoever may not read rows is told why a replication has stopped, or what was set aside, without the values that PostgreSQL
// names; and who has edited a change is known afterwards, to those who may read rows.
func TestValuesAreForOperators(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)).Database(t), newTarget(t, pgtest.WithFsync(false)).Database(t)
	there, here := pgtest.Connect(t, source), pgtest.Connect(t, target)
	pgtest.Exec(t, there, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	primary := startPrimary(t, source)
	ours := newAuthority(t, "ours")
	server, dir := ours.issue("replica.example", onThisMachine), t.TempDir()
	replica := newNode(t, "replica", "--postgres", target, "--auth", "on", "--tls-cert", server.file, "--tls-key", server.key)
	f := &fortress{t: t, primary: replica, ours: ours, tokens: map[string]string{}, dir: dir}
	replica.start()
	replica.conn = f.dial(ours.trust())
	replica.waitHealthy(time.Minute)
	f.create("ruth", "reader", "--postgres", target)
	f.create("olga", "operator", "--postgres", target)
	replica.conn = f.as("olga")
	pgtest.Eventually(t, patience, func() error { // a principal counts a moment later
		return errors.Join(getServer(t, replica.conn), getServer(t, f.as("ruth")))
	})
	olga, ruth := applierv1.NewApplierServiceClient(f.as("olga")), applierv1.NewApplierServiceClient(f.as("ruth"))
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", patience, applierv1.State_STATE_RUNNING)
	pgtest.Exec(t, here, "ALTER TABLE orders ADD CONSTRAINT no_secrets CHECK (note NOT LIKE 'secret%')")

	see := func(what string) {
		t.Helper()
		for _, word := range []string{"4711017", "secret-17"} {
			if text := told(t, olga); !strings.Contains(text, word) {
				t.Errorf("%s: an operator is not told %q: %s", what, word, text)
			}
			if text := told(t, ruth); strings.Contains(text, word) || !strings.Contains(text, "no_secrets") || !strings.Contains(text, "public.orders") {
				t.Errorf("%s: a reader is told %q, or too little: %s", what, word, text)
			}
		}
	}
	pgtest.Exec(t, there, "INSERT INTO orders VALUES (4711017, 'secret-17')")
	replica.waitState("shop", patience, applierv1.State_STATE_FAILED)
	see("one that has stopped")

	_, err := olga.UpdateReplication(t.Context(), &applierv1.UpdateReplicationRequest{Name: "shop", Spec: &applierv1.ReplicationSpec{OnError: applierv1.OnError_ON_ERROR_QUARANTINE}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"on_error"}}})
	if err == nil {
		_, err = olga.StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "shop"})
	}
	if err != nil {
		t.Fatal(rpc.Message(err))
	}
	replica.waitState("shop", patience, applierv1.State_STATE_RUNNING)
	replica.waitApplied("shop", patience)
	list, err := olga.ListUnsynced(t.Context(), &applierv1.ListUnsyncedRequest{Name: "shop"})
	if err != nil || len(list.GetChanges()) != 1 {
		t.Fatal(list, err)
	}
	see("one with a quarantine")

	edit := &applierv1.RetryUnsyncedRequest{Name: "shop", Ids: []int64{list.GetChanges()[0].GetId()}, Edits: []*applierv1.UnsyncedEdit{{Column: "note", Text: "cured-18"}}}
	if _, err := ruth.RetryUnsynced(t.Context(), edit); rpc.Code(err) != codes.PermissionDenied {
		t.Errorf("a reader edits: %v", err)
	}
	if _, err := olga.RetryUnsynced(t.Context(), edit); err != nil {
		t.Fatal(rpc.Message(err))
	}
	if _, err := ruth.ListUnsyncedEdits(t.Context(), &applierv1.ListUnsyncedEditsRequest{Name: "shop"}); rpc.Code(err) != codes.PermissionDenied {
		t.Errorf("a reader lists edits: %v", err)
	}
	edits, err := olga.ListUnsyncedEdits(t.Context(), &applierv1.ListUnsyncedEditsRequest{Name: "shop"})
	if err != nil || len(edits.GetEdits()) != 1 || edits.GetEdits()[0].GetPrincipal() != "olga" || string(edits.GetEdits()[0].GetColumns()[0].GetSourceValue().GetText()) != "secret-17" {
		t.Errorf("edits %v, %v", edits, err)
	}
	if text := told(t, ruth); strings.Contains(text, "cured-18") || !strings.Contains(text, "user olga had change") || !strings.Contains(text, "other values in note") {
		t.Errorf("a reader is told of the edit: %s", text)
	}
	if got := pgtest.QueryRow[string](t, here, "SELECT note FROM orders"); got != "cured-18" {
		t.Errorf("the row is %q", got)
	}
	out, errOut, code := run(t, "replication", "unsynced", "shop", "--edits", "--addr", replica.grpc, "--tls-ca", ours.ca, "--token-file", filepath.Join(dir, "olga"))
	for _, word := range []string{"olga", "secret-17", "cured-18", "(id=4711017)"} {
		if code != 0 || !strings.Contains(out, word) {
			t.Errorf("exit code %d, without %q: %s%s", code, word, out, errOut)
		}
	}
}
