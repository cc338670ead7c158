package main

import (
	"fmt"
	"io"
	"time"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
)

func renderLogger(out io.Writer, s *loggerv1.GetStateResponse) {
	rows := [][]string{{"logger", s.GetState()}}
	if s.GetReason() != "" {
		rows = append(rows, []string{"reason", why(s.GetReasonCode(), s.GetReason())})
	}
	rows = append(rows,
		[]string{"position", lsn(s.GetPosition().GetLsn()) + ", confirmed " + lsn(s.GetConfirmedLsn()) + ", primary at " + lsn(s.GetCurrentWalLsn())},
		[]string{"lag", size(s.GetLagBytes()) + lagTime(s.LagSeconds) + "; the slot " + s.GetSlot() + " keeps " + walKept(s)},
		[]string{"change log", size(s.GetStoredBytes()) + " from " + lsn(s.GetFirstPosition().GetLsn()) + " on" + diskFree(s)},
		[]string{"captured", count(s.GetTransactions()) + " transactions, " + count(s.GetChanges()) + " changes, " + size(s.GetLogBytes()) + " since the start; now " +
			count(int64(s.GetTransactionsPerSecond())) + " transactions/s, " + count(int64(s.GetChangesPerSecond())) + " changes/s, " + size(int64(s.GetLogBytesPerSecond())) + "/s"},
	)
	tables := fmt.Sprint(len(s.GetTables()))
	if n := len(s.GetUncapturedTables()); n > 0 {
		tables += fmt.Sprintf("; %d not captured", n)
	}
	rows = append(rows, []string{"tables", tables})
	if n := s.GetRemoteTransactionsLeftOut(); n > 0 {
		rows = append(rows, []string{"left out", count(n) + " transactions that were brought here (log-remote-changes is false)"})
	}
	table(out, rows)
	for _, w := range s.GetWarnings() {
		fmt.Fprintln(out, "warning:", printable(w))
	}
}

// lagTime is a lag in time after one in bytes; nothing while it is not known.
func lagTime(lag *float64) string {
	if lag == nil {
		return ""
	}
	return ", " + longSeconds(*lag)
}

// longSeconds prints seconds that may be days.
func longSeconds(s float64) string {
	const long = 2 * time.Minute
	if d := time.Duration(s * float64(time.Second)); d >= long {
		return d.Round(time.Second).String()
	}
	return seconds(s)
}

func walKept(s *loggerv1.GetStateResponse) string {
	text := size(s.GetRetainedWalBytes()) + " of WAL"
	if s.WalLimitBytes != nil {
		text += ", of at most " + size(s.GetWalLimitBytes())
	}
	return text
}

func diskFree(s *loggerv1.GetStateResponse) string {
	if s.FreeBytes == nil {
		return ""
	}
	return "; its disk has " + size(s.GetFreeBytes()) + " free"
}

func renderFollowers(out io.Writer, answer *loggerv1.ListFollowersResponse) {
	if len(answer.GetFollowers()) == 0 {
		fmt.Fprintln(out, "no followers")
		return
	}
	rows := [][]string{{"FOLLOWER", "STATE", "ADDRESS", "SENT", "APPLIED", "LAG", "LAG TIME", "RATE", "LAST HEARD"}}
	for _, f := range answer.GetFollowers() {
		name, lag, heard := f.GetName(), "-", "-"
		if name == "" {
			name = "(anonymous)"
		}
		if f.LagSeconds != nil {
			lag = longSeconds(f.GetLagSeconds())
		}
		if f.GetLastContactTime() != nil {
			heard = f.GetLastContactTime().AsTime().Format("2006-01-02 15:04:05 MST")
		}
		rows = append(rows, []string{name, f.GetState(), f.GetAddress(), lsn(f.GetSent().GetLsn()), lsn(f.GetApplied().GetLsn()),
			size(f.GetLagBytes()), lag, size(int64(f.GetBytesPerSecond())) + "/s", heard})
	}
	table(out, rows)
	for _, f := range answer.GetFollowers() {
		if f.GetReason() != "" {
			fmt.Fprintf(out, "note: %s: %s\n", printable(f.GetName()), printable(f.GetReason()))
		}
	}
}
