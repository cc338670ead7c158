package main

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

// leaves are the commands that do something, by their path. What cobra brings itself is not among them.
func leaves(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	found := map[string]*cobra.Command{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if !cmd.HasSubCommands() {
			found[strings.TrimPrefix(cmd.CommandPath(), "syncline ")] = cmd
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(nil))
	if len(found) < 20 {
		t.Fatalf("only %d commands", len(found))
	}
	return found
}

// isServer tells whether a command serves until it is stopped.
func isServer(path string, cmd *cobra.Command) bool {
	return cmd.Flags().Lookup("grpc") != nil && path != "inventory" || path == "gateway" || path == "demo"
}

// TestEveryCommandIsExplained demands an example, a sentence and a description of each flag.
func TestEveryCommandIsExplained(t *testing.T) {
	for path, cmd := range leaves(t) {
		if !strings.Contains(cmd.Example, "  syncline "+path) {
			t.Errorf("%s has no example in its help text", path)
		}
		if cmd.Short == "" {
			t.Errorf("%s is not described", path)
		}
	}
}

// TestEveryClientPrintsJSON demands --json of every command that prints an answer.
func TestEveryClientPrintsJSON(t *testing.T) {
	for path, cmd := range leaves(t) {
		if flag := cmd.Flags().Lookup("json"); (flag == nil) != isServer(path, cmd) {
			t.Errorf("%s: --json is there: %v", path, flag != nil)
		}
	}
}

// arguments are those that a command needs beside its flags.
func arguments(cmd *cobra.Command) []string {
	var list []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if strings.HasPrefix(word, "--") || word == "|" {
			break // the rest are flags
		}
		if strings.HasPrefix(word, "[") {
			continue // not needed
		}
		list = append(list, "testdata")
	}
	return list
}

// TestEveryCommandHasExitCodes uses every command wrongly, and asks a server that is not there.
func TestEveryCommandHasExitCodes(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	listener.Close()
	needed := map[string][]string{"replication create": {"--source", nobody}, "replication run": {"--source", nobody}, "dump": {"--table", "a.b"}, "set create": {"--table", "a.b"}, "set update": {"--table", "a.b"},
		"updated": {"--since", "earliest"}, "principal create": {"--role", "reader"}, "replication update": {"--copy-workers", "2"},
		"replication retry": {"--all"}, "replication discard": {"--all"},
		"push create": {"--target", nobody}, "push update": {"--description", "x"}}
	for path, cmd := range leaves(t) {
		words := append(strings.Fields(path), arguments(cmd)...)
		for name, args := range map[string][]string{
			"unknown flag":       append(slices.Clone(words), "--no-such-flag"),
			"too many arguments": append(slices.Clone(words), "one", "two"),
		} {
			out, errOut, code := command(t, nil, args...)
			if code != exitWrongUse || out != "" || strings.Count(errOut, "\n") != 1 || !strings.HasPrefix(errOut, "syncline: ") {
				t.Errorf("%s, %s: exit code %d\n%s%s", path, name, code, out, errOut)
			}
		}
		if cmd.Flags().Lookup("addr") == nil || path == "gateway" {
			continue
		}
		for _, more := range [][]string{nil, {"--json"}} {
			args := slices.Concat(words, needed[path], more, []string{"--addr", nobody})
			out, errOut, code := command(t, nil, args...)
			if code != exitFailed || out != "" || !strings.HasPrefix(errOut, "syncline: ") {
				t.Errorf("%s with nobody there: exit code %d\n%s%s", path, code, out, errOut)
			}
		}
	}
	out, errOut, code := command(t, nil, "backup", "check", "testdata", "--json")
	if code != exitFailed || out != "" || errOut == "" {
		t.Errorf("no backup: exit code %d\n%s%s", code, out, errOut)
	}
}

// TestCompletion asks as a shell does.
func TestCompletion(t *testing.T) {
	replica := serveFake(t, identify("applier"), &fakeApplier{replication: replication()})
	primary := serveFake(t, identify("logger", "inventory"), &fakeLogger{}, &fakeInventory{})
	sets := serveFake(t, identify("logger"), &fakeSets{sets: []*loggerv1.Set{{Name: "by-org"}}})
	for _, test := range []struct {
		environment []string
		words       []string
		want        []string
	}{
		{nil, []string{"replication", "show", "--addr", replica, ""}, []string{"shop"}},
		{[]string{"SYNCLINE_ADDR=" + replica}, []string{"replication", "stop", "s"}, []string{"shop"}},
		{nil, []string{"replication", "show", "--addr", replica, "shop", ""}, nil},
		{nil, []string{"replication", "create", "--addr", replica, ""}, nil},
		{nil, []string{"verify", "--addr", replica, ""}, []string{"shop"}},
		{nil, []string{"dump", "--addr", primary, "--table", "public.or"}, []string{"public.orders"}},
		{nil, []string{"inventory", "--addr", primary, "--table", ""}, []string{"public.orders", `public."My ""Table"""`, "public.events"}},
		{nil, []string{"dump", "--format", ""}, []string{"binary", "copy", "csv", "json"}},
		{nil, []string{"dump", "--compress", ""}, []string{"none", "zstd"}},
		{nil, []string{"replica", "--log-level", ""}, []string{"debug", "info", "warn", "error"}},
		{nil, []string{"set", "show", "--addr", sets, ""}, []string{"by-org"}},
		{nil, []string{"replication", "st"}, []string{"start", "stop"}},
		{nil, []string{"replication", "show", "--addr", "127.0.0.1:1", ""}, nil}, // nobody is there
	} {
		out, _, code := command(t, test.environment, append([]string{"__complete"}, test.words...)...)
		var got []string
		for line := range strings.Lines(out) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); word != "" && !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		if code != exitDone || !slices.Equal(got, test.want) {
			t.Errorf("%v gives %q, exit code %d", test.words, got, code)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, errOut, code := command(t, nil, "completion", shell); code != exitDone || errOut != "" || !strings.Contains(out, "syncline") {
			t.Errorf("completion %s: exit code %d, %s", shell, code, errOut)
		}
	}
}

func TestHealthAndResetInJSON(t *testing.T) {
	primary := serveFake(t, identify("logger", "inventory"))
	out, errOut, code := command(t, nil, "health", "--json", "--addr", primary)
	var answer map[string]any
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != exitDone || answer["status"] != "SERVING" {
		t.Errorf("%s%s, exit code %d, %v", out, errOut, code, err)
	}
}
