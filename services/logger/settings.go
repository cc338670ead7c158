package logger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// settings are what can be set while the logger runs: the flags' values, and above them what the table syncline.logger_settings
// holds. What is set is durable there before it holds here. Nothing is captured or purged before the table was read.
type settings struct {
	slot     string
	defaults *loggerv1.LoggerConfig

	mu      sync.Mutex
	loaded  bool
	stored  stored
	changed chan struct{} // closed when capture is stopped or started
}

// stored is a row of the table.
type stored struct {
	config  *loggerv1.LoggerConfig
	fields  []string  // those of config that are set, in the order of their numbers
	updated time.Time // zero if none ever was
	stopped time.Time // zero while capture is not stopped
}

func newSettings(cfg Config) *settings {
	return &settings{
		slot:    cfg.Slot,
		changed: make(chan struct{}),
		stored:  stored{config: &loggerv1.LoggerConfig{}},
		defaults: &loggerv1.LoggerConfig{
			MaxAge: durationpb.New(cfg.MaxAge), MaxBytes: cfg.MaxBytes, KeepForFollowersBytes: cfg.KeepBytes,
			FollowerTimeout: durationpb.New(cfg.FollowerTimeout),
			IncludeTables:   cfg.Include, ExcludeTables: cfg.Exclude, InsertOnlyTables: cfg.InsertOnly, LogRemoteChanges: cfg.LogRemoteChanges,
		},
	}
}

// rowQuerier is a session or a pool.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// load reads the row. A database that is not prepared yet holds none: what stands in the way of capture is told elsewhere.
func (s *settings) load(ctx context.Context, q rowQuerier) error {
	row := stored{config: &loggerv1.LoggerConfig{}}
	var text []byte
	var updated, stopped *time.Time
	err := q.QueryRow(ctx, "SELECT config, fields, updated, stopped FROM syncline.logger_settings WHERE slot = $1", s.slot).
		Scan(&text, &row.fields, &updated, &stopped)
	switch {
	case errors.Is(err, pgx.ErrNoRows), postgres.Code(err) == undefinedTable:
	case postgres.Code(err) == insufficientPrivilege:
		return &SetupError{Problems: []Problem{{Code: CodePrivilege, Text: fmt.Sprintf("the role may not use the tables in schema syncline (%v): as their owner run "+
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncline TO the role", err)}}}
	case err != nil:
		return fmt.Errorf("read the logger's settings: %w", err)
	default:
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, row.config); err != nil {
			return fmt.Errorf("read the logger's settings: %w; DELETE FROM syncline.logger_settings takes them back to the flags' values", err)
		}
		row.fields = known(row.fields)
		if updated != nil {
			row.updated = *updated
		}
		if stopped != nil {
			row.stopped = *stopped
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = true
	s.replace(row)
	return nil
}

const (
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
)

// save makes a row durable, and then has it hold.
func (s *settings) save(ctx context.Context, pool executor, row stored) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(row.config)
	if err != nil {
		return fmt.Errorf("write the logger's settings: %w", err)
	}
	_, err = pool.Exec(ctx, `INSERT INTO syncline.logger_settings (slot, config, fields, updated, stopped) VALUES ($1, $2::text::jsonb, $3, $4, $5)
		ON CONFLICT (slot) DO UPDATE SET config = excluded.config, fields = excluded.fields, updated = excluded.updated, stopped = excluded.stopped`,
		s.slot, string(text), append([]string{}, row.fields...), timeOrNull(row.updated), timeOrNull(row.stopped))
	if err != nil {
		return fmt.Errorf("write the logger's settings: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(row)
	return nil
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// replace is called with the lock held.
func (s *settings) replace(row stored) {
	turned := row.stopped.IsZero() != s.stored.stopped.IsZero()
	s.stored = row
	if turned {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// get returns the row as it is. Its configuration must not be changed.
func (s *settings) get() (row stored, loaded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored, s.loaded
}

// stopped returns since when capture is stopped, zero if it is not, and a channel that is closed when that changes.
func (s *settings) stopped() (time.Time, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored.stopped, s.changed
}

// config returns what is in force; it is the caller's.
func (s *settings) config() *loggerv1.LoggerConfig {
	row, _ := s.get()
	return merge(s.defaults, row.config, row.fields)
}

// merge returns base with some fields of over. A field that is not set there is set to nothing.
func merge(base, over *loggerv1.LoggerConfig, fields []string) *loggerv1.LoggerConfig {
	merged := proto.CloneOf(base)
	to, from := merged.ProtoReflect(), proto.CloneOf(over).ProtoReflect()
	for _, name := range fields {
		field := to.Descriptor().Fields().ByName(protoreflect.Name(name))
		if from.Has(field) {
			to.Set(field, from.Get(field))
		} else {
			to.Clear(field)
		}
	}
	return merged
}

// configFields are the names of all fields, in the order of their numbers.
func configFields() []string {
	fields := (*loggerv1.LoggerConfig)(nil).ProtoReflect().Descriptor().Fields()
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	return names
}

// known are those of the names that are fields, in their order, each once. A newer version may have set others.
func known(names []string) []string {
	return slices.DeleteFunc(configFields(), func(name string) bool { return !slices.Contains(names, name) })
}

// publication is the part of a configuration for package publish.
func publication(cfg Config, c *loggerv1.LoggerConfig) (publish.Config, error) {
	selection, err := schema.ParseSelection(c.GetIncludeTables(), c.GetExcludeTables())
	if err != nil {
		return publish.Config{}, err //nolint:wrapcheck // it names the pattern
	}
	p := publish.Config{Name: cfg.Publication, Select: selection, LockTimeout: cfg.LockTimeout}
	for _, text := range c.GetInsertOnlyTables() {
		pattern, err := schema.ParsePattern(text)
		if err != nil {
			return publish.Config{}, err //nolint:wrapcheck // it names the pattern
		}
		p.InsertOnly = append(p.InsertOnly, pattern)
	}
	return p, nil
}
