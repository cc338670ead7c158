package apply

import (
	"encoding/binary"
	"math"
	"time"
)

// Dates and times are read as they are written under DateStyle ISO: infinity, and years of four digits, of our era. Other
// years and times of day beyond 23:59:59.999999 stay text.

// epoch is the zero of PostgreSQL's dates and times.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	dateBytes     = len("2000-01-01")
	clockBytes    = len("2000-01-01 00:00:00")
	mostMicros    = 6 // digits of a fraction
	secondsOfDay  = 24 * 60 * 60
	microsPerSec  = 1_000_000
	mostZoneHours = 15
)

func appendDate(dst, text []byte) ([]byte, bool) {
	switch string(text) {
	case infinity:
		return binary.BigEndian.AppendUint32(dst, math.MaxInt32), true
	case minusInfinity:
		return binary.BigEndian.AppendUint32(dst, 1<<31), true
	}
	if len(text) != dateBytes {
		return dst, false
	}
	day, ok := parseDay(text)
	if !ok {
		return dst, false
	}
	return binary.BigEndian.AppendUint32(dst, uint32(int32(day))), true
}

// appendEndOfTime appends infinity of a timestamp.
func appendEndOfTime(dst, text []byte) ([]byte, bool) {
	switch string(text) {
	case infinity:
		return binary.BigEndian.AppendUint64(dst, math.MaxInt64), true
	case minusInfinity:
		return binary.BigEndian.AppendUint64(dst, 1<<63), true
	}
	return dst, false
}

func appendTimestamp(dst, text []byte) ([]byte, bool) {
	micros, rest, ok := parseClock(text)
	if !ok || len(rest) > 0 {
		return appendEndOfTime(dst, text)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(micros)), true
}

func appendTimestamptz(dst, text []byte) ([]byte, bool) {
	micros, rest, ok := parseClock(text)
	if !ok {
		return appendEndOfTime(dst, text)
	}
	offset, ok := parseZone(rest)
	if !ok {
		return dst, false
	}
	return binary.BigEndian.AppendUint64(dst, uint64(micros-offset*microsPerSec)), true
}

// parseDay reads the date in front of text, as days since the epoch.
func parseDay(text []byte) (days int64, ok bool) {
	if text[4] != '-' || text[7] != '-' {
		return 0, false
	}
	year, okYear := digits(text[:4])
	month, okMonth := digits(text[5:7])
	day, okDay := digits(text[8:10])
	if !okYear || !okMonth || !okDay || year == 0 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if t.Day() != day || t.Month() != time.Month(month) {
		return 0, false
	}
	return (t.Unix() - epoch.Unix()) / secondsOfDay, true
}

// parseClock reads date and time of day in front of text, as microseconds since the epoch.
func parseClock(text []byte) (micros int64, rest []byte, ok bool) {
	if len(text) < clockBytes || text[10] != ' ' || text[13] != ':' || text[16] != ':' {
		return 0, nil, false
	}
	day, okDay := parseDay(text)
	hour, okHour := digits(text[11:13])
	minute, okMinute := digits(text[14:16])
	second, okSecond := digits(text[17:19])
	if !okDay || !okHour || !okMinute || !okSecond || hour > 23 || minute > 59 || second > 59 {
		return 0, nil, false
	}
	rest = text[clockBytes:]
	fraction := 0
	if len(rest) > 0 && rest[0] == '.' {
		n := 1
		for scale := microsPerSec / 10; n < len(rest) && rest[n] >= '0' && rest[n] <= '9'; scale /= 10 {
			fraction += int(rest[n]-'0') * scale
			n++
		}
		if n == 1 || n > 1+mostMicros {
			return 0, nil, false
		}
		rest = rest[n:]
	}
	seconds := day*secondsOfDay + int64(hour)*3600 + int64(minute)*60 + int64(second)
	return seconds*microsPerSec + int64(fraction), rest, true
}

// parseZone reads +HH, +HH:MM or +HH:MM:SS, or the same with a minus, as seconds.
func parseZone(text []byte) (seconds int64, ok bool) {
	if len(text) != 3 && len(text) != 6 && len(text) != 9 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	unit := int64(3600)
	for at := 1; at < len(text); at += 3 {
		n, okPart := digits(text[at : at+2])
		if !okPart || at > 1 && (text[at-1] != ':' || n > 59) || at == 1 && n > mostZoneHours {
			return 0, false
		}
		seconds += int64(n) * unit
		unit /= 60
	}
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// digits reads a number that is all digits.
func digits(text []byte) (n int, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
