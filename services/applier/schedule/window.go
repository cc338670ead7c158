package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// window is the part of each day in which runs may begin, by the clocks of a zone. It goes over midnight when it ends before it
// begins, and is the whole day when both are the same.
type window struct {
	from, to int // minutes of the day
	days     [7]bool
	zone     *time.Location
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads HH:MM-HH:MM; "" is the whole day.
func parseWindow(text string, zone *time.Location) (window, error) {
	w := window{zone: zone}
	if text == "" {
		return w, nil
	}
	const form = `use two different times of day, as in "22:00-06:00"`
	from, to, found := strings.Cut(text, "-")
	if !found {
		return w, fmt.Errorf("%q is no window; %s", text, form)
	}
	var err1, err2 error
	w.from, err1 = minuteOf(from)
	w.to, err2 = minuteOf(to)
	if errors.Join(err1, err2) != nil || w.from == w.to {
		return w, fmt.Errorf("%q is no window; %s", text, form)
	}
	return w, nil
}

func minuteOf(text string) (int, error) {
	if text == "24:00" {
		return 0, nil
	}
	at, err := time.Parse("15:04", text)
	return at.Hour()*60 + at.Minute(), err //nolint:wrapcheck // it is not shown
}

func parseDays(names []string) (days [7]bool, err error) {
	for i := range days {
		days[i] = len(names) == 0
	}
	for _, name := range names {
		i := slices.Index(dayNames, strings.ToLower(name))
		if i < 0 {
			return days, fmt.Errorf("%q is no day of the week; use mon, tue, wed, thu, fri, sat and sun", name)
		}
		days[i] = true
	}
	return days, nil
}

// open tells whether a run may begin.
func (w window) open(at time.Time) bool {
	local := at.In(w.zone)
	minute, day := local.Hour()*60+local.Minute(), local.Weekday()
	if w.from < w.to {
		return w.days[day] && minute >= w.from && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

// opens is the next moment after another one at which it opens; ok is false where it never does.
func (w window) opens(after time.Time) (at time.Time, ok bool) {
	year, month, day := after.In(w.zone).Date()
	for i := range 9 {
		// A time that the clock passes over becomes one that is shown an hour before or after.
		at := time.Date(year, month, day+i, w.from/60, w.from%60, 0, 0, w.zone)
		if !w.open(at) {
			at = at.Add(time.Hour)
		}
		if at.After(after) && w.open(at) {
			return at, true
		}
	}
	return time.Time{}, false
}
