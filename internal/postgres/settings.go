package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Settings are what a database's rows and queries can depend on and no session can set.
type Settings struct {
	Encoding string // as PostgreSQL names it: UTF8
	// Provider is "libc", "icu" or "builtin". Locale is that of the last two, Collate and CType are libc's.
	Provider, Locale, Collate, CType string
	// CollationVersion is the version that the database's indexes were built with, CollationActual the library's; empty where there is none.
	CollationVersion, CollationActual string
	// Start is when the server was started: with the system identifier it tells one server from a physical copy of it.
	Start time.Time
}

// The column of the locale has two names, by version.
const settingsQuery = `
SELECT pg_catalog.pg_encoding_to_char(d.encoding)::text,
       CASE d.datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', ''), coalesce(d.datcollate::text, ''), coalesce(d.datctype::text, ''),
       coalesce(d.datcollversion, ''), coalesce(pg_catalog.pg_database_collation_actual_version(d.oid), ''),
       pg_catalog.pg_postmaster_start_time()
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`

// ReadSettings reads the settings of a session's database.
func ReadSettings(ctx context.Context, conn *pgx.Conn) (Settings, error) {
	var s Settings
	err := conn.QueryRow(ctx, settingsQuery).Scan(&s.Encoding, &s.Provider, &s.Locale, &s.Collate, &s.CType, &s.CollationVersion, &s.CollationActual, &s.Start)
	if err != nil {
		return s, fmt.Errorf("read settings of the database: %w", err)
	}
	return s, nil
}
