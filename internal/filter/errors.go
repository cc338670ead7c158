package filter

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrSelector says that a selector, or a parameter for it, cannot be used: its author has to change it.
var ErrSelector = errors.New("selector")

// ErrValue says that a row's value is not what its column's type prints: what it was read from is damaged, or the column has
// another type than the one that the selector was compiled for.
var ErrValue = errors.New("row cannot be filtered")

// refuse is an ErrSelector that names the place in the selector.
func refuse(path, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = shownPath(path) + ": " + text
	}
	return fmt.Errorf("%w: %s", ErrSelector, text)
}

// shownPath keeps a path in one line, and its end, which says most.
func shownPath(path string) string {
	const most = 160
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		path = fmt.Sprintf("%q", path)
	}
	if runes := []rune(path); len(runes) > most {
		path = string(runes[:most/4]) + "…" + string(runes[len(runes)-most*3/4:])
	}
	return path
}

// shown shortens text from a selector for a message.
func shown(text string) string {
	const most = 80
	if runes := []rune(text); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", text)
}
