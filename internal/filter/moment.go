package filter

import (
	"fmt"
	"math"
	"strings"
)

// A moment is a date or a time of day on it in microseconds from 2000-01-01 00:00:00, in the Gregorian calendar also before it
// was made, as PostgreSQL counts. For a timestamptz it is that of UTC. A date is its midnight.
//
// A date may lie further away than int64 counts in microseconds, so days and the microseconds of the day stand apart.
type moment struct {
	days   int64 // math.MinInt64 and math.MaxInt64 are -infinity and infinity
	micros int64 // from 0 to dayMicros-1
}

const dayMicros = 24 * 60 * 60 * 1_000_000

// The range of PostgreSQL's types, the first within and the last without.
var (
	firstDay     = civilDays(-4713, 11, 24)
	afterDates   = civilDays(5874898, 1, 1)
	afterMoments = civilDays(294277, 1, 1)
)

// momentForm says which of a moment's parts a text has.
type momentForm struct {
	time, zone bool
	loose      bool // an operand may leave out parts that are 0, and write T before the time
}

// readMoment reads a moment as PostgreSQL prints it under DateStyle ISO, such as 2026-11-26 08:13:27.5+00 or 0044-03-15 BC.
func readMoment(text []byte, form momentForm) (m moment, ok bool) {
	switch string(text) {
	case "infinity":
		return moment{days: math.MaxInt64}, true
	case "-infinity":
		return moment{days: math.MinInt64}, true
	}
	r := momentReader{rest: text, ok: true}
	year := r.number(4, 7)
	r.expect('-')
	month := r.number(2, 2)
	r.expect('-')
	day := r.number(2, 2)
	var seconds, micros int64
	if form.time && (!form.loose || r.next() == ' ' && !r.isBC() || r.next() == 'T') {
		r.skip(' ', 'T', form.loose)
		seconds, micros = r.time(form.loose)
		if form.zone {
			seconds -= r.zone()
		}
	} else if form.zone {
		return m, false
	}
	if year == 0 {
		return m, false
	}
	if r.isBC() {
		r.rest = nil
		year = 1 - year
	}
	if !r.ok || len(r.rest) > 0 || month < 1 || month > 12 || day < 1 || day > monthDays(year, month) {
		return m, false
	}
	micros += seconds * 1_000_000
	m.days = civilDays(year, month, day)
	for ; micros < 0; micros += dayMicros {
		m.days--
	}
	for ; micros >= dayMicros; micros -= dayMicros {
		m.days++
	}
	m.micros = micros
	return m, m.days >= firstDay && (m.days < afterMoments || !form.time && m.days < afterDates)
}

// momentReader reads the parts of a moment, and remembers that one was wrong.
type momentReader struct {
	rest []byte
	ok   bool
}

func (r *momentReader) next() byte {
	if len(r.rest) == 0 {
		return 0
	}
	return r.rest[0]
}

func (r *momentReader) expect(c byte) { r.skip(c, c, false) }

func (r *momentReader) skip(c, or byte, either bool) {
	if r.next() != c && (!either || r.next() != or) {
		r.ok = false
		return
	}
	r.rest = r.rest[1:]
}

func (r *momentReader) isBC() bool { return string(r.rest) == " BC" }

// number reads digits, at least and at most so many.
func (r *momentReader) number(least, most int) (n int64) {
	digits := 0
	for digits < len(r.rest) && digits < most && r.rest[digits] >= '0' && r.rest[digits] <= '9' {
		n = 10*n + int64(r.rest[digits]-'0')
		digits++
	}
	r.ok = r.ok && digits >= least
	r.rest = r.rest[digits:]
	return n
}

// time reads HH:MM:SS with up to six digits after a point.
func (r *momentReader) time(loose bool) (seconds, micros int64) {
	hour := r.number(2, 2)
	r.expect(':')
	minute := r.number(2, 2)
	var second int64
	if !loose || r.next() == ':' {
		r.expect(':')
		second = r.number(2, 2)
		if r.next() == '.' {
			r.rest = r.rest[1:]
			before := len(r.rest)
			micros = r.number(1, 6)
			for range 6 - (before - len(r.rest)) {
				micros *= 10
			}
		}
	}
	seconds = hour*3600 + minute*60 + second
	if minute > 59 || second > 59 || seconds > 86400 || seconds == 86400 && micros > 0 {
		r.ok = false
	}
	return seconds, micros
}

// zone reads Z, or an offset from UTC: +01, -04:30, +00:19:32. It returns the offset in seconds.
func (r *momentReader) zone() int64 {
	sign := int64(1)
	switch r.next() {
	case 'Z':
		r.rest = r.rest[1:]
		return 0
	case '-':
		sign = -1
	case '+':
	default:
		r.ok = false
		return 0
	}
	r.rest = r.rest[1:]
	seconds := r.number(2, 2) * 3600
	for _, unit := range []int64{60, 1} {
		if r.next() != ':' {
			break
		}
		r.rest = r.rest[1:]
		n := r.number(2, 2)
		r.ok = r.ok && n < 60
		seconds += n * unit
	}
	r.ok = r.ok && seconds < 16*3600 // PostgreSQL knows none beyond
	return sign * seconds
}

func (m moment) compare(other moment) int {
	switch {
	case m == other:
		return 0
	case m.days < other.days || m.days == other.days && m.micros < other.micros:
		return -1
	}
	return 1
}

// format prints the moment as PostgreSQL does.
func (m moment) format(form momentForm) string {
	switch m.days {
	case math.MaxInt64:
		return "infinity"
	case math.MinInt64:
		return "-infinity"
	}
	year, month, day := civil(m.days)
	era := ""
	if year < 1 {
		year, era = 1-year, " BC"
	}
	text := fmt.Sprintf("%04d-%02d-%02d", year, month, day)
	if form.time {
		second := m.micros / 1_000_000
		text += fmt.Sprintf(" %02d:%02d:%02d", second/3600, second/60%60, second%60)
		if fraction := m.micros % 1_000_000; fraction != 0 {
			text += "." + strings.TrimRight(fmt.Sprintf("%06d", fraction), "0")
		}
		if form.zone {
			text += "+00"
		}
	}
	return text + era
}

// The calendar repeats after 400 years. Years are counted from March, so that a leap day is the last of its year; year 0 is 1 BC.
const (
	eraYears   = 400
	eraDays    = 146097
	daysTo2000 = 730425 // from 0000-03-01 to 2000-01-01
)

func civilDays(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, eraYears)
	of := year - era*eraYears
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*eraDays + of*365 + of/4 - of/100 + dayOfYear - daysTo2000
}

func civil(days int64) (year, month, day int64) {
	days += daysTo2000
	era := floorDiv(days, eraDays)
	of := days - era*eraDays
	yearOf := (of - of/1460 + of/36524 - of/(eraDays-1)) / 365
	dayOfYear := of - (365*yearOf + yearOf/4 - yearOf/100)
	month = (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*month+2)/5 + 1
	month += 3
	year = yearOf + era*eraYears
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

func monthDays(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
