package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

// loggerCommands are the client commands below `syncline logger`, which by itself serves a logger.
func loggerCommands() []*cobra.Command {
	return []*cobra.Command{newLoggerConfigCommand(), newCaptureCommand(false), newCaptureCommand(true)}
}

func newLoggerConfigCommand() *cobra.Command {
	var f clientFlags
	var set, reset []string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or set what can be set while the logger runs",
		Long: `Shows the configuration that is in force, and sets fields of it. What is set holds at once and after every restart; it stands above
the flags of the server, which give the values of what is not set.

  max-age                   how long changes are kept, such as 168h; 0 for ever
  max-bytes                 size of the change log from which its oldest changes go, such as 64GiB; 0 for no limit
  keep-for-followers-bytes  size of the change log up to which what a follower has not applied is kept beyond max-age and max-bytes;
                            0 to keep nothing for followers
  follower-timeout          how long a follower counts that is not connected, after it was last heard of
  include-tables            capture only these tables: schema.table, schema.*, with commas between them; empty for every table
  exclude-tables            do not capture these tables
  insert-only-tables        capture only inserts and truncates of these tables, so they need no key
  log-remote-changes        true or false: whether changes that an applier brought to this primary are captured too`,
		Example: `  syncline logger config
  syncline logger config --set max-age=72h --set max-bytes=100GiB
  syncline logger config --set 'exclude-tables=public.sessions, audit.*'
  syncline logger config --reset max-age`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := configRequest(set, reset)
			if err != nil {
				return err
			}
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				if len(set)+len(reset) > 0 {
					if _, err := client.UpdateConfig(ctx, request); err != nil {
						return flagError(err, configFlags())
					}
				}
				answer, err := client.GetConfig(ctx, &loggerv1.GetConfigRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderConfig)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	cmd.Flags().StringArrayVar(&set, "set", nil, "FIELD=VALUE to set; may be repeated")
	cmd.Flags().StringArrayVar(&reset, "reset", nil, "FIELD to set no more; may be repeated")
	return cmd
}

// configRequest reads the flags.
func configRequest(set, reset []string) (*loggerv1.UpdateConfigRequest, error) {
	request := &loggerv1.UpdateConfigRequest{Config: &loggerv1.LoggerConfig{}, UpdateMask: &fieldmaskpb.FieldMask{}, ResetMask: &fieldmaskpb.FieldMask{}}
	for _, text := range set {
		name, value, found := strings.Cut(text, "=")
		field := configField(name)
		if field == nil || !found {
			return nil, usageError{fmt.Errorf("--set %q: expected FIELD=VALUE with a field of %s", text, strings.Join(configNames(), ", "))}
		}
		if err := field.set(request.GetConfig(), strings.TrimSpace(value)); err != nil {
			return nil, usageError{fmt.Errorf("--set %s: %w", name, err)}
		}
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, field.path())
	}
	for _, name := range reset {
		field := configField(name)
		if field == nil {
			return nil, usageError{fmt.Errorf("--reset %q: expected a field of %s", name, strings.Join(configNames(), ", "))}
		}
		request.ResetMask.Paths = append(request.ResetMask.Paths, field.path())
	}
	return request, nil
}

func renderConfig(out io.Writer, answer *loggerv1.GetConfigResponse) {
	rows := [][]string{{"FIELD", "VALUE", "SET", "OTHERWISE"}}
	for _, field := range configFields {
		isSet, otherwise := "no", ""
		if slices.Contains(answer.GetSetFields(), field.path()) {
			isSet, otherwise = "yes", field.text(answer.GetDefaults())
		}
		rows = append(rows, []string{field.name, field.text(answer.GetConfig()), isSet, otherwise})
	}
	table(out, rows)
}

func newCaptureCommand(stop bool) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "start", Short: "Let capture go on after a stop", Args: wrongUse(cobra.NoArgs),
		Long:    "Lets capture go on where it was stopped. It is no error when it runs already.",
		Example: "  syncline logger start",
	}
	if stop {
		cmd.Use, cmd.Short = "stop", "Stop capture until `syncline logger start`; nothing is lost"
		cmd.Long = `Stops capture until ` + "`syncline logger start`" + `, also over restarts. Nothing is lost: the primary keeps its WAL meanwhile, and replicas go on
with what the change log holds. How much WAL that is, and how much may be kept, is shown here and by ` + "`syncline status`" + `: mind the
primary's disk.`
		cmd.Example = "  syncline logger stop"
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
			var state *loggerv1.GetStateResponse
			var err error
			if stop {
				var answer *loggerv1.StopCaptureResponse
				answer, err = client.StopCapture(ctx, &loggerv1.StopCaptureRequest{})
				state = answer.GetState()
			} else {
				var answer *loggerv1.StartCaptureResponse
				answer, err = client.StartCapture(ctx, &loggerv1.StartCaptureRequest{})
				state = answer.GetState()
			}
			if err != nil {
				return err
			}
			return show(&f, cmd.OutOrStdout(), state, renderLogger)
		})
	}
	f.register(cmd, primaryGRPC)
	return cmd
}
