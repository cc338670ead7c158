package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/schema"
)

// table prints columns that line up.
func table(out io.Writer, rows [][]string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i := range row {
			cells[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	_ = w.Flush() // as any print to the terminal
}

// printable replaces what would break a line or drive the terminal: names and reasons come from databases.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// stateName is a replication's state as people read it.
func stateName(s applierv1.State) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.String(), "STATE_")), "_", " ")
}

// lsn prints a position as PostgreSQL does; a dash for none.
func lsn(l uint64) string {
	if l == 0 {
		return "-"
	}
	return change.LSN(l).String()
}

// count prints a number with its thousands apart.
func count(n int64) string {
	digits := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// size prints a number of bytes.
func size(n int64) string {
	const step = 1024
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, unit := float64(n), 0
	for value >= step && unit < len(units)-1 {
		value, unit = value/step, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// tableText is a table's name as it is typed for --table: quoted where it has to be.
func tableText(schemaName, name string) string {
	return schema.Name{Schema: schemaName, Name: name}.String()
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }

// lagSeconds prints a lag in time; a dash while it is not known.
func lagSeconds(r *applierv1.Replication) string {
	if r.LagSeconds == nil {
		return "-"
	}
	return seconds(r.GetLagSeconds())
}

// why is the reason of a state, with its code.
func why(code, reason string) string {
	if code == "" {
		return reason
	}
	return code + ": " + reason
}

func renderReplications(out io.Writer, answer *applierv1.ListReplicationsResponse) {
	if len(answer.GetReplications()) == 0 {
		fmt.Fprintln(out, "no replications; create one with `syncline replication create NAME --source HOST:PORT`")
		return
	}
	rows := [][]string{{"NAME", "STATE", "SOURCE", "POSITION", "LAG", "LAG TIME", "CHANGES/S", "COPIED", "REASON"}}
	for _, r := range answer.GetReplications() {
		rows = append(rows, []string{
			r.GetName(), stateName(r.GetState()), r.GetSpec().GetSource(), lsn(r.GetPosition().GetLsn()), size(r.GetLagBytes()), lagSeconds(r),
			count(int64(r.GetChangesPerSecond())), fmt.Sprintf("%.0f %%", 100*r.GetSync().GetFraction()), why(r.GetReasonCode(), r.GetReason()),
		})
	}
	table(out, rows)
}

func renderReplication(out io.Writer, r *applierv1.Replication) {
	rows := [][]string{
		{"name", r.GetName()},
		{"state", stateName(r.GetState())},
	}
	if r.GetReason() != "" {
		rows = append(rows, []string{"reason", why(r.GetReasonCode(), r.GetReason())})
	}
	if r.GetNextRetryTime() != nil {
		rows = append(rows, []string{"next retry", r.GetNextRetryTime().AsTime().Format("15:04:05 MST")})
	}
	rows = append(rows,
		[]string{"source", r.GetSpec().GetSource() + " (server " + r.GetSourceServerId() + ")"},
		[]string{"position", lsn(r.GetPosition().GetLsn()) + " of " + lsn(r.GetSourcePosition().GetLsn())},
		[]string{"lag", size(r.GetLagBytes()) + ", " + lagSeconds(r)},
		[]string{"applied", count(r.GetTransactions()) + " transactions, " + count(r.GetChanges()) + " changes since the start, " + count(int64(r.GetChangesPerSecond())) + " changes/s now"},
	)
	if s := r.GetSync(); s.GetPhase() != "" || s.GetTables() > 0 {
		rows = append(rows, []string{"first copy", fmt.Sprintf("%.0f %%, %d of %d tables, %s rows, %s %s %s", 100*s.GetFraction(), s.GetTablesDone(), s.GetTables(), count(s.GetRows()), size(s.GetBytes()), s.GetPhase(), s.GetDetail())})
	}
	table(out, rows)
	for _, w := range r.GetWarnings() {
		fmt.Fprintln(out, "note:", printable(w))
	}
	if len(r.GetTables()) == 0 {
		return
	}
	fmt.Fprintln(out)
	tables := [][]string{{"TABLE", "STATE", "ROWS COPIED", "BYTES", "COPY AS OF"}}
	for _, t := range r.GetTables() {
		tables = append(tables, []string{tableText(t.GetSchema(), t.GetName()), t.GetState(), count(t.GetRows()), size(t.GetBytes()), lsn(t.GetCopyLsn())})
	}
	table(out, tables)
}

func renderServer(out io.Writer, s *serverv1.Server) {
	rows := [][]string{
		{"server", s.GetServerId()},
		{"serves", strings.Join(s.GetRoles(), ", ")},
		{"version", s.GetVersion()},
		{"database", fmt.Sprintf("%s, PostgreSQL %d.%d, system %s", s.GetDatabase(), s.GetPostgresVersion()/10000, s.GetPostgresVersion()%10000, s.GetSystemIdentifier())},
	}
	if s.GetLoggerAddress() != "" {
		rows = append(rows, []string{"logger", s.GetLoggerAddress()})
	}
	if s.GetInventoryAddress() != "" {
		rows = append(rows, []string{"inventory", s.GetInventoryAddress()})
	}
	table(out, append(rows, []string{"since", s.GetStartTime().AsTime().Format("2006-01-02 15:04:05 MST")}))
}
