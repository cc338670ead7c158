package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func parse(t *testing.T, in *applierv1.Schedule) *Schedule {
	t.Helper()
	s, wrong := New(in)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return s
}

func every(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// due lists the first due times, in the zone of the first one.
func due(s *Schedule, now time.Time, n int) (list []string) {
	next, ok := s.First(now)
	for ; ok && n > 0; n-- {
		list = append(list, next.In(now.Location()).Format("Mon 01-02 15:04 MST"))
		next, ok = s.Next(next)
	}
	if !ok {
		list = append(list, "end")
	}
	return list
}

func TestDueTimes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, now string
		in        *applierv1.Schedule
		want      string
	}{
		{"cron", "2026-06-01T10:00:00Z", &applierv1.Schedule{Cron: "30 2 * * mon-fri", TimeZone: "Europe/Berlin"}, "Tue 06-02 02:30 CEST, Wed 06-03 02:30 CEST, Thu 06-04 02:30 CEST, Fri 06-05 02:30 CEST, Mon 06-08 02:30 CEST"},
		{"a time that is passed over in spring does not come", "2026-03-27T12:00:00Z", &applierv1.Schedule{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"}, "Sat 03-28 02:30 CET, Mon 03-30 02:30 CEST"},
		{"one that is shown twice in autumn comes twice", "2026-10-24T12:00:00Z", &applierv1.Schedule{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"}, "Sun 10-25 02:30 CEST, Sun 10-25 02:30 CET, Mon 10-26 02:30 CET"},
		{"the zone keeps the time of day", "2026-03-28T00:00:00Z", &applierv1.Schedule{Cron: "@daily", TimeZone: "Europe/Berlin"}, "Sun 03-29 00:00 CET, Mon 03-30 00:00 CEST"},
		{"UTC without a zone", "2026-10-24T12:00:00Z", &applierv1.Schedule{Cron: "30 0 * * *"}, "Sun 10-25 02:30 CEST, Mon 10-26 01:30 CET"},
		{"interval", "2026-06-01T10:00:00Z", &applierv1.Schedule{Interval: every(10 * time.Minute)}, "Mon 06-01 12:00 CEST, Mon 06-01 12:10 CEST, Mon 06-01 12:20 CEST"},
		{"interval over the change of clocks", "2026-03-29T00:30:00Z", &applierv1.Schedule{Interval: every(time.Hour)}, "Sun 03-29 01:30 CET, Sun 03-29 03:30 CEST, Sun 03-29 04:30 CEST"},
		{"interval in a window over midnight", "2026-06-01T20:10:00Z", &applierv1.Schedule{Interval: every(4 * time.Hour), Window: "22:00-06:00", TimeZone: "Europe/Berlin"}, "Mon 06-01 22:10 CEST, Tue 06-02 02:10 CEST, Tue 06-02 22:00 CEST, Wed 06-03 02:00 CEST, Wed 06-03 22:00 CEST"},
		{"interval begins where the window opens", "2026-06-01T10:00:00Z", &applierv1.Schedule{Interval: every(time.Minute), Window: "22:00-06:00", TimeZone: "Europe/Berlin"}, "Mon 06-01 22:00 CEST, Mon 06-01 22:01 CEST"},
		{"cron in a window", "2026-06-01T15:00:00Z", &applierv1.Schedule{Cron: "0 */5 * * *", Window: "22:00-06:00", TimeZone: "Europe/Berlin"}, "Tue 06-02 00:00 CEST, Tue 06-02 05:00 CEST, Wed 06-03 00:00 CEST"},
		{"a night belongs to the day on which it begins", "2026-06-01T15:00:00Z", &applierv1.Schedule{Cron: "0 0,12,23 * * *", Window: "22:00-06:00", Days: []string{"fri", "Sat"}, TimeZone: "Europe/Berlin"}, "Fri 06-05 23:00 CEST, Sat 06-06 00:00 CEST, Sat 06-06 23:00 CEST, Sun 06-07 00:00 CEST, Fri 06-12 23:00 CEST"},
		{"days alone", "2026-06-01T15:00:00Z", &applierv1.Schedule{Interval: every(12 * time.Hour), Days: []string{"wed"}, TimeZone: "Europe/Berlin"}, "Wed 06-03 00:00 CEST, Wed 06-03 12:00 CEST, Wed 06-10 00:00 CEST"},
		{"from then on", "2026-06-01T15:00:00Z", &applierv1.Schedule{Interval: every(time.Hour), NotBefore: timestamppb.New(at(t, "2026-06-02T10:07:00Z"))}, "Tue 06-02 12:07 CEST, Tue 06-02 13:07 CEST"},
		{"until then", "2026-06-01T15:00:00Z", &applierv1.Schedule{Cron: "0 * * * *", NotBefore: timestamppb.New(at(t, "2026-06-02T10:00:00Z")), NotAfter: timestamppb.New(at(t, "2026-06-02T11:00:00Z"))}, "Tue 06-02 12:00 CEST, Tue 06-02 13:00 CEST, end"},
		{"a window that a gap of the clock opens later", "2026-03-28T12:00:00Z", &applierv1.Schedule{Interval: every(time.Hour), Window: "02:30-03:45", TimeZone: "Europe/Berlin"}, "Sun 03-29 03:30 CEST, Mon 03-30 02:30 CEST"},
		{"never", "2026-06-01T15:00:00Z", &applierv1.Schedule{Cron: "0 12 * * *", Window: "22:00-06:00"}, "end"},
		{"no such day", "2026-06-01T15:00:00Z", &applierv1.Schedule{Cron: "0 12 30 2 *"}, "end"},
		{"over", "2026-06-01T15:00:00Z", &applierv1.Schedule{Interval: every(time.Hour), NotAfter: timestamppb.New(at(t, "2026-05-02T11:00:00Z"))}, "end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := due(parse(t, c.in), at(t, c.now).In(berlin), strings.Count(c.want, ",")+1)
			if list := strings.Split(c.want, ", "); fmt.Sprint(got[:min(len(got), len(list))]) != fmt.Sprint(list) {
				t.Errorf("due %v, expected %v", got, list)
			}
		})
	}
}

// TestPassed: what was due while nobody looked is counted, and the next due time lies after now and on the same grid.
func TestPassed(t *testing.T) {
	from := at(t, "2026-06-01T00:00:00Z")
	for _, c := range []struct {
		in    *applierv1.Schedule
		later time.Duration
		count int
		next  string
	}{
		{&applierv1.Schedule{Interval: every(10 * time.Minute)}, 0, 1, "2026-06-01T00:10:00Z"},
		{&applierv1.Schedule{Interval: every(10 * time.Minute)}, 9 * time.Minute, 1, "2026-06-01T00:10:00Z"},
		{&applierv1.Schedule{Interval: every(10 * time.Minute)}, 35 * time.Minute, 4, "2026-06-01T00:40:00Z"},
		{&applierv1.Schedule{Interval: every(10 * time.Second)}, 200*time.Hour + 5*time.Second, MostPassed, "2026-06-09T08:00:10Z"},
		{&applierv1.Schedule{Cron: "* * * * *"}, 300*time.Hour + 5*time.Second, MostPassed, "2026-06-13T12:01:00Z"},
		{&applierv1.Schedule{Cron: "0 0 * * *"}, 72 * time.Hour, 4, "2026-06-05T00:00:00Z"},
		{&applierv1.Schedule{Interval: every(time.Hour), Window: "22:00-02:00"}, 27 * time.Hour, 6, "2026-06-02T22:00:00Z"},
	} {
		count, next, ok := parse(t, c.in).Passed(from, from.Add(c.later))
		if count != c.count || !ok || !next.Equal(at(t, c.next)) {
			t.Errorf("%v after %s: %d passed, next %s %v; expected %d, %s", c.in, c.later, count, next.UTC(), ok, c.count, c.next)
		}
	}
	s := parse(t, &applierv1.Schedule{Cron: "0 * * * *", NotAfter: timestamppb.New(from.Add(time.Hour))})
	if count, _, ok := s.Passed(from, from.Add(9*time.Hour)); count != 2 || ok {
		t.Errorf("%d passed of a schedule that has ended, more: %v", count, ok)
	}
}

// TestJitter: a run begins later by at most the jitter, and never where it may not.
func TestJitter(t *testing.T) {
	s := parse(t, &applierv1.Schedule{Cron: "50 5 * * *", Window: "22:00-06:00", Jitter: every(2 * time.Hour)})
	due := at(t, "2026-06-01T05:50:00Z")
	for i := range 1000 {
		begin := s.Begin(due, float64(i)/1000)
		if begin.Before(due) || !begin.Before(due.Add(10*time.Minute)) || !s.Open(begin) {
			t.Fatalf("due at %s it begins at %s", due, begin)
		}
	}
	if begin := s.Begin(due, 0.04); begin != due.Add(288*time.Second) {
		t.Errorf("it begins at %s", begin)
	}
	s = parse(t, &applierv1.Schedule{Interval: every(time.Hour), Jitter: every(time.Minute), NotAfter: timestamppb.New(due)})
	if begin := s.Begin(due, 0.99); begin != due {
		t.Errorf("not after %s, it begins at %s", due, begin)
	}
}

func TestProblems(t *testing.T) {
	for want, in := range map[string]*applierv1.Schedule{
		`cron: is needed, as in "0 2 * * *"`:                            {},
		`interval: is given together with cron`:                         {Cron: "@daily", Interval: every(time.Minute)},
		`cron: "x" is no cron expression`:                               {Cron: "x"},
		`cron: "@every 1m" is no cron expression; there are interval`:   {Cron: "@every 1m"},
		`cron: "TZ=UTC 0 2 * * *" is no cron expression; there are`:     {Cron: "TZ=UTC 0 2 * * *"},
		`cron: "0 0 2 * * *" is no cron expression`:                     {Cron: "0 0 2 * * *"},
		`interval: 1s is not from 10s to 8784h0m0s, as in 10m`:          {Interval: every(time.Second)},
		`time_zone: "Europe/Atlantis" is no time zone; use a name such`: {Cron: "@daily", TimeZone: "Europe/Atlantis"},
		`time_zone: "Local" is no time zone`:                            {Cron: "@daily", TimeZone: "Local"},
		`window: "22" is no window; use two different times of day`:     {Cron: "@daily", Window: "22"},
		`window: "22:00-25:00" is no window`:                            {Cron: "@daily", Window: "22:00-25:00"},
		`window: "06:00-06:00" is no window`:                            {Cron: "@daily", Window: "06:00-06:00"},
		`days: "someday" is no day of the week; use mon`:                {Cron: "@daily", Days: []string{"mon", "someday"}},
		`max_runs: -1 is not from 0`:                                    {Cron: "@daily", MaxRuns: -1},
		`jitter: 25h0m0s is not from 0s to 24h0m0s, as in 5m`:           {Cron: "@daily", Jitter: every(25 * time.Hour)},
		`jitter: 1m0s is not less than the interval, 1m0s`:              {Interval: every(time.Minute), Jitter: every(time.Minute)},
		`not_after: 2026-01-01T00:00:00Z is before not_before`:          {Cron: "@daily", NotBefore: timestamppb.New(at(t, "2026-02-01T00:00:00Z")), NotAfter: timestamppb.New(at(t, "2026-01-01T00:00:00Z"))},
	} {
		s, wrong := New(in)
		var text []string
		for _, p := range wrong {
			text = append(text, p.Field+": "+p.Text)
		}
		if s != nil || len(wrong) != 1 || !strings.HasPrefix(text[0], want) {
			t.Errorf("%v: %q, expected %q", in, text, want)
		}
	}
}
