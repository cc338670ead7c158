package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newUnsyncedCommand() *cobra.Command {
	var f clientFlags
	request := &applierv1.ListUnsyncedRequest{}
	var show1 int64
	var edits bool
	cmd := &cobra.Command{
		Use:   "unsynced NAME",
		Short: "List what of the source is not on the replica, and why",
		Long: `Lists the changes that the replica refused and set aside (--on-error quarantine), those that wait behind one of the same row, and how
much has not arrived yet. --show prints one change with its values, the first 64 KiB of each. --edits lists what users have had written instead of the
source's values (retry --set), with both.`,
		Example: `  syncline replication unsynced shop
  syncline replication unsynced shop --table public.orders
  syncline replication unsynced shop --show 17 --json
  syncline replication unsynced shop --edits`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if request.Name = args[0]; edits && (show1 != 0 || request.GetTable() != "") {
				return usageError{errors.New("--edits: not together with --show or --table")}
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				if edits {
					return listEdits(ctx, &f, cmd.OutOrStdout(), client, args[0], request.GetPageSize())
				}
				if show1 != 0 {
					answer, err := client.GetUnsynced(ctx, &applierv1.GetUnsyncedRequest{Name: args[0], Id: show1})
					if err != nil {
						return inFlags(err)
					}
					return show(&f, cmd.OutOrStdout(), answer.GetChange(), renderChange)
				}
				return listUnsynced(ctx, &f, cmd.OutOrStdout(), client, request)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	flags.StringVar(&request.Table, "table", "", "only changes of this table of the source: schema.table")
	flags.Int64Var(&show1, "show", 0, "show the change of this id with its values")
	flags.BoolVar(&edits, "edits", false, "list what was written instead of the source's values, the newest first")
	flags.Int32Var(&request.PageSize, "limit", 0, "list so many changes at most; 0 for all")
	for _, name := range []string{"table", "show", "limit", "edits"} {
		withoutVariable(flags.Lookup(name))
	}
	return cmd
}

// listUnsynced prints page after page, so that no more than one is held.
func listUnsynced(ctx context.Context, f *clientFlags, out io.Writer, client applierv1.ApplierServiceClient, request *applierv1.ListUnsyncedRequest) error {
	limited := request.GetPageSize() > 0
	for first := true; first || request.GetPageToken() != ""; first = false {
		answer, err := client.ListUnsynced(ctx, request)
		if err != nil {
			return inFlags(err)
		}
		if limited {
			answer.NextPageToken = ""
		}
		request.PageToken = answer.GetNextPageToken()
		if err := show(f, out, answer, func(out io.Writer, answer *applierv1.ListUnsyncedResponse) {
			renderUnsynced(out, answer, request.GetName(), f.address, first)
		}); err != nil {
			return err
		}
	}
	return nil
}

var unsyncedVerbs = map[applierv1.UnsyncedOperation]string{
	applierv1.UnsyncedOperation_UNSYNCED_OPERATION_INSERT: "insert", applierv1.UnsyncedOperation_UNSYNCED_OPERATION_UPDATE: "update",
	applierv1.UnsyncedOperation_UNSYNCED_OPERATION_DELETE: "delete",
}

func renderUnsynced(out io.Writer, answer *applierv1.ListUnsyncedResponse, name, address string, first bool) {
	if first {
		if answer.GetLagBytes() > 0 {
			since := ""
			if answer.GetLagSince() != nil {
				since = ", since " + stamp(answer.GetLagSince())
			}
			fmt.Fprintf(out, "%s have not arrived yet%s\n", size(answer.GetLagBytes()), since)
		}
		if answer.GetQuarantinedChanges()+answer.GetWaitingChanges() == 0 {
			fmt.Fprintf(out, "nothing is in quarantine\n")
			return
		}
		fmt.Fprintf(out, "in quarantine: %s refused, %s waiting behind them\n", count(answer.GetQuarantinedChanges()), count(answer.GetWaitingChanges()))
	}
	if len(answer.GetChanges()) == 0 {
		return
	}
	rows := [][]string{{"ID", "TABLE", "OPERATION", "KEY", "POSITION", "AGE", "REASON"}}
	for _, c := range answer.GetChanges() {
		rows = append(rows, []string{
			strconv.FormatInt(c.GetId(), 10), tableText(c.GetSchema(), c.GetTable()), unsyncedVerbs[c.GetOperation()], printable(c.GetKey()),
			lsn(c.GetCommitLsn()) + " #" + strconv.FormatInt(c.GetChangeNumber(), 10), c.GetAge().AsDuration().String(), printable(unsyncedWhy(c)),
		})
	}
	table(out, rows)
	if answer.GetNextPageToken() == "" {
		fmt.Fprintf(out, "next: mend what the reasons say, then syncline replication retry %s --all --addr %s; or syncline replication discard %[1]s ID --addr %[2]s\n", name, address)
	}
}

func unsyncedWhy(c *applierv1.Unsynced) string {
	if c.GetSqlstate() == "" || c.GetWaitsBehind() != 0 {
		return c.GetMessage()
	}
	return c.GetSqlstate() + " " + c.GetMessage()
}

func renderChange(out io.Writer, c *applierv1.Unsynced) {
	rows := [][]string{
		{"change", strconv.FormatInt(c.GetId(), 10)},
		{"table", tableText(c.GetSchema(), c.GetTable())},
		{"on the replica", tableText(c.GetTargetSchema(), c.GetTargetTable())},
		{"operation", unsyncedVerbs[c.GetOperation()]},
		{"key", printable(c.GetKey())},
		{"position", lsn(c.GetCommitLsn()) + " #" + strconv.FormatInt(c.GetChangeNumber(), 10) + ", committed " + stamp(c.GetCommitTime())},
		{"set aside", stamp(c.GetQuarantineTime())},
		{"reason", printable(unsyncedWhy(c))},
		{"tried again", count(int64(c.GetAttempts())) + " times"},
	}
	table(out, rows)
	fmt.Fprintln(out)
	rows = [][]string{{"COLUMN", "TYPE HERE", "BEFORE", "AFTER"}}
	for _, column := range c.GetColumns() {
		rows = append(rows, []string{column.GetName(), column.GetTargetType(), unsyncedValue(column.GetOldValue()), unsyncedValue(column.GetNewValue())})
	}
	table(out, rows)
}

func unsyncedValue(v *applierv1.UnsyncedValue) string {
	switch {
	case v == nil:
		return "-"
	case v.GetNull():
		return "NULL"
	case v.GetUnchanged():
		return "(unchanged)"
	}
	text := printable(strings.ToValidUTF8(string(v.GetText()), "\ufffd"))
	if v.GetSize() > int64(len(v.GetText())) {
		text += fmt.Sprintf("… (%s)", size(v.GetSize()))
	}
	return text
}

// unsyncedPick are the flags and arguments that say which changes are meant.
type unsyncedPick struct {
	table string
	all   bool
	ids   []int64
}

func (p *unsyncedPick) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.table, "table", "", "all changes of this table of the source: schema.table")
	cmd.Flags().BoolVar(&p.all, "all", false, "all changes in quarantine")
	withoutVariable(cmd.Flags().Lookup("table"))
	withoutVariable(cmd.Flags().Lookup("all"))
}

func (p *unsyncedPick) parse(args []string) error {
	for _, text := range args {
		id, err := strconv.ParseInt(strings.TrimPrefix(text, "#"), 10, 64)
		if err != nil || id <= 0 {
			return usageError{fmt.Errorf("%q is no id of a change; see `syncline replication unsynced`", text)}
		}
		p.ids = append(p.ids, id)
	}
	given := 0
	for _, is := range []bool{len(p.ids) > 0, p.table != "", p.all} {
		if is {
			given++
		}
	}
	if given != 1 {
		return usageError{errors.New("say which changes: their ids, --table, or --all")}
	}
	return nil
}

func newRetryCommand() *cobra.Command {
	var f clientFlags
	var p unsyncedPick
	var set, setNull []string
	cmd := &cobra.Command{
		Use:   "retry NAME [ID...]",
		Short: "Apply changes that are in quarantine again",
		Long: `Applies changes again that the replica refused, and then what waits behind them, in the order of the source. Each leaves the quarantine in the
transaction that applies it; what the replica refuses again stays. Applying stands still meanwhile. --set and --set-null give one change other
values first.`,
		Example: `  syncline replication retry shop --all
  syncline replication retry shop 17 --set email=new@example.com --set-null note`,
		Args: wrongUse(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.parse(args[1:]); err != nil {
				return err
			}
			request := &applierv1.RetryUnsyncedRequest{Name: args[0], Ids: p.ids, Table: p.table, All: p.all}
			for _, text := range set {
				column, value, found := strings.Cut(text, "=")
				if !found || column == "" {
					return usageError{fmt.Errorf("--set %q is not of the form COLUMN=VALUE", text)}
				}
				request.Edits = append(request.Edits, &applierv1.UnsyncedEdit{Column: column, Text: value})
			}
			for _, column := range setNull {
				request.Edits = append(request.Edits, &applierv1.UnsyncedEdit{Column: column, Null: true})
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				answer, err := client.RetryUnsynced(ctx, request)
				if err != nil {
					return inFlags(err)
				}
				return settled(&f, cmd.OutOrStdout(), answer, fmt.Sprintf("%s changes were applied, %s are left", count(answer.GetApplied()), count(answer.GetLeft())), answer.GetRefused(), args[0])
			})
		},
	}
	f.register(cmd, replicaGRPC)
	p.register(cmd)
	cmd.Flags().StringArrayVar(&set, "set", nil, "COLUMN=VALUE to give the change; may be repeated")
	cmd.Flags().StringArrayVar(&setNull, "set-null", nil, "column to give the change as NULL; may be repeated")
	withoutVariable(cmd.Flags().Lookup("set"))
	withoutVariable(cmd.Flags().Lookup("set-null"))
	return cmd
}

func newDiscardCommand() *cobra.Command {
	var f clientFlags
	var p unsyncedPick
	var waiting bool
	cmd := &cobra.Command{
		Use:   "discard NAME [ID...]",
		Short: "Give changes up that are in quarantine",
		Long: `Takes changes out of the quarantine without applying them. What waits behind them is tried next, or given up too with --with-waiting. Their rows
differ from the source's then; ` + "`syncline sync NAME --mode incremental`" + ` mends them.`,
		Example: `  syncline replication discard shop 17
  syncline replication discard shop --table public.orders --with-waiting`,
		Args: wrongUse(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.parse(args[1:]); err != nil {
				return err
			}
			request := &applierv1.DiscardUnsyncedRequest{Name: args[0], Ids: p.ids, Table: p.table, All: p.all, WithWaiting: waiting}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				answer, err := client.DiscardUnsynced(ctx, request)
				if err != nil {
					return inFlags(err)
				}
				return settled(&f, cmd.OutOrStdout(), answer, fmt.Sprintf("%s changes were discarded, %s applied, %s are left", count(answer.GetDiscarded()), count(answer.GetApplied()), count(answer.GetLeft())), answer.GetRefused(), args[0])
			})
		},
	}
	f.register(cmd, replicaGRPC)
	p.register(cmd)
	cmd.Flags().BoolVar(&waiting, "with-waiting", false, "give up what waits behind them, too")
	withoutVariable(cmd.Flags().Lookup("with-waiting"))
	return cmd
}

// settled prints what came of changes in quarantine.
func settled[M proto.Message](f *clientFlags, out io.Writer, answer M, said string, left []*applierv1.UnsyncedLeft, name string) error {
	return show(f, out, answer, func(out io.Writer, _ M) {
		fmt.Fprintln(out, said)
		if len(left) == 0 {
			return
		}
		rows := [][]string{{"ID", "TABLE", "REASON"}}
		for _, l := range left {
			rows = append(rows, []string{strconv.FormatInt(l.GetId(), 10), printable(l.GetTable()), printable(strings.TrimSpace(l.GetSqlstate() + " " + l.GetMessage()))})
		}
		table(out, rows)
		fmt.Fprintf(out, "next: syncline replication unsynced %s --addr %s\n", name, f.address)
	})
}
