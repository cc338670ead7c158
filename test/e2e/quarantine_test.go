package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// quarantineFaultPoints are those of changes that are set aside; TestFaultTable says that there are no others.
var quarantineFaultPoints = []faultPoint{
	{name: apply.FaultSetAside, process: "applier", counts: []int{1, 3}},
	{name: apply.FaultRetryWritten, process: "applier", counts: []int{1}},
	{name: apply.FaultRetryCommitted, process: "applier", counts: []int{1}},
}

func setsAside(s *applierv1.ReplicationSpec) {
	s.OnError, s.QuarantineLimit = applierv1.OnError_ON_ERROR_QUARANTINE, 40
}

// TestQuarantine has a replica refuse rows: the rest goes on, also at another replica and over kills between any two steps, and each change
// that was refused is there once, until it is applied.
func TestQuarantine(t *testing.T) {
	s := &servers{newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))}
	c := s.controlled(t)
	c.create(setsAside)
	otherURL := s.target.Database(t)
	other := startReplica(t, otherURL)
	other.mustCreate("shop", c.primary.grpc)
	other.waitState("shop", patience, applierv1.State_STATE_RUNNING)
	pgtest.Exec(t, c.target, "ALTER TABLE a ADD CONSTRAINT no_poison CHECK (note <> 'poison')")

	log := filepath.Join(t.TempDir(), "faults")
	armed := func(p faultPoint, count int, call func()) {
		t.Helper()
		c.replica.kill9()
		c.replica.start(faultEnv(p.name, count, log)...)
		c.replica.waitHealthy(patience)
		c.running()
		call()
		called := time.Now()
		pgtest.Eventually(t, patience, func() error {
			if !c.replica.exited() {
				if time.Since(called) > 10*time.Second { // it may have been refused, as one that came too early is
					call()
					called = time.Now()
				}
				return fmt.Errorf("it has not died at %s", p.name)
			}
			return nil
		})
		c.replica.start()
		c.running()
		c.replica.waitApplied("shop", patience)
	}
	poison := 0
	write := func() { // three refused changes and two that wait
		poison++
		pgtest.Exec(t, c.conn, fmt.Sprintf(`BEGIN; INSERT INTO a VALUES (%[1]d, 'poison'), (%[1]d + 1, 'good'), (%[1]d + 2, 'poison'), (%[1]d + 3, 'poison');
			UPDATE a SET note = 'waits' WHERE id = %[1]d; DELETE FROM a WHERE id = %[1]d + 2; INSERT INTO b VALUES (%[1]d, 'beside'); COMMIT`, 1000*poison))
	}
	inIt := func(refused, waiting int) {
		t.Helper()
		c.replica.waitApplied("shop", patience)
		r := c.get()
		if r.GetQuarantinedChanges() != int64(refused) || r.GetWaitingChanges() != int64(waiting) {
			t.Fatalf("%d refused and %d waiting are told, expected %d and %d", r.GetQuarantinedChanges(), r.GetWaitingChanges(), refused, waiting)
		}
		if got := pgtest.QueryRow[string](t, c.target, `SELECT format('%s %s %s', count(*), count(DISTINCT (commit_lsn, number)), (SELECT count(DISTINCT entry) FROM syncline.quarantine_values)) FROM syncline.quarantine`); got != fmt.Sprintf("%[1]d %[1]d %[1]d", refused+waiting) {
			t.Fatalf("the quarantine holds %s", got)
		}
	}
	for _, count := range quarantineFaultPoints[0].counts {
		armed(quarantineFaultPoints[0], count, write)
		inIt(3*poison, 2*poison)
	}
	pgtest.RequireEqualWith(t, c.sourceURL, c.targetURL, pgtest.CompareOptions{Except: []string{"public.a"}})
	pgtest.Exec(t, c.target, "ALTER TABLE a DROP CONSTRAINT no_poison")
	retry := func() {
		_, err := c.replica.applier().RetryUnsynced(t.Context(), &applierv1.RetryUnsyncedRequest{Name: "shop", All: true})
		if err == nil {
			t.Error("the retry was answered by a process that was to die")
		}
	}
	armed(quarantineFaultPoints[1], 1, retry)
	inIt(3*poison, 2*poison) // nothing of it stands
	armed(quarantineFaultPoints[2], 1, retry)
	inIt(0, 0)
	c.equal()
	other.waitApplied("shop", patience)
	pgtest.RequireEqualWith(t, c.sourceURL, otherURL, pgtest.CompareOptions{})
	c.byHand(write, &poison)
}

var waits = regexp.MustCompile(`(?m)^syncline_applier_unsynced\{.*reason="waiting",replication="shop"\} 2$`)

// metrics are what the replica tells Prometheus.
func (c *controlled) metrics() string {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+c.replica.http+"/metrics", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// byHand looks at the quarantine as people do.
func (c *controlled) byHand(write func(), poison *int) {
	c.t.Helper()
	pgtest.Exec(c.t, c.target, "ALTER TABLE a ADD CONSTRAINT no_poison CHECK (note <> 'poison') NOT VALID")
	write()
	c.replica.waitApplied("shop", patience)
	addr := []string{"--addr", c.replica.grpc}
	said := func(words []string, args ...string) {
		c.t.Helper()
		out := must(c.t, append(args, addr...)...)
		for _, word := range words {
			if !strings.Contains(out, word) {
				c.t.Errorf("syncline %s lacks %q:\n%s", strings.Join(args, " "), word, out)
			}
		}
	}
	list, err := c.replica.applier().ListUnsynced(c.t.Context(), &applierv1.ListUnsyncedRequest{Name: "shop", Table: "public.a", PageSize: 4})
	if err != nil || len(list.GetChanges()) != 4 || list.GetNextPageToken() == "" {
		c.t.Fatal(list, err)
	}
	rest, err := c.replica.applier().ListUnsynced(c.t.Context(), &applierv1.ListUnsyncedRequest{Name: "shop", Table: "public.a", PageSize: 4, PageToken: list.GetNextPageToken()})
	if err != nil || len(rest.GetChanges()) != 1 || rest.GetNextPageToken() != "" {
		c.t.Fatal(rest, err)
	}
	first, third := list.GetChanges()[0], list.GetChanges()[2]
	if first.GetSqlstate() != "23514" || first.GetConstraint() != "no_poison" || first.GetKey() != fmt.Sprintf("(id=%d)", 1000**poison) || list.GetChanges()[3].GetWaitsBehind() != first.GetId() {
		c.t.Errorf("listed: %v", list)
	}
	id := fmt.Sprint(first.GetId())
	said([]string{"3 refused, 2 waiting", "23514", "waits behind #" + id, "no_poison"}, "replication", "unsynced", "shop")
	said([]string{"5 changes are in quarantine"}, "status")
	if text := c.metrics(); !waits.MatchString(text) {
		c.t.Errorf("the metrics lack what waits:\n%s", text)
	}
	said([]string{"poison", "bigint", "insert"}, "replication", "unsynced", "shop", "--show", id)
	said([]string{"0 changes were applied, 5 are left", "no_poison"}, "replication", "retry", "shop", "--table", "public.a")
	wontRun(c.t, []string{"no column", "colour"}, append([]string{"replication", "retry", "shop", id, "--set", "colour=red"}, addr...)...)
	said([]string{"2 changes were applied, 0 are left"}, "replication", "retry", "shop", id, "--set", "note=cured")
	said([]string{"1 changes were discarded, 0 applied, 0 are left"}, "replication", "discard", "shop", fmt.Sprint(third.GetId()))
	if _, err := c.replica.applier().GetUnsynced(c.t.Context(), &applierv1.GetUnsyncedRequest{Name: "shop", Id: first.GetId()}); rpc.Code(err) != codes.NotFound || rpc.Reason(err) != "NOT_IN_QUARANTINE" {
		c.t.Errorf("an entry that was applied: %v", err)
	}
	if got := c.events("shop", applierv1.EventKind_EVENT_KIND_UNSYNCED_RETRIED, applierv1.EventKind_EVENT_KIND_UNSYNCED_DISCARDED); len(got) < 3 || !strings.Contains(got[len(got)-2].GetText(), "other values in note") {
		c.t.Errorf("told: %v", got)
	}

	// One that is full stops the replication, and goes on when it takes more; a copy of all tables leaves nothing in it.
	for range 13 {
		write()
	}
	c.failed("QUARANTINE_FULL")
	c.mustUpdate(func(in *applierv1.UpdateReplicationRequest) { in.Spec.QuarantineLimit = 1000 }, "quarantine_limit")
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.running()
	c.replica.waitApplied("shop", patience)
	if got := c.get().GetQuarantinedChanges(); got != 3*13+1 {
		c.t.Errorf("%d are refused", got)
	}
	c.stop()
	pgtest.Exec(c.t, c.target, "ALTER TABLE a DROP CONSTRAINT no_poison")
	said([]string{"5 changes were applied, 0 are left"}, append([]string{"replication", "retry", "shop"}, c.lastIDs(5)...)...) // also while it is stopped
	if err := c.start(nil, false); err != nil {
		c.t.Fatal(rpc.Message(err))
	}
	c.running()
	c.resync()
	c.running()
	c.equal()
	if r := c.get(); r.GetQuarantinedChanges()+r.GetWaitingChanges() != 0 || len(r.GetWarnings()) != 0 {
		c.t.Errorf("after a copy: %v", r)
	}
}

// lastIDs are those of the latest changes in quarantine.
func (c *controlled) lastIDs(n int) (ids []string) {
	c.t.Helper()
	return strings.Fields(pgtest.QueryRow[string](c.t, c.target, fmt.Sprintf("SELECT string_agg(id::text, ' ') FROM (SELECT id FROM syncline.quarantine ORDER BY id DESC LIMIT %d) last", n)))
}
