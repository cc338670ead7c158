package certfile

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// maxTokenBytes is far above any token, and below the limit of headers.
const maxTokenBytes = 4096

// CheckToken refuses what cannot be sent as a token. Its error does not show it.
func CheckToken(token string) error {
	if len(token) > maxTokenBytes {
		return fmt.Errorf("it has more than %d bytes", maxTokenBytes)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("it holds a space or a character that no token has")
	}
	return nil
}

// TokenFile returns a function that returns the token in a file, whose first line it is. The file is read again when it changes.
func TokenFile(path string) func() (string, error) {
	var mu sync.Mutex
	var token string
	var seen stamp
	var looked time.Time
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if token != "" && time.Since(looked) < lookAgain {
			return token, nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		looked = time.Now()
		if now := (stamp{info.ModTime(), info.Size()}); token == "" || now != seen {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("read token: %w", err)
			}
			fresh := strings.TrimSpace(string(text))
			if fresh == "" {
				return "", fmt.Errorf("read token: file %s is empty", path)
			}
			if err := CheckToken(fresh); err != nil {
				return "", fmt.Errorf("read token from file %s: %w", path, err)
			}
			token, seen = fresh, now
		}
		return token, nil
	}
}
