package main

import (
	"fmt"
	"io"
	"strings"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// longestKey is how many letters of a key's value are shown.
const longestKey = 80

// renderVerification prints a difference, or what is to be said of a table. Equal tables are not worth a line.
func renderVerification(out io.Writer, answer *applierv1.VerifyReplicationResponse) {
	if d := answer.GetDifference(); d != nil {
		fmt.Fprintln(out, printable(differenceLine(d)))
	}
	t := answer.GetTable()
	if t == nil {
		return
	}
	name := tableText(t.GetSchema(), t.GetTable())
	switch t.GetOutcome() {
	case applierv1.TableOutcome_TABLE_OUTCOME_DIFFERENT:
		line := fmt.Sprintf("%s: different as of %s: %s rows missing, %s extra, %s changed; %s rows on the source, %s on the replica", name, lsn(t.GetPosition().GetLsn()),
			count(t.GetMissing()), count(t.GetExtra()), count(t.GetChanged()), count(t.GetSourceRows()), count(t.GetReplicaRows()))
		if t.GetUnexamined() > 0 {
			line += fmt.Sprintf("; there are more among %s rows that were not looked into (--differences)", count(t.GetUnexamined()))
		}
		if t.GetUnsynced() > 0 {
			line += fmt.Sprintf("; %s changes of it are in quarantine", count(t.GetUnsynced()))
		}
		fmt.Fprintln(out, printable(line))
	case applierv1.TableOutcome_TABLE_OUTCOME_MISSING:
		fmt.Fprintln(out, printable(name+": missing: "+t.GetReason()))
	case applierv1.TableOutcome_TABLE_OUTCOME_NOT_COMPARED:
		fmt.Fprintln(out, printable(name+": not compared: "+t.GetReason()))
	}
}

func differenceLine(d *applierv1.RowDifference) string {
	kinds := map[applierv1.DifferenceKind]string{
		applierv1.DifferenceKind_DIFFERENCE_KIND_MISSING: "missing", applierv1.DifferenceKind_DIFFERENCE_KIND_EXTRA: "extra",
		applierv1.DifferenceKind_DIFFERENCE_KIND_CHANGED: "changed",
	}
	return rowLine(tableText(d.GetSchema(), d.GetTable())+": "+kinds[d.GetKind()], d.GetCount(), d.GetKeyColumns(), d.GetKey(), d.GetColumns())
}

// rowLine names a row behind what is said of it: by its key, or without one by a text of all of it; and the columns that it is about.
func rowLine(line string, n int64, keyColumns, key, columns []string) string {
	if n > 1 {
		line += fmt.Sprintf(" (%s rows)", count(n))
	}
	if len(keyColumns) != len(key) { // there is no key, and one text
		line += " " + strings.Join(key, ", ")
	} else {
		var parts []string
		for i, column := range keyColumns {
			parts = append(parts, column+"="+shortened(key[i]))
		}
		line += " " + strings.Join(parts, ", ")
	}
	if len(columns) > 0 {
		line += ": " + strings.Join(columns, ", ")
	}
	return line
}

// shortened cuts a long text between two letters.
func shortened(text string) string {
	letters := []rune(text)
	if len(letters) <= longestKey {
		return text
	}
	return fmt.Sprintf("%s… (%d letters)", string(letters[:longestKey]), len(letters))
}
