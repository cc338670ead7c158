package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// definitions leaves what two databases with equal definitions must have in common.
func definitions(d Database) Database {
	d.ServerVersion, d.Role, d.Available, d.NotReplicated = 0, Role{}, nil, nil
	d.Tables = append([]Table(nil), d.Tables...)
	for i := range d.Tables {
		t := &d.Tables[i]
		t.OID, t.Filenode, t.Pages, t.EstimatedBytes, t.EstimatedRows = 0, 0, 0, 0, 0
		t.RowSecurity, t.ForceRowSecurity, t.ReplicaTriggers, t.ReplicaRules = false, false, false, false
		t.Columns = append([]Column(nil), t.Columns...)
		for j := range t.Columns {
			c := &t.Columns[j]
			c.Number = 0
			if strings.Contains(c.Type, ".") {
				c.TypeOID = 0
			}
		}
		t.Constraints = append([]Constraint(nil), t.Constraints...)
		for j := range t.Constraints {
			// a child's NOT NULL is declared on it, and merged with its parent's
			if k := &t.Constraints[j]; k.Type == ConstraintNotNull && k.Inherited {
				k.Local = false
			}
		}
	}
	d.Types = append([]Type(nil), d.Types...)
	for i := range d.Types {
		d.Types[i].OID = 0
	}
	d.Sequences = append([]Sequence(nil), d.Sequences...)
	for i := range d.Sequences {
		d.Sequences[i].OID, d.Sequences[i].Value = 0, nil
	}
	return d
}

// requireEqual names the first things that differ.
func requireEqual(t *testing.T, want, got Database) {
	t.Helper()
	want, got = definitions(want), definitions(got)
	if reflect.DeepEqual(want, got) {
		return
	}
	lines := func(d Database) []string {
		text, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	a, b := lines(want), lines(got)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("descriptions differ at line %d:\nwant\n%s\ngot\n%s", i, around(a, i), around(b, i))
		}
	}
	t.Fatalf("descriptions differ in length: %d and %d lines", len(a), len(b))
}

func around(lines []string, i int) string {
	return strings.Join(lines[max(0, i-12):min(len(lines), i+8)], "\n")
}

func TestDescriptionSurvivesJSON(t *testing.T) {
	source, _ := servers(t)
	want := read(t, allKinds(t, source))
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Database
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("want %+v\ngot %+v", want, got)
	}
}

func TestEveryKindIsCreated(t *testing.T) {
	source, target := servers(t)
	from, to := allKinds(t, source), empty(t, target)
	if source.Major() >= 18 && target.Major() < 18 {
		exec(t, from, "DROP TABLE shop.temporal_ref, shop.temporal") // refused by older servers: TestConflicts
	}
	if source.Major() >= 17 && target.Major() < 17 {
		exec(t, from, "DROP TABLE IF EXISTS shop.excluding")
	}
	requireCreated(t, from, to)
}

func TestEveryKindOfTheSamplesIsCreated(t *testing.T) {
	source, target := servers(t)
	from, to := pgtest.Connect(t, source.Database(t)), pgtest.Connect(t, target.Database(t))
	pgtest.LoadAllKinds(t, from)
	if source.Major() >= 18 {
		exec(t, from, pgtest.AllKinds18)
	}
	requireCreated(t, from, to)
}

// requireCreated creates everything on the target and compares the descriptions.
func requireCreated(t *testing.T, from, to *pgx.Conn) {
	t.Helper()
	want := read(t, from)
	p := plan(t, want, read(t, to), nil)
	run(t.Context(), t, to, p.all())
	got := read(t, to)
	if missing := Missing(want, got); missing != nil {
		t.Fatalf("still missing: %v", missing)
	}
	for _, m := range CompareAll(want, got) {
		if m.Source != "REPLICA IDENTITY FULL" {
			t.Errorf("mismatch: %s", m)
		}
	}
	if want.ServerVersion != got.ServerVersion {
		t.Logf("left out on purpose: %v", p.Skipped)
		return
	}
	if p.Skipped != nil {
		t.Errorf("skipped %v", p.Skipped)
	}
	requireEqual(t, want, got)
}

// TestCreationResumes breaks off after every single statement: a plan made from a fresh reading of the target must be
// exactly the rest of the first one.
func TestCreationResumes(t *testing.T) {
	source, target := servers(t)
	from, to := allKinds(t, source), empty(t, target)
	if source.Major() >= 18 && target.Major() < 18 {
		exec(t, from, "DROP TABLE shop.temporal_ref, shop.temporal", "DROP TABLE shop.excluding")
	}
	description := read(t, from)
	missing := Missing(description, read(t, to))
	rest := plan(t, description, read(t, to), missing).all()
	if len(rest) < 100 {
		t.Fatalf("only %d statements", len(rest))
	}
	for len(rest) > 0 {
		run(t.Context(), t, to, rest[:1])
		done := rest[0]
		rest = rest[1:]
		now := plan(t, description, read(t, to), missing).all()
		if len(rest) != len(now) || len(rest) > 0 && !reflect.DeepEqual(rest, now) {
			t.Fatalf("after %s:\nwant\n%s\ngot\n%s", done.SQL, listing(rest), listing(now))
		}
	}
}

func listing(statements []Statement) string {
	var b strings.Builder
	for _, s := range statements {
		fmt.Fprintln(&b, s.SQL)
	}
	return b.String()
}
