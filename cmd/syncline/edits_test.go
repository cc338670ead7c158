package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

// ListUnsyncedEdits answers with one edit on each page.
func (f *fakeApplier) ListUnsyncedEdits(_ context.Context, in *applierv1.ListUnsyncedEditsRequest) (*applierv1.ListUnsyncedEditsResponse, error) {
	if in.GetName() != "shop" {
		return &applierv1.ListUnsyncedEditsResponse{}, nil
	}
	text := func(text string, size int) *applierv1.UnsyncedValue {
		return &applierv1.UnsyncedValue{Text: []byte(text), Size: int64(size)}
	}
	edits := []*applierv1.UnsyncedEdited{
		{
			Id: 2, ChangeId: 17, Principal: "olga", Time: timestamppb.New(longAgo), Schema: "public", Table: "orders", Operation: applierv1.UnsyncedOperation_UNSYNCED_OPERATION_UPDATE, Key: "(id=5)",
			LogId: at16().GetLogId(), CommitLsn: 0x20, Columns: []*applierv1.UnsyncedEditedColumn{
				{Name: "mail", SourceValue: text("wrong\tone", 9), WrittenValue: text("right", 4<<20)},
				{Name: "note", SourceValue: &applierv1.UnsyncedValue{Unchanged: true}, WrittenValue: &applierv1.UnsyncedValue{Null: true}},
			},
		},
		{Id: 1, ChangeId: 9, Time: timestamppb.New(longAgo), Schema: "public", Table: "orders", Operation: applierv1.UnsyncedOperation_UNSYNCED_OPERATION_INSERT, Key: "(id=4)", Columns: []*applierv1.UnsyncedEditedColumn{{Name: "mail", SourceValue: text("", 0), WrittenValue: text("x", 1)}}},
	}
	if in.GetPageToken() != "" {
		return &applierv1.ListUnsyncedEditsResponse{Edits: edits[1:]}, nil
	}
	return &applierv1.ListUnsyncedEditsResponse{Edits: edits[:1], NextPageToken: "next"}, nil
}

func TestEditsTranscripts(t *testing.T) {
	replica := serveFake(t, identify("applier"), &fakeApplier{})
	for name, args := range map[string][]string{
		"all":  {"replication", "unsynced", "shop", "--edits"},
		"one":  {"replication", "unsynced", "shop", "--edits", "--limit", "1"},
		"json": {"replication", "unsynced", "shop", "--edits", "--json", "--limit", "1"},
		"none": {"replication", "unsynced", "books", "--edits"},
		"both": {"replication", "unsynced", "shop", "--edits", "--show", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, append(args, "--addr", replica)...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, "edits_"+name, text+"--- exit code "+string(rune('0'+code))+"\n")
		})
	}
}
