package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/proxy/proxytest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// guarded is a replica that wants to know who calls, over TLS, and a primary that pushes to it.
type guarded struct {
	t               *testing.T
	source, target  string
	primary, server *node
	ours            *authority
	dir             string
}

// principal makes one of the replica's and returns the file of its token.
func (g *guarded) principal(name, role string, extra ...string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	args := append([]string{"principal", "create", name, "--role", role, "--postgres", g.target}, extra...)
	if len(extra) == 0 {
		args = append(args, "--token-to", path)
	}
	if _, errOut, code := run(g.t, args...); code != 0 {
		g.t.Fatal(errOut)
	}
	return path
}

func openGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{t: t, source: newSource(t, pgtest.WithFsync(false)).Database(t), target: newTarget(t, pgtest.WithFsync(false)).Database(t), ours: newAuthority(t, "ours"), dir: t.TempDir()}
	pgtest.Exec(t, pgtest.Connect(t, g.source), "CREATE TABLE orders (id bigint PRIMARY KEY, org int NOT NULL, note text); ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE other (id int PRIMARY KEY);"+
		"INSERT INTO orders SELECT n, n % 10, 'order ' || n FROM generate_series(1, 500) n; INSERT INTO other VALUES (1)")
	own := g.ours.issue("replica.example", onThisMachine)
	g.server = newNode(t, "replica", "--postgres", g.target, "--auth", "on", "--tls-cert", own.file, "--tls-key", own.key, "--tls-client-ca", g.ours.ca, "--retry-max", "500ms")
	health, err := rpc.Dial(g.server.grpc, rpc.WithTLS(g.ours.trust()))
	if err != nil {
		t.Fatal(err)
	}
	g.server.conn = health
	g.server.start()
	g.server.waitHealthy(time.Minute)
	ada := g.principal("ada", "operator")
	text, err := os.ReadFile(ada)
	if err != nil {
		t.Fatal(err)
	}
	if g.server.conn, err = rpc.Dial(g.server.grpc, rpc.WithTLS(g.ours.trust()), rpc.WithToken(func() (string, error) { return strings.TrimSpace(string(text)), nil })); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { health.Close() })
	g.primary = startPrimary(t, g.source)
	return g
}

// push creates one by the command line, and deletes it if it shall not stay.
func (g *guarded) push(name, target string, flags ...string) {
	g.t.Helper()
	args := append([]string{"push", "create", name, "--addr", g.primary.grpc, "--target", target, "--push-retry-cap", "500ms"}, flags...)
	if out, errOut, code := run(g.t, args...); code != 0 {
		g.t.Fatalf("%s: exit code %d, %s%s", name, code, out, errOut)
	}
}

// TestSecurePush pushes over TLS to a replica that asks who comes: with a token through a SOCKS proxy, and with a client certificate
// through an HTTP proxy. What is wrong is said, with whose fault it is; secrets are shown nowhere.
func TestSecurePush(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	const user, password = "anna", "pr0xy-s3cret"
	socks := proxytest.SOCKS(t, proxytest.Listen(t), &proxytest.Proxy{User: user, Password: password, Elsewhere: g.server.grpc})
	through := proxytest.HTTP(t, proxytest.Listen(t), &proxytest.Proxy{User: user, Password: password, Elsewhere: g.server.grpc})
	_, port, err := net.SplitHostPort(g.server.grpc)
	if err != nil {
		t.Fatal(err)
	}
	target := net.JoinHostPort("replica.example", port)
	bySOCKS, byHTTP := fmt.Sprintf("socks5h://%s:%s@%s", user, password, socks.Address), fmt.Sprintf("http://%s:%s@%s", user, password, through.Address)
	token, reader := g.principal("pusher", "operator"), g.principal("reader", "reader")
	g.principal("branch", "operator", "--certificate", "dns:branch.example")
	if _, errOut, code := run(t, "set", "create", "by-org", "--table", `public.orders={"org": {"$param": "org"}}`, "--addr", g.primary.grpc); code != 0 {
		t.Fatal(errOut)
	}
	wrong := filepath.Join(g.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("syncline_wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := []string{"--target-tls-ca", g.ours.ca}
	retrying, failed := pushv1.PushState_PUSH_STATE_RETRYING, pushv1.PushState_PUSH_STATE_FAILED
	local, remote := applierv1.FaultSide_FAULT_SIDE_LOCAL, applierv1.FaultSide_FAULT_SIDE_REMOTE
	for _, test := range []struct {
		name, target string
		flags        []string
		state        pushv1.PushState
		reason       string
		side         applierv1.FaultSide
	}{
		{"no-credential", g.server.grpc, ca, retrying, "TARGET_REFUSES_CREDENTIAL", local},
		{"wrong-token", g.server.grpc, append(ca[:2:2], "--target-token-file", wrong), retrying, "TARGET_REFUSES_CREDENTIAL", local},
		{"role", g.server.grpc, append(ca[:2:2], "--target-token-file", reader), failed, "TARGET_FORBIDS", local},
		{"no-tls", g.server.grpc, []string{"--target-token-file", token}, retrying, "TARGET_UNREACHABLE", remote},
		{"other-ca", g.server.grpc, []string{"--target-tls-ca", newAuthority(t, "theirs").ca, "--target-token-file", token}, retrying, "TARGET_UNREACHABLE", remote},
		{"other-name", g.server.grpc, append(ca[:2:2], "--target-token-file", token, "--target-tls-server-name", "db.example"), retrying, "TARGET_UNREACHABLE", remote},
		{"plaintext", target, []string{"--target-proxy", bySOCKS}, failed, "TARGET_UNREACHABLE", local},
		{"proxy-refuses", target, append(ca[:2:2], "--target-token-file", token, "--target-proxy", "socks5h://anna:x@"+socks.Address), retrying, "TARGET_UNREACHABLE", remote},
		{"no-applier", g.primary.grpc, nil, failed, "NOT_A_TARGET", remote},
		{"nobody", freeAddress(t), nil, retrying, "TARGET_UNREACHABLE", remote},
		{"no-table", g.server.grpc, append(ca[:2:2], "--target-token-file", token, "--table", "public.none"), failed, "TABLE_NOT_FOUND", remote},
	} {
		g.push(test.name, test.target, test.flags...)
		if got := g.primary.waitPush(test.name, test.state, test.reason); got.GetSide() != test.side || got.GetReason() == "" {
			t.Errorf("%s: side %s, %s", test.name, got.GetSide(), got.GetReason())
		}
	}
	g.push("by-token", target, append(ca[:2:2], "--target-token-file", token, "--target-proxy", bySOCKS, "--set", "by-org", "--param", "org=7", "--compress", "zstd")...)
	g.server.waitThere("by-token")
	own := g.ours.issue("branch.example")
	g.push("by-certificate", target, append(ca[:2:2], "--target-tls-cert", own.file, "--target-tls-key", own.key, "--target-proxy", byHTTP, "--table", "public.other")...)
	g.server.waitThere("by-certificate")
	db := pgtest.Connect(t, g.source)
	pgtest.Exec(t, db, "UPDATE orders SET note = note || '!'; INSERT INTO other VALUES (2); UPDATE orders SET org = 7 WHERE id = 8; UPDATE orders SET org = 8 WHERE id = 7")
	g.server.waitApplied("by-token", time.Minute)
	g.server.waitApplied("by-certificate", time.Minute)
	const digest = "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o WHERE org = 7"
	held := pgtest.Connect(t, g.target)
	if want, got := pgtest.QueryRow[string](t, db, digest), pgtest.QueryRow[string](t, held, strings.Replace(digest, " WHERE org = 7", "", 1)); want != got {
		t.Error("the set differs")
	}
	if n := pgtest.QueryRow[int](t, held, "SELECT count(*) FROM other"); n != 2 {
		t.Errorf("%d rows", n)
	}
	for _, p := range []*proxytest.Proxy{socks, through} {
		if len(p.Asked()) == 0 {
			t.Error("a proxy was passed by")
		}
	}

	// The credential outlives a crash, and is mended without beginning anew.
	g.primary.kill9()
	g.primary.start()
	g.primary.waitHealthy(time.Minute)
	g.primary.waitPush("by-token", pushv1.PushState_PUSH_STATE_ATTACHED, "")
	if out, errOut, code := run(t, "push", "update", "role", "--target-token-file", token, "--addr", g.primary.grpc); code != 0 {
		t.Errorf("update: %s%s", out, errOut)
	}
	g.primary.waitPush("role", failed, "REPLICATION_EXISTS") // or else the whole of what the others carry
	if _, errOut, code := run(t, "push", "update", "by-token", "--target", freeAddress(t), "--addr", g.primary.grpc); code == 0 || !strings.Contains(errOut, "give the token too") {
		t.Errorf("a token is sent elsewhere: exit code %d, %s", code, errOut)
	}

	shown := g.primary.out.String() + g.server.out.String()
	for _, args := range [][]string{{"push", "list", "--json"}, {"push", "show", "by-token"}, {"push", "show", "by-certificate", "--json"}} {
		out, errOut, _ := run(t, append(args, "--addr", g.primary.grpc)...)
		shown += out + errOut
	}
	stored := pgtest.QueryRow[string](t, db, "SELECT string_agg(p::text, ' ') FROM syncline.pushes p")
	kept := pgtest.QueryRow[string](t, db, "SELECT string_agg(s::text, ' ') FROM syncline.push_secrets s")
	text, _ := os.ReadFile(token)
	for what, secret := range map[string]string{"token": strings.TrimSpace(string(text)), "password": password, "key": "PRIVATE KEY"} {
		if strings.Contains(shown+stored, secret) {
			t.Errorf("the %s is shown or stored with the push", what)
		}
		if !strings.Contains(kept, secret) {
			t.Errorf("the %s is not kept", what)
		}
	}
}

// waitThere waits until a replication is there and runs.
func (n *node) waitThere(name string) {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := n.applier().GetReplication(ctx, &applierv1.GetReplicationRequest{Name: name}, grpc.WaitForReady(true))
		return err
	})
	n.waitState(name, time.Minute, applierv1.State_STATE_RUNNING)
}
