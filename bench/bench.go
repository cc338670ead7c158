package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed0419d559/syncline/internal/pgserver"
)

// bench runs what the options ask for and keeps what it measured.
type bench struct {
	options  options
	progress io.Writer
	servers  map[string]string // the exact version of each major one
	samples  []sample
	failures []string
	began    time.Time
}

// sample is what one run of one contender measured.
type sample struct {
	PostgreSQL string  `json:"postgresql"` // major version
	Workload   string  `json:"workload"`
	Mode       string  `json:"mode"`
	Round      int     `json:"round"` // from 1 on
	Side       string  `json:"side"`
	Variant    string  `json:"variant,omitempty"`
	Figures    figures `json:"figures"`
}

// key tells which samples are rounds of the same.
func (s *sample) key() string {
	return strings.Join([]string{s.PostgreSQL, s.Workload, s.Mode, s.Side, s.Variant}, "|")
}

func (b *bench) run(ctx context.Context) error {
	if b.options.list {
		for _, t := range trials {
			fmt.Println(t.name())
		}
		return nil
	}
	b.servers = map[string]string{}
	if b.options.rounds == 0 {
		if err := b.addEarlier(); err != nil {
			return err
		}
		return b.save()
	}
	if _, err := os.Stat(b.options.binary); err != nil {
		return fmt.Errorf("%w: --binary: %w; `make build` makes it", errUsage, err)
	}
	b.began = time.Now()
	for _, version := range b.options.versions {
		bin, err := pgserver.Install(ctx, version, b.progress)
		if err != nil {
			return fmt.Errorf("find PostgreSQL %s: %w", version, err)
		}
		b.servers[version] = bin.Version
	}
	if err := b.addEarlier(); err != nil {
		return err
	}
	for _, version := range b.options.versions {
		for _, t := range trials {
			if !b.options.wants(t) {
				continue
			}
			if err := b.try(ctx, version, t); err != nil {
				return err
			}
		}
	}
	if len(b.failures) > 0 {
		return fmt.Errorf("%d runs failed", len(b.failures))
	}
	return nil
}

// try runs all rounds of a trial, the contenders in turn.
func (b *bench) try(ctx context.Context, version string, t trial) error {
	for round := 1; round <= b.options.rounds; round++ {
		for _, c := range t.contenders(b.options) {
			what := fmt.Sprintf("PostgreSQL %s, %s, round %d, %s", version, t.name(), round, c)
			f, err := b.once(ctx, t, experiment{options: b.options, version: version, contender: c})
			if err == nil {
				fmt.Fprintf(b.progress, "[%s] %s: %s\n", b.clock(), what, t.summary(f))
				b.samples = append(b.samples, sample{version, t.workload, t.mode, round, c.side, c.variant.name, f})
				if err := b.save(); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(b.progress, "[%s] %s FAILED: %v\n", b.clock(), what, err)
			b.failures = append(b.failures, what+": "+firstLine(err))
			if ctx.Err() != nil || !b.options.keepGoing {
				return errors.New(what + " failed")
			}
		}
	}
	return nil
}

var errRunLimit = fmt.Errorf("the run did not end within %s", runLimit)

func (b *bench) once(ctx context.Context, t trial, e experiment) (figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, errRunLimit)
	defer cancel()
	return t.run(ctx, e)
}

// clock is the time since the beginning.
func (b *bench) clock() string { return time.Since(b.began).Truncate(time.Second).String() }

// summary is what a run's line of progress says.
func (t trial) summary(f figures) string {
	var parts []string
	for _, m := range t.measures {
		parts = append(parts, m.label+" "+duration(f[m.figure]))
	}
	compared := func(figure string) bool {
		return slices.ContainsFunc(t.measures, func(m measure) bool { return m.figure == figure })
	}
	for _, more := range []struct{ figure, label string }{
		{copySeconds, "first copy"}, {seconds, "time"}, {loadSeconds, "load"}, {tailSeconds, "logger's tail"}, {sourceCPU, "CPU at the primary"}, {applierCPU, "at the replica"},
	} {
		if value := f[more.figure]; value > 0 && !compared(more.figure) {
			parts = append(parts, more.label+" "+duration(value))
		}
	}
	for _, peak := range []struct{ figure, label string }{{primaryPeak, "primary's peak"}, {replicaPeak, "replica's peak"}, {senderPeak, "its walsender's peak"}} {
		if value := f[peak.figure]; value > 0 {
			parts = append(parts, peak.label+" "+megabytes(value))
		}
	}
	if rate := quotient(f[changes], f[seconds]); rate > 0 {
		parts = append(parts, count(rate)+" changes/s")
	}
	if bytes := f[sentBytes]; bytes > 0 {
		parts = append(parts, "sent "+megabytes(bytes))
	}
	return strings.Join(parts, ", ")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
