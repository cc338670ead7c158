package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func TestCheckTranscripts(t *testing.T) {
	bad := &applierv1.Handshake{Findings: []*applierv1.Finding{
		{Topic: "source", Verdict: applierv1.Verdict_VERDICT_OK, Text: "server 6f2c51fd answers"},
		{Topic: "clock", Verdict: applierv1.Verdict_VERDICT_NOTE, Text: "the source's clock is 7.0 s ahead", Mend: "run a time service on both"},
		{
			Topic: "tables", Verdict: applierv1.Verdict_VERDICT_PROBLEM, Subject: "public.orders", Column: "note", Text: "the column is missing on the target",
			Mend: `ALTER TABLE "public"."orders" ADD COLUMN "note" text`, Code: "SCHEMA_MISMATCH",
		},
	}}
	good := &applierv1.Handshake{Ok: true, Findings: bad.GetFindings()[:2], SetVersion: 7, Tables: []*applierv1.TableShapes{{Schema: "public", Name: "orders", SourceFingerprint: "aa"}}}
	for name, test := range map[string]struct {
		found *applierv1.Handshake
		args  []string
	}{
		"problem": {bad, []string{"--source", "db1:7400"}},
		"ok":      {good, []string{"shop"}},
		"json":    {good, []string{"shop", "--json"}},
		"unknown": {good, []string{"nobody"}},
		"nothing": {good, nil},
		"both":    {good, []string{"shop", "--source", "db1:7400"}},
	} {
		t.Run(name, func(t *testing.T) {
			replica := serveFake(t, &fakeApplier{replication: replication(), fakeControl: fakeControl{handshake: test.found}})
			args := append([]string{"replication", "check", "--addr", replica}, test.args...)
			out, errOut, code := command(t, []string{"SYNCLINE_SOURCE=elsewhere:7400"}, args...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, "check_"+name, strings.ReplaceAll(text, replica, "REPLICA")+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}

func TestCheckSendsTheSpec(t *testing.T) {
	applier := &fakeApplier{fakeControl: fakeControl{handshake: &applierv1.Handshake{Ok: true}}}
	_, errOut, code := command(t, nil, "replication", "check", "--source", "db1:7400", "--set", "by-org", "--param", "org=acme", "--initial", "incremental", "--addr", serveFake(t, applier))
	want := &applierv1.CheckReplicationRequest{Spec: &applierv1.ReplicationSpec{Source: "db1:7400", Set: "by-org", Parameters: map[string]string{"org": "acme"}, Initial: applierv1.Initial_INITIAL_INCREMENTAL}}
	if code != exitDone || !proto.Equal(applier.checked, want) {
		t.Errorf("exit code %d, %s, sent %v", code, errOut, applier.checked)
	}
}
