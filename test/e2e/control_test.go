package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
)

// controlled is a replication that users change their minds about.
type controlled struct {
	t                    *testing.T
	sourceURL, targetURL string
	conn, target         *pgx.Conn
	primary, replica     *node
}

const controlTables = `CREATE TABLE a (id bigint PRIMARY KEY, note text); CREATE TABLE b (id bigint PRIMARY KEY, note text);
	CREATE TABLE c (id bigint PRIMARY KEY, note text); CREATE TABLE wide (id bigint PRIMARY KEY, body text);
	INSERT INTO a SELECT n, 'a' FROM generate_series(1, 300) n; INSERT INTO b SELECT n, 'b' FROM generate_series(1, 300) n;
	INSERT INTO c SELECT n, 'c' FROM generate_series(1, 300) n`

func (s *servers) controlled(t *testing.T) *controlled {
	t.Helper()
	c := &controlled{t: t, sourceURL: s.source.Database(t), targetURL: s.target.Database(t)}
	c.conn, c.target = pgtest.Connect(t, c.sourceURL), pgtest.Connect(t, c.targetURL)
	pgtest.Exec(t, c.conn, controlTables)
	c.primary = startPrimary(t, c.sourceURL, "--slot", c.slot("one"))
	c.replica = startReplica(t, c.targetURL, "--retry-max", "500ms")
	return c
}

// slot is a name that no other test on the same server has.
func (c *controlled) slot(name string) string {
	c.t.Helper()
	return "syncline_" + name + "_" + pgtest.QueryRow[string](c.t, c.conn, "SELECT oid::text FROM pg_database WHERE datname = current_database()")
}

// TestControl has users change, move and copy anew what runs.
func TestControl(t *testing.T) {
	t.Parallel()
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	for name, run := range map[string]func(*controlled){
		"update": (*controlled).updated, "tables": (*controlled).selectedAnew, "gap": (*controlled).gap, "killed": (*controlled).killed,
		"from": (*controlled).moved, "source": (*controlled).failedOver, "log": (*controlled).logged,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(s.controlled(t))
		})
	}
}

func (c *controlled) create(edit ...func(*applierv1.ReplicationSpec)) {
	c.t.Helper()
	c.replica.mustCreate("shop", c.primary.grpc, edit...)
	c.running()
}

func (c *controlled) running() *applierv1.Replication {
	c.t.Helper()
	return c.replica.waitState("shop", patience, applierv1.State_STATE_RUNNING)
}

func (c *controlled) get() *applierv1.Replication {
	c.t.Helper()
	r, err := c.replica.get("shop")
	if err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	return r
}

// equal waits until the replica has everything, and compares all rows.
func (c *controlled) equal(except ...string) {
	c.t.Helper()
	c.replica.waitApplied("shop", patience)
	pgtest.RequireEqualWith(c.t, c.sourceURL, c.targetURL, pgtest.CompareOptions{Except: except})
}

// failed waits until it has failed for a reason.
func (c *controlled) failed(code string) *applierv1.Replication {
	c.t.Helper()
	var last *applierv1.Replication
	pgtest.Eventually(c.t, patience, func() error {
		last = c.get()
		if last.GetState() != applierv1.State_STATE_FAILED || last.GetReasonCode() != code {
			return fmt.Errorf("it is %s: %s %s", last.GetState(), last.GetReasonCode(), last.GetReason())
		}
		return nil
	})
	return last
}

func (c *controlled) update(edit func(*applierv1.UpdateReplicationRequest), paths ...string) (*applierv1.UpdateReplicationResponse, error) {
	request := &applierv1.UpdateReplicationRequest{Name: "shop", Spec: &applierv1.ReplicationSpec{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
	edit(request)
	return c.replica.applier().UpdateReplication(c.t.Context(), request)
}

func (c *controlled) mustUpdate(edit func(*applierv1.UpdateReplicationRequest), paths ...string) *applierv1.UpdateReplicationResponse {
	c.t.Helper()
	answer, err := c.update(edit, paths...)
	if err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	return answer
}

func (c *controlled) refused(err error, code codes.Code, reason string, words ...string) {
	c.t.Helper()
	text := rpc.Message(err)
	if rpc.Code(err) != code || rpc.Reason(err) != reason {
		c.t.Fatalf("expected %s %s, got %s %s: %s", code, reason, rpc.Code(err), rpc.Reason(err), text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			c.t.Errorf("%q lacks %q", text, word)
		}
	}
}

func (c *controlled) stop() {
	c.t.Helper()
	if _, err := c.replica.applier().StopReplication(c.t.Context(), &applierv1.StopReplicationRequest{Name: "shop"}); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
}

func (c *controlled) start(from *changev1.Position, force bool) error {
	_, err := c.replica.applier().StartReplication(c.t.Context(), &applierv1.StartReplicationRequest{Name: "shop", From: from, Force: force})
	return err
}

// waitTable waits until the logger captures a new table of the schema public.
func (n *node) waitTable(table string) {
	n.t.Helper()
	pgtest.Eventually(n.t, patience, func() error {
		state, err := n.logger().GetState(n.t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && !slices.Contains(state.GetTables(), `"public"."`+table+`"`) {
			err = fmt.Errorf("table %s is not captured yet", table)
		}
		return err
	})
}

func (c *controlled) resync() {
	c.t.Helper()
	if _, err := c.replica.applier().ResyncReplication(c.t.Context(), &applierv1.ResyncReplicationRequest{Name: "shop"}); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
}

// purge stops the replica, has the primary write, and has its change log forget what the replica lacks.
func (c *controlled) purge() {
	c.t.Helper()
	position := c.get().GetPosition().GetLsn()
	c.replica.kill9()
	for i := range 10 {
		pgtest.Exec(c.t, c.conn, `INSERT INTO wide SELECT $1, string_agg(md5(random()::text || n), '') FROM generate_series(1, 32000) n
			ON CONFLICT (id) DO UPDATE SET body = excluded.body`, i)
	}
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'missed'; DELETE FROM b WHERE id <= 100; INSERT INTO c SELECT n, 'missed' FROM generate_series(1000, 1010) n ON CONFLICT DO NOTHING")
	c.primary.kill9()
	c.primary.start("SYNCLINE_LOG_MAX_BYTES=3000000")
	pgtest.Eventually(c.t, patience, func() error {
		ranges, err := c.primary.logger().GetRanges(c.t.Context(), &loggerv1.GetRangesRequest{})
		if err == nil && ranges.GetFirstLsn() <= position {
			err = fmt.Errorf("the log begins at %d, the replica is at %d", ranges.GetFirstLsn(), position)
		}
		return err
	})
}

// updated changes options while the replication runs.
func (c *controlled) updated() {
	would, err := c.replica.applier().CreateReplication(c.t.Context(), &applierv1.CreateReplicationRequest{Name: "shop", ValidateOnly: true, Spec: &applierv1.ReplicationSpec{Source: c.primary.grpc}})
	if err != nil || len(would.GetPlan().GetTables()) != 4 || would.GetPlan().GetTables()[0].GetAction() != applierv1.TableAction_TABLE_ACTION_CREATE {
		c.t.Fatalf("it would be %v, %s", would, rpc.Message(err))
	}
	if _, err := c.replica.get("shop"); rpc.Code(err) != codes.NotFound || pgtest.QueryRow[*string](c.t, c.target, "SELECT to_regclass('public.a')::text") != nil {
		c.t.Fatalf("validate_only left something behind: %v", err)
	}
	c.create()
	before, process := c.get(), c.replica.pid()
	_, err = c.update(func(in *applierv1.UpdateReplicationRequest) {
		in.Spec = &applierv1.ReplicationSpec{CopyWorkers: 65, RetryCap: durationpb.New(time.Millisecond), GroupBytes: 5, Description: "a\nb", AutoResyncLimit: 1000, SourceTimeout: durationpb.New(0)}
	}, "copy_workers", "retry_cap", "group_bytes", "description", "auto_resync_limit", "source_timeout")
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "copy_workers", "retry_cap", "group_bytes", "description", "auto_resync_limit", "source_timeout")
	if fields := rpc.Fields(err); len(fields) != 6 {
		c.t.Errorf("%d fields are named: %v", len(fields), fields)
	}
	_, err = c.update(func(*applierv1.UpdateReplicationRequest) {}, "colour")
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "update_mask", "colour")
	_, err = c.update(func(in *applierv1.UpdateReplicationRequest) { in.Spec.CopyWorkers = 2 })
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "update_mask")
	_, err = c.update(func(in *applierv1.UpdateReplicationRequest) { in.Spec.CopyWorkers = 2 }, "description")
	c.refused(err, codes.InvalidArgument, "INVALID_FIELD", "spec.copy_workers")

	many := func(in *applierv1.UpdateReplicationRequest) {
		in.Etag = before.GetEtag()
		in.Spec = &applierv1.ReplicationSpec{
			CopyWorkers: 2, Compression: applierv1.Compression_COMPRESSION_ZSTD, GroupTime: durationpb.New(50 * time.Millisecond), Description: "for the reports",
			RetryBase: durationpb.New(20 * time.Millisecond),
		}
	}
	fields := []string{"copy_workers", "compression", "group_time", "description", "retry_base"}
	dry := c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { many(in); in.ValidateOnly = true }, fields...)
	if !dry.GetPlan().GetRestarts() || len(dry.GetPlan().GetChangedFields()) != 5 || c.get().GetEtag() != before.GetEtag() {
		c.t.Errorf("a dry run did %v", dry)
	}
	c.mustUpdate(many, fields...)
	_, err = c.update(many, fields...)
	c.refused(err, codes.Aborted, "ETAG_MISMATCH")
	_, err = c.replica.applier().DeleteReplication(c.t.Context(), &applierv1.DeleteReplicationRequest{Name: "shop", Etag: before.GetEtag()})
	c.refused(err, codes.Aborted, "ETAG_MISMATCH")
	c.running()
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'changed'")
	c.equal()
	after := c.get()
	if after.GetEtag() == before.GetEtag() || after.GetSpec().GetDescription() != "for the reports" || after.GetCopiedRows() != before.GetCopiedRows() || c.replica.pid() != process {
		c.t.Errorf("after the update: %v", after)
	}

	// What a running replication reads whenever it needs it does not interrupt it.
	quiet := c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { in.Spec.RetryLimit = 3 }, "retry_limit")
	if quiet.GetPlan().GetRestarts() || quiet.GetReplication().GetState() != applierv1.State_STATE_RUNNING {
		c.t.Errorf("got %v", quiet)
	}
	// Totals survive a kill.
	c.stop()
	want := c.get()
	c.replica.kill9()
	c.replica.start()
	c.replica.waitHealthy(patience)
	got := c.get()
	if got.GetTransactions() != want.GetTransactions() || got.GetTransactions() == 0 || got.GetChanges() != want.GetChanges() || got.GetChanges() != 300 || got.GetCopiedRows() != want.GetCopiedRows() ||
		!proto.Equal(got.GetPosition(), want.GetPosition()) || got.GetEtag() != want.GetEtag() {
		c.t.Errorf("before the kill: %v, after it: %v", want, got)
	}
	// With a limit a fault that passes fails for good.
	c.primary.kill9()
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	if r := c.failed("SOURCE_UNREACHABLE"); !strings.Contains(r.GetReason(), "4 times in a row") || r.GetErrorCount() != 4 || r.GetRecentFaults()[0].GetSide() != applierv1.FaultSide_FAULT_SIDE_REMOTE {
		c.t.Errorf("failed with %v", r)
	}
}

// selectedAnew adds and removes tables while they are written to.
func (c *controlled) selectedAnew() {
	c.create(include("public.a", "public.b"))
	// A table that nobody writes to is copied, too.
	pgtest.Exec(c.t, c.conn, "CREATE TABLE quiet (id bigint PRIMARY KEY); INSERT INTO quiet VALUES (1); CREATE TABLE other (id bigint PRIMARY KEY); UPDATE a SET note = 'so that it is captured'")
	c.primary.waitTable("quiet")
	c.replica.waitApplied("shop", patience) // with the announcement that it is captured, which it heard in vain
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) {
		in.Spec.IncludeTables = []string{"public.a", "public.b", "public.quiet"}
	}, "include_tables")
	c.equal("public.c", "public.wide", "public.other")
	pgtest.Exec(c.t, c.conn, "UPDATE c SET note = 'before it is added'; DELETE FROM c WHERE id = 7")
	copied := c.get().GetCopiedRows()
	answer := c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) {
		in.Spec.IncludeTables = []string{"public.a", "public.c", "public.quiet", "public.wide"}
	}, "include_tables")
	var plan []string
	for _, one := range answer.GetPlan().GetTables() {
		plan = append(plan, one.GetName()+" "+strings.TrimPrefix(one.GetAction().String(), "TABLE_ACTION_"))
	}
	if slices.Sort(plan); !slices.Equal(plan, []string{"b REMOVE", "c CREATE", "wide CREATE"}) {
		c.t.Errorf("planned %v", plan)
	}
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'x'; UPDATE b SET note = 'not applied'; UPDATE c SET note = 'x' WHERE id > 100")
	c.running()
	c.equal("public.b", "public.other")
	if n := pgtest.QueryRow[int](c.t, c.target, "SELECT count(*) FROM b WHERE note = 'b'"); n != 300 {
		c.t.Errorf("%d rows of the removed table are as they were", n)
	}
	if got := c.get(); got.GetCopiedRows() != copied+299 || len(got.GetTables()) != 4 {
		c.t.Errorf("%d rows are copied, %d before; tables %v", got.GetCopiedRows(), copied, got.GetTables())
	}
	all := func(in *applierv1.UpdateReplicationRequest) { in.Spec.IncludeTables = nil }
	_, err := c.update(all, "include_tables")
	c.refused(err, codes.FailedPrecondition, "TABLE_NOT_EMPTY", "public.b", "--replace")
	c.running()
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { all(in); in.Spec.Replace = true }, "include_tables", "replace")
	pgtest.Exec(c.t, c.conn, "UPDATE b SET note = 'y' WHERE id < 50")
	c.equal()
	_, err = c.update(func(in *applierv1.UpdateReplicationRequest) { in.Spec.IncludeTables = []string{"public.none"} }, "include_tables")
	c.refused(err, codes.NotFound, "TABLE_NOT_FOUND", "public.none")
}

// gap has the change log forget what the replica lacks.
func (c *controlled) gap() {
	c.create()
	want := c.get()
	c.purge()
	c.replica.start()
	if r := c.failed("POSITION_TOO_OLD"); !strings.Contains(r.GetReason(), "replication resync shop") {
		c.t.Errorf("no way out: %s", r.GetReason())
	}
	pgtest.Exec(c.t, c.conn, "CREATE TABLE d (id bigint PRIMARY KEY); INSERT INTO d VALUES (1); DROP TABLE c")
	c.primary.waitTable("d")
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) {
		in.Spec.AutoResync, in.Spec.AutoResyncLimit = applierv1.AutoResync_AUTO_RESYNC_COPY, 1
	}, "auto_resync", "auto_resync_limit")
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'while it is copied' WHERE id % 2 = 0")
	c.running()
	pgtest.Exec(c.t, c.target, "DROP TABLE c")
	c.equal()
	r := c.get()
	if r.GetAutoResyncs() != 1 || r.GetTransactions() < want.GetTransactions() || r.GetCopiedRows() <= want.GetCopiedRows() {
		c.t.Errorf("before %v, after %v", want, r)
	}
	// Then the change log is lost.
	c.primary.kill9()
	entries, err := os.ReadDir(c.primary.args[8])
	if err != nil || len(entries) == 0 {
		c.t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(c.primary.args[8], entry.Name())); err != nil {
			c.t.Fatal(err)
		}
	}
	pgtest.Exec(c.t, c.conn, "UPDATE a SET note = 'lost'")
	c.primary.start()
	if r := c.failed("LOG_ID_MISMATCH"); !strings.Contains(r.GetReason(), "1 times in a row") {
		c.t.Errorf("it failed with %s", r.GetReason())
	}
	pgtest.Exec(c.t, c.target, "DROP TABLE a")
	c.resync()
	c.equal()
	// A gap is closed by mending, too: what is equal is not touched.
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) {
		in.Spec.AutoResync, in.Spec.AutoResyncLimit = applierv1.AutoResync_AUTO_RESYNC_INCREMENTAL, 2
	}, "auto_resync", "auto_resync_limit")
	pgtest.Exec(c.t, c.conn, "CREATE TABLE c (id bigint PRIMARY KEY, note text); INSERT INTO c VALUES (1, 'new')")
	c.primary.waitTable("c")
	c.equal()
	touched := pgtest.QueryRow[string](c.t, c.target, "SELECT max(xmin::text::bigint)::text FROM b")
	c.purge()
	pgtest.Exec(c.t, c.conn, "UPDATE b SET note = 'in the gap' WHERE id BETWEEN 200 AND 209; DELETE FROM a WHERE id <= 5")
	c.replica.start()
	pgtest.Eventually(c.t, patience, func() error {
		if n := c.get().GetAutoResyncs(); n != 2 {
			return fmt.Errorf("%d resyncs", n)
		}
		return nil
	})
	c.running()
	c.equal()
	if n := pgtest.QueryRow[int](c.t, c.target, "SELECT count(*) FROM b WHERE xmin::text::bigint > $1::bigint", touched); n != 10 {
		c.t.Errorf("%d rows were written, of which 10 differed", n)
	}
	if r := c.get(); r.GetAutoResyncs() != 2 {
		c.t.Errorf("a copy by hand counts: %d", r.GetAutoResyncs())
	}
}

// killed has the process die at each step of an update and of a copy of everything.
func (c *controlled) killed() {
	c.create(include("public.a", "public.b"))
	log := filepath.Join(c.t.TempDir(), "faults")
	dies := func(point string, call func() error) {
		c.t.Helper()
		c.replica.kill9()
		c.replica.start(faultEnv(point, 1, log)...)
		c.replica.waitHealthy(patience)
		err := call()
		pgtest.Eventually(c.t, patience, func() error {
			if !c.replica.exited() {
				return fmt.Errorf("it has not died at %s; the call said: %w", point, err)
			}
			return nil
		})
		if faultsHit(c.t, log)[point] == 0 {
			c.t.Fatalf("it did not die at %s", point)
		}
		pgtest.Exec(c.t, c.conn, "UPDATE a SET note = $1; UPDATE c SET note = $1", pgx.QueryExecModeSimpleProtocol, point)
	}
	lives := func() {
		c.t.Helper()
		c.replica.start()
		c.running()
	}
	tables := func(names ...string) func() error {
		return func() error {
			_, err := c.update(func(in *applierv1.UpdateReplicationRequest) {
				in.Spec.IncludeTables, in.Spec.Replace = names, true
			}, "include_tables", "replace")
			return err
		}
	}
	dies(applier.FaultUpdated, tables("public.a", "public.c"))
	lives()
	c.equal("public.b", "public.wide")
	for _, point := range []string{"copy/prepared", "copy/positioned"} {
		if err := tables("public.a")(); err != nil {
			c.t.Fatal(rpc.Message(err))
		}
		c.running()
		dies(point, tables("public.a", "public.c"))
		lives()
		c.equal("public.b", "public.wide")
	}
	again := func() error {
		_, err := c.replica.applier().ResyncReplication(c.t.Context(), &applierv1.ResyncReplicationRequest{Name: "shop"})
		return err
	}
	for _, point := range []string{applier.FaultResyncAsked, "copy/prepared", "copy/table-begun", "copy/positioned"} {
		dies(point, again)
		lives()
		c.equal("public.b", "public.wide")
	}
}

// controlFaultPoints are those of users' decisions; TestFaultTable says that there are no others.
var controlFaultPoints = []faultPoint{
	{name: applier.FaultUpdated, process: "applier", counts: []int{1}},
	{name: applier.FaultResyncAsked, process: "applier", counts: []int{1}},
	{name: applier.FaultForced, process: "applier", counts: []int{1}},
}
