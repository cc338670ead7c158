package logger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/setup"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// Codes of what stands in the way of capturing. They are the state's reason_code and stable.
const (
	CodeVersion            = "POSTGRES_VERSION"
	CodeRecovery           = "IN_RECOVERY"
	CodeWALLevel           = "WAL_LEVEL"
	CodePrivilege          = setup.CodePrivilege
	CodeSlotsFull          = "SLOTS_FULL"
	CodeWALSendersFull     = "WAL_SENDERS_FULL"
	CodeSlotForeign        = "SLOT_FOREIGN"
	CodePublicationForeign = "PUBLICATION_FOREIGN"
	CodeTableUnknown       = "TABLE_UNKNOWN"
	CodeTableRefused       = "TABLE_REFUSED"
	CodeSchemaMissing      = "SCHEMA_MISSING"
)

// Problem is one thing that a person has to mend before capture can start. Its text holds the command that does so.
type Problem = setup.Problem

// SetupError lists all that a person has to mend. Nothing has been created when it is returned.
type SetupError struct{ Problems []Problem }

func (e *SetupError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.Text
	}
	return "capture cannot start: " + strings.Join(texts, "; ")
}

// Code is that of the first problem.
func (e *SetupError) Code() string { return e.Problems[0].Code }

const (
	minVersion = 150000
	moreSlots  = 10 // than there are, where all are taken
)

// slotSuffix is what the name of a slot cannot hold.
var slotSuffix = regexp.MustCompile(`[^a-z0-9_]+`)

// server is what the checks have read of the server.
type server struct {
	version  int
	role     string
	database string
	slot     slot
}

// inspect reads what capture depends on and returns a *SetupError with everything that stands in its way. emptyLog says that
// there is no change log yet: then a table that cannot be captured is an error, later it is a warning, for a table that is
// created without a key must not stop the others.
func inspect(ctx context.Context, conn *pgx.Conn, cfg Config, pub publish.Config, emptyLog bool) (server, publish.State, error) {
	s, tables, problems, err := examine(ctx, conn, cfg, pub, emptyLog, "")
	if err == nil && emptyLog && !s.slot.exists {
		for _, refusals := range publish.Summary(tables.Refused) {
			problems = append(problems, Problem{Code: CodeTableRefused, Text: refusals})
		}
	}
	if err == nil && problems != nil {
		err = &SetupError{Problems: problems}
	}
	return s, tables, err
}

// examine finds all that stands in the way of capturing as a role, the session's own when it is empty, but for single tables.
func examine(ctx context.Context, conn *pgx.Conn, cfg Config, pub publish.Config, emptyLog bool, role string) (server, publish.State, []Problem, error) {
	var s server
	var walLevel, encoding string
	var recovery, replication, create, schemaThere bool
	var slots, maxSlots, senders, maxSenders int
	err := conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, coalesce(nullif($1::text, ''), current_user::text), current_database()::text,
		       current_setting('wal_level'), current_setting('server_encoding'), pg_is_in_recovery(),
		       coalesce((SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = `+setup.Grantee+`), false),
		       has_database_privilege(`+setup.Grantee+`, current_database(), 'CREATE'),
		       EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'syncline' AND c.relname = 'followers'),
		       (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		       (SELECT count(*) FROM pg_stat_get_wal_senders()), current_setting('max_wal_senders')::int`, role).
		Scan(&s.version, &s.role, &s.database, &walLevel, &encoding, &recovery, &replication, &create, &schemaThere,
			&slots, &maxSlots, &senders, &maxSenders)
	if err != nil {
		return s, publish.State{}, nil, fmt.Errorf("check the primary's settings: %w", err)
	}
	var problems []Problem
	add := func(code, sql, format string, args ...any) {
		p := Problem{Code: code, Text: fmt.Sprintf(format, args...)}
		if sql != "" {
			p.SQL = []string{sql}
		}
		problems = append(problems, p)
	}
	limit := func(code, setting string, value int, format string, args ...any) {
		p := setup.Set(code, setting, strconv.Itoa(value), format, args...)
		p.Text += fmt.Sprintf("run ALTER SYSTEM SET %s = %d, then restart PostgreSQL", setting, value)
		problems = append(problems, p)
	}
	if s.version < minVersion {
		add(CodeVersion, "", "PostgreSQL %d is too old: version 15 or newer is needed", s.version/10000)
		return s, publish.State{}, problems, nil
	}
	if recovery {
		add(CodeRecovery, "", "the server is a standby: connect to its primary, or promote it with SELECT pg_promote()")
	}
	if walLevel != "logical" {
		problems = append(problems, setup.Set(CodeWALLevel, "wal_level", "logical", "wal_level is %s: run ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL", walLevel))
	}
	name := postgres.Ident(s.role)
	if !replication {
		sql := "ALTER ROLE " + name + " REPLICATION"
		add(CodePrivilege, sql, "role %s may not replicate: run %s as a superuser", s.role, sql)
	}
	grant, err := setup.MessageGrant(ctx, conn, s.role)
	if err != nil {
		return s, publish.State{}, nil, err //nolint:wrapcheck // it says what failed
	}
	if grant != "" {
		add(CodePrivilege, grant, "role %s may not emit logical messages, by which waiting for a position works: run %s as a superuser", s.role, grant)
	}
	mayCreate := "GRANT CREATE ON DATABASE " + postgres.Ident(s.database) + " TO " + name
	if !schemaThere && !create {
		add(CodeSchemaMissing, mayCreate, "schema syncline is not prepared in database %s: %s and start again", s.database, mayCreate)
	}
	if s.slot, err = readSlot(ctx, conn, cfg.Slot); err != nil {
		return s, publish.State{}, nil, err
	}
	switch {
	case s.slot.exists && s.slot.kind == "logical" && s.slot.database != s.database: // perhaps another primary's, for which it is all that keeps its place
		add(CodeSlotForeign, "", "slot %s is used in database %s of this server, and a slot serves one database: choose another name with --slot, as in --slot syncline_%.40s",
			cfg.Slot, s.slot.database, slotSuffix.ReplaceAllString(strings.ToLower(s.database), "_"))
	case s.slot.exists && (s.slot.kind != "logical" || s.slot.plugin != "pgoutput" || s.slot.temporary):
		add(CodeSlotForeign, "", "slot %s is a %s slot (plugin %q, database %q) and not ours: choose another name with --slot, or drop it with SELECT pg_drop_replication_slot('%s')",
			cfg.Slot, s.slot.kind, s.slot.plugin, s.slot.database, cfg.Slot)
	case !s.slot.exists && slots >= maxSlots:
		limit(CodeSlotsFull, "max_replication_slots", maxSlots+moreSlots, "all %d replication slots are taken: drop one that nobody needs (SELECT slot_name, active FROM pg_replication_slots), or ", maxSlots)
	}
	if !s.slot.active && senders >= maxSenders {
		limit(CodeWALSendersFull, "max_wal_senders", maxSenders+moreSlots, "all %d walsenders are taken: ", maxSenders)
	}
	tables, err := publish.Check(ctx, conn, pub, s.role)
	var unknown *publish.UnknownTablesError
	switch {
	case errors.As(err, &unknown):
		if emptyLog {
			add(CodeTableUnknown, "", "%v", err)
		}
	case errors.Is(err, publish.ErrForeignPublication):
		add(CodePublicationForeign, "", "%v", err)
	case err != nil:
		return s, tables, nil, err
	}
	if (tables.OIDs[0] == 0 || tables.OIDs[1] == 0) && !create {
		add(CodePrivilege, mayCreate, "role %s may not create a publication: run %s", s.role, mayCreate)
	}
	return s, tables, problems, nil
}
