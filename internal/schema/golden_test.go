package schema

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

var update = flag.Bool("update", false, "rewrite the golden files, and their source where the server is PostgreSQL 18")

const goldenSource = "testdata/golden18.json"

// TestGoldenPlans shows the SQL that brings a PostgreSQL 18's tables to an empty target of the same and of the oldest version.
func TestGoldenPlans(t *testing.T) {
	if s := pgtest.Shared(t); *update && s.Major() == 18 {
		conn := pgtest.Connect(t, s.Database(t))
		runFile(t, conn, "golden18.sql")
		d := read(t, conn)
		d.NotReplicated, d.Available = nil, nil
		text, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		write(t, goldenSource, string(text)+"\n")
	}
	text, err := os.ReadFile(goldenSource)
	if err != nil {
		t.Fatal(err)
	}
	var source Database
	if err := json.Unmarshal(text, &source); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{15, 18} {
		target := Database{
			ServerVersion: version * 10000, Role: Role{Name: "owner", Create: true}, Schemas: []string{"public"},
			Available: []AvailableExtension{{Name: "citext", Version: "1.6", Trusted: true}},
		}
		got := transcript(plan(t, source, target, nil))
		name := fmt.Sprintf("testdata/plan_18_to_%d.sql", version)
		if *update {
			write(t, name, got)
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != got {
			t.Errorf("%s is not what is planned (go test -update rewrites it):\n%s", name, got)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func transcript(p Plan) string {
	var b strings.Builder
	for _, part := range []struct {
		name       string
		statements []Statement
	}{{"before the load", p.Before}, {"after the load", p.After}, {"when catching up has ended", p.ForeignKeys}} {
		fmt.Fprintf(&b, "-- == %s\n", part.name)
		for _, s := range part.statements {
			parallel := ""
			if s.Parallel {
				parallel = ", parallel"
			}
			fmt.Fprintf(&b, "-- %s %s%s\n%s;\n", s.Kind, s.Table, parallel, s.SQL)
		}
	}
	for _, s := range p.Skipped {
		fmt.Fprintf(&b, "-- left out: %s %s: %s\n", s.Kind, s.Name, s.Reason)
	}
	return b.String()
}
