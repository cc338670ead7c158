package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares a transcript with testdata/NAME.txt.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; `go test ./cmd/syncline -update` writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// command runs one command line and returns what it printed, and its exit code.
func command(t *testing.T, environment []string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, environment, &o, &e)
	return o.String(), e.String(), code
}

func TestHelp(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		switch cmd.Name() {
		case "help", "completion", "demo": // cobra's own; the demo has its tests
			return
		}
		path := strings.Fields(cmd.CommandPath())
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			out, errOut, code := command(t, nil, append(path[1:], "--help")...)
			if code != exitDone || errOut != "" {
				t.Errorf("exit code %d, stderr %q", code, errOut)
			}
			golden(t, filepath.Join("help", strings.Join(path, "_")), out)
		})
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(nil))
}
