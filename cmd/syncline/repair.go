package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// errNotMended says that a repair came to its end and not everything is equal.
var errNotMended = errors.New("not equal")

// repairFlags are the flags that set what the API calls otherwise.
var repairFlags = map[string]string{
	"include_tables": "--table", "exclude_tables": "--exclude-table", "max_rows": "--rows", "max_hold": "--max-hold", "name": "NAME",
}

func newRepairCommand() *cobra.Command {
	var f clientFlags
	hold := 30 * time.Second
	request := &applierv1.RepairReplicationRequest{}
	cmd := &cobra.Command{
		Use:   "repair NAME",
		Short: "Mend the rows of a replica that differ from its source's",
		Long: `Compares every row on both sides as verify does, makes those equal that differ, and compares the tables again that it has changed.
Only rows that differ are shipped, and both sides stay in use. Columns that only the replica has keep their values. Exit code 0 when
all is equal in the end, 1 otherwise, and 1 too when --dry-run finds differences. Changes in quarantine leave it with the rows that they are about.

Applying stands still for moments: until the source has opened a snapshot, and while up to some thousand rows are mended as of it.
What was mended before an interruption stays mended.`,
		Example: `  syncline repair shop --dry-run
  syncline repair shop --table public.orders`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name, request.MaxHold = args[0], durationpb.New(hold)
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				return repair(ctx, cmd, &f, client, request)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	flags := cmd.Flags()
	patternsFlag(flags, &request.IncludeTables, "table", "mend only these tables of the source: schema.table, schema.*; may be repeated")
	patternsFlag(flags, &request.ExcludeTables, "exclude-table", "leave these tables out")
	flags.BoolVar(&request.DryRun, "dry-run", false, "change nothing, and tell what would be changed")
	flags.Int32Var(&request.MaxRows, "rows", 0, "how many rows of each table are named; 0 for the default of 100")
	flags.DurationVar(&hold, "max-hold", hold, "how long applying may stand still at a time")
	return cmd
}

func repair(ctx context.Context, cmd *cobra.Command, f *clientFlags, client applierv1.ApplierServiceClient, request *applierv1.RepairReplicationRequest) error {
	stream, err := client.RepairReplication(ctx, request)
	if err != nil {
		return err
	}
	progress := &repairLines{out: cmd.ErrOrStderr()}
	var result *applierv1.RepairResult
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && result != nil:
			return repairVerdict(cmd.OutOrStdout(), f, result)
		case errors.Is(err, io.EOF):
			return errors.New("the replica has ended the repair; is it being shut down?")
		case err != nil:
			return flagError(err, repairFlags)
		}
		if p := answer.GetProgress(); p != nil {
			progress.update(p)
		} else if r := answer.GetResult(); r != nil {
			result = r
		}
		if f.json && answer.GetProgress() == nil {
			err = printJSON(cmd.OutOrStdout(), repairEvent(answer), false)
		} else if !f.json {
			renderRepair(cmd.OutOrStdout(), answer, request.GetDryRun())
		}
		if err != nil {
			return err
		}
	}
}

// repairEvent is what an answer holds.
func repairEvent(answer *applierv1.RepairReplicationResponse) proto.Message {
	switch event := answer.GetEvent().(type) {
	case *applierv1.RepairReplicationResponse_Row:
		return event.Row
	case *applierv1.RepairReplicationResponse_Table:
		return event.Table
	case *applierv1.RepairReplicationResponse_Result:
		return event.Result
	}
	return answer
}

// repairVerdict tells the result, and makes anything but equality a failure.
func repairVerdict(out io.Writer, f *clientFlags, r *applierv1.RepairResult) error {
	if r.GetEqual() {
		if !f.json {
			fmt.Fprintf(out, "equal: %d tables were equal, %d were mended (%s), as of %s%s\n", r.GetTablesEqual(), r.GetTablesMended(), changedRows(r), lsn(r.GetPosition().GetLsn()), quarantineNote(r))
		}
		return nil
	}
	if r.GetDryRun() {
		return fmt.Errorf("%w: %d tables differ, %d could not be compared, %d are equal; nothing was changed", errNotMended, r.GetTablesDifferent(), r.GetTablesNotMended(), r.GetTablesEqual())
	}
	return fmt.Errorf("%w: %d tables could not be mended, %d were (%s), %d were equal%s", errNotMended, r.GetTablesNotMended(), r.GetTablesMended(), changedRows(r), r.GetTablesEqual(), quarantineNote(r))
}

// quarantineNote says what became of changes in quarantine, if there are any.
func quarantineNote(r interface {
	GetResolved() int64
	GetUnsynced() int64
},
) string {
	note := ""
	if r.GetResolved() > 0 {
		note += fmt.Sprintf("; %s changes have left the quarantine with that", count(r.GetResolved()))
	}
	if r.GetUnsynced() > 0 {
		note += fmt.Sprintf("; %s changes are in quarantine", count(r.GetUnsynced()))
	}
	return note
}

func changedRows(r interface {
	GetInserted() int64
	GetUpdated() int64
	GetDeleted() int64
},
) string {
	return fmt.Sprintf("%s rows inserted, %s updated, %s deleted", count(r.GetInserted()), count(r.GetUpdated()), count(r.GetDeleted()))
}

// renderRepair prints what is new for the user in an answer.
func renderRepair(out io.Writer, answer *applierv1.RepairReplicationResponse, dryRun bool) {
	if r := answer.GetRow(); r != nil {
		fmt.Fprintln(out, printable(repairedLine(r, dryRun)))
	}
	if t := answer.GetTable(); t != nil {
		renderRepairedTable(out, t)
	}
}

func repairedLine(r *applierv1.RepairedRow, dryRun bool) string {
	done := map[applierv1.RepairAction]string{
		applierv1.RepairAction_REPAIR_ACTION_INSERT: "inserted", applierv1.RepairAction_REPAIR_ACTION_UPDATE: "updated", applierv1.RepairAction_REPAIR_ACTION_DELETE: "deleted",
	}[r.GetAction()]
	if dryRun {
		done = "would be " + done
	}
	return rowLine(tableText(r.GetSchema(), r.GetTable())+": "+done, r.GetCount(), r.GetKeyColumns(), r.GetKey(), r.GetColumns())
}

func renderRepairedTable(out io.Writer, t *applierv1.TableRepair) {
	line := tableText(t.GetSchema(), t.GetTable()) + ": "
	switch t.GetOutcome() {
	case applierv1.RepairOutcome_REPAIR_OUTCOME_MENDED:
		line += "mended, " + changedRows(t) + quarantineNote(t)
	case applierv1.RepairOutcome_REPAIR_OUTCOME_DIFFERENT:
		switch {
		case t.GetReason() != "":
			line += t.GetReason()
		default:
			line += "different, would be mended: " + changedRows(t)
		}
		if t.GetUnexamined() > 0 {
			line += fmt.Sprintf("; there are more among %s rows that were not looked into", count(t.GetUnexamined()))
		}
	case applierv1.RepairOutcome_REPAIR_OUTCOME_NOT_MENDED:
		line += "not mended: " + t.GetReason()
	default:
		if quarantineNote(t) == "" {
			return
		}
		line += "equal" + quarantineNote(t)
	}
	fmt.Fprintln(out, printable(line))
}

// repairLines prints the progress: what is new at once, and numbers now and then.
type repairLines struct {
	out  io.Writer
	said string
	last time.Time
}

func (l *repairLines) update(p *applierv1.RepairProgress) {
	now := time.Now()
	what := p.GetPhase()
	if p.GetDetail() != "" {
		what += ": " + p.GetDetail()
	}
	if what == l.said && now.Sub(l.last) < lineInterval {
		return
	}
	l.said, l.last = what, now
	fmt.Fprintln(l.out, printable(what+repairNumbers(p)))
}

func repairNumbers(p *applierv1.RepairProgress) string {
	text := ""
	if p.GetTables() > 0 {
		text += fmt.Sprintf("  %d of %d tables, %s of about %s rows", p.GetTablesDone(), p.GetTables(), count(p.GetRows()), count(max(p.GetRows(), p.GetEstimatedRows())))
	}
	if p.GetMended()+p.GetToMend() > 0 {
		text += fmt.Sprintf("  %s rows mended, %s to mend", count(p.GetMended()), count(p.GetToMend()))
	}
	return text
}
