package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newUpdateCommand() *cobra.Command {
	var f clientFlags
	var r replicationFlags
	request := &applierv1.UpdateReplicationRequest{}
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change a replication while it runs",
		Long: `Changes what the flags name and leaves the rest as it is; 0, "" and none give an option its default back. Nothing is copied again:
tables that --table and --exclude-table add are copied, the rows of those that they remove stay as they are. --accept-source binds
the replication to the server that answers at its source's address now, as after a failover; it goes on only if that server's
change log is the same one. Only --addr, --json and --plaintext can be set by variables here.`,
		Example: `  syncline replication update shop --copy-workers 8 --auto-resync copy
  syncline replication update shop --source db2:7400 --accept-source
  syncline replication update nightly --schedule '@every 10m' --window 22:00-06:00
  syncline replication update shop --exclude-table 'public.log_*' --dry-run`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.finish(); err != nil {
				return err
			}
			if !r.modeFlag.Changed {
				r.spec.Mode = applierv1.Mode_MODE_UNSPECIFIED
			}
			request.Name, request.Spec, request.UpdateMask = args[0], &r.spec, changedFields(cmd.Flags())
			if len(request.GetUpdateMask().GetPaths()) == 0 && !request.GetAcceptSource() {
				return usageError{errors.New("nothing to change: give the flags of what shall change; see `syncline replication update --help`")}
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
				defer cancel()
				answer, err := client.UpdateReplication(ctx, request)
				if err != nil {
					return inFlags(err)
				}
				return show(&f, cmd.OutOrStdout(), answer, func(out io.Writer, answer *applierv1.UpdateReplicationResponse) {
					renderUpdate(out, answer, request.GetValidateOnly(), f.address)
				})
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := pflag.NewFlagSet("update", pflag.ContinueOnError)
	r.register(flags)
	flags.Lookup("source").Usage = strings.TrimSuffix(flags.Lookup("source").Usage, " (needed)")
	flags.BoolVar(&request.AcceptSource, "accept-source", false, "go on with the server that answers at the source's address, although it is another one than before")
	flags.StringVar(&request.Etag, "etag", "", "change it only if its etag is this one")
	flags.BoolVar(&request.ValidateOnly, "dry-run", false, "tell what would happen and change nothing")
	flags.VisitAll(withoutVariable)
	cmd.Flags().AddFlagSet(flags)
	return cmd
}

// changedFields are the fields of the spec that flags were given for.
func changedFields(flags *pflag.FlagSet) *fieldmaskpb.FieldMask {
	mask := &fieldmaskpb.FieldMask{}
	for field, flag := range specFlags {
		name, inSpec := strings.CutPrefix(field, "spec.")
		name, _, _ = strings.Cut(name, ".") // a part of TLS is given with all of it
		if given := flags.Lookup(strings.TrimPrefix(flag, "--")); inSpec && given != nil && given.Changed {
			mask.Paths = append(mask.Paths, name)
		}
	}
	slices.Sort(mask.Paths)
	mask.Paths = slices.Compact(mask.Paths)
	return mask
}

func renderUpdate(out io.Writer, answer *applierv1.UpdateReplicationResponse, dryRun bool, address string) {
	name, plan := answer.GetReplication().GetName(), answer.GetPlan()
	what := strings.Join(plan.GetChangedFields(), ", ")
	switch {
	case what == "" && !plan.GetRestarts():
		fmt.Fprintf(out, "replication %s is so already\n", name)
	case what == "":
		what = "its source"
		fallthrough
	case dryRun:
		fmt.Fprintf(out, "replication %s would be updated: %s\n", name, what)
	default:
		fmt.Fprintf(out, "replication %s is updated: %s\n", name, what)
	}
	if dryRun && plan.GetRestarts() {
		fmt.Fprintln(out, "what runs would be interrupted for a moment")
	}
	renderPlan(out, plan)
	if !dryRun {
		fmt.Fprintf(out, "next: syncline replication show %s --addr %s\n", name, address)
	}
}

var tableActions = map[applierv1.TableAction]string{
	applierv1.TableAction_TABLE_ACTION_COPY: "copy", applierv1.TableAction_TABLE_ACTION_CREATE: "create and copy",
	applierv1.TableAction_TABLE_ACTION_REMOVE: "apply no longer",
}

// renderPlan shows what happens to tables.
func renderPlan(out io.Writer, plan *applierv1.ReplicationPlan) {
	if plan.GetResyncs() {
		fmt.Fprintln(out, "all tables are copied anew")
	}
	if len(plan.GetTables()) > 0 {
		rows := [][]string{{"TABLE", "ACTION", "ROWS (EST.)", "SIZE"}}
		for _, t := range plan.GetTables() {
			row := []string{bothNames(t), tableActions[t.GetAction()], "-", "-"}
			if t.GetAction() != applierv1.TableAction_TABLE_ACTION_REMOVE && t.GetEstimatedRows() >= 0 {
				row[2], row[3] = count(t.GetEstimatedRows()), size(t.GetEstimatedBytes())
			}
			rows = append(rows, row)
		}
		table(out, rows)
	}
	for _, w := range plan.GetWarnings() {
		fmt.Fprintln(out, "note:", printable(w))
	}
}
