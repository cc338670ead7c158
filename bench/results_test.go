package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func round(workload, mode, side, variant string, n int, f figures) sample {
	return sample{PostgreSQL: "15", Workload: workload, Mode: mode, Round: n, Side: side, Variant: variant, Figures: f}
}

// TestReport shows the report of made-up runs.
func TestReport(t *testing.T) {
	o, err := parseOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{options: o, servers: map[string]string{"15": "15.4"}, failures: []string{"PostgreSQL 15, toast/catchup, round 1, syncline: broken"}}
	for n, x := range []float64{30, 10, 20} {
		own := figures{seconds: x / 4, loadSeconds: 3, tailSeconds: 0.25, sourceCPU: 4, applierCPU: 2.5, primaryPeak: 90e6, replicaPeak: 40e6, changes: 1e6, logBytes: 40e6, walBytes: 100e6, sentBytes: 41e6}
		b.samples = append(b.samples,
			round("insert", catchup, nativeSide, "default", n, figures{seconds: x + 1, loadSeconds: 2}),
			round("insert", catchup, nativeSide, "tuned", n, figures{seconds: x, loadSeconds: 2}),
			round("insert", catchup, synclineSide, "", n, own),
			round("update", fromWAL, nativeSide, "tuned", n, figures{seconds: x}),
			round("update", fromWAL, synclineSide, "", n, figures{seconds: x / 2}),
			round("update", fromWAL, floorSide, "", n, figures{seconds: x / 4}),
			round("latency", live, nativeSide, "tuned", n, figures{medianLatency: 0.002, p99Latency: 0.004}),
			round("latency", live, synclineSide, "", n, figures{medianLatency: 0.0025, p99Latency: 0.005}),
		)
	}
	b.samples = append(b.samples,
		round("size", "1M", synclineSide, "", 1, figures{sizeRows: 1e6, copySeconds: 2, seconds: 3, primaryPeak: 50e6, replicaPeak: 40e6}),
		round("size", "8M", synclineSide, "", 1, figures{sizeRows: 8e6, copySeconds: 16, seconds: 25, primaryPeak: 51e6, replicaPeak: 60e6}),
	)
	r := b.results()
	r.Cores, r.Memory = 2, 24<<30
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", out.String())
}

// TestAddEarlier takes two runs together, and refuses what was measured otherwise.
func TestAddEarlier(t *testing.T) {
	var paths []string
	for n, version := range []string{"15", "18"} {
		path := filepath.Join(t.TempDir(), "r.json")
		b := &bench{options: options{scale: 1, json: path}, servers: map[string]string{version: version + ".1"}}
		for range n + 1 {
			s := round("insert", catchup, synclineSide, "", 1, figures{seconds: 4})
			s.PostgreSQL = version
			b.samples = append(b.samples, s)
		}
		if err := b.save(); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	together := filepath.Join(t.TempDir(), "together.json")
	var b *bench
	for _, args := range [][]string{{"--add", strings.Join(paths, ","), "--json", together}, {"--add", together}} {
		o, err := parseOptions(append([]string{"--rounds", "0"}, args...), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		b = &bench{options: o, progress: io.Discard}
		if err := b.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := b.results()
		if fewest, most := r.rounds(); fewest != 1 || most != 2 || len(r.Rows) != 2 || len(r.Servers) != 2 {
			t.Errorf("%q: %d to %d rounds, %d rows, servers %v", args, fewest, most, len(r.Rows), r.Servers)
		}
	}
	b.options.scale = 0.5
	if err := b.run(t.Context()); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--scale 1") {
		t.Errorf("another scale: %v", err)
	}
	b.options.add = []string{"missing.json"}
	if err := b.run(t.Context()); !errors.Is(err, errUsage) {
		t.Errorf("a missing file: %v", err)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is now (go test ./bench -update writes it):\n%s", path, got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 4}, 4}, {[]float64{4, 1, 9, 2}, 3}} {
		before := slices.Clone(c.of)
		if got := median(c.of); got != c.want || !slices.Equal(before, c.of) {
			t.Errorf("median of %v: %v, not %v", before, got, c.want)
		}
	}
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	if got := percentile(hundred, 0.99); got != 99 {
		t.Errorf("99th percentile of 1 to 100: %v", got)
	}
	if got := percentile(hundred[:1], 0.99); got != 1 {
		t.Errorf("99th percentile of 1: %v", got)
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		target target
		v      values
		want   bool
	}{
		{faster(2.5), values{Native: 5, Syncline: 2}, true},
		{faster(2.5), values{Native: 4.9, Syncline: 2}, false},
		{nearFloor(0.8), values{Native: 10, Syncline: 5, Floor: 4}, true},
		{nearFloor(0.8), values{Native: 10, Syncline: 5, Floor: 3.9}, false},
		{nearFloor(0.8), values{Native: 4, Syncline: 5, Floor: 4}, false},
		{within(0.001, ""), values{Native: 0.002, Syncline: 0.003}, true},
		{within(0.001, ""), values{Native: 0.002, Syncline: 0.0031}, false},
	} {
		if got := c.target.met(c.v); got != c.want {
			t.Errorf("%q with %+v: %v", c.target.text, c.v, got)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"--only", "insert,tpcb/live", "--native", "binary=on+streaming=off,all", "--set", "work_mem=8MB,autovacuum=on"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, trial := range trials {
		if o.wants(trial) {
			names = append(names, trial.name())
		}
	}
	if got := strings.Join(names, " "); got != "insert/catchup insert/wal insert/live tpcb/live" {
		t.Errorf("wanted are %s", got)
	}
	if len(o.native) != 7 || o.native[0].name != "binary=on+streaming=off" {
		t.Errorf("variants are %+v", o.native)
	}
	for _, trial := range trials {
		memory := slices.ContainsFunc(trial.contenders(o), func(c contender) bool { return c.variant.memory })
		if large := slices.Contains([]string{"insert", "update", "delete"}, trial.workload); memory != large {
			t.Errorf("%s with more memory for native: %t", trial.name(), memory)
		}
	}
	if url, err := memoryVariant.connection("postgres://p@127.0.0.1:5/b?sslmode=disable"); err != nil ||
		url != "postgres://p@127.0.0.1:5/b?options=-c%20logical_decoding_work_mem%3D256MB&sslmode=disable" {
		t.Errorf("the connection is %s, %v", url, err)
	}
	if set := o.settings(); set["work_mem"] != "8MB" || set["autovacuum"] != "on" || set["shared_buffers"] != "512MB" {
		t.Errorf("settings are %v", set)
	}
	for _, args := range [][]string{
		{"--only", "inserts"}, {"--scale", "2"}, {"--scale", "0"}, {"--rounds", "0"}, {"--versions", "x"}, {"--versions", ""},
		{"--native", "fast"}, {"--native", "copy_data=off"}, {"--set", "work_mem"}, {"insert"}, {"--unknown"},
	} {
		if _, err := parseOptions(args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
