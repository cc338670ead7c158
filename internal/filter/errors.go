package filter

import (
	"errors"
	"fmt"
)

// ErrSelector says that a selector, or a parameter for it, cannot be used: its author has to change it.
var ErrSelector = errors.New("selector")

// ErrValue says that a row's value is not what its column's type prints: what it was read from is damaged, or the column has
// another type than the one that the selector was compiled for.
var ErrValue = errors.New("row cannot be filtered")

// refuse is an ErrSelector that names the place in the selector.
func refuse(path, format string, args ...any) error {
	if path == "" {
		return fmt.Errorf("%w: %s", ErrSelector, fmt.Sprintf(format, args...))
	}
	return fmt.Errorf("%w: %s: %s", ErrSelector, path, fmt.Sprintf(format, args...))
}

// shown shortens text from a selector for a message.
func shown(text string) string {
	const most = 80
	if runes := []rune(text); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", text)
}
