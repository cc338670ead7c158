package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/compare"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// verified is what a verification told.
type verified struct {
	differences []*applierv1.RowDifference
	tables      map[string]*applierv1.TableVerification
	result      *applierv1.VerifyResult
	progress    []*applierv1.VerifyProgress
}

func (n *node) verify(ctx context.Context, name string, edits ...func(*applierv1.VerifyReplicationRequest)) (verified, error) {
	request := &applierv1.VerifyReplicationRequest{Name: name}
	for _, edit := range edits {
		edit(request)
	}
	v := verified{tables: map[string]*applierv1.TableVerification{}}
	stream, err := n.applier().VerifyReplication(ctx, request, grpc.WaitForReady(true))
	if err != nil {
		return v, err
	}
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && v.result != nil:
			return v, nil
		case err != nil:
			return v, err
		case v.result != nil:
			return v, errors.New("more after the result")
		}
		switch event := answer.GetEvent().(type) {
		case *applierv1.VerifyReplicationResponse_Progress:
			v.progress = append(v.progress, event.Progress)
		case *applierv1.VerifyReplicationResponse_Difference:
			v.differences = append(v.differences, event.Difference)
		case *applierv1.VerifyReplicationResponse_Table:
			name := event.Table.GetSchema() + "." + event.Table.GetTable()
			if v.tables[name] != nil {
				return v, fmt.Errorf("table %s comes twice", name)
			}
			v.tables[name] = event.Table
		case *applierv1.VerifyReplicationResponse_Result:
			v.result = event.Result
		}
	}
}

func (n *node) mustVerify(name string, edits ...func(*applierv1.VerifyReplicationRequest)) verified {
	n.t.Helper()
	v, err := n.verify(n.t.Context(), name, edits...)
	if err != nil {
		n.t.Fatalf("verify: %s (%s)", rpc.Message(err), rpc.Reason(err))
	}
	return v
}

// requireEqual fails unless everything was compared and is equal.
func (v verified) requireEqual(t testing.TB) {
	t.Helper()
	if v.result.GetEqual() {
		return
	}
	for name, one := range v.tables {
		if one.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_EQUAL {
			t.Errorf("table %s: %v", name, one)
		}
	}
	for i, d := range v.differences {
		if i < 20 {
			t.Errorf("difference %v", d)
		}
	}
	t.Fatalf("not equal: %v", v.result)
}

// lines are the differences as text, sorted.
func (v verified) lines() []string {
	var lines []string
	for _, d := range v.differences {
		kind := strings.ToLower(strings.TrimPrefix(d.GetKind().String(), "DIFFERENCE_KIND_"))
		line := fmt.Sprintf("%s %s %s", schema.Name{Schema: d.GetSchema(), Name: d.GetTable()}, kind, strings.Join(d.GetKey(), "|"))
		if d.GetCount() > 1 {
			line += fmt.Sprintf(" ×%d", d.GetCount())
		}
		if len(d.GetColumns()) > 0 {
			line += " " + strings.Join(d.GetColumns(), ",")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// TestVerifyUnderLoad verifies again and again while everything is written to, tables are truncated and others are added. What
// is on its way must never be a difference, and one row that is changed on the replica alone always is.
func TestVerifyUnderLoad(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	primaryURL, replicaURL := source.Database(t), target.Database(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	conn := pgtest.Connect(t, primaryURL)
	pgtest.LoadAllKinds(t, conn)
	pgtest.Exec(t, conn, "DROP TABLE kinds.keyless_generated") // PostgreSQL 18 refuses it
	// As much as the replica can follow: a verification waits until it has come to the source's snapshot.
	bank := pgtest.NewBank(t, primaryURL, pgtest.BankOptions{Pause: 5 * time.Millisecond})
	l := newLoad(t, primaryURL)
	primary := startPrimary(t, primaryURL)
	replica := startReplica(t, replicaURL)
	replica.mustCreate("all", primary.grpc)
	replica.waitState("all", 2*time.Minute, applierv1.State_STATE_RUNNING)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	writing := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(seed, 1))
		writer := pgtest.Connect(t, primaryURL)
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			if _, err := pgtest.MutateAllKinds(t.Context(), writer, r, 10); err != nil {
				writing <- err
				return
			}
			<-pace.C
		}
		writing <- pgtest.FinishPrepared(t.Context(), writer)
	}()
	l.start(t, seed, 50*time.Millisecond)
	bank.Start(t, primaryURL, 4, seed)

	began, postponed := time.Now(), 0
	for round := 0; round < 10 && time.Since(began) < 6*time.Second; round++ {
		v := replica.mustVerify("all")
		if today := v.tables["bank.today"]; today.GetOutcome() == applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED {
			postponed++ // it is truncated several times a second, and may be so in every one of the verification's rounds
			v.result.Equal = v.result.GetTablesDifferent() == 0 && v.result.GetTablesNotCompared() == 1
		}
		v.requireEqual(t)
		if round == 0 {
			t.Logf("%d tables, %d rows", v.result.GetTablesEqual(), v.result.GetRows())
		}
	}
	t.Logf("verified in %v; bank.today was not compared %d times", time.Since(began), postponed)
	// The load never comes to these rows.
	local := pgtest.Connect(t, replicaURL)
	pgtest.Exec(t, local, "UPDATE bank.big SET note = 'changed here' WHERE id = 8400; DELETE FROM bank.big WHERE id = 8450; INSERT INTO bank.big VALUES (9000, 'only here')")
	want := []string{"bank.big changed 8400 note", "bank.big extra 9000", "bank.big missing 8450"}
	v := replica.mustVerify("all")
	if lines := v.lines(); v.result.GetEqual() || !slices.Equal(lines, want) {
		t.Errorf("differences: %q, want %q; %v", lines, want, v.result)
	}
	l.stop(t)
	bank.Stop(t)
	stop()
	if err := <-writing; err != nil {
		t.Fatal(err)
	}
}

// TestVerifyFindsEveryKind changes a replica at random, over every kind of type, table, key and name, and expects of a
// verification what a comparison of the two databases at rest finds.
func TestVerifyFindsEveryKind(t *testing.T) {
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
	replica.waitApplied("all", time.Minute)
	replica.mustVerify("all").requireEqual(t)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	here := pgtest.Connect(t, replicaURL)
	for round := range 3 {
		if _, err := pgtest.MutateAllKinds(t.Context(), here, r, []int{3, 40, 400}[round]); err != nil {
			t.Fatal(err)
		}
		report, err := pgtest.Compare(t.Context(), conn, here, pgtest.CompareOptions{Details: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		requireSameFindings(t, report, replica.mustVerify("all", func(r *applierv1.VerifyReplicationRequest) { r.MaxDifferences = 10_000 }))
	}
}

// findings are the numbers of rows that one table lacks, has too many of, and has with other values.
type findings struct{ missing, extra, changed int64 }

func requireSameFindings(t *testing.T, report pgtest.Report, v verified) {
	t.Helper()
	want, got := map[string]findings{}, map[string]findings{}
	for _, d := range report.Differences {
		f := want[d.Table]
		switch d.Kind {
		case compare.Missing:
			f.missing += d.Count
		case compare.Extra, compare.Doubled:
			f.extra += d.Count
		case compare.Changed:
			f.changed += d.Count
		default:
			t.Errorf("unexpected: %v", d)
		}
		want[d.Table] = f
	}
	total := int64(0)
	for name, one := range v.tables {
		f := findings{one.GetMissing(), one.GetExtra(), one.GetChanged()}
		described := map[applierv1.DifferenceKind]int64{}
		for _, d := range v.differences {
			if d.GetSchema()+"."+d.GetTable() == name {
				described[d.GetKind()] += d.GetCount()
			}
		}
		if (findings{described[applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING], described[applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA], described[applierv1.DifferenceKind_DIFFERENCE_KIND_CHANGED]}) != f {
			t.Errorf("table %s: %v are counted and %v described", name, f, described)
		}
		outcome := applierv1.TableOutcome_TABLE_OUTCOME_EQUAL
		if f != (findings{}) {
			outcome = applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT
		}
		if one.GetOutcome() != outcome {
			t.Errorf("table %s: %v", name, one)
		}
		total += f.missing + f.extra + f.changed
		if !strings.HasPrefix(name, "kinds.ranged") && !strings.HasPrefix(name, "kinds.listed_") && !strings.HasPrefix(name, "kinds.hashed_") && f != (findings{}) {
			got[name] = f
		}
	}
	for _, root := range []string{"kinds.ranged", "kinds.listed", "kinds.hashed"} {
		// A row in another partition is changed, or nothing, in the table as a whole, and missing here and extra there in its parts.
		differs := false
		for name, one := range v.tables {
			differs = differs || strings.HasPrefix(name, root) && one.GetOutcome() != applierv1.TableOutcome_TABLE_OUTCOME_EQUAL
		}
		if _, expected := want[root]; expected && !differs {
			t.Errorf("nothing is found in the partitions of %s", root)
		}
		delete(want, root)
	}
	if !maps.Equal(want, got) {
		for name := range want {
			if want[name] != got[name] {
				t.Errorf("table %s: want %+v, got %+v", name, want[name], got[name])
			}
		}
		for name := range got {
			if _, expected := want[name]; !expected {
				t.Errorf("table %s: got %+v, want nothing", name, got[name])
			}
		}
	}
	t.Logf("%d tables differ, %d rows", v.result.GetTablesDifferent(), total)
}
