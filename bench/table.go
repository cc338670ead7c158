package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// write prints the report for people, in Markdown.
func (r results) write(out io.Writer) error {
	if len(r.Samples) == 0 && len(r.Failures) == 0 {
		return nil
	}
	var s strings.Builder
	var servers, set []string
	for _, major := range slices.Sorted(maps.Keys(r.Servers)) {
		servers = append(servers, r.Servers[major])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		set = append(set, name+" = "+r.Settings[name])
	}
	fmt.Fprintf(&s, "PostgreSQL %s on %d cores with %s of memory; scale %g, medians of %s.\n\n", strings.Join(servers, " and "),
		r.Cores, gigabytes(r.Memory), r.Scale, r.roundsText())
	fmt.Fprintf(&s, "Settings of all servers: %s; everything else, fsync and synchronous_commit too, is at its default.\n\n", strings.Join(set, ", "))
	r.writeComparison(&s)
	r.writeCosts(&s)
	r.writeSizes(&s)
	r.writeJobs(&s)
	for _, failure := range r.Failures {
		fmt.Fprintf(&s, "FAILED: %s\n", failure)
	}
	_, err := io.WriteString(out, s.String())
	return err
}

func (r results) writeComparison(s *strings.Builder) {
	s.WriteString("| PostgreSQL | workload | measure | native, the better | Syncline | ratio | decode floor | of the floor | target | met |\n")
	s.WriteString("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |\n")
	for _, w := range r.Rows {
		native := duration(w.Native)
		if w.Variant != "" {
			native += " (" + w.Variant + ")"
		}
		cells := []string{
			w.PostgreSQL, w.Workload + "/" + w.Mode, w.Measure, native, duration(w.Syncline), times(w.Ratio),
			duration(w.Floor), times(w.Share), w.Target, yesNo(w.Met),
		}
		s.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	s.WriteString("\n")
}

// writeCosts tells what else the runs used.
func (r results) writeCosts(s *strings.Builder) {
	s.WriteString("Memory is the peak, without shared memory. The logger's tail is how much longer it took than the load.\n\n")
	s.WriteString("| PostgreSQL | workload | side | changes a second | load | logger's tail | CPU primary / replica | memory primary / replica | of the walsender | sent | change log per byte of WAL |\n")
	s.WriteString("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	seen := map[string]bool{}
	for _, run := range r.Samples {
		key := run.key()
		if seen[key] || run.Side == floorSide {
			continue
		}
		seen[key] = true
		rounds := slices.DeleteFunc(slices.Clone(r.Samples), func(s sample) bool {
			return s.PostgreSQL != run.PostgreSQL || s.Workload != run.Workload || s.Mode != run.Mode
		})
		of := func(figure string) float64 { return medianOf(rounds, figure, run.Side, run.Variant) }
		side := contender{run.Side, variant{name: run.Variant}}.String()
		cells := []string{
			run.PostgreSQL, run.Workload + "/" + run.Mode, side, count(quotient(of(changes), of(seconds))), duration(of(loadSeconds)), duration(of(tailSeconds)),
			pair(duration(of(sourceCPU)), duration(of(applierCPU))), pair(megabytes(of(primaryPeak)), megabytes(of(replicaPeak))), megabytes(of(senderPeak)),
			megabytes(of(sentBytes)), times(quotient(of(logBytes), of(walBytes))),
		}
		s.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	s.WriteString("\n")
}

// writeSizes tells whether Syncline keeps to the size of its work.
func (r results) writeSizes(s *strings.Builder) {
	for _, major := range slices.Sorted(maps.Keys(r.Servers)) {
		of := sizesOf(major, r.Samples)
		if len(of.of) == 0 {
			continue
		}
		fmt.Fprintf(s, "Sizes, on PostgreSQL %s: a first copy of so many rows, then catching up with one transaction of as many inserts. Target %s.\n\n",
			major, of.verdict())
		s.WriteString("| rows | first copy | one transaction | memory of syncline primary | of syncline replica |\n| ---: | ---: | ---: | ---: | ---: |\n")
		for _, size := range of.of {
			fmt.Fprintf(s, "| %.0f | %s | %s | %s | %s |\n", size.rows, duration(size.copied), duration(size.inserted),
				megabytes(size.primary), megabytes(size.replica))
		}
		s.WriteString("\n")
	}
}

// writeJobs tells what many replications of one applier cost.
func (r results) writeJobs(s *strings.Builder) {
	for _, major := range slices.Sorted(maps.Keys(r.Servers)) {
		of := manyJobs(major, r.Samples)
		if len(of) == 0 {
			continue
		}
		fmt.Fprintf(s, "Replications of one applier into one database, on PostgreSQL %s, of a table of %d rows each. A round changes every table; it ends when each replication has had its turn and applied its change.\n\n", major, rowsOfJob)
		s.WriteString("| replications | created | copied | a round | sessions at the replica | memory of syncline replica after one round | after all |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
		for _, f := range of {
			fmt.Fprintf(s, "| %.0f | %s | %s | %s | %s | %s | %s |\n", f[jobs], duration(f[createSeconds]), duration(f[copySeconds]), duration(f[roundSeconds]),
				count(f[mostSessions]), megabytes(f[earlyPeak]), megabytes(f[replicaPeak]))
		}
		s.WriteString("\n")
	}
}

func pair(a, b string) string {
	if a == "" && b == "" {
		return ""
	}
	return a + " / " + b
}

// duration prints seconds, "" for none.
func duration(s float64) string {
	switch {
	case s == 0:
		return ""
	case s < 1:
		return fmt.Sprintf("%.1f ms", s*1000)
	case s < 100:
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

// count prints a whole number, "" for none.
func count(n float64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", n)
}

func times(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio)
}

func megabytes(bytes float64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f MB", bytes/1e6)
}

func gigabytes(bytes float64) string { return fmt.Sprintf("%.0f GB", bytes/(1<<30)) }

func yesNo(met *bool) string {
	switch {
	case met == nil:
		return ""
	case *met:
		return "yes"
	}
	return "NO"
}
