package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

// TestLoggerTranscripts are what the commands about a logger and an inventory print.
func TestLoggerTranscripts(t *testing.T) {
	for name, args := range map[string][]string{
		"logger_config":         {"logger", "config"},
		"logger_config_refused": {"logger", "config", "--set", "max-bytes=13"},
		"logger_config_field":   {"logger", "config", "--set", "max_bites=1GiB"},
		"logger_config_size":    {"logger", "config", "--set", "max-bytes=much"},
		"logger_config_reset":   {"logger", "config", "--reset", "all"},
		"logger_stop":           {"logger", "stop"},
		"logger_start":          {"logger", "start"},
		"updated":               {"updated", "--since", "earliest"},
		"updated_json":          {"updated", "--since", "earliest", "--json"},
		"updated_ahead":         {"updated", "--since", logID.String() + "@0/99"},
		"updated_no_position":   {"updated"},
		"updated_bad_position":  {"updated", "--since", "0/10"},
		"followers_list":        {"followers", "list"},
		"followers_forget":      {"followers", "forget", "replica-1/shop"},
		"followers_unknown":     {"followers", "forget", "shop"},
		"followers_no_name":     {"followers", "forget"},
		"snapshots_list":        {"snapshots", "list"},
		"snapshots_close":       {"snapshots", "close", "7a93bda9ef12d4517198cba54bfa0f2a"},
		"snapshots_no_id":       {"snapshots", "close"},
		"inventory_details":     {"inventory", "--details"},
	} {
		t.Run(name, func(t *testing.T) {
			primary := serveFake(t, identify("logger", "inventory"), &fakeLogger{}, &fakeInventory{})
			out, errOut, code := command(t, nil, append(args, "--addr", primary)...)
			text := "$ syncline " + strings.Join(args, " ") + " --addr PRIMARY\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, name, strings.ReplaceAll(text+"--- exit code "+string(rune('0'+code))+"\n", primary, "PRIMARY"))
		})
	}
}

// TestLoggerConfigSends sends each field in the form in which people write it.
func TestLoggerConfigSends(t *testing.T) {
	logger := &fakeLogger{}
	primary := serveFake(t, logger)
	_, errOut, code := command(t, nil, "logger", "config", "--addr", primary,
		"--set", "max-age=72h", "--set", "max_bytes=100GiB", "--set", "keep-for-followers-bytes=4096", "--set", "follower-timeout=90m",
		"--set", `include-tables=public.*, "My, Schema"."T"`, "--set", "exclude-tables=", "--set", "log-remote-changes=false", "--reset", "insert-only-tables")
	want := &loggerv1.UpdateConfigRequest{
		Config: &loggerv1.LoggerConfig{
			MaxAge: durationpb.New(72 * time.Hour), MaxBytes: 100 << 30, KeepForFollowersBytes: 4096, FollowerTimeout: durationpb.New(90 * time.Minute),
			IncludeTables: []string{"public.*", `"My, Schema"."T"`},
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"max_age", "max_bytes", "keep_for_followers_bytes", "follower_timeout", "include_tables", "exclude_tables", "log_remote_changes"}},
		ResetMask:  &fieldmaskpb.FieldMask{Paths: []string{"insert_only_tables"}},
	}
	if code != exitDone || !proto.Equal(logger.set, want) {
		t.Errorf("exit code %d, %s, sent %v", code, errOut, logger.set)
	}
	// Each field of the API is a field here.
	fields := (*loggerv1.LoggerConfig)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if configField(string(fields.Get(i).Name())) == nil {
			t.Errorf("%s cannot be set", fields.Get(i).Name())
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "3KiB": 3 << 10, "5 MiB": 5 << 20, "64GiB": 64 << 30, "2TiB": 2 << 40, "": -1, "GiB": -1, "-1": -1, "1GB": -1, "9999999999TiB": -1} {
		if got, err := parseSize(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// TestUpdatedAsksForEveryPage follows the tokens, and prints one object for each page.
func TestUpdatedAsksForEveryPage(t *testing.T) {
	logger := &fakeLogger{}
	primary := serveFake(t, logger)
	out, errOut, code := command(t, nil, "updated", "--since", logID.String()+"@0/12", "--page-size", "2", "--table", "public.*", "--exclude-table", "public.x", "--json", "--addr", primary)
	if code != exitDone || len(logger.listed) != 2 {
		t.Fatalf("exit code %d, %s, asked %v", code, errOut, logger.listed)
	}
	for i, token := range []string{"", "next"} {
		want := &loggerv1.ListUpdatedSinceRequest{Position: at(0x12), PageSize: 2, IncludeTables: []string{"public.*"}, ExcludeTables: []string{"public.x"}, PageToken: token}
		if !proto.Equal(logger.listed[i], want) {
			t.Errorf("asked %v", logger.listed[i])
		}
	}
	decoder := json.NewDecoder(strings.NewReader(out))
	for range 2 {
		var page map[string]any
		if err := decoder.Decode(&page); err != nil || page["through"] == nil {
			t.Errorf("page %v, %v", page, err)
		}
	}
}
