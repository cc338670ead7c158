// Package postgres opens connections to PostgreSQL with the session settings that Syncline's correctness rests on, and
// holds the one way to quote identifiers. Every session prints values the same way, so text read from one server means
// the same on another.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connectTimeout bounds one attempt to connect when the URL sets no connect_timeout.
const connectTimeout = 10 * time.Second

// SessionSettings make a value's text independent of the server's configuration: printed by one server it is read
// with the same meaning by another. An empty search_path makes every printed name qualified.
func SessionSettings() map[string]string {
	return map[string]string{
		"DateStyle":                           "ISO, YMD",
		"IntervalStyle":                       "postgres",
		"extra_float_digits":                  "3",
		"client_encoding":                     "UTF8",
		"lc_monetary":                         "C",
		"TimeZone":                            "UTC",
		"bytea_output":                        "hex",
		"xmloption":                           "content",
		"search_path":                         "",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_session_timeout":                "0",
		"standard_conforming_strings":         "on",
		"quote_all_identifiers":               "off",
		"row_security":                        "off",
		"default_transaction_read_only":       "off",
		"default_transaction_isolation":       "read committed",
		"default_transaction_deferrable":      "off",
		"idle_in_transaction_session_timeout": "0",
	}
}

const expectedURL = "postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password as in any URL: @ as %40, / as %2F, # as %23"

// Config parses a connection URL or key=value string and adds SessionSettings and the application name. The text of
// an error never holds the password.
func Config(connString, application string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("parse connection URL %s: %s; expected %s", Redact(connString), withoutSecrets(err, connString), expectedURL)
	}
	// What stands between two @ would be shown as a part of the host.
	if strings.Contains(connString, "://") && (strings.Contains(config.Host, "@") || strayPassword(connString)) {
		return nil, fmt.Errorf("parse connection URL %s: there is more than one @, or a # that is not written as %%23; expected %s", Redact(connString), expectedURL)
	}
	for name, value := range SessionSettings() {
		config.RuntimeParams[name] = value
	}
	config.RuntimeParams["application_name"] = application
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	return config, nil
}

// strayPassword tells whether a password ends a URL's host early by a / or #: what follows would be taken for a database or be dropped, and what
// stands before it be looked up as a host.
func strayPassword(connString string) bool {
	parsed, err := url.Parse(connString)
	return err == nil && (parsed.Fragment != "" || strings.Contains(parsed.EscapedPath(), "@"))
}

// Connect opens one session with SessionSettings.
func Connect(ctx context.Context, connString, application string) (*pgx.Conn, error) {
	config, err := Config(connString, application)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL at %s: %w", Redact(connString), oneLine(err))
	}
	return conn, nil
}

// ConnectReplication opens a walsender session on the same database (replication=database), with SessionSettings: the
// output plugin prints values by the walsender's own settings.
func ConnectReplication(ctx context.Context, connString, application string) (*pgconn.PgConn, error) {
	config, err := Config(connString, application)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, fmt.Errorf("open replication connection to PostgreSQL at %s: %w", Redact(connString), oneLine(err))
	}
	return conn, nil
}

// connectError is a failure to connect with its text in one line: pgconn writes one for each address and each way that it
// tried, with the user and database that the URL shows already.
type connectError struct {
	error

	text string
}

func (e *connectError) Error() string { return e.text }

func (e *connectError) Unwrap() error { return e.error }

func oneLine(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		text := fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
		if strings.Contains(pg.Message, "pg_hba.conf") {
			text += "; add such an entry and reload PostgreSQL's configuration"
		}
		return &connectError{err, text}
	}
	text := err.Error()
	if connect := new(pgconn.ConnectError); errors.As(err, &connect) && connect.Unwrap() != nil {
		text = connect.Unwrap().Error()
	}
	var parts []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		said := func(part string) bool { return strings.HasSuffix(part, line) }
		if line != "" && !slices.ContainsFunc(parts, said) {
			parts = append(parts, line)
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		parts = append(parts, "is PostgreSQL running there, and is that its port?")
	}
	return &connectError{err, strings.Join(parts, "; ")}
}

// Address returns the host and port that a connection string leads to, for messages.
func Address(connString string) string {
	config, err := pgconn.ParseConfig(connString)
	if err != nil {
		return Redact(connString)
	}
	return net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
}

// Code returns the SQLSTATE of a PostgreSQL error, or "" when err is none.
func Code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// IsTransient tells whether the same work may succeed when it is tried again on a new connection: the connection
// broke, the server is starting or stopping, resources were short, or a concurrent transaction interfered.
func IsTransient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "08", "53", "57", "58", "40": // connection, resources, operator intervention, system error, rollback
			return true
		}
		return pg.Code == "55P03" || pg.Code == "55006" // lock not available, object in use
	}
	var connectErr *pgconn.ConnectError
	var netErr net.Error
	return errors.As(err, &connectErr) || errors.As(err, &netErr) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) || isBroken(err)
}
