package postgres

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const redacted = "xxxxx"

var (
	passwordWord  = regexp.MustCompile(`(?i)\b((?:ssl)?password)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)`)
	passwordQuery = regexp.MustCompile(`(?i)([?&][^=&]*password[^=&]*=)[^&]*`)
)

// Redact returns the connection string without its secrets, fit for logs, errors and answers. In a URL that is not well-formed
// everything that may be a part of the password counts as one.
func Redact(connString string) string {
	scheme, rest, found := strings.Cut(connString, "://")
	if !found {
		return passwordWord.ReplaceAllString(connString, "${1}="+redacted)
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		if user, _, has := strings.Cut(rest[:at], ":"); has {
			rest = user + ":" + redacted + rest[at:]
		}
	}
	return scheme + "://" + passwordQuery.ReplaceAllString(rest, "${1}"+redacted)
}

// withoutSecrets is the text of an error about a connection string.
func withoutSecrets(err error, connString string) string {
	text := err.Error()
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		if inner := parse.Unwrap(); inner != nil {
			text = inner.Error()
		}
	}
	if parsed, parseErr := url.Parse(connString); parseErr == nil {
		if password, has := parsed.User.Password(); has && password != "" {
			text = strings.ReplaceAll(text, password, redacted)
		}
	}
	if strings.Contains(text, connString) {
		text = "it is not a valid URL"
	}
	return text
}
