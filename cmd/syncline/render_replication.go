package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func renderReplications(out io.Writer, answer *applierv1.ListReplicationsResponse) {
	if len(answer.GetReplications()) == 0 {
		fmt.Fprintln(out, "no replications; create one with `syncline replication create NAME --source HOST:PORT`")
		return
	}
	rows := [][]string{{"NAME", "STATE", "SOURCE", "POSITION", "LAG", "LAG TIME", "CHANGES/S", "COPIED"}}
	scheduled := slices.ContainsFunc(answer.GetReplications(), func(r *applierv1.Replication) bool { return r.GetSpec().GetSchedule() != nil })
	if scheduled {
		rows[0] = append(rows[0], "NEXT RUN")
	}
	rows[0] = append(rows[0], "REASON") // the longest
	for _, r := range answer.GetReplications() {
		rows = append(rows, []string{
			r.GetName(), stateName(r.GetState()), r.GetSpec().GetSource(), lsn(r.GetPosition().GetLsn()), size(r.GetLagBytes()), lagSeconds(r),
			count(int64(r.GetChangesPerSecond())), fmt.Sprintf("%.0f %%", 100*r.GetSync().GetFraction()),
		})
		last := &rows[len(rows)-1]
		if scheduled {
			*last = append(*last, stamp(r.GetNextRunTime()))
		}
		*last = append(*last, why(r.GetReasonCode(), r.GetReason()))
	}
	table(out, rows)
}

// renderHealth answers for each replication whether it is well, and if not, since when and what is next.
func renderHealth(out io.Writer, answer *applierv1.ListReplicationsResponse) {
	if len(answer.GetReplications()) > 0 {
		fmt.Fprintln(out)
	}
	for _, r := range answer.GetReplications() {
		line := health(r)
		if n := r.GetQuarantinedChanges() + r.GetWaitingChanges(); n > 0 {
			line += fmt.Sprintf("; %s changes are in quarantine: see `syncline replication unsynced %s`", count(n), r.GetName())
		}
		fmt.Fprintln(out, printable(line))
	}
}

// health is one replication's condition in a line.
func health(r *applierv1.Replication) string {
	name, since := r.GetName(), ""
	if len(r.GetHistory()) > 0 {
		since = " since " + stamp(r.GetHistory()[0].GetTime())
	}
	var more []string
	if n := r.GetErrorCount(); n > 1 {
		more = append(more, fmt.Sprintf("%d failures in a row", n))
	}
	switch r.GetState() {
	case applierv1.State_STATE_RUNNING:
		if r.GetErrorCount() == 0 {
			return name + " is well" + since
		}
		return strings.Join(append([]string{name + " is running" + since}, more...), ", ")
	case applierv1.State_STATE_RETRYING:
		if r.GetNextRetryTime() != nil {
			more = append(more, "next attempt "+stamp(r.GetNextRetryTime())+", or at once with `syncline replication start "+name+"`")
		}
		return strings.Join(append([]string{name + " is not well: retrying" + since + faultSide(r)}, more...), ", ")
	case applierv1.State_STATE_FAILED:
		return strings.Join(append([]string{name + " is not well: failed" + since + faultSide(r) + "; mend its reason, then `syncline replication start " + name + "`"}, more...), ", ")
	case applierv1.State_STATE_STOPPED:
		return name + " is stopped" + since + " by a user"
	case applierv1.State_STATE_COMPLETED, applierv1.State_STATE_COMPLETED_WITH_QUARANTINE:
		text := name + " is " + stateName(r.GetState()) + since + ", up to " + lsn(r.GetCompletedPosition().GetLsn())
		if r.GetNextRunTime() != nil {
			text += ", next run at " + stamp(r.GetNextRunTime())
		}
		return text
	case applierv1.State_STATE_WAITING:
		switch r.GetReasonCode() {
		case "SCHEDULED":
			return name + " waits for its first run, at " + stamp(r.GetNextRunTime())
		case "IN_USE":
			return name + " stands by" + since + ": " + r.GetReason()
		}
		return fmt.Sprintf("%s waits for its turn since %s, at place %d", name, stamp(r.GetWaitingSince()), r.GetWaitingPlace())
	}
	text := name + " is " + stateName(r.GetState()) + since
	if s := r.GetSync(); s.GetPhase() != "" && s.GetPhase() != "done" {
		text += ": " + strings.TrimSpace(s.GetPhase()+" "+s.GetDetail())
	}
	return text
}

// faultSide tells whose fault the last one is.
func faultSide(r *applierv1.Replication) string {
	if len(r.GetRecentFaults()) == 0 {
		return ""
	}
	switch r.GetRecentFaults()[0].GetSide() {
	case applierv1.FaultSide_FAULT_SIDE_REMOTE:
		return " by a fault of the source or the way to it"
	case applierv1.FaultSide_FAULT_SIDE_LOCAL:
		return " by a fault of this replica"
	}
	return ""
}

// shownFaults is how many of the last faults are shown; the run log has all.
const shownFaults = 3

func renderReplication(out io.Writer, r *applierv1.Replication) {
	rows := [][]string{{"name", r.GetName()}}
	if text := r.GetSpec().GetDescription(); text != "" {
		rows = append(rows, []string{"description", text})
	}
	state := stateName(r.GetState())
	if len(r.GetHistory()) > 0 {
		state += " since " + stamp(r.GetHistory()[0].GetTime())
	}
	if place := r.GetWaitingPlace(); place > 0 {
		state = fmt.Sprintf("waiting since %s, at place %d", stamp(r.GetWaitingSince()), place)
	}
	if r.GetTransient() {
		state += ", transient"
	}
	rows = append(rows, []string{"state", state})
	if r.GetCompleteTime() != nil {
		rows = append(rows, []string{"completed", stamp(r.GetCompleteTime()) + ", up to " + lsn(r.GetCompletedPosition().GetLsn())})
	}
	rows = append(rows, runRows(r)...)
	if r.GetReason() != "" {
		rows = append(rows, []string{"reason", why(r.GetReasonCode(), r.GetReason())})
	}
	if n := r.GetErrorCount(); n > 0 {
		rows = append(rows, []string{"failures", fmt.Sprintf("%d in a row", n)})
	}
	if r.GetNextRetryTime() != nil {
		rows = append(rows, []string{"next retry", r.GetNextRetryTime().AsTime().Format("15:04:05 MST")})
	}
	switch r.GetPending() {
	case "plan":
		rows = append(rows, []string{"pending", "tables to copy are looked for"})
	case "resync":
		rows = append(rows, []string{"pending", "all tables are to be copied anew"})
	}
	if n := r.GetAutoResyncs(); n > 0 {
		rows = append(rows, []string{"auto resync", fmt.Sprintf("%d in a row", n)})
	}
	rows = append(rows,
		[]string{"source", r.GetSpec().GetSource() + " (server " + r.GetSourceServerId() + ")"},
		[]string{"position", lsn(r.GetPosition().GetLsn()) + " of " + lsn(r.GetSourcePosition().GetLsn())},
		[]string{"lag", size(r.GetLagBytes()) + ", " + lagSeconds(r)},
		[]string{"applied", count(r.GetTransactions()) + " transactions, " + count(r.GetChanges()) + " changes in all, " + count(int64(r.GetChangesPerSecond())) + " changes/s now"},
	)
	if n := r.GetQuarantinedChanges() + r.GetWaitingChanges(); n > 0 {
		rows = append(rows, []string{"quarantine", fmt.Sprintf("%s refused, %s waiting, %s", count(r.GetQuarantinedChanges()), count(r.GetWaitingChanges()), size(r.GetQuarantinedBytes()))})
	}
	if r.GetCopiedRows() > 0 {
		rows = append(rows, []string{"copied", count(r.GetCopiedRows()) + " rows, " + size(r.GetCopiedBytes()) + " in all"})
	}
	if s := r.GetSync(); s.GetPhase() != "" || s.GetTables() > 0 {
		rows = append(rows, []string{"last copy", strings.TrimSpace(fmt.Sprintf("%.0f %%, %d of %d tables, %s rows, %s %s %s", 100*s.GetFraction(), s.GetTablesDone(), s.GetTables(), count(s.GetRows()), size(s.GetBytes()), s.GetPhase(), s.GetDetail()))})
	}
	if r.GetEtag() != "" {
		rows = append(rows, []string{"etag", r.GetEtag()})
	}
	table(out, rows)
	for _, w := range r.GetWarnings() {
		fmt.Fprintln(out, "note:", printable(w))
	}
	renderFaults(out, r)
	if len(r.GetTables()) == 0 {
		return
	}
	fmt.Fprintln(out)
	tables := [][]string{{"TABLE", "STATE", "ROWS COPIED", "BYTES", "COPY AS OF"}}
	for _, t := range r.GetTables() {
		tables = append(tables, []string{bothNames(t), t.GetState(), count(t.GetRows()), size(t.GetBytes()), lsn(t.GetCopyLsn())})
	}
	table(out, tables)
}

// runRows tell of a replication's schedule and its last run.
func runRows(r *applierv1.Replication) (rows [][]string) {
	if s := r.GetSpec().GetSchedule(); s != nil {
		next := "none"
		if r.GetNextRunTime() != nil {
			next = stamp(r.GetNextRunTime())
		}
		rows = append(rows, []string{"schedule", scheduleText(s)}, []string{"next run", fmt.Sprintf("%s, after %d by the schedule", next, r.GetScheduledRuns())})
	}
	if run := r.GetLastRun(); run != nil {
		text := fmt.Sprintf("%s, begun %s by %s", runResult(run), stamp(run.GetBeginTime()), enumText(run.GetTrigger().String(), "RUN_TRIGGER_"))
		if note := runNote(run); note != "-" {
			text += "; " + note
		}
		rows = append(rows, []string{"last run", text})
	}
	if r.GetApplier() != "" {
		rows = append(rows, []string{"applier", r.GetApplier()})
	}
	return rows
}

func renderFaults(out io.Writer, r *applierv1.Replication) {
	if len(r.GetRecentFaults()) == 0 {
		return
	}
	fmt.Fprintln(out)
	rows := [][]string{{"LAST FAULTS", "TIMES", "SIDE", "REASON"}}
	for i, f := range r.GetRecentFaults() {
		if i == shownFaults {
			break
		}
		rows = append(rows, []string{stamp(f.GetTime()), fmt.Sprint(f.GetCount()), enumText(f.GetSide().String(), "FAULT_SIDE_"), why(f.GetCode(), f.GetText())})
	}
	table(out, rows)
	if more := len(r.GetRecentFaults()) - shownFaults; more > 0 {
		fmt.Fprintf(out, "%d more: syncline replication log %s\n", more, r.GetName())
	}
}
