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
