package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// secret is the password in every URL of these tests. No output may show it.
const secret = "s3cr3t-0f-the-test"

var errStillThere = errors.New("it is still there")

// servers are what the tests of bad input of one group share. Each test has databases of its own.
type servers struct{ source, target *pgtest.Server }

// TestBadInput gives the real servers what they cannot work with. Each time there is one clear sentence that names the way
// out, nothing is left half done, and once the way out is taken the work goes on without a loss.
func TestBadInput(t *testing.T) {
	t.Parallel()
	type test struct {
		name string
		run  func(*servers, *testing.T)
	}
	for group, tests := range map[string][]test{
		"primary": {
			{"primary refuses", (*servers).primaryRefuses}, {"primary mends", (*servers).primaryMends}, {"primary needs logical WAL", (*servers).primaryNeedsLogicalWAL},
			{"primary needs room", (*servers).primaryNeedsRoom}, {"standby", (*servers).standbyIsRefused}, {"foreign objects", (*servers).foreignObjects},
			{"two loggers", (*servers).twoLoggers}, {"logger not ready", (*servers).notReady}, {"without SELECT", (*servers).withoutSelect},
			{"no slot for a copy", (*servers).noSlotForCopy},
		},
		"create": {
			{"replica refuses", (*servers).replicaRefuses}, {"source refuses", (*servers).sourceRefuses}, {"names and tables twice", (*servers).twice},
			{"tables taken meanwhile", (*servers).takenMeanwhile}, {"source is itself", (*servers).sourceIsItself}, {"malformed requests", (*servers).malformed},
			{"replica's role", (*servers).replicaRole}, {"row level security", (*servers).rowSecurity},
		},
		"run": {
			{"retry now", (*servers).retryNow}, {"rewritten again", (*servers).rewrittenAgain}, {"column lost", (*servers).columnLost},
			{"row lost", (*servers).rowLost}, {"row in the way", (*servers).rowInTheWay}, {"row too large", (*servers).rowTooLarge},
		},
		"identity": {{"without identity", (*servers).withoutIdentity}, {"identity lost", (*servers).identityLost}},
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) { test.run(s, t) })
			}
		})
	}
}

// requireReplicates makes a replica of a primary and compares all rows.
func (s *servers) requireReplicates(t testing.TB, primary *node, sourceURL string) {
	t.Helper()
	targetURL := s.target.Database(t)
	replica := startReplica(t, targetURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitApplied("all", time.Minute)
	pgtest.RequireEqual(t, sourceURL, targetURL)
}

// newRole makes a role that logs in with the secret. At the test's end it goes, with what it owns in the connection's database.
func newRole(t testing.TB, conn *pgx.Conn, role string, attributes ...string) {
	t.Helper()
	pgtest.Exec(t, conn, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' %s", role, secret, strings.Join(attributes, " ")))
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), fmt.Sprintf("RESET ROLE; DROP OWNED BY %s CASCADE; DROP ROLE %[1]s", role)); err != nil {
			t.Errorf("drop role %s: %v", role, err)
		}
	})
}

// asRole returns the URL for another role, with the secret as its password.
func asRole(t testing.TB, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, secret)
	return u.String()
}

// inDatabase returns the URL of another database of the same server.
func inDatabase(t testing.TB, address, database string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	return u.String()
}

// databaseOf is the name of a URL's database.
func databaseOf(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// refusal runs a server command that has to end by itself with exit code 1 and one sentence, which it returns.
func refusal(t testing.TB, role string, args ...string) string {
	t.Helper()
	stdout, stderr, code := run(t, append([]string{role, "--grpc", freeAddress(t), "--http", freeAddress(t)}, args...)...)
	if code != 1 {
		t.Errorf("exit code %d instead of 1", code)
	}
	if strings.Contains(stdout+stderr, secret) {
		t.Errorf("the password is shown in %s%s", stdout, stderr)
	}
	sentence, ok := strings.CutPrefix(stderr, "syncline: ")
	sentence = strings.TrimSuffix(sentence, "\n")
	if !ok || sentence == "" || strings.Contains(sentence, "\n") {
		t.Errorf("not one sentence that begins with the program's name:\n%s", stderr)
	}
	if stdout != "" {
		t.Errorf("a refused server printed %s", stdout)
	}
	return sentence
}

// requireWords fails unless the text has all of the words.
func requireWords(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is not in: %s", word, text)
		}
	}
}

// objects lists all that somebody could have left in a database: slots, publications, event triggers, schemas, and tables,
// indexes, sequences, types and functions with their shapes. Syncline's own schema is left out: it is made before anything
// is checked, and documented.
func objects(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication
		UNION ALL SELECT 'member ' || prrelid::regclass::text FROM pg_publication_rel
		UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
		UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'syncline')
		UNION ALL SELECT 'type ' || t.oid::regtype FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
			WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'syncline')
		UNION ALL SELECT 'function ' || f.oid::regprocedure FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
			WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'syncline')
		UNION ALL SELECT concat_ws(' ', 'relation', c.relkind, c.oid::regclass, c.relfilenode, c.relreplident,
				(SELECT string_agg(concat_ws(':', a.attname, a.atttypid::regtype, a.attnotnull), ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
				(SELECT string_agg(k.conname, ',' ORDER BY k.conname) FROM pg_constraint k WHERE k.conrelid = c.oid))
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'syncline')
		ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// requireUnchanged fails when a database has other objects than before.
func requireUnchanged(t testing.TB, before, after []string) {
	t.Helper()
	for _, o := range after {
		if !slices.Contains(before, o) {
			t.Errorf("left behind: %s", o)
		}
	}
	for _, o := range before {
		if !slices.Contains(after, o) {
			t.Errorf("gone: %s", o)
		}
	}
}

// requireEmptyDir fails when a refused server has put something into the directory of the change log.
func requireEmptyDir(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind in the directory of the change log: %s", e.Name())
	}
}
