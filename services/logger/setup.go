package logger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/internal/sets"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// Setup is what a look at a primary shows to whoever prepares it for a logger.
type Setup struct {
	// Problems stand in the way of capturing anything, Identity and Foreign in that of single tables: those that lack a usable replica
	// identity, and those that belong to roles whose rights the logger's does not have. A table may be in both.
	Problems          []Problem
	Identity, Foreign []publish.Refusal
	// Tables are those that would be captured if nothing stood in the way, InsertOnly those of them of which only inserts would.
	Tables, InsertOnly []schema.Name
	Selection          schema.Selection
	Version            int // server_version_num
	// Slots is how many replication slots the logger will take that it has not taken yet.
	Slots int64
}

// CheckSetup finds everything that stands in the way of a logger with this configuration that connects as a role, which need not be there
// yet. What is set in the database counts above the configuration, as it will for the logger. It changes nothing.
func CheckSetup(ctx context.Context, conn *pgx.Conn, cfg Config, role string) (Setup, error) {
	var s Setup
	if err := cfg.checkNames(); err != nil {
		return s, err
	}
	settings := newSettings(cfg)
	var closed *SetupError
	if err := settings.load(ctx, conn); err != nil && !errors.As(err, &closed) {
		return s, err
	}
	pub, err := publication(cfg, settings.config())
	if err != nil {
		return s, err
	}
	server, tables, problems, err := examine(ctx, conn, cfg, pub, true, role)
	if err != nil {
		return s, err
	}
	if closed != nil {
		problems = append(problems, closed.Problems...)
	}
	s = Setup{Problems: problems, InsertOnly: tables.InsertOnly, Selection: pub.Select, Version: server.version}
	if !server.slot.exists {
		s.Slots = 1
	}
	for _, r := range tables.Refused {
		if r.Owner == "" {
			s.Identity = append(s.Identity, r)
		}
	}
	// Of inserts alone every table can be captured: what is refused then is refused for its owner, whatever its identity.
	inserts := pub
	if inserts.InsertOnly, err = patterns("*.*"); err != nil {
		return s, err
	}
	owned, err := publish.Check(ctx, conn, inserts, role)
	var unknown *publish.UnknownTablesError
	if err != nil && !errors.As(err, &unknown) && !errors.Is(err, publish.ErrForeignPublication) {
		return s, err
	}
	s.Tables = owned.Captured
	for _, r := range owned.Refused {
		s.Tables, s.Foreign = append(s.Tables, r.Table), append(s.Foreign, r)
	}
	for _, r := range tables.Refused { // partitions that have to be listed one by one, because their root has no key
		if r.Owner != "" && !slices.ContainsFunc(s.Foreign, func(f publish.Refusal) bool { return f.Table == r.Table }) {
			s.Foreign = append(s.Foreign, r)
		}
	}
	slices.SortFunc(s.Tables, func(a, b schema.Name) int {
		return slices.Compare([]string{a.Schema, a.Name}, []string{b.Schema, b.Name})
	})
	return s, nil
}

func patterns(texts ...string) ([]schema.Pattern, error) {
	selection, err := schema.ParseSelection(texts, nil)
	return selection.Include, err //nolint:wrapcheck // it names the pattern
}

// StoredSet reads a set as a primary's database holds it. A name that it does not hold is an error with ReasonSetUnknown.
func StoredSet(ctx context.Context, conn *pgx.Conn, name string) (*loggerv1.SetSpec, error) {
	var text []byte
	err := conn.QueryRow(ctx, "SELECT spec FROM syncline.sets WHERE name = $1", name).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) || postgres.Code(err) == undefinedTable {
		return nil, setUnknown(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", name, err)
	}
	spec := &loggerv1.SetSpec{}
	if err := protojson.Unmarshal(text, spec); err != nil {
		return nil, fmt.Errorf("set %s as it is stored: %w", name, err)
	}
	return spec, nil
}

// ParseSet reads what a set selects, as CreateSet does.
func ParseSet(spec *loggerv1.SetSpec) (*sets.Definition, error) { return parseSet("set", spec) }

// MayCompare refuses selectors in a database in which they cannot be used, as CreateSet does.
func MayCompare(ctx context.Context, conn *pgx.Conn, definition *sets.Definition) error {
	return mayCompare(ctx, conn, definition)
}
