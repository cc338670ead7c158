package logger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

// executor is a pool.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// minFollowerTimeout is above the time in which followers report.
const minFollowerTimeout = time.Second

// GetConfig tells what is in force.
func (s *Service) GetConfig(ctx context.Context, _ *loggerv1.GetConfigRequest) (*loggerv1.GetConfigResponse, error) {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	row, err := s.knownSettings(ctx)
	if err != nil {
		return nil, err
	}
	answer := &loggerv1.GetConfigResponse{Config: merge(s.settings.defaults, row.config, row.fields), SetFields: row.fields, Defaults: s.settings.defaults}
	if !row.updated.IsZero() {
		answer.UpdateTime = timestamppb.New(row.updated)
	}
	return answer, nil
}

// knownSettings returns the settings after the database was read once. The caller holds configuring.
func (s *Service) knownSettings(ctx context.Context) (stored, error) {
	if row, loaded := s.settings.get(); loaded {
		return row, nil
	}
	if !s.opened.Load() {
		return stored{}, rpc.Errorf(codes.Unavailable, ReasonNotReady, "the logger has not read its settings yet; try again")
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	if err := s.loadSettings(ctx, s.pool); err != nil {
		return stored{}, unreachable("configure", err)
	}
	row, _ := s.settings.get()
	return row, nil
}

// UpdateConfig sets fields. What is refused changes nothing.
func (s *Service) UpdateConfig(ctx context.Context, request *loggerv1.UpdateConfigRequest) (*loggerv1.UpdateConfigResponse, error) {
	set, reset, err := checkMasks(request)
	if err != nil {
		return nil, err
	}
	if err := checkConfig(s.cfg, request.GetConfig(), set); err != nil {
		return nil, err
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	row, err := s.knownSettings(ctx)
	if err != nil {
		return nil, err
	}
	row.config = merge(row.config, request.GetConfig(), set)
	row.fields = known(append(slices.DeleteFunc(slices.Clone(row.fields), func(name string) bool { return slices.Contains(reset, name) }), set...))
	row.updated = time.Now()
	next := merge(s.settings.defaults, row.config, row.fields)
	if err := s.checkTables(ctx, next, set); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	if err := s.settings.save(ctx, s.pool, row); err != nil {
		return nil, unreachable("configure", err)
	}
	if err := s.choose(next); err != nil {
		return nil, err // not possible: it was checked
	}
	s.log.Info("configured", "set", set, "reset", reset)
	s.obey(next)
	return &loggerv1.UpdateConfigResponse{Config: next, SetFields: row.fields}, nil
}

// checkMasks returns the names of the fields to set and to reset.
func checkMasks(request *loggerv1.UpdateConfigRequest) (set, reset []string, err error) {
	names := configFields()
	set, reset = request.GetUpdateMask().GetPaths(), request.GetResetMask().GetPaths()
	for _, mask := range []struct {
		field string
		paths []string
	}{{"update_mask", set}, {"reset_mask", reset}} {
		for _, name := range mask.paths {
			if !slices.Contains(names, name) {
				return nil, nil, rpc.Invalid(mask.field, "%q is no field of the configuration; there are %s", name, strings.Join(names, ", "))
			}
			if mask.field == "reset_mask" && slices.Contains(set, name) {
				return nil, nil, rpc.Invalid(mask.field, "%s cannot be set and reset at once", name)
			}
		}
	}
	if len(set)+len(reset) == 0 {
		return nil, nil, rpc.Invalid("update_mask", "name the fields to set: some of %s", strings.Join(names, ", "))
	}
	return set, reset, nil
}

// checkConfig checks the values of the fields that are to be set.
func checkConfig(cfg Config, c *loggerv1.LoggerConfig, set []string) error {
	for _, name := range set {
		field := "config." + name
		switch name {
		case "max_age":
			if d := c.GetMaxAge(); d == nil || d.CheckValid() != nil || d.AsDuration() < 0 {
				return rpc.Invalid(field, "it has to be 0 s for ever, or how long changes are kept")
			}
		case "max_bytes":
			if c.GetMaxBytes() < 0 {
				return rpc.Invalid(field, "it has to be 0 for no limit, or a size in bytes")
			}
		case "keep_for_followers_bytes":
			if c.GetKeepForFollowersBytes() < 0 {
				return rpc.Invalid(field, "it has to be 0 to keep nothing for followers, or a size in bytes")
			}
		case "follower_timeout":
			if d := c.GetFollowerTimeout(); d == nil || d.CheckValid() != nil || d.AsDuration() < minFollowerTimeout {
				return rpc.Invalid(field, "it has to be %v or longer", minFollowerTimeout)
			}
		case "include_tables", "exclude_tables", "insert_only_tables":
			only := map[string]*loggerv1.LoggerConfig{
				"include_tables":     {IncludeTables: c.GetIncludeTables()},
				"exclude_tables":     {ExcludeTables: c.GetExcludeTables()},
				"insert_only_tables": {InsertOnlyTables: c.GetInsertOnlyTables()},
			}
			if _, err := publication(cfg, only[name]); err != nil {
				return rpc.Invalid(field, "%v", err)
			}
		}
	}
	return nil
}

// checkTables refuses patterns that name a table which does not exist, when they are being set.
func (s *Service) checkTables(ctx context.Context, next *loggerv1.LoggerConfig, set []string) error {
	for _, name := range set {
		var patterns []string
		switch name {
		case "include_tables":
			patterns = next.GetIncludeTables()
		case "exclude_tables":
			patterns = next.GetExcludeTables()
		case "insert_only_tables":
			patterns = next.GetInsertOnlyTables()
		}
		if len(patterns) == 0 {
			continue
		}
		if err := s.checkPatterns(ctx, patterns); err != nil {
			var unknown *publish.UnknownTablesError
			if errors.As(err, &unknown) {
				return rpc.Invalid("config."+name, "%v", err)
			}
			return unreachable("configure", err)
		}
	}
	return nil
}

func (s *Service) checkPatterns(ctx context.Context, patterns []string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SilenceLimit)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("look for the tables: %w", err)
	}
	defer conn.Release()
	selection, err := schema.ParseSelection(patterns, nil)
	if err != nil {
		return err //nolint:wrapcheck // it names the pattern
	}
	return publish.CheckTables(ctx, conn.Conn(), selection.Include) //nolint:wrapcheck // it says what it looked for
}

// readSettings brings what holds in line with the database, before each session: also another process may have captured meanwhile.
func (s *Service) readSettings(ctx context.Context, conn *pgx.Conn) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if err := s.loadSettings(ctx, conn); err != nil {
		return err
	}
	if err := s.followers.loadOnce(ctx, conn); err != nil {
		return err
	}
	s.obey(s.settings.config())
	return nil
}

// loadSettings reads the settings, and has what is captured follow them: nobody may bring the publications in line with the flags alone.
func (s *Service) loadSettings(ctx context.Context, q rowQuerier) error {
	if err := s.settings.load(ctx, q); err != nil {
		return err
	}
	return s.choose(s.settings.config())
}

// choose has a configuration say what is captured.
func (s *Service) choose(c *loggerv1.LoggerConfig) error {
	p, err := publication(s.cfg, c)
	if err != nil {
		return fmt.Errorf("use the tables that were set for the logger: %w", err)
	}
	s.pub.Store(&p)
	s.remote.Store(c.GetLogRemoteChanges())
	return nil
}

// obey has a configuration that chooses already hold for the rest: retention, and who counts for it.
func (s *Service) obey(c *loggerv1.LoggerConfig) {
	select {
	case s.lookNow <- struct{}{}:
	default: // it is about to look
	}
	s.followers.expect(c.GetFollowerTimeout().AsDuration())
	if !s.followers.known() {
		return // whom something has to be kept for is not known yet
	}
	err := s.changes.SetRetention(changelog.Retention{
		MaxAge: c.GetMaxAge().AsDuration(), MaxBytes: c.GetMaxBytes(), KeepBytes: c.GetKeepForFollowersBytes(), Needed: s.needed,
	})
	if err != nil {
		s.log.Warn("change log could not be purged; it is tried again", "error", err)
	}
}

// needed is what the furthest behind of the followers has applied that have to be able to go on.
func (s *Service) needed() (change.Position, bool) {
	ranges := s.changes.Ranges()
	return s.followers.needed(change.Position{LogID: ranges.LogID, LSN: ranges.First}, time.Now())
}
