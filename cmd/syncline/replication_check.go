package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// errProblems says that a replication would be refused, or that one that there is has something to be mended.
var errProblems = errors.New("source and replica do not fit")

func newCheckCommand() *cobra.Command {
	var f clientFlags
	var r replicationFlags
	var initial string
	var only usedSetFlags
	cmd := &cobra.Command{
		Use:   "check NAME | --source HOST:PORT",
		Short: "Compare a source and this replica before the first run, or later",
		Long: `Compares who both are, their versions, databases, clocks, the set, each table column by column, and privileges, and tells everything that it finds, with
the way out. It stores and changes nothing. With NAME it checks a replication that there is, and tells what has changed on either side
since its tables were copied; else it takes the flags of ` + "`replication create`" + `. Exit code 1 when something is a problem. Only --addr, --json
and those of the connection to the replica can be set by variables here.`,
		Example: `  syncline replication check --source db1:7400
  syncline replication check --source db1:7400 --set by-org --param org=acme --rename 'public.*=acme.*'
  syncline replication check shop --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &applierv1.CheckReplicationRequest{}
			if len(args) == 0 {
				r.spec.Set, r.spec.Parameters = only.set, only.parameters
				if err := errors.Join(r.finish(), setInitial(&r.spec, initial)); err != nil {
					return err
				}
				request.Spec = &r.spec
			} else {
				request.Name = args[0]
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				if r.spec.GetFromRestore() { // every restored row is looked at before the answer
					return check(ctx, cmd.OutOrStdout(), &f, client, request)
				}
				ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
				defer cancel()
				return check(ctx, cmd.OutOrStdout(), &f, client, request)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := pflag.NewFlagSet("check", pflag.ContinueOnError)
	r.register(flags)
	r.registerNames(flags)
	only.register(flags)
	flags.Lookup("source").Usage = strings.TrimSuffix(flags.Lookup("source").Usage, " (needed)")
	flags.BoolVar(&r.spec.FromRestore, "from-restore", false, "as of one that begins with the tables that a backup of the source was restored into")
	flags.StringVar(&initial, "initial", "copy", "what is done with tables that hold rows: copy refuses or replaces them, incremental mends what differs")
	flags.VisitAll(withoutVariable)
	cmd.Flags().AddFlagSet(flags)
	cmd.Args = wrongUse(func(_ *cobra.Command, args []string) error {
		given := changedFields(cmd.Flags()).GetPaths()
		switch {
		case len(args) > 1:
			return fmt.Errorf("one NAME of a replication is expected, not %d: %s", len(args), strings.Join(args, ", "))
		case len(args) == 0 && r.spec.GetSource() == "":
			return errors.New("the NAME of a replication is missing, or --source with the gRPC address of a primary, such as db1:7400")
		case len(args) == 1 && len(given) > 0:
			return fmt.Errorf("replication %s has its own %s; leave out the NAME, or the flags", args[0], strings.Join(given, ", "))
		}
		return nil
	})
	return cmd
}

func check(ctx context.Context, out io.Writer, f *clientFlags, client applierv1.ApplierServiceClient, request *applierv1.CheckReplicationRequest) error {
	answer, err := client.CheckReplication(ctx, request, rpc.LargeAnswer())
	if err != nil {
		return inFlags(err)
	}
	if err := show(f, out, answer.GetHandshake(), renderHandshake); err != nil {
		return err
	}
	if answer.GetHandshake().GetOk() {
		return nil
	}
	problems := 0
	for _, found := range answer.GetHandshake().GetFindings() {
		if found.GetVerdict() == applierv1.Verdict_VERDICT_PROBLEM {
			problems++
		}
	}
	return fmt.Errorf("%w: %d problems", errProblems, problems)
}

var verdicts = map[applierv1.Verdict]string{
	applierv1.Verdict_VERDICT_OK: "ok", applierv1.Verdict_VERDICT_NOTE: "note", applierv1.Verdict_VERDICT_PROBLEM: "PROBLEM",
}

// renderHandshake prints a line for each finding, and below it the way out.
func renderHandshake(out io.Writer, h *applierv1.Handshake) {
	var rows [][]string
	for _, found := range h.GetFindings() {
		text := found.GetText()
		if found.GetSubject() != "" {
			subject := found.GetSubject()
			if found.GetColumn() != "" {
				subject += " column " + found.GetColumn()
			}
			text = subject + ": " + text
		}
		rows = append(rows, []string{verdicts[found.GetVerdict()], found.GetTopic(), text})
		if found.GetMend() != "" {
			rows = append(rows, []string{"", "", "-> " + found.GetMend()})
		}
	}
	table(out, rows)
}
