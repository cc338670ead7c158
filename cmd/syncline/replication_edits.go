package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// editPage is how many edits are asked for at a time.
const editPage = 50

// listEdits prints page after page, so that no more than one is held.
func listEdits(ctx context.Context, f *clientFlags, out io.Writer, client applierv1.ApplierServiceClient, name string, limit int32) error {
	request := &applierv1.ListUnsyncedEditsRequest{Name: name}
	listed := int32(0)
	for {
		if request.PageSize = editPage; limit != 0 {
			request.PageSize = min(editPage, limit-listed)
		}
		answer, err := client.ListUnsyncedEdits(ctx, request)
		if err != nil {
			return inFlags(err)
		}
		listed += int32(len(answer.GetEdits()))
		request.PageToken = answer.GetNextPageToken()
		if limit > 0 && listed >= limit {
			request.PageToken, answer.NextPageToken = "", ""
		}
		if err := show(f, out, answer, renderEdits); err != nil || request.GetPageToken() == "" {
			return err
		}
	}
}

func renderEdits(out io.Writer, answer *applierv1.ListUnsyncedEditsResponse) {
	if len(answer.GetEdits()) == 0 {
		fmt.Fprintln(out, "no change was applied with other values than the source's")
		return
	}
	rows := [][]string{{"CHANGE", "TIME", "BY", "TABLE", "OPERATION", "KEY", "COLUMN", "ON THE SOURCE", "WRITTEN"}}
	for _, e := range answer.GetEdits() {
		who := e.GetPrincipal()
		if who == "" {
			who = "-"
		}
		for _, c := range e.GetColumns() {
			rows = append(rows, []string{
				strconv.FormatInt(e.GetChangeId(), 10), stamp(e.GetTime()), who, tableText(e.GetSchema(), e.GetTable()), unsyncedVerbs[e.GetOperation()], printable(e.GetKey()),
				c.GetName(), unsyncedValue(c.GetSourceValue()), unsyncedValue(c.GetWrittenValue()),
			})
		}
	}
	table(out, rows)
}
