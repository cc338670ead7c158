package discreet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func TestMarkAndElide(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "",
		"table public.a":                  "table public.a",
		"row " + Mark("(id=5)") + " of a": "row ⟦…⟧ of a",
		Mark("a") + Mark("b"):             "⟦…⟧⟦…⟧",
		"cut " + Mark("a secret")[:8]:     "cut ⟦…⟧",
		"row " + Mark("x⟧ secret ⟦") + " end": "row ⟦…⟧ end", // a value cannot end its mark
		Mark(""): "",
	} {
		if got := Elide(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
		if got := Elide(Elide(text)); got != want {
			t.Errorf("%q is shown as %q the second time", text, got)
		}
	}
}

func TestMessagesOfPostgreSQL(t *testing.T) {
	for text, c := range map[string]struct {
		err    pgconn.PgError
		marked bool
	}{
		"constraint":          {pgconn.PgError{Code: "23514", File: "execMain.c"}, false},
		"privilege":           {pgconn.PgError{Code: "42501", File: "aclchk.c"}, false},
		"value":               {pgconn.PgError{Code: "22P02", File: "numutils.c"}, true},
		"too large":           {pgconn.PgError{Code: "54000", File: "nbtutils.c"}, true},
		"raised":              {pgconn.PgError{Code: "P0001", File: "pl_exec.c"}, true},
		"raised as another":   {pgconn.PgError{Code: "23514", File: "pl_exec.c"}, true},
		"of an extension":     {pgconn.PgError{Code: "AB123", File: "x.c"}, true},
		"connection":          {pgconn.PgError{Code: "57P01", File: "postgres.c"}, false},
		"of no known form":    {pgconn.PgError{Code: "1"}, true},
		"raised in python":    {pgconn.PgError{Code: "42501", File: "plpy_elog.c"}, true},
		"external routine":    {pgconn.PgError{Code: "38000", File: "execMain.c"}, true},
		"deadlock":            {pgconn.PgError{Code: "40P01", File: "deadlock.c"}, false},
		"exclusion violation": {pgconn.PgError{Code: "23P01", File: "execIndexing.c"}, false},
	} {
		c.err.Message, c.err.Severity = "value 5 is bad", "ERROR"
		err := fmt.Errorf("table public.a: %w", &c.err)
		got := Text(err, err.Error())
		if strings.Contains(Elide(got), "5 is") == c.marked || strings.Contains(Elide(got), "public.a") == false {
			t.Errorf("%s: %s", text, got)
		}
		if again := Text(err, got); again != got {
			t.Errorf("%s: the second time %s", text, again)
		}
	}
	if got := Text(errors.New("plain"), "plain"); got != "plain" {
		t.Error(got)
	}
}

// TestElidedMessages: no text of an answer keeps a value, in lists and messages of messages too, and the answer itself stays as it is.
func TestElidedMessages(t *testing.T) {
	plain := &applierv1.GetReplicationResponse{Replication: &applierv1.Replication{Name: "shop", Spec: &applierv1.ReplicationSpec{Parameters: map[string]string{"org": "acme"}}}}
	if Elided(plain) != proto.Message(plain) {
		t.Error("an answer without values is copied")
	}
	secret := "row " + Mark("secret")
	full := &applierv1.GetReplicationResponse{Replication: &applierv1.Replication{
		Name: "shop", Reason: secret, Warnings: []string{"plain", secret}, RecentFaults: []*applierv1.Fault{{Text: secret}}, LastRun: &applierv1.Run{Text: secret},
		History: []*applierv1.StateChange{{Reason: secret}}, Spec: &applierv1.ReplicationSpec{Parameters: map[string]string{"org": secret}},
	}}
	before := proto.CloneOf(full)
	if text := Elided(full).(*applierv1.GetReplicationResponse).String(); strings.Contains(text, "secret") || strings.Count(text, "…") != 6 || !strings.Contains(text, "plain") {
		t.Errorf("shown %s", text)
	}
	if !proto.Equal(before, full) {
		t.Error("the answer was changed")
	}
	if Elided(nil) != nil {
		t.Error("nil is no longer nil")
	}
}
