package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// parted is a primary with a partitioned table, and two replicas of it: of the partitioned table, and of the whole database.
type parted struct {
	t       testing.TB
	admin   *pgx.Conn
	url     string
	primary *node
	nodes   [2]*node
	conns   [2]*pgx.Conn
}

func startParted(t testing.TB, options ...pgtest.Option) *parted {
	t.Helper()
	source, target := newSource(t, append(options, pgtest.WithFsync(false))...), newTarget(t, pgtest.WithFsync(false))
	p := &parted{t: t, url: source.Database(t)}
	p.admin = pgtest.Connect(t, p.url)
	pgtest.Exec(t, p.admin, `CREATE TABLE days (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); INSERT INTO days VALUES (1, '2026-01-05')`)
	p.primary = startPrimary(t, p.url)
	for i, tables := range [][]string{{"public.days"}, nil} {
		url := target.Database(t)
		p.nodes[i], p.conns[i] = startReplica(t, url), pgtest.Connect(t, url)
		p.nodes[i].mustCreate("days", p.primary.grpc, func(spec *applierv1.ReplicationSpec) { spec.IncludeTables = tables })
	}
	for _, replica := range p.nodes {
		replica.waitState("days", time.Minute, applierv1.State_STATE_RUNNING)
	}
	return p
}

// everywhere carries statements out on the replicas.
func (p *parted) everywhere(sql string) {
	p.t.Helper()
	for _, conn := range p.conns {
		pgtest.Exec(p.t, conn, sql)
	}
}

// waitEqual waits until both replicas hold the source's rows of a table.
func (p *parted) waitEqual(table string) {
	p.t.Helper()
	for i, conn := range p.conns {
		pgtest.Eventually(p.t, time.Minute, func() error {
			if want, got := digest(p.t, p.admin, table, ""), digest(p.t, conn, table, ""); want != got {
				return fmt.Errorf("replica %d of %s holds %s, the source %s", i, table, got, want)
			}
			return nil
		})
	}
}

// TestPartitionIsNotVisibleYet makes a partition with rows, in a transaction whose commit is decoded long before other sessions see it: it
// waits for a synchronous standby. Whoever looks for the partition in the catalog meanwhile does not find it.
func TestPartitionIsNotVisibleYet(t *testing.T) {
	t.Parallel()
	// Only the session that asks for it waits for the standby.
	p := startParted(t, pgtest.WithSetting("synchronous_standby_names", "nobody"), pgtest.WithSetting("synchronous_commit", "local"))
	const made = "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
	p.everywhere(made)
	committing := pgtest.Connect(t, p.url)
	pgtest.Exec(t, committing, "SET synchronous_commit = on")
	release := func(ctx context.Context, conn *pgx.Conn) error {
		for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	}
	t.Cleanup(func() { // else the end of the test waits for that standby
		conn, err := pgx.Connect(context.Background(), p.url)
		if err == nil {
			err = release(context.Background(), conn)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	committed := make(chan error, 1)
	go func() {
		_, err := committing.Exec(context.Background(), "BEGIN; "+made+"; INSERT INTO days VALUES (2, '2026-02-05'); COMMIT")
		committed <- err
	}()
	// The logger decides for the one replica whether the partition belongs to it, the inventory describes it for the other.
	for _, application := range []string{"syncline logger service", "syncline inventory"} {
		pgtest.Eventually(t, time.Minute, func() error {
			var looking bool
			err := p.admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%pg_locks%transactionid%')`, application).Scan(&looking)
			if err == nil && !looking {
				err = fmt.Errorf("%s does not wait for the transaction", application)
			}
			return err
		})
	}
	if n := pgtest.QueryRow[int](t, p.admin, "SELECT count(*) FROM pg_class WHERE relname = 'days_2'"); n != 0 {
		t.Fatal("the partition is visible already: the test does not make the case that it is for")
	}
	if err := release(t.Context(), p.admin); err != nil {
		t.Fatal(err)
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	p.waitEqual("days")
	for _, replica := range p.nodes {
		replica.waitApplied("days", time.Minute)
		replica.mustVerify("days").requireEqual(t)
	}
}

// TestPartitionMadeTwice makes a partition that is gone again before the replicas get to it, and then another of the same name.
func TestPartitionMadeTwice(t *testing.T) {
	t.Parallel()
	p := startParted(t)
	each := func(do func(applierv1.ApplierServiceClient) error) {
		t.Helper()
		for _, replica := range p.nodes {
			if err := do(replica.applier()); err != nil {
				t.Fatal(rpc.Message(err))
			}
		}
	}
	each(func(client applierv1.ApplierServiceClient) error {
		_, err := client.StopReplication(t.Context(), &applierv1.StopReplicationRequest{Name: "days"})
		return err
	})
	const made = "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
	pgtest.Exec(t, p.admin, made+"; INSERT INTO days VALUES (2, '2026-02-05')")
	pgtest.Exec(t, p.admin, "DROP TABLE days_2")
	each(func(client applierv1.ApplierServiceClient) error {
		_, err := client.StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "days"})
		return err
	})
	for _, replica := range p.nodes {
		replica.waitApplied("days", time.Minute)
	}
	p.everywhere(made)
	pgtest.Exec(t, p.admin, made+"; INSERT INTO days VALUES (3, '2026-02-06')")
	p.waitEqual("days")
}

// TestAttachPartition attaches a table that was captured before, and of which one of the replicas has no copy.
func TestAttachPartition(t *testing.T) {
	t.Parallel()
	p := startParted(t)
	pgtest.Exec(t, p.admin, "CREATE TABLE loose (id int, day date, PRIMARY KEY (id, day)); INSERT INTO loose VALUES (10, '2026-02-01')")
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := p.primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && !strings.Contains(strings.Join(state.GetTables(), " "), `"loose"`) {
			err = fmt.Errorf("captured are %q", state.GetTables())
		}
		return err
	})
	pgtest.Exec(t, p.admin, "INSERT INTO loose VALUES (11, '2026-02-02')")
	for _, replica := range p.nodes {
		replica.waitApplied("days", time.Minute)
	}
	const bounds = "FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
	pgtest.Exec(t, p.conns[0], "CREATE TABLE loose PARTITION OF days "+bounds)
	pgtest.Exec(t, p.conns[1], "ALTER TABLE days ATTACH PARTITION loose "+bounds)
	pgtest.Exec(t, p.admin, "ALTER TABLE days ATTACH PARTITION loose "+bounds)
	pgtest.Exec(t, p.admin, "INSERT INTO days VALUES (12, '2026-02-03'); UPDATE loose SET id = 13 WHERE id = 10")
	p.waitEqual("days")
	pgtest.Exec(t, p.admin, "INSERT INTO days VALUES (14, '2026-02-04'); DELETE FROM loose WHERE id = 11")
	p.waitEqual("days")
	for _, replica := range p.nodes {
		replica.waitApplied("days", time.Minute)
		replica.mustVerify("days").requireEqual(t)
		r, err := replica.get("days")
		if err != nil {
			t.Fatal(err)
		}
		if w := strings.Join(r.GetWarnings(), "; "); strings.Contains(w, "loose") {
			t.Errorf("warnings: %s", w)
		}
	}
}

// TestTablesMadeBeforeTheSnapshot makes a partition and a table, with rows, between the plan of a first copy and its snapshot, and never touches
// them again.
func TestTablesMadeBeforeTheSnapshot(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL := source.Database(t)
	admin := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, admin, `CREATE TABLE days (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); INSERT INTO days VALUES (1, '2026-01-05'); CREATE TABLE busy (id int PRIMARY KEY); CREATE TABLE made_before (id int PRIMARY KEY)`)
	primary := startPrimary(t, sourceURL)
	primary.waitCapturing(time.Minute)
	writer := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, writer, "BEGIN; INSERT INTO busy VALUES (1)")
	var urls []string
	var replicas []*node
	for _, tables := range [][]string{nil, {"public.days", "public.made*"}} {
		url := target.Database(t)
		replica := startReplica(t, url)
		replica.mustCreate("all", primary.grpc, func(spec *applierv1.ReplicationSpec) { spec.IncludeTables = tables })
		pgtest.Eventually(t, time.Minute, func() error {
			r, err := replica.get("all")
			if err == nil && r.GetSync().GetPhase() != "waiting for a snapshot" {
				err = fmt.Errorf("the copy is %q", r.GetSync().GetPhase())
			}
			return err
		})
		urls, replicas = append(urls, url), append(replicas, replica)
	}
	const second = "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
	pgtest.Exec(t, admin, second+"; INSERT INTO days VALUES (2, '2026-02-05'); CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1), (2)")
	pgtest.Eventually(t, time.Minute, func() error {
		state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
		if err == nil && !strings.Contains(strings.Join(state.GetTables(), " "), `"made"`) {
			err = fmt.Errorf("captured are %q", state.GetTables())
		}
		return err
	})
	pgtest.Exec(t, writer, "COMMIT")
	for i, replica := range replicas {
		// A partition that the replica lacks is asked for, as one that is made later.
		if r := replica.waitState("all", time.Minute, applierv1.State_STATE_FAILED); !strings.Contains(r.GetReason(), "public.days_2") || r.GetReasonCode() != "MISSING_OBJECT" {
			t.Fatalf("%s %s", r.GetReasonCode(), r.GetReason())
		}
		conn := pgtest.Connect(t, urls[i])
		pgtest.Exec(t, conn, second)
		if _, err := replica.applier().StartReplication(t.Context(), &applierv1.StartReplicationRequest{Name: "all"}); err != nil {
			t.Fatal(rpc.Message(err))
		}
		pgtest.Eventually(t, 30*time.Second, func() error {
			for _, table := range []string{"days", "made"} {
				var there bool
				if err := conn.QueryRow(t.Context(), "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err != nil || !there {
					return errors.Join(err, fmt.Errorf("replica %d has no table %s", i, table))
				}
				if want, got := digest(t, admin, table, ""), digest(t, conn, table, ""); want != got {
					return fmt.Errorf("replica %d: %s holds %s, the source %s", i, table, got, want)
				}
			}
			return nil
		})
	}
}

// TestAttachLoadedPartition attaches a table that was made and filled in the same transaction, so that nothing of it was ever captured, and
// leaves it alone then.
func TestAttachLoadedPartition(t *testing.T) {
	t.Parallel()
	p := startParted(t)
	p.everywhere("CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
	const load = "BEGIN; CREATE TABLE days_2 (id int NOT NULL, day date NOT NULL); INSERT INTO days_2 SELECT n, '2026-02-05' FROM generate_series(1, 500) n; "
	pgtest.Exec(t, p.admin, load+"ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01'); COMMIT")
	p.waitEqual("days")
	// While the logger is down nobody looks.
	p.primary.kill9()
	p.everywhere("CREATE TABLE days_3 PARTITION OF days FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
	pgtest.Exec(t, p.admin, strings.NewReplacer("days_2", "days_3", "2026-02", "2026-03").Replace(load)+"ALTER TABLE days ATTACH PARTITION days_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); COMMIT")
	p.primary.start()
	p.waitEqual("days")
	for _, replica := range p.nodes {
		replica.waitApplied("days", time.Minute)
		replica.mustVerify("days").requireEqual(t)
	}
}
