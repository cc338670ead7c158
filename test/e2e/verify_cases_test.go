package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const verifySource = `
CREATE TABLE composite (b text, a integer, note text, amount numeric, PRIMARY KEY (a, b));
INSERT INTO composite SELECT 'k' || n % 7, n, 'note ' || n, n / 3.0 FROM generate_series(1, 25000) n;
CREATE TABLE by_uuid (id uuid PRIMARY KEY, at timestamptz, note text);
INSERT INTO by_uuid SELECT md5(n::text)::uuid, timestamptz '2026-01-01' + n * interval '1 minute', NULL FROM generate_series(1, 30000) n;
CREATE TABLE by_text (key text PRIMARY KEY, note text);
INSERT INTO by_text SELECT 'Schlüssel ' || n, md5(n::text) FROM generate_series(1, 30000) n;
CREATE TABLE keyless (a integer, b text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless SELECT n % 100, 'row' FROM generate_series(1, 30000) n;
INSERT INTO keyless VALUES (NULL, ''), (NULL, NULL);
CREATE TABLE only_key (id bigint PRIMARY KEY);
INSERT INTO only_key SELECT n FROM generate_series(1, 100) n;
CREATE TABLE wider (small smallint PRIMARY KEY, label varchar(10), made integer GENERATED ALWAYS AS (small * 2) STORED);
INSERT INTO wider SELECT n, 'l' || n FROM generate_series(1, 100) n;
CREATE TABLE parts (id integer, region text, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT n, chr(97 + n % 3), 'note' FROM generate_series(1, 20000) n;
CREATE TABLE whole (id integer PRIMARY KEY, note text);
INSERT INTO whole SELECT n, 'note' FROM generate_series(1, 20000) n;
CREATE TABLE loose (id integer PRIMARY KEY, note text);
ALTER TABLE loose REPLICA IDENTITY FULL;
INSERT INTO loose SELECT n, 'note' FROM generate_series(1, 25000) n;
CREATE TABLE empty (id integer PRIMARY KEY);`

// The replica has some tables in another shape: partitioned otherwise, with wider types, other columns and another order of them.
const verifyTarget = `
CREATE TABLE wider (extra text DEFAULT 'of the replica', label text, small bigint PRIMARY KEY);
CREATE TABLE loose (note text, id integer);
CREATE TABLE parts (note text, id integer, region text, PRIMARY KEY (id, region));
CREATE TABLE whole (id integer PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE whole_low PARTITION OF whole FOR VALUES FROM (MINVALUE) TO (10000);
CREATE TABLE whole_high PARTITION OF whole FOR VALUES FROM (10000) TO (MAXVALUE);`

func tables(patterns ...string) func(*applierv1.VerifyReplicationRequest) {
	return func(r *applierv1.VerifyReplicationRequest) { r.IncludeTables = patterns }
}

func TestVerifyCases(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	there, here := pgtest.Connect(t, primaryURL), pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, there, verifySource)
	pgtest.Exec(t, here, verifyTarget)
	primary, replica := startPrimary(t, primaryURL), startReplica(t, replicaURL)
	replica.mustCreate("shop", primary.grpc)
	replica.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	first := replica.mustVerify("shop")
	first.requireEqual(t)
	if rows := first.result.GetRows(); rows != 180_202 {
		t.Errorf("%d rows were compared", rows)
	}
	if left := first.tables["public.wider"].GetColumnsLeftOut(); !slices.Equal(left, []string{"made", "extra"}) {
		t.Errorf("left out: %q", left)
	}

	for _, test := range []struct {
		name, break_, mend string
		want               []string
	}{
		{"composite key", "UPDATE composite SET note = 'x', amount = NULL WHERE a = 12345; DELETE FROM composite WHERE a = 1; INSERT INTO composite VALUES ('z', 25001)",
			"", []string{"public.composite changed 12345|k4 amount,note", "public.composite extra 25001|z", "public.composite missing 1|k1"}},
		{"null is not empty", "UPDATE by_uuid SET note = '' WHERE id = md5('17')::uuid", "UPDATE by_uuid SET note = NULL", []string{"public.by_uuid changed 70efdf2e-c9b0-8607-9795-c442636b55fb note"}},
		{"fractions of a second", "UPDATE by_uuid SET at = at + interval '1 microsecond' WHERE id = md5('30000')::uuid", "UPDATE by_uuid SET at = date_trunc('second', at)",
			[]string{"public.by_uuid changed 5ecc613150de01b7e6824594426f24f4 at"}},
		{"text key", "UPDATE by_text SET key = 'schlüssel 5' WHERE key = 'Schlüssel 5'", "UPDATE by_text SET key = 'Schlüssel 5' WHERE key = 'schlüssel 5'",
			[]string{"public.by_text extra schlüssel 5", "public.by_text missing Schlüssel 5"}},
		{"one of many equal rows", "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 7)", "INSERT INTO keyless VALUES (7, 'row')", []string{`public.keyless missing a="7", b="row"`}},
		{"more equal rows", "INSERT INTO keyless VALUES (8, 'row'), (8, 'row')", "DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 8 LIMIT 2)",
			[]string{`public.keyless extra a="8", b="row" ×2`}},
		{"without a key, NULL is not empty", "UPDATE keyless SET b = '' WHERE a IS NULL", "UPDATE keyless SET b = NULL WHERE ctid = (SELECT max(ctid) FROM keyless WHERE a IS NULL)",
			[]string{`public.keyless extra a=NULL, b=""`, `public.keyless missing a=NULL, b=NULL`}},
		{"only a key", "UPDATE only_key SET id = -5 WHERE id = 50", "UPDATE only_key SET id = 50 WHERE id = -5", []string{"public.only_key extra -5", "public.only_key missing 50"}},
		{"wider types", "UPDATE wider SET label = 'longer than ten letters' WHERE small = 3; INSERT INTO wider (small) VALUES (100000)", "UPDATE wider SET label = 'l3' WHERE small = 3; DELETE FROM wider WHERE small > 100",
			[]string{"public.wider changed 3 label", "public.wider extra 100000"}},
		{"partitions in one table", "UPDATE parts SET note = 'x' WHERE id = 300; DELETE FROM parts WHERE id = 301", "UPDATE parts SET note = 'note'; INSERT INTO parts VALUES ('note', 301, 'b')",
			[]string{"public.parts changed 300|a note", "public.parts missing 301|b"}},
		{"one table in partitions", "UPDATE whole SET note = NULL WHERE id IN (1, 20000)", "UPDATE whole SET note = 'note'", []string{"public.whole changed 1 note", "public.whole changed 20000 note"}},
		{"a replica that allows NULL in the key", "INSERT INTO loose VALUES ('nothing', NULL)", "DELETE FROM loose WHERE id IS NULL", []string{"public.loose extra "}},
		{"an empty table", "INSERT INTO empty VALUES (1)", "TRUNCATE empty", []string{"public.empty extra 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pgtest.Exec(t, here, test.break_)
			v := replica.mustVerify("shop")
			want := slices.Clone(test.want)
			if got := v.lines(); v.result.GetEqual() || !slices.Equal(withoutDashes(got), withoutDashes(want)) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if v.result.GetTablesDifferent() != 1 || v.result.GetTablesNotCompared() != 0 {
				t.Errorf("result %v", v.result)
			}
			if test.mend == "" {
				test.mend = "DELETE FROM composite WHERE a IN (1, 12345, 25001); INSERT INTO composite VALUES ('k1', 1, 'note 1', 0.33333333333333333333), ('k4', 12345, 'note 12345', 4115.0000000000000000)"
			}
			pgtest.Exec(t, here, test.mend)
		})
	}
	replica.mustVerify("shop").requireEqual(t)

	t.Run("more differences than are described", func(t *testing.T) {
		pgtest.Exec(t, here, "INSERT INTO only_key SELECT n FROM generate_series(1000, 100000) n; UPDATE by_text SET note = 'x'")
		v := replica.mustVerify("shop", func(r *applierv1.VerifyReplicationRequest) { r.MaxDifferences = 10 })
		for _, name := range []string{"public.only_key", "public.by_text"} {
			one := v.tables[name]
			sum := one.GetMissing() + one.GetExtra() + one.GetChanged()
			if one.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT || sum < 10 || one.GetUnexamined() == 0 || sum+one.GetUnexamined() < one.GetReplicaRows()-100 {
				t.Errorf("%s: %v", name, one)
			}
		}
		if len(v.differences) != 20 {
			t.Errorf("%d differences are described", len(v.differences))
		}
		all := replica.mustVerify("shop", func(r *applierv1.VerifyReplicationRequest) { r.MaxDifferences = 10_000 }, tables("public.only_key"))
		if one := all.tables["public.only_key"]; len(all.differences) != 10_000 || one.GetExtra()+one.GetUnexamined() != 99_001 {
			t.Errorf("%d differences, %v", len(all.differences), one)
		}
		pgtest.Exec(t, here, "DELETE FROM only_key WHERE id > 100; DELETE FROM by_text; INSERT INTO by_text SELECT 'Schlüssel ' || n, md5(n::text) FROM generate_series(1, 30000) n")
	})

	t.Run("selection", func(t *testing.T) {
		if v := replica.mustVerify("shop", tables("public.parts", "public.keyless")); len(v.tables) != 2 || !v.result.GetEqual() {
			t.Errorf("tables %v", v.tables)
		}
		_, err := replica.verify(t.Context(), "shop", tables("public.unknown"))
		requireReason(t, err, codes.NotFound, "UNKNOWN_TABLE")
		_, err = replica.verify(t.Context(), "sop")
		requireReason(t, err, codes.NotFound, "REPLICATION_NOT_FOUND")
		_, err = replica.verify(t.Context(), "shop", func(r *applierv1.VerifyReplicationRequest) { r.MaxDifferences = -1 })
		requireReason(t, err, codes.InvalidArgument, "INVALID_FIELD")
	})

	t.Run("a writer on the source", func(t *testing.T) {
		writer := pgtest.Connect(t, primaryURL)
		pgtest.Exec(t, writer, "BEGIN; INSERT INTO only_key VALUES (101)")
		_, err := replica.verify(t.Context(), "shop", func(r *applierv1.VerifyReplicationRequest) { r.MaxHold = durationpb.New(700 * time.Millisecond) })
		requireReason(t, err, codes.DeadlineExceeded, "SNAPSHOT_BLOCKED")
		requireWords(t, rpc.Message(err), "--max-hold", "pid")
		pgtest.Exec(t, there, "INSERT INTO only_key VALUES (102)")
		replica.waitApplied("shop", time.Minute)

		// Whoever interrupts it lets the replica go on as well.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		// The server may tell of the deadline before the client does, with a reason of its own.
		if _, err := replica.verify(ctx, "shop"); rpc.Code(err) != codes.DeadlineExceeded || rpc.Reason(err) == "SNAPSHOT_BLOCKED" {
			t.Errorf("got %v %s", err, rpc.Reason(err))
		}
		pgtest.Exec(t, there, "INSERT INTO only_key VALUES (103)")
		replica.waitApplied("shop", time.Minute)
		pgtest.Exec(t, writer, "COMMIT")
		replica.mustVerify("shop").requireEqual(t)
	})

	inventory := inventoryv1.NewInventoryServiceClient(primary.dial())
	// stuck has a verification wait for a table of the replica, runs a function then, and returns what became of it.
	stuck := func(t *testing.T, then func()) (verified, error) {
		locker := pgtest.Connect(t, replicaURL)
		pgtest.Exec(t, locker, "BEGIN; LOCK TABLE by_uuid IN ACCESS EXCLUSIVE MODE")
		type answer struct {
			v   verified
			err error
		}
		done := make(chan answer, 1)
		go func() {
			v, err := replica.verify(t.Context(), "shop", tables("public.by_uuid"))
			done <- answer{v, err}
		}()
		pgtest.Eventually(t, time.Minute, func() error {
			if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM pg_locks WHERE relation = 'by_uuid'::regclass AND NOT granted"); n == 0 {
				return errors.New("nobody waits for the lock")
			}
			return nil
		})
		then()
		pgtest.Exec(t, locker, "COMMIT")
		a := <-done
		return a.v, a.err
	}
	t.Run("two at once", func(t *testing.T) {
		v, err := stuck(t, func() {
			_, err := replica.verify(t.Context(), "shop")
			requireReason(t, err, codes.Aborted, "VERIFICATION_RUNNING")
			// Applying goes on meanwhile.
			pgtest.Exec(t, there, "UPDATE by_uuid SET note = 'later' WHERE id = md5('1')::uuid; DELETE FROM only_key WHERE id > 100")
		})
		if err != nil {
			t.Fatal(err)
		}
		v.requireEqual(t)
	})
	t.Run("the snapshot is lost", func(t *testing.T) {
		_, err := stuck(t, func() {
			list, err := inventory.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
			if err != nil || len(list.GetSnapshots()) != 1 {
				t.Fatal(list, err)
			}
			if _, err := inventory.CloseSnapshot(t.Context(), &inventoryv1.CloseSnapshotRequest{SnapshotId: list.GetSnapshots()[0].GetSnapshotId()}); err != nil {
				t.Fatal(err)
			}
		})
		requireReason(t, err, codes.Unavailable, "SNAPSHOT_GONE")
	})
	t.Run("truncated meanwhile", func(t *testing.T) {
		v, err := stuck(t, func() { pgtest.Exec(t, there, "TRUNCATE by_uuid; INSERT INTO by_uuid VALUES (md5('1')::uuid)") })
		if err != nil {
			t.Fatal(err)
		}
		v.requireEqual(t)
		if rows := v.result.GetRows(); rows != 1 {
			t.Errorf("%d rows", rows)
		}
	})
	t.Run("nothing is left open", func(t *testing.T) {
		list, err := inventory.ListSnapshots(t.Context(), &inventoryv1.ListSnapshotsRequest{})
		if err != nil || len(list.GetSnapshots()) != 0 {
			t.Error(list, err)
		}
		pgtest.Eventually(t, 20*time.Second, func() error {
			if n := pgtest.QueryRow[int](t, here, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'syncline verify%'"); n != 0 {
				return fmt.Errorf("%d sessions are left on the replica", n)
			}
			return nil
		})
	})

	t.Run("tables and columns missing", func(t *testing.T) {
		replica.waitApplied("shop", time.Minute)
		pgtest.Exec(t, here, "DROP TABLE empty; ALTER TABLE by_text DROP COLUMN note")
		pgtest.Exec(t, there, "DROP TABLE only_key")
		v := replica.mustVerify("shop")
		for name, want := range map[string]applierv1.TableOutcome{
			"public.empty": applierv1.TableOutcome_TABLE_OUTCOME_MISSING, "public.only_key": applierv1.TableOutcome_TABLE_OUTCOME_MISSING,
			"public.by_text": applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED, "public.composite": applierv1.TableOutcome_TABLE_OUTCOME_EQUAL,
		} {
			if got := v.tables[name]; got.GetOutcome() != want || want != applierv1.TableOutcome_TABLE_OUTCOME_EQUAL && got.GetReason() == "" {
				t.Errorf("%s: %v", name, got)
			}
		}
		if v.result.GetEqual() || v.result.GetTablesDifferent() != 2 || v.result.GetTablesNotCompared() != 1 {
			t.Errorf("result %v", v.result)
		}
	})

	t.Run("command", func(t *testing.T) {
		out, errOut, code := run(t, "verify", "shop", "--table", "public.composite", "--addr", replica.grpc)
		if code != 0 || !strings.HasPrefix(out, "equal: 25,000 rows in 1 tables") {
			t.Errorf("exit code %d, %q, %q", code, out, errOut)
		}
		pgtest.Exec(t, here, "DELETE FROM composite WHERE a = 2")
		out, errOut, code = run(t, "verify", "shop", "--table", "public.composite", "--addr", replica.grpc)
		if code != 1 || !strings.Contains(out, "public.composite: missing a=2, b=k2\n") || !strings.Contains(errOut, "1 tables differ") {
			t.Errorf("exit code %d, %q, %q", code, out, errOut)
		}
	})

	t.Run("not following", func(t *testing.T) {
		if _, err := replica.applier().StopReplication(t.Context(), &applierv1.StopReplicationRequest{Name: "shop"}); err != nil {
			t.Fatal(err)
		}
		_, err := replica.verify(t.Context(), "shop")
		requireReason(t, err, codes.FailedPrecondition, "REPLICATION_NOT_RUNNING")
		primary.kill9()
		_, err = replica.verify(t.Context(), "shop")
		requireReason(t, err, codes.Unavailable, "SOURCE_UNREACHABLE")
	})
}

// withoutDashes lets uuids be written as md5 prints them.
func withoutDashes(lines []string) []string {
	out := slices.Clone(lines)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "-", "")
	}
	return out
}

func requireReason(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	if rpc.Code(err) != code || rpc.Reason(err) != reason {
		t.Fatalf("got %v %s (%v), want %v %s", rpc.Code(err), rpc.Reason(err), err, code, reason)
	}
}
