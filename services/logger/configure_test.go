package logger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/logger/publish"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func (i *instance) config(t testing.TB) *loggerv1.GetConfigResponse {
	t.Helper()
	answer, err := i.client.GetConfig(t.Context(), &loggerv1.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (i *instance) configure(t testing.TB, c *loggerv1.LoggerConfig, fields ...string) *loggerv1.UpdateConfigResponse {
	t.Helper()
	answer, err := i.client.UpdateConfig(t.Context(), &loggerv1.UpdateConfigRequest{Config: c, UpdateMask: mask(fields...)})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestConfigIsKept sets fields, starts again with other flags, and takes fields back: what was set stands above the flags.
func TestConfigIsKept(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
	cfg := testConfig(t, url)
	i := start(t, cfg)
	i.waitCapturing(t)
	first := i.config(t)
	if len(first.GetSetFields()) != 0 || !proto.Equal(first.GetConfig(), first.GetDefaults()) || first.GetConfig().GetMaxAge().AsDuration() != cfg.MaxAge ||
		first.GetConfig().GetKeepForFollowersBytes() != cfg.KeepBytes || !first.GetConfig().GetLogRemoteChanges() || first.GetUpdateTime() != nil {
		t.Errorf("at first: %v", first)
	}
	set := &loggerv1.LoggerConfig{MaxAge: durationpb.New(time.Hour), MaxBytes: 7 << 20, ExcludeTables: []string{"public.b"}}
	answer := i.configure(t, set, "max_bytes", "max_age", "exclude_tables", "log_remote_changes")
	want := proto.CloneOf(first.GetConfig())
	want.MaxAge, want.MaxBytes, want.ExcludeTables, want.LogRemoteChanges = set.GetMaxAge(), set.GetMaxBytes(), set.GetExcludeTables(), false
	fields := []string{"max_age", "max_bytes", "exclude_tables", "log_remote_changes"}
	if !proto.Equal(answer.GetConfig(), want) || !slices.Equal(answer.GetSetFields(), fields) {
		t.Errorf("set: %v", answer)
	}
	i.stop()

	cfg.MaxAge, cfg.MaxBytes, cfg.KeepBytes = 5*time.Hour, 1<<40, 1<<30
	i = start(t, cfg)
	i.waitCapturing(t)
	want.KeepForFollowersBytes = 1 << 30 // was never set
	again := i.config(t)
	if !proto.Equal(again.GetConfig(), want) || !slices.Equal(again.GetSetFields(), fields) || again.GetUpdateTime() == nil ||
		again.GetDefaults().GetMaxBytes() != 1<<40 {
		t.Errorf("after a restart: %v", again)
	}
	if r := i.changes.Ranges(); r.LogID.IsZero() {
		t.Error("there is no log")
	}
	back, err := i.client.UpdateConfig(t.Context(), &loggerv1.UpdateConfigRequest{ResetMask: mask("max_age", "exclude_tables", "log_remote_changes")})
	if err != nil {
		t.Fatal(err)
	}
	if c := back.GetConfig(); c.GetMaxAge().AsDuration() != cfg.MaxAge || len(c.GetExcludeTables()) != 0 || !c.GetLogRemoteChanges() || c.GetMaxBytes() != 7<<20 ||
		!slices.Equal(back.GetSetFields(), []string{"max_bytes"}) {
		t.Errorf("taken back: %v", back)
	}
}

// TestConfigIsRefused makes each mistake; nothing changes.
func TestConfigIsRefused(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), "CREATE TABLE a (id int PRIMARY KEY)")
	i := start(t, testConfig(t, url))
	i.waitCapturing(t)
	before := i.config(t)
	for _, c := range []struct {
		name    string
		request *loggerv1.UpdateConfigRequest
		field   string
	}{
		{"nothing named", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{MaxBytes: 1}}, "update_mask"},
		{"unknown field", &loggerv1.UpdateConfigRequest{UpdateMask: mask("max_bites")}, "update_mask"},
		{"unknown field to reset", &loggerv1.UpdateConfigRequest{ResetMask: mask("max_bites")}, "reset_mask"},
		{"set and reset", &loggerv1.UpdateConfigRequest{UpdateMask: mask("max_bytes"), ResetMask: mask("max_bytes")}, "reset_mask"},
		{"no age", &loggerv1.UpdateConfigRequest{UpdateMask: mask("max_age")}, "config.max_age"},
		{"negative age", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{MaxAge: durationpb.New(-1)}, UpdateMask: mask("max_age")}, "config.max_age"},
		{"negative size", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{MaxBytes: -1}, UpdateMask: mask("max_bytes")}, "config.max_bytes"},
		{"negative room", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{KeepForFollowersBytes: -1}, UpdateMask: mask("keep_for_followers_bytes")}, "config.keep_for_followers_bytes"},
		{"no timeout", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{FollowerTimeout: durationpb.New(time.Millisecond)}, UpdateMask: mask("follower_timeout")}, "config.follower_timeout"},
		{"malformed table", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{IncludeTables: []string{"a.b.c"}}, UpdateMask: mask("include_tables")}, "config.include_tables"},
		{"unknown table", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{ExcludeTables: []string{"public.none"}}, UpdateMask: mask("max_bytes", "exclude_tables")}, "config.exclude_tables"},
		{"table without a schema", &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{InsertOnlyTables: []string{"a"}}, UpdateMask: mask("insert_only_tables")}, "config.insert_only_tables"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := i.client.UpdateConfig(t.Context(), c.request)
			if rpc.Code(err) != codes.InvalidArgument || len(rpc.Fields(err)) != 1 || rpc.Fields(err)[0].GetField() != c.field {
				t.Errorf("%v", err)
			}
		})
	}
	if after := i.config(t); !proto.Equal(before, after) {
		t.Errorf("it is now %v", after)
	}
}

// TestTablesWhileRunning leaves a table out and takes it in again while the logger runs. Followers are told where, and after a
// restart nothing is published in between that was left out.
func TestTablesWhileRunning(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE keyless (v text)")
	cfg := testConfig(t, url)
	cfg.Exclude = []string{"public.keyless"}
	i := start(t, cfg)
	i.waitCapturing(t)
	from := i.barrier(t)
	captured := func(i *instance, want string) {
		t.Helper()
		i.waitFor(t, "with tables "+want, func(s *loggerv1.GetStateResponse) bool {
			return strings.Join(s.GetTables(), " ") == want && s.GetState() == PhaseCapturing
		})
	}
	captured(i, `"public"."a" "public"."b"`)
	i.configure(t, &loggerv1.LoggerConfig{ExcludeTables: []string{"public.b", "public.keyless"}}, "exclude_tables")
	captured(i, `"public"."a"`)
	pgtest.Exec(t, conn, "INSERT INTO a VALUES (1)")
	pgtest.Exec(t, conn, "INSERT INTO b VALUES (1)")
	i.stop()
	i = start(t, cfg)
	captured(i, `"public"."a"`)
	pgtest.Exec(t, conn, "INSERT INTO b VALUES (2)")
	i.configure(t, &loggerv1.LoggerConfig{InsertOnlyTables: []string{"public.keyless"}}, "exclude_tables", "insert_only_tables")
	captured(i, `"public"."a" "public"."b" "public"."keyless"`)
	pgtest.Exec(t, conn, "INSERT INTO b VALUES (3)")
	pgtest.Exec(t, conn, "INSERT INTO keyless VALUES ('x')")
	pgtest.Exec(t, conn, "UPDATE keyless SET v = 'y'") // is not refused
	var got []string
	for _, x := range withoutBarriers(follow(t, i, from, i.barrier(t)).history.done) {
		for _, e := range x.events {
			if kind, content, found := strings.Cut(e, publish.MessagePrefix+" "); found {
				var text []byte
				fmt.Sscanf(content, "%x", &text)
				e = kind + string(text)
			}
			got = append(got, e)
		}
	}
	text := strings.Join(got, "\n")
	removed, added := strings.Index(text, `"removed":[{`), strings.LastIndex(text, `"captured":[{`)
	one, three := strings.Index(text, `insert public.a  t"1"`), strings.Index(text, `insert public.b  t"3"`)
	if removed < 0 || one < removed || added < one || three < added || strings.Count(text, "insert public.b") != 1 || strings.Count(text, `"removed":[{`) != 1 ||
		!strings.Contains(text, `insert public.keyless  t"x"`) || strings.Contains(text, "update") {
		t.Errorf("events:\n%s", text)
	}
}
