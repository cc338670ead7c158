package main

import (
	"fmt"
	"io"
	"strings"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
)

func renderInventory(out io.Writer, answer *inventoryv1.GetInventoryResponse) {
	rows := [][]string{{"TABLE", "KIND", "ROWS (EST.)", "SIZE", "KEY", "INDEXES", "CAPTURED"}}
	for _, t := range answer.GetTables() {
		key := strings.Join(t.GetIdentityColumns(), ", ")
		switch {
		case t.GetReplicaIdentity() == "f":
			key = "whole row"
		case key == "":
			key = "none"
		}
		estimate, bytes := "-", t.GetBytes()
		if t.GetEstimatedRows() >= 0 {
			estimate = count(t.GetEstimatedRows())
		}
		if t.GetKind() == "partitioned" { // it has none of its own
			estimate, bytes = count(t.GetTotalRows()), t.GetTotalBytes()
		}
		captured := t.GetCaptured()
		if captured == "" {
			captured = "-"
		}
		rows = append(rows, []string{tableText(t.GetSchema(), t.GetName()), t.GetKind(), estimate, size(bytes), key, fmt.Sprint(t.GetIndexes()), captured})
	}
	table(out, rows)
	fmt.Fprintf(out, "total: %s rows (est.), %s\n", count(answer.GetTotalRows()), size(answer.GetTotalBytes()))
	renderNotCaptured(out, answer.GetTables())
	if len(answer.GetNotReplicated()) == 0 {
		return
	}
	fmt.Fprintln(out, "\nnot replicated:")
	rows = nil
	for _, n := range answer.GetNotReplicated() {
		rows = append(rows, []string{"  " + n.GetKind(), n.GetName(), n.GetReason()})
	}
	table(out, rows)
}

// renderNotCaptured says why tables are not captured, and what mends it.
func renderNotCaptured(out io.Writer, tables []*inventoryv1.Table) {
	first := true
	for _, t := range tables {
		if t.GetNotCapturedReason() == "" || t.GetKind() == "partitioned" || t.GetKind() == "system" {
			continue
		}
		if first {
			fmt.Fprintln(out, "\nnot captured:")
			first = false
		}
		fmt.Fprintf(out, "  %s: %s", printable(tableText(t.GetSchema(), t.GetName())), printable(t.GetNotCapturedReason()))
		if t.GetMend() != "" {
			fmt.Fprintf(out, "; %s", printable(t.GetMend()))
		}
		fmt.Fprintln(out)
		if t.GetMendSql() != "" {
			fmt.Fprintf(out, "    %s;\n", printable(t.GetMendSql()))
		}
	}
}

// renderDetails adds what tables are made of, and sequences and types.
func renderDetails(out io.Writer, answer *inventoryv1.GetInventoryResponse) {
	for _, t := range answer.GetTables() {
		if len(t.GetColumns())+len(t.GetIndexList())+len(t.GetConstraintList()) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", printable(tableText(t.GetSchema(), t.GetName())))
		var rows [][]string
		for _, c := range t.GetColumns() {
			extra := ""
			if c.GetNotNull() {
				extra = "NOT NULL"
			}
			if c.GetGenerated() {
				extra = strings.TrimSpace(extra + " generated")
			}
			rows = append(rows, []string{"  column", c.GetName(), c.GetType(), extra})
		}
		for _, c := range t.GetConstraintList() {
			rows = append(rows, []string{"  " + c.GetKind(), c.GetName(), c.GetDefinition()})
		}
		for _, x := range t.GetIndexList() {
			if x.GetConstraint() == "" {
				rows = append(rows, []string{"  index", x.GetName(), x.GetDefinition()})
			}
		}
		table(out, rows)
	}
	if len(answer.GetSequences()) > 0 {
		rows := [][]string{{"SEQUENCE", "TYPE", "OWNER", "LAST VALUE"}}
		for _, q := range answer.GetSequences() {
			owner, last := "-", "-"
			if q.GetOwnerTable() != "" {
				owner = q.GetOwnerTable() + ", " + q.GetOwnerColumn()
			}
			if q.LastValue != nil {
				last = fmt.Sprint(q.GetLastValue())
			}
			rows = append(rows, []string{tableText(q.GetSchema(), q.GetName()), q.GetType(), owner, last})
		}
		fmt.Fprintln(out)
		table(out, rows)
	}
	if len(answer.GetTypes()) > 0 {
		rows := [][]string{{"TYPE", "KIND", "DEFINITION"}}
		for _, t := range answer.GetTypes() {
			rows = append(rows, []string{tableText(t.GetSchema(), t.GetName()), t.GetKind(), t.GetDefinition()})
		}
		fmt.Fprintln(out)
		table(out, rows)
	}
}
