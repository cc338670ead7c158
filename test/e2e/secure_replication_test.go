package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/proxy/proxytest"
)

// TestSecureReplication replicates from a primary that asks who calls, over TLS and through a proxy that asks too. The name of the primary
// is known beyond the proxy only. The credentials outlive a crash, and are found nowhere; without them the replication waits.
func TestSecureReplication(t *testing.T) {
	t.Parallel()
	f := openFortress(t)
	const user, password = "anna", "pr0xy-s3cret"
	through := proxytest.SOCKS(t, proxytest.Listen(t), &proxytest.Proxy{User: user, Password: password, Elsewhere: f.primary.grpc})
	_, port, err := net.SplitHostPort(f.primary.grpc)
	if err != nil {
		t.Fatal(err)
	}
	source := net.JoinHostPort("primary.example", port)
	target := newTarget(t).Database(t)
	replica := startReplica(t, target)
	create := func(name string, extra ...string) (string, string, int) {
		args := []string{
			"replication", "create", name, "--addr", replica.grpc, "--source", source, "--wait",
			"--source-proxy", fmt.Sprintf("socks5h://%s:%s@%s", user, password, through.Address),
		}
		return run(t, append(args, extra...)...)
	}
	encrypted := []string{"--source-tls-ca", f.ours.ca, "--source-token-file", f.tokenFile("replica1")}
	for name, test := range map[string]struct {
		extra []string
		want  string
	}{
		"in plain":      {encrypted[2:], "unencrypted connection refused"},
		"nobody":        {encrypted[:2], "the source refuses this replica"},
		"nothing":       {append(encrypted[:2:2], "--source-token-file", f.tokenFile("nobody")), "the source refuses this replica"},
		"another name":  {append(encrypted[:4:4], "--source-tls-server-name", "other.example"), "the server's certificate is for another name"},
		"other's trust": {append(encrypted[2:4:4], "--source-tls-ca", newAuthority(t, "theirs").ca), "no authority that is trusted here"},
	} {
		if out, errOut, code := create("shop", test.extra...); code != 1 || !strings.Contains(errOut, test.want) {
			t.Errorf("%s: exit code %d, %s%s, expected %s", name, code, out, errOut, test.want)
		}
	}
	if out, errOut, code := create("shop", encrypted...); code != 0 {
		t.Fatalf("exit code %d, %s%s", code, out, errOut)
	}
	for _, asked := range through.Asked() {
		if asked != source {
			t.Errorf("the proxy was asked for %s", asked)
		}
	}
	conn := pgtest.Connect(t, f.source)
	pgtest.Exec(t, conn, "UPDATE orders SET note = 'changed' WHERE id <= 10")
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqual(t, f.source, target)
	if out, errOut, code := run(t, "verify", "shop", "--addr", replica.grpc); code != 0 {
		t.Errorf("verify: exit code %d, %s%s", code, out, errOut)
	}

	replica.kill9()
	replica.start()
	replica.waitHealthy(time.Minute)
	pgtest.Exec(t, conn, "INSERT INTO orders VALUES (1000, 'after the crash')")
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqual(t, f.source, target)
	followers, err := f.primary.logger().ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{})
	if err != nil || len(followers.GetFollowers()) != 1 || !strings.HasPrefix(followers.GetFollowers()[0].GetName(), "replica1/") {
		t.Errorf("followers %v, %v", followers, err)
	}

	if _, errOut, code := run(t, "principal", "delete", "replica1", "--addr", f.primary.grpc, "--tls-ca", f.ours.ca, "--token-file", f.tokenFile("ada")); code != 0 {
		t.Fatal(errOut)
	}
	waiting := replica.waitState("shop", time.Minute, applierv1.State_STATE_RETRYING)
	pgtest.Eventually(t, time.Minute, func() error {
		if waiting, err = replica.get("shop"); err != nil {
			return err
		}
		if waiting.GetReasonCode() != "SOURCE_REFUSES_CREDENTIAL" {
			return fmt.Errorf("it is %s because of %s: %s", waiting.GetState(), waiting.GetReasonCode(), waiting.GetReason())
		}
		return nil
	})

	shown := replica.out.String() + f.primary.out.String() + waiting.String()
	for _, args := range [][]string{{"replication", "show", "shop"}, {"replication", "show", "shop", "--json"}, {"replication", "list", "--json"}, {"status", "--json"}} {
		out, errOut, _ := run(t, append(args, "--addr", replica.grpc)...)
		shown += out + errOut
	}
	var stored, kept string
	held := pgtest.Connect(t, target)
	if err := held.QueryRow(t.Context(), "SELECT (SELECT string_agg(r::text, ' ') FROM syncline.replications r), (SELECT string_agg(s::text, ' ') FROM syncline.replication_secrets s)").Scan(&stored, &kept); err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string]string{"token": f.tokens["replica1"], "user": user + ":", "password": password} {
		if strings.Contains(shown+stored, secret) {
			t.Errorf("the %s is shown or stored with the replication", what)
		}
		if !strings.Contains(kept, secret) {
			t.Errorf("the %s is not kept", what)
		}
	}
	if !strings.Contains(shown, "socks5h://"+through.Address) {
		t.Error("the proxy is not shown")
	}
	if _, errOut, code := run(t, "replication", "delete", "shop", "--addr", replica.grpc); code != 0 {
		t.Error(errOut)
	}
	var left int
	if err := held.QueryRow(t.Context(), "SELECT count(*) FROM syncline.replication_secrets").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d secrets are left, %v", left, err)
	}
}

// TestServersWithCredentials has logger and inventory in processes of their own, which meet over TLS with a token in a file, and a replica that
// shows the token of its process. The token is replaced while all of them run.
func TestServersWithCredentials(t *testing.T) {
	t.Parallel()
	source := newSource(t).Database(t)
	conn := pgtest.Connect(t, source)
	pgtest.Exec(t, conn, "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 500) n")
	ours := newAuthority(t, "ours")
	server := ours.issue("primary.example", onThisMachine)
	protection := []string{"--auth", "on", "--tls-cert", server.file, "--tls-key", server.key, "--tls-ca", ours.ca}
	token := func(name, role string, extra ...string) string {
		path := t.TempDir() + "/" + name
		args := append([]string{"principal", "create", name, "--role", role, "--postgres", source, "--token-to", path}, extra...)
		if _, errOut, code := run(t, args...); code != 0 {
			t.Fatal(errOut)
		}
		return path
	}
	f := &fortress{t: t, ours: ours, tokens: map[string]string{}}
	logger := newNode(t, "logger", append([]string{"--postgres", source, "--data", t.TempDir()}, protection...)...)
	f.primary = logger
	logger.conn = f.dial(ours.trust())
	logger.start()
	logger.waitHealthy(time.Minute)
	ours1, theirs := token("inventory", "replicator", "--set", "*"), token("replica1", "replicator", "--set", "*")
	inventory := newNode(t, "inventory", append([]string{"--postgres", source, "--logger", logger.grpc, "--token-file", ours1}, protection...)...)
	f.primary = inventory
	inventory.conn = f.dial(ours.trust())
	inventory.start()
	inventory.waitHealthy(time.Minute)

	target := newTarget(t).Database(t)
	replica := startReplica(t, target, "--tls-ca", ours.ca, "--token-file", theirs)
	replica.mustCreate("shop", logger.grpc, func(s *applierv1.ReplicationSpec) { s.Inventory = inventory.grpc })
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqual(t, source, target)

	fresh := t.TempDir() + "/fresh"
	if _, errOut, code := run(t, "principal", "rotate", "replica1", "--postgres", source, "--token-to", fresh); code != 0 {
		t.Fatal(errOut)
	}
	if err := os.Rename(fresh, theirs); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, conn, "UPDATE orders SET note = 'after the rotation'")
	replica.waitApplied("shop", 2*time.Minute)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	pgtest.RequireEqual(t, source, target)
}
