package e2e

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// shop is a source of a few tables.
const shop = `
CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2));
INSERT INTO items SELECT n, 'item ' || n, n + 0.5 FROM generate_series(1, 100) n;
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id int PRIMARY KEY, item int NOT NULL REFERENCES items, note text);
INSERT INTO sales.orders SELECT n, n, 'order ' || n FROM generate_series(1, 100) n;`

// editSpec changes what create asks for.
type editSpec = func(*applierv1.ReplicationSpec)

func include(patterns ...string) editSpec {
	return func(s *applierv1.ReplicationSpec) { s.IncludeTables = patterns }
}

func replace(s *applierv1.ReplicationSpec) { s.Replace = true }

// replicaRefuses asks for replications that cannot be: they are refused before anything is touched, and after the
// named mending, in SQL or in the request, they run and all is equal.
func (s *servers) replicaRefuses(t *testing.T) {
	sourceURL := s.source.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, sourceURL), shop)
	primary := startPrimary(t, sourceURL)
	for _, test := range []struct {
		name   string
		target string // what is on the replica already
		edit   editSpec
		code   codes.Code
		reason string
		words  []string
		mend   string // SQL on the replica
		change editSpec
	}{
		{
			name:   "a column is missing",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text)",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"table public.items column price", "missing on the target"},
			mend: "ALTER TABLE items ADD price numeric(10,2)",
		}, {
			name:   "a column has another type",
			target: "CREATE TABLE items (id int PRIMARY KEY, name int, price numeric(10,2))",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"table public.items column name", "the type differs", "source: text", "target: integer"},
			mend: "ALTER TABLE items ALTER name TYPE text",
		}, {
			name:   "the replica has one more column, NOT NULL",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), extra int NOT NULL)",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"table public.items column extra", "NOT NULL without a default"},
			mend: "ALTER TABLE items DROP extra",
		}, {
			name:   "the replica refuses NULL",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(10,2))",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"table public.items column name", "NULL"},
			mend: "ALTER TABLE items ALTER name DROP NOT NULL",
		}, {
			name:   "a column is generated on the replica",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text GENERATED ALWAYS AS ('x') STORED, price numeric(10,2))",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"table public.items column name", "generated on the target only"},
			mend: "ALTER TABLE items ALTER name DROP EXPRESSION",
		}, {
			name:   "a view has the name of a table",
			target: "CREATE VIEW items AS SELECT 1 AS id",
			code:   codes.FailedPrecondition, reason: "SCHEMA_MISMATCH", words: []string{"public.items", "view"},
			mend: "DROP VIEW items",
		}, {
			name:   "the table holds rows",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2)); INSERT INTO items VALUES (1000, 'mine', 1)",
			code:   codes.FailedPrecondition, reason: "TABLE_NOT_EMPTY", words: []string{"public.items", "--replace", "--exclude-table"},
			mend: "DELETE FROM items",
		}, {
			name:   "the table holds rows, which go",
			target: "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2)); INSERT INTO items VALUES (1000, 'mine', 1), (5, 'mine', 1)",
			code:   codes.FailedPrecondition, reason: "TABLE_NOT_EMPTY", words: []string{"public.items"},
			change: replace,
		}, {
			name: "an unknown table is asked for", edit: include("public.items", "public.missing", "sales.*"),
			code: codes.NotFound, reason: "TABLE_NOT_FOUND", words: []string{"public.missing", "does not exist"},
			change: include("public.items", "sales.*"),
		}, {
			name: "a pattern is malformed", edit: include("items"),
			code: codes.InvalidArgument, reason: "INVALID_FIELD", words: []string{"spec.include_tables", "public.items"},
			change: include("*.*"),
		}, {
			name: "nothing is selected", edit: include("nothing.*"),
			code: codes.NotFound, reason: "TABLE_NOT_FOUND", words: []string{"nothing.*"},
			change: include("*.*"),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			targetURL := s.target.Database(t)
			conn := pgtest.Connect(t, targetURL)
			pgtest.Exec(t, conn, test.target)
			replica := startReplica(t, targetURL)
			before := objects(t, conn)
			edits := func(e ...editSpec) (list []editSpec) {
				for _, one := range e {
					if one != nil {
						list = append(list, one)
					}
				}
				return list
			}
			_, err := replica.create("all", primary.grpc, edits(test.edit)...)
			requireRefused(t, err, test.code, test.reason, test.words...)
			requireUnchanged(t, before, objects(t, conn))
			requireNoReplication(t, replica)
			pgtest.Exec(t, conn, test.mend)
			if _, err := replica.create("all", primary.grpc, edits(test.edit, test.change)...); err != nil {
				t.Fatalf("after mending: %s", rpc.Message(err))
			}
			replica.waitApplied("all", time.Minute)
			pgtest.RequireEqual(t, sourceURL, targetURL)
		})
	}
}

// requireRefused fails unless an error has this code and reason and holds the words.
func requireRefused(t testing.TB, err error, code codes.Code, reason string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted instead of refused with %s", reason)
	}
	t.Logf("%s %s: %s", rpc.Code(err), rpc.Reason(err), rpc.Message(err))
	if rpc.Code(err) != code || rpc.Reason(err) != reason {
		t.Errorf("refused with %s %s instead of %s %s", rpc.Code(err), rpc.Reason(err), code, reason)
	}
	requireWords(t, rpc.Message(err), words...)
	if strings.Contains(rpc.Message(err), "rpc error:") {
		t.Errorf("the text has gRPC's own words: %s", rpc.Message(err))
	}
}

// requireNoReplication fails when something was stored, although it was refused.
func requireNoReplication(t testing.TB, replica *node) {
	t.Helper()
	answer, err := replica.applier().ListReplications(t.Context(), &applierv1.ListReplicationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range answer.GetReplications() {
		t.Errorf("stored although it was refused: %v", r)
	}
}
