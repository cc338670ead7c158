package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// readmeSQL returns the SQL blocks of the README, in their order: the primary's settings, its role, the replica's role. The
// password in them becomes the secret.
func readmeSQL(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, strings.ReplaceAll(match[1], "'…'", "'"+secret+"'"))
	}
	if len(blocks) < 3 || !strings.Contains(blocks[0], "wal_level") || !strings.Contains(blocks[1], "REPLICATION") || !strings.Contains(blocks[2], "session_replication_role") {
		t.Fatalf("the README's SQL is not what this test knows: %q", blocks)
	}
	return blocks
}

// letIn has a server ask the role syncline for its password, as pg_hba.conf of the README does.
func letIn(t testing.TB, server *pgtest.Server) {
	t.Helper()
	const rules = "host all postgres 127.0.0.1/32 trust\nhost shop syncline 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(server.Cluster.DataDir(), "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "SELECT pg_reload_conf()")
}

// TestReadmePrivileges sets up two servers with the statements of the README, word by word, and carries every kind of table
// from one to the other under load, with roles that have no other privilege.
func TestReadmePrivileges(t *testing.T) {
	t.Parallel()
	readme := readmeSQL(t)
	source := newSource(t, pgtest.WithFsync(false), pgtest.WithSetting("wal_level", "replica"))
	target := newTarget(t, pgtest.WithFsync(false))
	for _, server := range []*pgtest.Server{source, target} {
		pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "CREATE DATABASE shop")
		letIn(t, server)
	}
	// ALTER SYSTEM cannot run together with other statements.
	for statement := range strings.Lines(readme[0]) {
		pgtest.Exec(t, pgtest.Connect(t, source.URL("postgres")), statement)
	}
	source.Restart(t)
	sourceURL, targetURL := source.URL("shop"), target.URL("shop")
	owner := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, owner, "CREATE ROLE shop_owner; GRANT CREATE ON DATABASE shop TO shop_owner; GRANT ALL ON SCHEMA public TO shop_owner; SET ROLE shop_owner")
	pgtest.LoadAllKinds(t, owner)
	flags, except := []string{}, []string{}
	if source.Major() >= 18 {
		except, flags = []string{"kinds.keyless_generated"}, []string{"--exclude-table", "kinds.keyless_generated"}
	}
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), readme[1])
	pgtest.Exec(t, pgtest.Connect(t, targetURL), readme[2])

	wrong := strings.Replace(asRole(t, sourceURL, "syncline"), url.UserPassword("syncline", secret).String(), url.UserPassword("syncline", secret+"-not").String(), 1)
	text := refusal(t, "primary", "--postgres", wrong, "--data", t.TempDir())
	t.Log(text)
	requireWords(t, text, "password authentication failed", "syncline")

	primary := startPrimary(t, asRole(t, sourceURL, "syncline"), flags...)
	replica := startReplica(t, asRole(t, targetURL, "syncline"))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	writer := pgtest.Connect(t, sourceURL)
	mutate := func(n int) {
		t.Helper()
		if _, err := pgtest.MutateAllKinds(t.Context(), writer, rand.New(rand.NewPCG(seed, uint64(n))), n); err != nil {
			t.Fatal(err)
		}
	}
	replica.mustCreate("shop", primary.grpc)
	mutate(100)
	replica.waitApplied("shop", 2*time.Minute)
	mutate(200)
	if err := pgtest.FinishPrepared(t.Context(), writer); err != nil {
		t.Fatal(err)
	}
	replica.waitApplied("shop", time.Minute)
	pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Except: except})
	replica.mustVerify("shop").requireEqual(t)
	requireReadable(t, replica, sourceURL, targetURL)
	// What is there already is used again, with no more.
	for _, n := range []*node{primary, replica} {
		if code := n.terminate(time.Minute); code != 0 {
			t.Errorf("%s ended with %d", n.name, code)
		}
		n.start()
		n.waitHealthy(time.Minute)
	}
	mutate(100)
	replica.waitApplied("shop", 2*time.Minute)
	pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Except: except})
	for _, n := range []*node{primary, replica} {
		if containsSecret(n.out.String()) {
			t.Errorf("the password is in what %s printed", n.name)
		}
	}
	for _, check := range []string{"rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb"} {
		for _, u := range []string{sourceURL, targetURL} {
			if pgtest.QueryRow[bool](t, pgtest.Connect(t, u), fmt.Sprintf("SELECT %s FROM pg_roles WHERE rolname = 'syncline'", check)) {
				t.Errorf("the README gives the role %s", check)
			}
		}
	}
}

// requireReadable takes the right to read a table away, first on the replica and then on the source: a verification names it and
// the GRANT, and compares the others.
func requireReadable(t *testing.T, replica *node, sourceURL, targetURL string) {
	t.Helper()
	for _, side := range []struct{ url, from string }{{targetURL, "syncline"}, {sourceURL, "shop_owner"}} {
		admin := pgtest.Connect(t, side.url)
		pgtest.Exec(t, admin, "REVOKE SELECT ON kinds.composite FROM "+side.from)
		v := replica.mustVerify("shop")
		one := v.tables["kinds.composite"]
		if one.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED || v.result.GetEqual() || v.result.GetTablesNotCompared() != 1 || v.result.GetTablesDifferent() != 0 {
			t.Errorf("%v; %v", one, v.result)
		}
		requireWords(t, one.GetReason(), `GRANT SELECT ON TABLE "kinds"."composite" TO "syncline"`)
		pgtest.Exec(t, admin, "GRANT SELECT ON kinds.composite TO "+side.from)
	}
}
