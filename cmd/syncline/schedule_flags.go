package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// scheduleFlagNames are the flags of a schedule.
var scheduleFlagNames = []string{"schedule", "cron", "timezone", "window", "days", "not-before", "not-after", "max-runs", "jitter"}

// scheduleFlags say when a replication of mode once runs by itself. They make a schedule together: one that is changed is given as a whole.
type scheduleFlags struct {
	schedule            applierv1.Schedule
	expression, cron    string
	notBefore, notAfter string
	jitter              time.Duration
}

func (f *scheduleFlags) register(flags *pflag.FlagSet) {
	s := &f.schedule
	flags.StringVar(&f.expression, "schedule", "", "when runs begin: '@every 10m', '@daily', or five fields as --cron has them; none for no schedule")
	flags.StringVar(&f.cron, "cron", "", "when runs begin: minute, hour, day of the month, month and day of the week, as in '0 2 * * mon-fri'")
	flags.StringVar(&s.TimeZone, "timezone", "", "zone of --cron, --window and --days, as in Europe/Berlin; UTC when empty")
	flags.StringVar(&s.Window, "window", "", "times of day between which runs may begin, as in 22:00-06:00; one that has begun is not interrupted")
	flags.StringSliceVar(&s.Days, "days", nil, "days on which runs may begin, as in mon,tue,fri; a window over midnight belongs to the day on which it opens")
	flags.StringVar(&f.notBefore, "not-before", "", "no run begins earlier, as in 2026-12-24T18:00:00Z")
	flags.StringVar(&f.notAfter, "not-after", "", "no run begins later")
	flags.Int32Var(&s.MaxRuns, "max-runs", 0, "how many runs begin by the schedule; 0 for no limit")
	flags.DurationVar(&f.jitter, "jitter", 0, "each run begins by a random time of at most this later than it is due")
}

// set puts what the flags say into a replication's options; nothing where they are not given.
func (f *scheduleFlags) set(spec *applierv1.ReplicationSpec) error {
	s := &f.schedule
	others := f.cron != "" || s.GetTimeZone() != "" || s.GetWindow() != "" || len(s.GetDays()) > 0 || f.notBefore != "" || f.notAfter != "" || s.GetMaxRuns() != 0 || f.jitter != 0
	spec.Schedule = nil
	switch {
	case f.expression == "none" && others:
		return usageError{errors.New("--schedule none is for no schedule; leave the flags of one out")}
	case f.expression == "none" || f.expression == "" && !others:
		return nil
	case f.expression != "" && f.cron != "":
		return usageError{errors.New("--schedule and --cron are both given: which one is meant?")}
	}
	if n := len(strings.Fields(f.expression)); n != 0 && n != 5 && !strings.HasPrefix(f.expression, "@") {
		return usageError{fmt.Errorf("--schedule %q: expected an interval as in '@every 10m', '@daily', or five fields as in '0 2 * * mon-fri'", f.expression)}
	}
	s.Cron = f.cron + f.expression
	if text, found := strings.CutPrefix(f.expression, "@every "); found {
		every, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil {
			return usageError{fmt.Errorf("--schedule %q: expected a duration after @every, as in '@every 10m'", f.expression)}
		}
		s.Cron, s.Interval = "", durationpb.New(every)
	}
	if f.jitter != 0 {
		s.Jitter = durationpb.New(f.jitter)
	}
	for _, one := range []struct {
		flag, text string
		to         **timestamppb.Timestamp
	}{{"--not-before", f.notBefore, &s.NotBefore}, {"--not-after", f.notAfter, &s.NotAfter}} {
		if one.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, one.text)
		if err != nil {
			return usageError{fmt.Errorf("%s %q: expected a time as in 2026-12-24T18:00:00Z", one.flag, one.text)}
		}
		*one.to = timestamppb.New(at)
	}
	spec.Schedule = s
	return nil
}

// scheduleText is a schedule in a line.
func scheduleText(s *applierv1.Schedule) string {
	parts := []string{s.GetCron()}
	if s.GetInterval() != nil {
		parts[0] = "every " + durationText(s.GetInterval().AsDuration())
	}
	if s.GetWindow() != "" {
		parts = append(parts, "within "+s.GetWindow())
	}
	if len(s.GetDays()) > 0 {
		parts = append(parts, "on "+strings.Join(s.GetDays(), ","))
	}
	if s.GetTimeZone() != "" {
		parts = append(parts, s.GetTimeZone())
	}
	if s.GetNotBefore() != nil {
		parts = append(parts, "from "+stamp(s.GetNotBefore()))
	}
	if s.GetNotAfter() != nil {
		parts = append(parts, "until "+stamp(s.GetNotAfter()))
	}
	if s.GetMaxRuns() > 0 {
		parts = append(parts, fmt.Sprintf("at most %d runs", s.GetMaxRuns()))
	}
	if s.GetJitter() != nil {
		parts = append(parts, "jitter "+durationText(s.GetJitter().AsDuration()))
	}
	return strings.Join(parts, ", ")
}

// durationText leaves out units of which there are none: 10m instead of 10m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
