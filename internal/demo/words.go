package demo

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// count prints 1234567 as 1,234,567.
func count(n int64) string {
	text := strconv.FormatInt(n, 10)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// size prints bytes in units of 1000.
func size(n int64) string {
	value := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if value < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f %s", value, unit)
			}
			return fmt.Sprintf("%.1f %s", value, unit)
		}
		value /= 1000
	}
	return fmt.Sprintf("%.1f TB", value)
}

// spell prints a time to the second.
func spell(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// stateWord is a state as people read it.
func stateWord(s applierv1.State) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), "STATE_")), "_", " ")
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
