package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
)

// addEarlier takes over what earlier runs have measured, on the same kind of machine in the same way.
func (b *bench) addEarlier() error {
	now := b.results()
	for _, path := range b.options.add {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%w: --add: %w", errUsage, err)
		}
		var r results
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%w: --add %s: it was not written by --json: %w", errUsage, path, err)
		}
		switch {
		case r.Scale != now.Scale:
			return fmt.Errorf("%w: --add %s: it was measured with --scale %g, not %g", errUsage, path, r.Scale, now.Scale)
		case r.Cores != now.Cores || !maps.Equal(r.Settings, now.Settings):
			return fmt.Errorf("%w: --add %s: it was measured on %d cores with %v, not on %d cores with %v", errUsage, path,
				r.Cores, r.Settings, now.Cores, now.Settings)
		}
		for major, version := range r.Servers {
			if known := b.servers[major]; known != "" && known != version {
				return fmt.Errorf("%w: --add %s: it was measured on PostgreSQL %s, not %s", errUsage, path, version, known)
			}
			b.servers[major] = version
		}
		b.samples = append(b.samples, r.Samples...)
		b.failures = append(b.failures, r.Failures...)
	}
	return nil
}

// save writes what has been measured so far, if that was asked for: a run of hours can be broken off.
func (b *bench) save() error {
	if b.options.json == "" {
		return nil
	}
	return writeJSON(b.options.json, b.results())
}

func (r results) roundsText() string {
	fewest, most := r.rounds()
	switch {
	case most == 1:
		return "one round"
	case fewest == most:
		return fmt.Sprintf("%d rounds", most)
	}
	return fmt.Sprintf("%d to %d rounds", fewest, most)
}

// rounds tells how often a side of a workload was measured, the fewest and the most.
func (r results) rounds() (fewest, most int) {
	counts := map[string]int{}
	for _, s := range r.Samples {
		counts[s.key()]++
	}
	for _, n := range counts {
		if fewest == 0 || n < fewest {
			fewest = n
		}
		most = max(most, n)
	}
	return fewest, most
}
