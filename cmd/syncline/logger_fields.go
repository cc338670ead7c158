package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

// loggerField is a field of the logger's configuration on the command line.
type loggerField struct {
	name string
	text func(c *loggerv1.LoggerConfig) string
	set  func(c *loggerv1.LoggerConfig, value string) error
}

// path is the field's name in the API.
func (f *loggerField) path() string { return strings.ReplaceAll(f.name, "-", "_") }

func durationField(name, zero string, get func(c *loggerv1.LoggerConfig) **durationpb.Duration) loggerField {
	return loggerField{
		name: name,
		text: func(c *loggerv1.LoggerConfig) string {
			if d := (*get(c)).AsDuration(); d > 0 {
				return d.String()
			}
			return zero
		},
		set: func(c *loggerv1.LoggerConfig, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil {
				return fmt.Errorf("%q is no duration such as 72h or 30m", value)
			}
			*get(c) = durationpb.New(d)
			return nil
		},
	}
}

func sizeField(name, zero string, get func(c *loggerv1.LoggerConfig) *int64) loggerField {
	return loggerField{
		name: name,
		text: func(c *loggerv1.LoggerConfig) string {
			if n := *get(c); n > 0 {
				return size(n)
			}
			return zero
		},
		set: func(c *loggerv1.LoggerConfig, value string) (err error) {
			*get(c), err = parseSize(value)
			return err
		},
	}
}

func tablesField(name, none string, get func(c *loggerv1.LoggerConfig) *[]string) loggerField {
	return loggerField{
		name: name,
		text: func(c *loggerv1.LoggerConfig) string {
			if list := *get(c); len(list) > 0 {
				return strings.Join(list, ", ")
			}
			return none
		},
		set: func(c *loggerv1.LoggerConfig, value string) error {
			*get(c) = nil
			return patternList{get(c)}.Set(value)
		},
	}
}

// configFields are all fields, in the order in which they are shown.
var configFields = []loggerField{
	durationField("max-age", "for ever", func(c *loggerv1.LoggerConfig) **durationpb.Duration { return &c.MaxAge }),
	sizeField("max-bytes", "no limit", func(c *loggerv1.LoggerConfig) *int64 { return &c.MaxBytes }),
	sizeField("keep-for-followers-bytes", "nothing", func(c *loggerv1.LoggerConfig) *int64 { return &c.KeepForFollowersBytes }),
	durationField("follower-timeout", "-", func(c *loggerv1.LoggerConfig) **durationpb.Duration { return &c.FollowerTimeout }),
	tablesField("include-tables", "every table", func(c *loggerv1.LoggerConfig) *[]string { return &c.IncludeTables }),
	tablesField("exclude-tables", "none", func(c *loggerv1.LoggerConfig) *[]string { return &c.ExcludeTables }),
	tablesField("insert-only-tables", "none", func(c *loggerv1.LoggerConfig) *[]string { return &c.InsertOnlyTables }),
	{
		name: "log-remote-changes",
		text: func(c *loggerv1.LoggerConfig) string { return strconv.FormatBool(c.GetLogRemoteChanges()) },
		set: func(c *loggerv1.LoggerConfig, value string) (err error) {
			if c.LogRemoteChanges, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("%q is neither true nor false", value)
			}
			return nil
		},
	},
}

// configField finds a field by its name, with dashes or as the API has it.
func configField(name string) *loggerField {
	name = strings.ReplaceAll(strings.TrimSpace(name), "_", "-")
	for i := range configFields {
		if configFields[i].name == name {
			return &configFields[i]
		}
	}
	return nil
}

func configNames() []string {
	names := make([]string, len(configFields))
	for i := range configFields {
		names[i] = configFields[i].name
	}
	return names
}

// configFlags are the flags that set what the API calls otherwise.
func configFlags() map[string]string {
	flags := map[string]string{"reset_mask": "--reset", "update_mask": "--set"}
	for i := range configFields {
		flags["config."+configFields[i].path()] = "--set " + configFields[i].name
	}
	return flags
}

// parseSize reads a number of bytes, which may have a unit.
func parseSize(text string) (int64, error) {
	number, factor := strings.TrimSpace(text), int64(1)
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if cut, found := strings.CutSuffix(number, unit); found {
			number, factor = strings.TrimSpace(cut), 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size: give a number of bytes, or one with KiB, MiB, GiB or TiB", text)
	}
	if n > (1<<63-1)/factor {
		return 0, errors.New("that is too large")
	}
	return n * factor, nil
}
