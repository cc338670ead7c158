package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// results are everything that was measured, and what follows from it.
type results struct {
	Servers  map[string]string `json:"postgresql"` // exact version by major version
	Cores    int               `json:"cores"`
	Memory   float64           `json:"memory_bytes"`
	Settings map[string]string `json:"settings"`
	Scale    float64           `json:"scale"`
	Rows     []row             `json:"results"`
	Samples  []sample          `json:"samples"`
	Failures []string          `json:"failures,omitempty"`
}

// row is one measure of one trial.
type row struct {
	PostgreSQL string `json:"postgresql"`
	Workload   string `json:"workload"`
	Mode       string `json:"mode"`
	Measure    string `json:"measure"`
	Variant    string `json:"native_variant,omitempty"` // the better one
	values
	Ratio  float64 `json:"ratio,omitempty"`       // native / syncline
	Share  float64 `json:"floor_share,omitempty"` // floor / syncline
	Target string  `json:"target,omitempty"`
	Met    *bool   `json:"met,omitempty"` // absent without a target, or when a side is missing
}

func (b *bench) results() results {
	r := results{
		Servers: b.servers, Cores: runtime.NumCPU(), Memory: machineMemory(), Settings: b.options.settings(),
		Scale: b.options.scale, Samples: b.samples, Failures: b.failures,
	}
	for _, version := range slices.Sorted(maps.Keys(b.servers)) {
		for _, t := range trials {
			of := slices.DeleteFunc(slices.Clone(b.samples), func(s sample) bool {
				return s.PostgreSQL != version || s.Workload != t.workload || s.Mode != t.mode
			})
			if len(of) == 0 {
				continue
			}
			for _, m := range t.measures {
				r.Rows = append(r.Rows, newRow(version, t, m, of))
			}
		}
	}
	return r
}

// newRow makes the row of a measure from the samples of its trial.
func newRow(version string, t trial, m measure, samples []sample) row {
	w := row{PostgreSQL: version, Workload: t.workload, Mode: t.mode, Measure: m.label}
	w.Syncline = medianOf(samples, m.figure, synclineSide, "")
	w.Floor = medianOf(samples, m.figure, floorSide, "")
	for _, s := range samples {
		if s.Side != nativeSide {
			continue
		}
		if v := medianOf(samples, m.figure, nativeSide, s.Variant); w.Variant == "" || v < w.Native {
			w.Native, w.Variant = v, s.Variant
		}
	}
	w.Ratio, w.Share = w.ratio(), w.share()
	if m.target.met != nil {
		w.Target = m.target.text
		if w.Syncline > 0 && w.Native > 0 {
			met := m.target.met(w.values)
			w.Met = &met
		}
	}
	return w
}

func medianOf(samples []sample, figure, side, variant string) float64 {
	var found []float64
	for _, s := range samples {
		if value, ok := s.Figures[figure]; ok && s.Side == side && s.Variant == variant {
			found = append(found, value)
		}
	}
	return median(found)
}

// median is 0 for no values, and the mean of the middle two for an even number.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func writeJSON(path string, r results) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil { //nolint:gosec // a report may be read by all
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// machineMemory is the machine's memory in bytes, 0 where it is not known.
func machineMemory() float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kilobytes * 1024
		}
	}
	return 0
}
