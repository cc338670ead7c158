package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func newUpdatedCommand() *cobra.Command {
	var f clientFlags
	var since string
	var only usedSetFlags
	request := &loggerv1.ListUpdatedSinceRequest{}
	cmd := &cobra.Command{
		Use:   "updated --since POSITION",
		Short: "List the rows of a primary that were changed since a position, with the latest action on each",
		Long: `Lists the keys of the rows that were changed after a position, with the latest action on each: create, update or delete; and tables that
were truncated. It ends where the change log ends when it begins, and prints that position, for the next time.

It reads the list page by page, and prints a key again that is changed again on a later page: the last one counts. A position comes from
this command, from ` + "`syncline follow`" + ` or ` + "`syncline dump`" + `; "earliest" is the oldest one in the change log.
With --json one object for each page.`,
		Example: `  syncline updated --since earliest
  syncline updated --since 5f2c51fd1c2e4d3a9f3b3a3c4d5e6f70@16/B374D848 --table 'public.*' --json`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Set, request.Parameters = only.set, only.parameters
			if since == "" {
				return usageError{errors.New("--since (SYNCLINE_SINCE) is needed: a position LOGID@LSN, or earliest")}
			}
			if since != "earliest" {
				position, err := change.ParsePosition(since)
				if err != nil {
					return usageError{fmt.Errorf("--since: %w, or earliest", err)}
				}
				request.Position = &changev1.Position{LogId: position.LogID.String(), Lsn: uint64(position.LSN)}
			}
			return f.call(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				err := listUpdated(ctx, loggerv1.NewLoggerServiceClient(conn), proto.CloneOf(request), f.json, out)
				return errors.Join(err, out.Flush())
			})
		},
	}
	f.register(cmd, primaryGRPC)
	only.register(cmd.Flags())
	cmd.Flags().StringVar(&since, "since", "", "position after which changes are listed: LOGID@LSN, or earliest (needed)")
	cmd.Flags().Int32Var(&request.PageSize, "page-size", 0, "keys on a page, about; 0 for 1,000")
	patternsFlag(cmd.Flags(), &request.IncludeTables, "table", "list only these tables: schema.table, schema.*; may be repeated")
	patternsFlag(cmd.Flags(), &request.ExcludeTables, "exclude-table", "leave these tables out")
	return cmd
}

// updatedFlags are the flags that set what the API calls otherwise.
var updatedFlags = map[string]string{"include_tables": "--table", "exclude_tables": "--exclude-table", "page_size": "--page-size", "position": "--since"}

// listUpdated prints page after page.
func listUpdated(ctx context.Context, client loggerv1.LoggerServiceClient, request *loggerv1.ListUpdatedSinceRequest, asJSON bool, out *bufio.Writer) error {
	if request.GetPosition() == nil {
		ranges, err := client.GetRanges(ctx, &loggerv1.GetRangesRequest{})
		if err != nil {
			return err
		}
		request.Position = &changev1.Position{LogId: ranges.GetLogId(), Lsn: ranges.GetFirstLsn()}
	}
	keys := 0
	for {
		page, err := client.ListUpdatedSince(ctx, request, rpc.LargeAnswer())
		if err != nil {
			return flagError(err, updatedFlags)
		}
		keys += len(page.GetUpdates())
		if asJSON {
			if err := printJSON(out, page, false); err != nil {
				return err
			}
		} else {
			renderUpdates(out, page.GetUpdates())
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		if page.GetNextPageToken() == "" {
			if !asJSON {
				through := page.GetThrough()
				fmt.Fprintf(out, "%s keys; next: syncline updated --since %s@%s\n", count(int64(keys)), through.GetLogId(), lsn(through.GetLsn()))
			}
			return nil
		}
		request.PageToken = page.GetNextPageToken()
	}
}

func renderUpdates(out io.Writer, updates []*loggerv1.Updated) {
	for _, u := range updates {
		action := strings.ToLower(strings.TrimPrefix(u.GetAction().String(), "ACTION_"))
		fmt.Fprintf(out, "%s  %-11s  %-8s  %s", u.GetCommitTime().AsTime().Format("2006-01-02 15:04:05"), lsn(u.GetLsn()), action, printable(tableText(u.GetSchema(), u.GetTable())))
		for _, k := range u.GetKey() {
			fmt.Fprintf(out, "  %s=%s", printable(k.GetName()), keyText(k))
		}
		fmt.Fprintln(out)
	}
}

func keyText(k *loggerv1.KeyColumn) string {
	switch {
	case k.Value == nil:
		return "NULL"
	case k.GetCutBytes() > 0:
		return fmt.Sprintf("%q… (%s)", k.GetValue(), size(k.GetCutBytes()))
	case k.GetValue() == "" || strings.ContainsAny(k.GetValue(), " \t\r\n\"=") || printable(k.GetValue()) != k.GetValue():
		return fmt.Sprintf("%q", k.GetValue())
	}
	return k.GetValue()
}
