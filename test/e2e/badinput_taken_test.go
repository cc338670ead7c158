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

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// takenMeanwhile creates replications of the same tables at the same moment: one writes them. It also has a table appear that
// two replications select: the first one takes it, the other one says so and goes on.
func (s *servers) takenMeanwhile(t *testing.T) {
	sourceURL, targetURL := s.source.Database(t), s.target.Database(t)
	conn := pgtest.Connect(t, sourceURL)
	pgtest.Exec(t, conn, shop)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL, "--retry-max", "1s")
	captured := func(table string) {
		t.Helper()
		pgtest.Eventually(t, time.Minute, func() error {
			state, err := primary.logger().GetState(t.Context(), &loggerv1.GetStateRequest{})
			if err == nil && !slices.Contains(state.GetTables(), `"public"."`+table+`"`) {
				err = errors.New("the new table is not captured yet")
			}
			return err
		})
	}
	sets := [][]string{{"public.*"}, {"public.items", "sales.*"}, {"public.i*"}, {"public.items"}}
	errs := make(chan error, len(sets))
	for n, set := range sets {
		go func() {
			_, err := replica.create(fmt.Sprintf("set-%d", n), primary.grpc, include(set...), replace)
			errs <- err
		}()
	}
	for range sets {
		if err := <-errs; err != nil && rpc.Reason(err) != "REPLICATION_EXISTS" {
			t.Errorf("%s", rpc.Message(err))
		}
	}
	var writes []string
	pgtest.Eventually(t, time.Minute, func() error {
		writes = nil
		for n := range sets {
			r, err := replica.get(fmt.Sprintf("set-%d", n))
			switch {
			case rpc.Code(err) == codes.NotFound:
			case err != nil:
				return err
			case r.GetState() == applierv1.State_STATE_RUNNING:
				writes = append(writes, r.GetName())
			case r.GetState() != applierv1.State_STATE_FAILED || r.GetReasonCode() != "REPLICATION_EXISTS":
				return fmt.Errorf("%s is %s: %s %s", r.GetName(), r.GetState(), r.GetReasonCode(), r.GetReason())
			}
		}
		return nil
	})
	if len(writes) != 1 {
		t.Fatalf("%v write table items", writes)
	}
	t.Logf("%s won", writes[0])
	pgtest.Exec(t, conn, "UPDATE items SET price = 1")
	replica.waitApplied(writes[0], time.Minute)
	equal := func() {
		t.Helper()
		pgtest.RequireEqualWith(t, sourceURL, targetURL, pgtest.CompareOptions{Except: []string{"sales.orders"}})
	}
	if writes[0] == "set-1" {
		pgtest.RequireEqual(t, sourceURL, targetURL)
	} else {
		equal()
	}
	for n := range sets {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := replica.applier().DeleteReplication(ctx, &applierv1.DeleteReplicationRequest{Name: fmt.Sprintf("set-%d", n)})
		cancel()
		if err != nil && rpc.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	if list, err := primary.logger().ListFollowers(t.Context(), &loggerv1.ListFollowersRequest{}); err != nil || len(list.GetFollowers()) != 0 {
		t.Errorf("followers of deleted replications: %v, %v", list, err)
	}
	pgtest.Exec(t, conn, "TRUNCATE sales.orders; CREATE TABLE label_a (id int PRIMARY KEY); CREATE TABLE label_b (id int PRIMARY KEY)")
	captured("label_b")
	without := func(table string) editSpec {
		return func(s *applierv1.ReplicationSpec) { s.ExcludeTables = []string{table} }
	}
	replica.mustCreate("first", primary.grpc, include("public.*"), without("public.label_b"), replace)
	replica.waitApplied("first", time.Minute)
	replica.mustCreate("second", primary.grpc, include("sales.*", "public.label_*"), without("public.label_a"), replace)
	replica.waitApplied("second", time.Minute)
	pgtest.Exec(t, conn, "CREATE TABLE label_c (id int PRIMARY KEY, v text)")
	captured("label_c")
	pgtest.Exec(t, conn, "INSERT INTO label_c SELECT n FROM generate_series(1, 100) n; INSERT INTO sales.orders VALUES (1, 50)")
	for range 2 { // also for replications that are started anew
		pgtest.Exec(t, conn, "UPDATE label_c SET v = coalesce(v, '') || 'x'; UPDATE sales.orders SET note = coalesce(note, '') || 'x'")
		for _, name := range []string{"first", "second"} {
			replica.waitApplied(name, time.Minute)
		}
		pgtest.RequireEqual(t, sourceURL, targetURL)
		replica.kill9()
		replica.start()
		replica.waitHealthy(time.Minute)
	}
	carriers := func() (left, warned int) {
		for _, name := range []string{"first", "second"} {
			r, err := replica.get(name)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.GetTables(), func(p *applierv1.TableProgress) bool { return p.GetName() == "label_c" }) {
				left++
			}
			if strings.Contains(strings.Join(r.GetWarnings(), "\n"), "table public.label_c is left out: replication") {
				warned++
			}
		}
		return left, warned
	}
	pgtest.Exec(t, conn, "UPDATE label_c SET v = 'last'") // says again who leaves it out
	for _, name := range []string{"first", "second"} {
		replica.waitApplied(name, time.Minute)
	}
	if left, warned := carriers(); left != 1 || warned != 1 {
		t.Errorf("%d of 2 replications leave the table out, %d say so", left, warned)
	}
	pgtest.RequireEqual(t, sourceURL, targetURL)
}
