package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// unprepared are tables of a plain role. None of them but orders has an identity that serves, and that of orders does not serve the set.
const unprepared = `
CREATE SCHEMA shop AUTHORIZATION shop_owner;
SET ROLE shop_owner;
CREATE TABLE shop.orders (id bigint PRIMARY KEY, org text NOT NULL, note text);
CREATE UNIQUE INDEX orders_org ON shop.orders (org, id);
CREATE TABLE shop.visits (org text, page text);
CREATE TABLE shop.codes (code text NOT NULL UNIQUE, label text);
CREATE TABLE shop.maybe (code text UNIQUE, label text);
CREATE TABLE shop.later (id int PRIMARY KEY DEFERRABLE, label text);
CREATE TABLE shop.days (day date NOT NULL, label text) PARTITION BY RANGE (day);
CREATE TABLE shop."days ""2026""" PARTITION OF shop.days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO shop.orders SELECT n, (ARRAY['acme','globex'])[1 + n % 2], 'o' || n FROM generate_series(1, 400) n;
INSERT INTO shop.visits SELECT (ARRAY['acme','globex'])[1 + n % 2], 'p' || n % 7 FROM generate_series(1, 100) n;
INSERT INTO shop.codes SELECT 'c' || n, 'code ' || n FROM generate_series(1, 50) n;
INSERT INTO shop.maybe VALUES ('a', 'b'), (NULL, 'c'), (NULL, 'c');
INSERT INTO shop.later SELECT n, 'l' FROM generate_series(1, 50) n;
INSERT INTO shop.days SELECT '2026-01-01'::date + n, 'd' FROM generate_series(1, 50) n;
RESET ROLE`

// shopSet selects rows by columns that belong to no identity yet.
const shopSet = `{"tables": [
	{"pattern": "shop.orders", "rows": "{\"org\": {\"$param\": \"org\"}}"},
	{"pattern": "shop.visits", "rows": "{\"org\": {\"$param\": \"org\"}}"},
	{"pattern": "shop.*"}]}`

// prepared is everything that preparing could change on a server. A GRANT that grants nothing writes default privileges down, which are
// the same.
func prepared(t testing.TB, url string) []string {
	t.Helper()
	return strings.Split(pgtest.QueryRow[string](t, pgtest.Connect(t, url), `SELECT concat_ws(E'\n',
		(SELECT json_agg(r ORDER BY rolname) FROM (SELECT rolname, rolsuper, rolinherit, rolcanlogin, rolreplication, rolbypassrls FROM pg_roles) r),
		(SELECT json_agg(m ORDER BY roleid, member) FROM (SELECT roleid, member, admin_option FROM pg_auth_members) m),
		(SELECT json_agg(d ORDER BY datname) FROM (SELECT datname, coalesce(datacl, acldefault('d', datdba))::text FROM pg_database) d),
		(SELECT json_agg(n ORDER BY nspname) FROM (SELECT nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))::text FROM pg_namespace WHERE nspname !~ '^pg_t') n),
		(SELECT json_agg(c ORDER BY oid) FROM (SELECT oid, relname, relowner, relreplident, coalesce(relacl, acldefault('r', relowner))::text FROM pg_class WHERE relnamespace <> 'pg_toast'::regnamespace) c),
		(SELECT json_agg(i ORDER BY indexrelid) FROM (SELECT indexrelid, indisreplident FROM pg_index) i),
		(SELECT json_agg(p ORDER BY parname) FROM (SELECT parname, paracl::text FROM pg_parameter_acl) p),
		(SELECT json_agg(f ORDER BY proname) FROM (SELECT proname, proacl::text FROM pg_proc WHERE proname = 'pg_logical_emit_message') f),
		(SELECT json_agg(f ORDER BY name) FROM (SELECT name, setting FROM pg_file_settings WHERE sourcefile ~ 'auto.conf') f))`), "\n")
}

// psql runs a script as psql does that is given one statement on each line.
func psql(t testing.TB, url, script string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			pgtest.Exec(t, conn, line)
		}
	}
}

// TestPrepare begins with a server that is set up for nothing and roles that may do nothing. What `prepare --dry-run` prints makes a
// replication of one organisation work, and so does `prepare` itself.
func TestPrepare(t *testing.T) {
	source := newSource(t, pgtest.WithFsync(false), pgtest.WithSetting("wal_level", "replica"))
	target := newTarget(t, pgtest.WithFsync(false))
	set := filepath.Join(t.TempDir(), "by-org.json")
	if err := os.WriteFile(set, []byte(shopSet), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, server := range []*pgtest.Server{source, target} {
		pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "CREATE ROLE shop_owner; CREATE ROLE nobody LOGIN PASSWORD '"+secret+"'")
	}
	for _, way := range []struct {
		name, login, schema string
		mend                func(t *testing.T, url string, args []string)
	}{
		{"by its SQL", "syncline", "shop", func(t *testing.T, url string, args []string) {
			script, text, code := run(t, append(args, "--dry-run")...)
			if code != 1 || !strings.Contains(text, "to be done") {
				t.Fatalf("exit code %d\n%s%s", code, script, text)
			}
			t.Log(script)
			psql(t, url, script)
		}},
		{"by itself", "copier", "acme", func(t *testing.T, _ string, args []string) {
			out, text, code := run(t, args...)
			t.Log(out, text)
			if restart := strings.Contains(out, "restart PostgreSQL"); code != 0 && !restart || strings.Contains(out, "left ") {
				t.Fatalf("exit code %d\n%s%s", code, out, text)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			database := strings.ToLower(strings.ReplaceAll(way.name, " ", "_"))
			admin := pgtest.Connect(t, source.URL("postgres"))
			pgtest.Eventually(t, patience, func() error { // of the way before, whose session may outlive the program a little
				_, err := admin.Exec(t.Context(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
				return err
			})
			pgtest.Exec(t, admin, "ALTER SYSTEM RESET wal_level")
			source.Restart(t)
			for _, server := range []*pgtest.Server{source, target} {
				pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "CREATE DATABASE "+database)
			}
			sourceURL, targetURL := source.URL(database), target.URL(database)
			owner, replica := pgtest.Connect(t, sourceURL), pgtest.Connect(t, targetURL)
			pgtest.Exec(t, owner, unprepared)
			// One table is there already on the replica, in a schema of somebody else.
			pgtest.Exec(t, replica, fmt.Sprintf(`CREATE SCHEMA %[1]s AUTHORIZATION shop_owner; CREATE TABLE %[1]s.codes (code text NOT NULL UNIQUE, label text);
				ALTER TABLE %[1]s.codes OWNER TO shop_owner; ALTER TABLE %[1]s.codes ENABLE ROW LEVEL SECURITY`, way.schema))
			primarySide := []string{"prepare", "--login", way.login, "--set", set, "--param", "org=acme"}
			replicaSide := []string{"prepare", "--role", "replica", "--login", way.login, "--set", set, "--rename", "shop.*=" + way.schema + ".*"}
			for url, args := range map[string][]string{sourceURL: primarySide, targetURL: replicaSide} {
				before := prepared(t, url)
				run(t, append(args, "--postgres", url, "--dry-run")...)
				run(t, append(args, "--postgres", url, "--dry-run", "--json")...)
				out, _, code := run(t, append(args, "--postgres", asRole(t, url, "nobody"), "--login", "nobody")...)
				requireWords(t, out, "run it as a superuser", `"nobody"`)
				if code != 1 || strings.Contains(out, "mended") {
					t.Errorf("a role that may do nothing: exit code %d\n%s", code, out)
				}
				requireUnchanged(t, before, prepared(t, url))
				way.mend(t, url, append(args, "--postgres", url))
			}
			// The settings are made already, and wait for the restart.
			waits := prepared(t, sourceURL)
			if out, _, code := run(t, append(primarySide, "--postgres", sourceURL)...); code != 1 || !strings.Contains(out, "restart PostgreSQL") || strings.Contains(out, "mended") {
				t.Errorf("before the restart: exit code %d\n%s", code, out)
			}
			requireUnchanged(t, waits, prepared(t, sourceURL))
			source.Restart(t)
			well := func() {
				t.Helper()
				for url, args := range map[string][]string{sourceURL: primarySide, targetURL: replicaSide} {
					before := prepared(t, url)
					if out, text, code := run(t, append(args, "--postgres", url)...); code != 0 || text != "" || strings.Contains(out, "mended") {
						t.Errorf("a second run: exit code %d\n%s%s", code, out, text)
					}
					requireUnchanged(t, before, prepared(t, url))
				}
			}
			well()
			identities := pgtest.QueryRow[string](t, pgtest.Connect(t, sourceURL), `SELECT string_agg(relname || ' ' || relreplident::text, ', ' ORDER BY relname)
				FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r'`)
			if want := `codes i, days "2026" f, later f, maybe f, orders i, visits f`; identities != want {
				t.Errorf("the replica identities are %s instead of %s", identities, want)
			}
			replicateShop(t, asRole(t, sourceURL, way.login), asRole(t, targetURL, way.login), set, way.schema)
			well()
			prepareBeside(t, source, database+"_beside")
		})
	}
}

// prepareBeside prepares another database of a server on which a primary has its slot already.
func prepareBeside(t *testing.T, server *pgtest.Server, database string) {
	t.Helper()
	pgtest.Exec(t, pgtest.Connect(t, server.URL("postgres")), "CREATE DATABASE "+database)
	args := []string{"prepare", "--postgres", server.URL(database)}
	out, _, code := run(t, args...)
	if requireWords(t, out, "choose another name with --slot"); code != 1 || strings.Contains(out, "drop") {
		t.Errorf("with the slot of another database: exit code %d\n%s", code, out)
	}
	if out, text, code := run(t, append(args, "--slot", "beside", "--publication", "beside")...); code != 0 {
		t.Errorf("with a slot of its own: exit code %d\n%s%s", code, out, text)
	}
	out, _, code = run(t, append(args, "--slot", "beside", "--exclude-table", "public.misspelt")...)
	if requireWords(t, out, "public.misspelt"); code != 1 || strings.Contains(out, "can be published") {
		t.Errorf("tables that are not there: exit code %d\n%s", code, out)
	}
	if _, text, code := run(t, append(args, "--slot", "Odd Name")...); code != 1 || !strings.Contains(text, "lower-case letters") {
		t.Errorf("an odd name: exit code %d, %s", code, text)
	}
}

// replicateShop replicates the rows of one organisation, as roles that have nothing but what preparing gave them.
func replicateShop(t *testing.T, sourceURL, targetURL, set, schema string) {
	t.Helper()
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	defer func() { primary.terminate(time.Minute); replica.terminate(time.Minute) }()
	if out, text, code := run(t, "set", "create", "by-org", "--file", set, "--addr", primary.grpc); code != 0 {
		t.Fatalf("%s%s", out, text)
	}
	replica.mustCreate("acme", primary.grpc, func(spec *applierv1.ReplicationSpec) {
		spec.Set, spec.Parameters = "by-org", map[string]string{"org": "acme"}
		if schema != "shop" {
			spec.Rename = []*applierv1.TableRename{{Source: "shop.*", Target: schema + ".*"}}
		}
	})
	replica.waitApplied("acme", time.Minute)
	writer := pgtest.Connect(t, sourceURL)
	for _, statement := range []string{
		"UPDATE shop.orders SET org = 'acme' WHERE id % 10 = 0", "UPDATE shop.orders SET org = 'globex' WHERE id % 7 = 0", "DELETE FROM shop.orders WHERE id % 5 = 0",
		"UPDATE shop.visits SET org = 'globex' WHERE page = 'p1'", "DELETE FROM shop.visits WHERE page = 'p2'",
		"UPDATE shop.codes SET label = label || '!' WHERE code > 'c3'", "DELETE FROM shop.codes WHERE code = 'c4'", "UPDATE shop.codes SET code = 'd' || code WHERE code < 'c2'",
		"DELETE FROM shop.maybe WHERE code IS NULL", "UPDATE shop.later SET label = 'm' WHERE id < 9", "UPDATE shop.days SET label = 'e' WHERE day < '2026-02-01'",
	} {
		pgtest.Exec(t, writer, statement)
	}
	replica.waitApplied("acme", time.Minute)
	reader := pgtest.Connect(t, targetURL)
	for table, where := range map[string]string{"orders": "WHERE org = 'acme'", "visits": "WHERE org = 'acme'", "codes": "", "maybe": "", "later": "", "days": ""} {
		const rows = "SELECT coalesce(string_agg(r::text, E'\n' ORDER BY r::text), '') FROM %s.%s r %s"
		want, got := pgtest.QueryRow[string](t, writer, fmt.Sprintf(rows, "shop", table, where)), pgtest.QueryRow[string](t, reader, fmt.Sprintf(rows, schema, table, ""))
		if want != got || want == "" {
			t.Errorf("%s differs:\n%s\ninstead of\n%s", table, got, want)
		}
	}
}
