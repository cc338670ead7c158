// Package schedule computes when runs are due. It is pure: it reads no clock and draws no random number.
package schedule

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a container may have no zones

	"github.com/robfig/cron/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

const (
	minInterval = 10 * time.Second
	maxInterval = 366 * 24 * time.Hour
	maxJitter   = 24 * time.Hour
	maxRuns     = 1_000_000_000
	// MostPassed bounds how many due times are counted.
	MostPassed = 10_000
	// mostSteps bounds the search for the next due time: one for each day of years in which cron's times fall outside of the window.
	mostSteps = 4_000
)

// Schedule is a checked schedule.
type Schedule struct {
	cron     cron.Schedule // nil for an interval
	interval time.Duration
	window   window
	// notBefore and notAfter are zero for none.
	notBefore, notAfter time.Time
	// MaxRuns is 0 for no limit.
	MaxRuns int
	jitter  time.Duration
}

// Problem is what is wrong with a field.
type Problem struct{ Field, Text string }

// New checks a schedule, all fields at once.
func New(in *applierv1.Schedule) (*Schedule, []Problem) {
	s := &Schedule{MaxRuns: int(in.GetMaxRuns())}
	var wrong []Problem
	add := func(field, format string, args ...any) {
		wrong = append(wrong, Problem{field, fmt.Sprintf(format, args...)})
	}
	zone, err := time.LoadLocation(in.GetTimeZone())
	if err != nil || in.GetTimeZone() == "Local" {
		zone = time.UTC
		add("time_zone", "%q is no time zone; use a name such as Europe/Berlin, or UTC", in.GetTimeZone())
	}
	switch every := in.GetInterval(); {
	case in.GetCron() != "" && every != nil:
		add("interval", "is given together with cron; leave one of them out")
	case in.GetCron() != "":
		if s.cron, err = parseCron(in.GetCron(), zone); err != nil {
			add("cron", "%v", err)
		}
	case every == nil:
		add("cron", `is needed, as in "0 2 * * *" for each day at 02:00, or else an interval, as in 10m`)
	case every.CheckValid() != nil || every.AsDuration() < minInterval || every.AsDuration() > maxInterval:
		add("interval", "%s is not from %s to %s, as in 10m", every.AsDuration(), minInterval, maxInterval)
	default:
		s.interval = every.AsDuration()
	}
	if s.window, err = parseWindow(in.GetWindow(), zone); err != nil {
		add("window", "%v", err)
	}
	if s.window.days, err = parseDays(in.GetDays()); err != nil {
		add("days", "%v", err)
	}
	if in.GetMaxRuns() < 0 || in.GetMaxRuns() > maxRuns {
		add("max_runs", "%d is not from 0, which is no limit, to %d", in.GetMaxRuns(), maxRuns)
	}
	if s.jitter = in.GetJitter().AsDuration(); in.GetJitter() != nil && (in.GetJitter().CheckValid() != nil || s.jitter < 0 || s.jitter > maxJitter) {
		add("jitter", "%s is not from 0s to %s, as in 5m", s.jitter, maxJitter)
	} else if s.interval > 0 && s.jitter >= s.interval {
		add("jitter", "%s is not less than the interval, %s", s.jitter, s.interval)
	}
	s.notBefore, wrong = moment(wrong, "not_before", in.GetNotBefore())
	s.notAfter, wrong = moment(wrong, "not_after", in.GetNotAfter())
	if !s.notAfter.IsZero() && s.notAfter.Before(s.notBefore) {
		add("not_after", "%s is before not_before, %s", s.notAfter.Format(time.RFC3339), s.notBefore.Format(time.RFC3339))
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return s, nil
}

func moment(wrong []Problem, field string, at *timestamppb.Timestamp) (time.Time, []Problem) {
	if at == nil {
		return time.Time{}, wrong
	}
	if at.CheckValid() != nil {
		return time.Time{}, append(wrong, Problem{field, "is not a time, as in 2026-12-24T18:00:00Z"})
	}
	return at.AsTime(), wrong
}

// zoned has cron's times in a zone.
type zoned struct {
	cron.Schedule
	zone *time.Location
}

func (z zoned) Next(after time.Time) time.Time { return z.Schedule.Next(after.In(z.zone)) }

func parseCron(text string, zone *time.Location) (cron.Schedule, error) {
	if strings.HasPrefix(text, "@every") || strings.Contains(text, "TZ=") {
		return nil, fmt.Errorf("%q is no cron expression; there are interval and time_zone for that", text)
	}
	parsed, err := cron.ParseStandard(text)
	if err != nil {
		return nil, fmt.Errorf(`%q is no cron expression (%w); use five fields, minute, hour, day of the month, month and day of the week, as in "0 2 * * mon-fri"`, text, err)
	}
	return zoned{parsed, zone}, nil
}

// First is the first time at which a run is due that is decided about now; ok is false when there is none.
func (s *Schedule) First(now time.Time) (due time.Time, ok bool) {
	if s.interval > 0 {
		return s.within(latest(now, s.notBefore))
	}
	return s.Next(now)
}

// Next is the first due time after another one; for cron after any moment.
func (s *Schedule) Next(after time.Time) (due time.Time, ok bool) {
	if s.interval > 0 {
		return s.within(latest(after.Add(s.interval), s.notBefore))
	}
	if after.Before(s.notBefore) {
		after = s.notBefore.Add(-1)
	}
	for range mostSteps {
		due = s.cron.Next(after)
		switch {
		case due.IsZero() || s.over(due):
			return time.Time{}, false
		case s.window.open(due):
			return due, true
		}
		opens, ok := s.window.opens(due)
		if !ok {
			break
		}
		after = opens.Add(-1)
	}
	return time.Time{}, false
}

// within is the first moment from then on at which a run may begin.
func (s *Schedule) within(at time.Time) (time.Time, bool) {
	if !s.window.open(at) {
		var ok bool
		if at, ok = s.window.opens(at); !ok {
			return time.Time{}, false
		}
	}
	return at, !s.over(at)
}

// Open tells whether a run may begin at a moment; Opens is the next one at which it may, now if it may.
func (s *Schedule) Open(at time.Time) bool {
	return s.window.open(at) && !at.Before(s.notBefore) && !s.over(at)
}

// Opens returns ok = false when no run may begin any more.
func (s *Schedule) Opens(now time.Time) (at time.Time, ok bool) {
	return s.within(latest(now, s.notBefore))
}

// Passed counts the due times from due, which is one, up to now; MostPassed of them at most. next is the first one after now.
func (s *Schedule) Passed(due, now time.Time) (count int, next time.Time, ok bool) {
	next, ok = due, true
	for count < MostPassed && ok && !next.After(now) {
		count++
		next, ok = s.Next(next)
	}
	if ok && !next.After(now) { // there are more than are counted
		if s.interval > 0 {
			next = next.Add(now.Sub(next).Truncate(s.interval))
			next, ok = s.Next(next)
		} else {
			next, ok = s.Next(now)
		}
	}
	return count, next, ok
}

// Begin is when the run that is due begins: later by part (0 to 1) of the jitter, as long as it may begin then.
func (s *Schedule) Begin(due time.Time, part float64) time.Time {
	later := time.Duration(part * float64(s.jitter))
	for later > time.Second && !s.Open(due.Add(later)) {
		later /= 2
	}
	if later > 0 && !s.Open(due.Add(later)) {
		later = 0
	}
	return due.Add(later).Truncate(time.Microsecond)
}

func (s *Schedule) over(at time.Time) bool { return !s.notAfter.IsZero() && at.After(s.notAfter) }

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
