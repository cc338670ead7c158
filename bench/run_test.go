package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/seed0419d559/syncline/internal/pgserver"
	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestRun measures a small load on the real thing. How long it takes is of no concern here.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "syncline")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../cmd/syncline").CombinedOutput(); err != nil {
		t.Fatalf("build syncline: %v: %s", err, out)
	}
	bin, err := pgserver.Find(os.Getenv(pgtest.VersionVariable))
	if err != nil {
		t.Fatal(err)
	}
	major := strconv.Itoa(bin.Major)
	o, err := parseOptions([]string{"--binary", binary, "--only", "insert/catchup", "--rounds", "1", "--scale", "0.002",
		"--native", "tuned", "--versions", major}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.noSync = true
	b := &bench{options: o, progress: t.Output()}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := b.results()
	if len(r.Rows) != 1 || r.Rows[0].Met == nil || len(r.Samples) != 2 {
		t.Fatalf("rows %+v, samples %+v", r.Rows, r.Samples)
	}
	own := r.Samples[1]
	for _, figure := range []string{seconds, loadSeconds, tailSeconds, walBytes, logBytes, sentBytes, primaryPeak, replicaPeak} {
		if own.Figures[figure] <= 0 {
			t.Errorf("%s: %g was measured", figure, own.Figures[figure])
		}
	}
	if got := own.Figures[changes]; got != 2000 {
		t.Errorf("%g changes, not 2000", got)
	}
	path := filepath.Join(dir, "results.json")
	if err := writeJSON(path, r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read results
	if err := json.Unmarshal(text, &read); err != nil || len(read.Samples) != 2 || read.Rows[0].Syncline != r.Rows[0].Syncline {
		t.Errorf("%v: %s", err, text)
	}
}
