package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// repaired is what a repair told.
type repaired struct {
	rows     []*applierv1.RepairedRow
	tables   map[string]*applierv1.TableRepair
	result   *applierv1.RepairResult
	progress []*applierv1.RepairProgress
}

func (n *node) repair(ctx context.Context, name string, edits ...func(*applierv1.RepairReplicationRequest)) (repaired, error) {
	request := &applierv1.RepairReplicationRequest{Name: name}
	for _, edit := range edits {
		edit(request)
	}
	r := repaired{tables: map[string]*applierv1.TableRepair{}}
	stream, err := n.applier().RepairReplication(ctx, request, grpc.WaitForReady(true))
	if err != nil {
		return r, err
	}
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && r.result != nil:
			return r, nil
		case err != nil:
			return r, err
		case r.result != nil:
			return r, errors.New("more after the result")
		}
		switch event := answer.GetEvent().(type) {
		case *applierv1.RepairReplicationResponse_Progress:
			r.progress = append(r.progress, event.Progress)
		case *applierv1.RepairReplicationResponse_Row:
			r.rows = append(r.rows, event.Row)
		case *applierv1.RepairReplicationResponse_Table:
			name := event.Table.GetSchema() + "." + event.Table.GetTable()
			if r.tables[name] != nil {
				return r, fmt.Errorf("table %s comes twice", name)
			}
			r.tables[name] = event.Table
		case *applierv1.RepairReplicationResponse_Result:
			r.result = event.Result
		}
	}
}

func (n *node) mustRepair(name string, edits ...func(*applierv1.RepairReplicationRequest)) repaired {
	n.t.Helper()
	r, err := n.repair(n.t.Context(), name, edits...)
	if err != nil {
		n.t.Fatalf("repair: %s (%s)", rpc.Message(err), rpc.Reason(err))
	}
	return r
}

func (r repaired) requireEqual(t testing.TB) {
	t.Helper()
	if r.result.GetEqual() {
		return
	}
	for name, one := range r.tables {
		if o := one.GetOutcome(); o != applierv1.RepairOutcome_REPAIR_OUTCOME_EQUAL && o != applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED {
			t.Errorf("table %s: %v", name, one)
		}
	}
	t.Fatalf("not equal: %v", r.result)
}

// lines are the rows as text, sorted.
func (r repaired) lines() []string {
	var lines []string
	for _, row := range r.rows {
		line := fmt.Sprintf("%s %s %s", row.GetTable(), strings.ToLower(strings.TrimPrefix(row.GetAction().String(), "REPAIR_ACTION_")), strings.Join(row.GetKey(), "|"))
		if row.GetCount() > 1 {
			line += fmt.Sprintf(" ×%d", row.GetCount())
		}
		if len(row.GetColumns()) > 0 {
			line += " " + strings.Join(row.GetColumns(), ",")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func dryRun(r *applierv1.RepairReplicationRequest) { r.DryRun = true }

func onlyTables(patterns ...string) func(*applierv1.RepairReplicationRequest) {
	return func(r *applierv1.RepairReplicationRequest) { r.IncludeTables = patterns }
}

// Tables whose rows stand in one another's way, or cannot be written like any other.
const repairSource = verifySource + `
CREATE TABLE seats (id integer PRIMARY KEY, seat integer UNIQUE, holder text);
INSERT INTO seats SELECT n, n, 'holder ' || n FROM generate_series(1, 6000) n;
CREATE TABLE counted (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, other integer GENERATED ALWAYS AS IDENTITY, note text);
INSERT INTO counted (note) SELECT 'note ' || n FROM generate_series(1, 100) n;
CREATE TABLE wide (id integer PRIMARY KEY, large text, note text);
INSERT INTO wide SELECT n, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 3000) m), 'note' FROM generate_series(1, 20) n;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE moods (m mood, a numeric, note text, PRIMARY KEY (m, a));
INSERT INTO moods SELECT CASE WHEN n % 2 = 0 THEN 'sad' ELSE 'happy' END::mood, n / 10.0, E'tab\t, back\\slash\nline' || n FROM generate_series(1, 100) n;
CREATE TABLE journal (at integer, note text);
INSERT INTO journal SELECT n, 'entry' FROM generate_series(1, 100) n;`

const repairTarget = verifyTarget + `
CREATE TABLE seats (id integer PRIMARY KEY, seat integer UNIQUE, holder text, local text);`

func TestRepairCases(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, repairSource)
	pgtest.Exec(t, here, repairTarget)
	primary, replica := startPrimary(t, primaryURL, "--insert-only-table", "public.journal"), startReplica(t, replicaURL)
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	pgtest.Exec(t, here, "UPDATE seats SET local = 'kept ' || id")

	t.Run("nothing to do", func(t *testing.T) {
		before := versions(t, here)
		first := replica.mustRepair("shop")
		first.requireEqual(t)
		if n := len(first.rows) + int(first.result.GetTablesMended()); n != 0 || first.result.GetTablesEqual() != int32(len(first.tables)) {
			t.Errorf("%v, rows %v", first.result, first.rows)
		}
		if after := versions(t, here); before != after {
			t.Errorf("rows were written: %s became %s", before, after)
		}
	})
	for _, test := range []struct {
		name, break_ string
		want         []string
	}{
		{"composite key", "UPDATE composite SET note = 'x', amount = NULL WHERE a = 12345; DELETE FROM composite WHERE a = 1; INSERT INTO composite VALUES ('z', 25001)",
			[]string{"composite delete 25001|z", "composite insert 1|k1", "composite update 12345|k4 amount,note"}},
		{"null is not empty", "UPDATE by_uuid SET note = '' WHERE id = md5('17')::uuid", []string{"by_uuid update 70efdf2e-c9b0-8607-9795-c442636b55fb note"}},
		{"text key", "UPDATE by_text SET key = 'schlüssel 5' WHERE key = 'Schlüssel 5'", []string{"by_text delete schlüssel 5", "by_text insert Schlüssel 5"}},
		{"one of many equal rows", "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 7)", []string{`keyless insert a="7", b="row"`}},
		{"more equal rows", "INSERT INTO keyless VALUES (8, 'row'), (8, 'row'), (NULL, NULL)", []string{`keyless delete a="8", b="row" ×2`, "keyless delete a=NULL, b=NULL"}},
		{"without a key, NULL is not empty", "UPDATE keyless SET b = '' WHERE a IS NULL AND b IS NULL", []string{`keyless delete a=NULL, b=""`, `keyless insert a=NULL, b=NULL`}},
		{"only a key", "UPDATE only_key SET id = -5 WHERE id = 50", []string{"only_key delete -5", "only_key insert 50"}},
		{"wider types", "UPDATE wider SET label = 'longer than ten letters', extra = 'stays' WHERE small = 3; INSERT INTO wider (small) VALUES (100000)",
			[]string{"wider delete 100000", "wider update 3 label"}},
		{"partitions in one table", "UPDATE parts SET note = 'x' WHERE id = 300; DELETE FROM parts WHERE id = 301; INSERT INTO parts VALUES ('n', 0, 'new')",
			[]string{"parts delete 0|new", "parts insert 301|b", "parts update 300|a note"}},
		{"one table in partitions", "UPDATE whole SET note = NULL WHERE id IN (1, 20000); DELETE FROM whole WHERE id IN (2, 10000)",
			[]string{"whole insert 10000", "whole insert 2", "whole update 1 note", "whole update 20000 note"}},
		{"a replica that allows NULL in the key", "INSERT INTO loose VALUES ('nothing', NULL); INSERT INTO loose VALUES ('note', 3); UPDATE loose SET note = 'x' WHERE id = 4",
			[]string{`loose delete id="3", note="note"`, `loose delete id="4", note="x"`, `loose delete id=NULL, note="nothing"`, `loose insert id="4", note="note"`}},
		{"an empty table", "INSERT INTO empty VALUES (1)", []string{"empty delete 1"}},
		{"swapped unique values", "UPDATE seats SET seat = -1 WHERE id = 1; UPDATE seats SET seat = 1 WHERE id = 2; UPDATE seats SET seat = 2 WHERE id = 1",
			[]string{"seats update 1 seat", "seats update 2 seat"}},
		{"a unique value that another row has to give up", "DELETE FROM seats WHERE id = 10; UPDATE seats SET seat = 10 WHERE id = 6000; INSERT INTO seats VALUES (7000, 6000, 'extra')",
			[]string{"seats delete 7000", "seats insert 10", "seats update 6000 seat"}},
		{"identity columns", "DELETE FROM counted WHERE id = 5; INSERT INTO counted OVERRIDING SYSTEM VALUE VALUES (500, 500, 'x'); DELETE FROM counted WHERE id = 7; INSERT INTO counted OVERRIDING SYSTEM VALUE VALUES (7, 70, 'y')",
			[]string{"counted delete 500", "counted insert 5", "counted update 7 note,other"}},
		{"large values", "UPDATE wide SET large = 'small' WHERE id = 3; UPDATE wide SET note = 'x' WHERE id = 4; DELETE FROM wide WHERE id = 5",
			[]string{"wide insert 5", "wide update 3 large", "wide update 4 note"}},
		{"numbers that print differently", "UPDATE moods SET a = a::numeric(10, 5) WHERE a = 0.5; UPDATE moods SET note = 'x' WHERE a = 0.6",
			[]string{"moods delete happy|0.50000", "moods insert happy|0.50000000000000000000", "moods update sad|0.60000000000000000000 note"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pgtest.Exec(t, here, test.break_)
			table := onlyTables("public." + strings.Fields(test.want[0])[0])
			would := replica.mustRepair("shop", dryRun, table)
			if would.result.GetEqual() || would.result.GetTablesDifferent() != 1 || !slices.Equal(would.lines(), test.want) {
				t.Errorf("dry run %q, want %q; %v", would.lines(), test.want, would.result)
			}
			r := replica.mustRepair("shop", table)
			r.requireEqual(t)
			if got := r.lines(); !slices.Equal(got, test.want) || r.result.GetTablesMended() != 1 {
				t.Errorf("got  %q\nwant %q; %v", got, test.want, r.result)
			}
		})
	}
	replica.mustVerify("shop").requireEqual(t)
	if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM seats WHERE local IS DISTINCT FROM 'kept ' || id"); n != 1 { // the one that was inserted
		t.Errorf("%d rows have lost what only the replica has", n)
	}
	if extra := pgtest.QueryRow[string](t, here, "SELECT extra FROM wider WHERE small = 3"); extra != "stays" {
		t.Errorf("a column of the replica is %q", extra)
	}
	t.Run("applying goes on", func(t *testing.T) {
		pgtest.Exec(t, there, `UPDATE seats SET seat = seat + 100000; DELETE FROM composite WHERE a % 2 = 0; UPDATE whole SET note = 'later'; UPDATE moods SET note = 'later';
			UPDATE loose SET note = 'later' WHERE id < 100; DELETE FROM keyless WHERE a = 8; UPDATE counted SET note = 'later'; UPDATE wide SET note = 'later'`)
		replica.waitApplied("shop", time.Minute)
		replica.mustVerify("shop").requireEqual(t)
	})
	t.Run("many rows", func(t *testing.T) {
		pgtest.Exec(t, here, `INSERT INTO only_key SELECT n FROM generate_series(1000, 30000) n; UPDATE by_text SET note = 'x' WHERE note < '8';
			DELETE FROM by_uuid WHERE id < '80000000-0000-0000-0000-000000000000'; TRUNCATE composite; UPDATE seats SET seat = -seat; DELETE FROM keyless WHERE a > 50`)
		r := replica.mustRepair("shop", func(r *applierv1.RepairReplicationRequest) { r.MaxRows = 7 })
		r.requireEqual(t)
		if len(r.rows) != 6*7 || r.result.GetTablesMended() != 6 {
			t.Errorf("%d rows are named; %v", len(r.rows), r.result)
		}
		replica.mustVerify("shop").requireEqual(t)
	})
	t.Run("only inserts", func(t *testing.T) {
		pgtest.Exec(t, here, "DELETE FROM journal WHERE at = 3")
		r := replica.mustRepair("shop")
		r.requireEqual(t)
		pgtest.Exec(t, there, "DELETE FROM journal WHERE at = 4")
		r = replica.mustRepair("shop")
		if one := r.tables["public.journal"]; r.result.GetEqual() || one.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED || !strings.Contains(one.GetReason(), "only inserts") {
			t.Errorf("%v", one)
		}
		if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM journal"); n != 100 {
			t.Errorf("%d rows are left in the journal", n)
		}
		pgtest.Exec(t, there, "INSERT INTO journal VALUES (4, 'entry')")
		pgtest.Exec(t, here, "DELETE FROM journal WHERE at = 4 AND ctid = (SELECT min(ctid) FROM journal WHERE at = 4)")
		replica.waitApplied("shop", time.Minute)
	})
	t.Run("what the replica refuses", func(t *testing.T) {
		pgtest.Exec(t, here, `DELETE FROM composite WHERE a = 3; UPDATE by_text SET note = '' WHERE key = 'Schlüssel 9';
			ALTER TABLE composite ADD CONSTRAINT refuses CHECK (a <> 3)`)
		r := replica.mustRepair("shop")
		if one := r.tables["public.composite"]; one.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED || !strings.Contains(one.GetReason(), "refuses") {
			t.Errorf("composite: %v", one)
		}
		if one := r.tables["public.by_text"]; one.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED || r.result.GetTablesNotMended() != 1 {
			t.Errorf("by_text: %v; %v", one, r.result)
		}
		pgtest.Exec(t, here, "ALTER TABLE composite DROP CONSTRAINT refuses")
		replica.mustRepair("shop", onlyTables("public.composite")).requireEqual(t)
	})
	t.Run("somebody else changes the rows again", func(t *testing.T) {
		pgtest.Exec(t, here, `CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''spoilt''; RETURN NEW; END';
			CREATE TRIGGER spoil BEFORE UPDATE ON by_uuid FOR EACH ROW EXECUTE FUNCTION spoil(); ALTER TABLE by_uuid ENABLE ALWAYS TRIGGER spoil;
			UPDATE by_uuid SET note = '' WHERE id = md5('17')::uuid`)
		r := replica.mustRepair("shop", onlyTables("public.by_uuid"))
		if one := r.tables["public.by_uuid"]; one.GetOutcome() != applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED || !strings.Contains(one.GetReason(), "trigger") {
			t.Errorf("by_uuid: %v", one)
		}
		pgtest.Exec(t, here, "DROP TRIGGER spoil ON by_uuid")
		replica.mustRepair("shop").requireEqual(t)
	})
}

// versions is a sum over which transactions wrote the rows of the replica, and where they lie.
func versions(t testing.TB, here *pgx.Conn) string {
	t.Helper()
	var sums []string
	for _, table := range []string{"composite", "by_uuid", "by_text", "keyless", "only_key", "wider", "parts", "whole", "loose", "seats", "counted", "wide", "moods", "journal"} {
		sums = append(sums, pgtest.QueryRow[string](t, here, "SELECT md5(string_agg(xmin::text || ctid::text || xmax::text, ',' ORDER BY tableoid, ctid)) FROM "+table))
	}
	return strings.Join(sums, " ")
}

// TestRepairMendsEveryKind changes a replica at random, over every kind of type, table, key and name, and repairs it.
func TestRepairMendsEveryKind(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	conn := pgtest.Connect(t, primaryURL)
	pgtest.LoadAllKinds(t, conn)
	pgtest.Exec(t, conn, "DROP TABLE kinds.keyless_generated") // PostgreSQL 18 refuses it
	primary := startPrimary(t, primaryURL)
	replica := startReplica(t, replicaURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitState("all", 2*time.Minute, applierv1.State_STATE_RUNNING)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	here := pgtest.Connect(t, replicaURL)
	for _, transactions := range []int{3, 40, 300} {
		if _, err := pgtest.MutateAllKinds(t.Context(), here, r, transactions); err != nil {
			t.Fatal(err)
		}
		done := replica.mustRepair("all")
		done.requireEqual(t)
		t.Logf("%v", done.result)
		pgtest.RequireEqual(t, primaryURL, replicaURL)
	}
}
