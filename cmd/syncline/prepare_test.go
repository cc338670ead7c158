package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/setup"
)

// TestPrepareReport prints what may be found, with names that try to be statements.
func TestPrepareReport(t *testing.T) {
	found := func() []finding {
		return []finding{
			{State: findingToDo, Text: "wal_level is replica", SQL: []string{"ALTER SYSTEM SET wal_level = 'logical'"}, manner: setup.Outside},
			{State: findingRestart, Text: "max_wal_senders is set to 20: restart PostgreSQL", manner: setup.Outside},
			{State: findingWell, Text: "role syncline may log in"},
			{State: findingToDo, Text: "2 tables belong to role shop_owner: public.a, public.b, and only the owner may publish a table", SQL: []string{`GRANT "shop_owner" TO "syncline"`}},
			{State: findingToDo, Text: "table public.\"x\nDROP TABLE y;\r--\" has no primary key", SQL: []string{`ALTER TABLE "public"."x" REPLICA IDENTITY FULL`}, manner: setup.Alone},
			{State: findingLeft, Text: "the server is a standby"},
		}
	}
	var out bytes.Buffer
	for _, r := range []*report{
		{Database: "shop", Role: sidePrimary, Login: "syncline", DryRun: true, Findings: found()},
		{Database: "shop\n; DROP", Role: sidePrimary, Login: "syncline", Findings: found()},
		{Database: "shop", Role: sideReplica, Login: "syncline", Findings: found()[2:3]},
	} {
		if !r.DryRun && r.Role == sidePrimary {
			now := append(found()[:4], found()[5])
			r.compare(now, map[string]string{"ALTER SYSTEM SET wal_level = 'logical'": "", `GRANT "shop_owner" TO "syncline"`: "role ada may not do that (must have admin option): run it as a superuser"})
		}
		r.finish()
		for _, asJSON := range []bool{false, true} {
			if err := r.print(&out, asJSON); err != nil {
				t.Fatal(err)
			}
		}
		if r.DryRun {
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "DROP") {
					t.Error("a name became a statement")
				}
			}
		}
		if err := r.left(); (err == nil) != r.Well {
			t.Errorf("well is %v, and what is left: %v", r.Well, err)
		} else if err != nil {
			out.WriteString("syncline: " + err.Error() + "\n")
		}
	}
	golden(t, "prepare", out.String())
}

func TestPrepareRefusesFlags(t *testing.T) {
	for _, args := range [][]string{
		{}, {"--postgres", "postgres://h/d", "--role", "both"}, {"--postgres", "postgres://h/d", "--rename", "a.*=b.*"},
		{"--postgres", "postgres://h/d", "--login", "public"}, {"--postgres", "postgres://h/d", "--param", "org=acme"},
		{"--postgres", "postgres://h/d", "--role", "replica", "--insert-only-table", "a.b"}, {"--postgres", "postgres://h/d", "--table", "nothing"},
	} {
		if out, errOut, code := command(t, nil, append([]string{"prepare"}, args...)...); code != exitWrongUse || out != "" || !strings.HasPrefix(errOut, "syncline: --") {
			t.Errorf("%q: exit code %d, %s%s", args, code, out, errOut)
		}
	}
}
