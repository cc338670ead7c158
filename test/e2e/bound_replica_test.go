package e2e

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestBoundReplica gives a replica one organisation's rows, by a credential that is good for no other.
func TestBoundReplica(t *testing.T) {
	t.Parallel()
	f := openFortress(t)
	if _, errOut, code := run(t, "set", "create", "orders", "--table", `public.orders={"id": {"$param": "org"}}`, "--addr", f.primary.grpc, "--tls-ca", f.ours.ca, "--token-file", f.tokenFile("olga")); code != 0 {
		t.Fatal(errOut)
	}
	target := newTarget(t).Database(t)
	replica := startReplica(t, target, "--tls-ca", f.ours.ca, "--token-file", f.tokenFile("shop7"))
	create := func(extra ...string) (string, int) {
		args := append([]string{"replication", "create", "shop", "--addr", replica.grpc, "--source", f.primary.grpc, "--wait"}, extra...)
		_, errOut, code := run(t, args...)
		return errOut, code
	}
	for name, extra := range map[string][]string{
		"no set": nil, "another organisation": {"--set", "orders", "--param", "org=8"}, "its table without the set": {"--table", "public.orders"},
	} {
		if errOut, code := create(extra...); code != 1 || !strings.Contains(errOut, "the source refuses this replica") {
			t.Errorf("%s: exit code %d, %s", name, code, errOut)
		}
	}
	if errOut, code := create("--set", "orders", "--param", "org=7"); code != 0 {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	source := pgtest.Connect(t, f.source)
	pgtest.Exec(t, source, "UPDATE orders SET note = note || '!' WHERE id IN (7, 8)")
	replica.waitApplied("shop", time.Minute)
	held := pgtest.Connect(t, target)
	if got := pgtest.QueryRow[string](t, held, "SELECT string_agg(id || ' ' || note, ',') FROM orders"); got != "7 order 7!" {
		t.Errorf("the replica holds %q", got)
	}
	if _, errOut, code := run(t, "verify", "shop", "--addr", replica.grpc); code != 0 {
		t.Errorf("verify: exit code %d, %s", code, errOut)
	}
	pgtest.Exec(t, held, "UPDATE orders SET note = 'spoilt'")
	for _, args := range [][]string{{"repair", "shop"}, {"sync", "shop", "--mode", "incremental", "--wait"}, {"sync", "shop", "--mode", "copy", "--wait"}, {"verify", "shop"}} {
		if _, errOut, code := run(t, append(args, "--addr", replica.grpc)...); code != 0 {
			t.Errorf("%s: exit code %d, %s", args[0], code, errOut)
		}
	}
	if _, errOut, code := run(t, "replication", "resync", "shop", "--incremental", "--addr", replica.grpc); code != 0 {
		t.Errorf("resync: exit code %d, %s", code, errOut)
	}
	replica.waitApplied("shop", time.Minute)
	if got := pgtest.QueryRow[string](t, held, "SELECT string_agg(id || ' ' || note, ',') FROM orders"); got != "7 order 7!" {
		t.Errorf("mended, the replica holds %q", got)
	}

	// The same credential, by hand.
	conn := f.as("shop7")
	inventory, logger := inventoryv1.NewInventoryServiceClient(conn), loggerv1.NewLoggerServiceClient(conn)
	for name, parameters := range map[string]map[string]string{"its own": {"org": "7"}, "another's": {"org": "8"}, "none": nil} {
		want := codes.PermissionDenied
		if name == "its own" {
			want = codes.OK
		}
		_, err := inventory.GetInventory(t.Context(), &inventoryv1.GetInventoryRequest{Set: "orders", Parameters: parameters})
		if rpc.Code(err) != want {
			t.Errorf("inventory of %s: %v", name, err)
		}
		stream, err := logger.Follow(t.Context(), &loggerv1.FollowRequest{Start: loggerv1.Start_START_NOW, Set: "orders", Parameters: parameters})
		if err == nil {
			_, err = stream.Recv()
		}
		if rpc.Code(err) != want {
			t.Errorf("stream of %s: %v", name, err)
		}
	}
}
