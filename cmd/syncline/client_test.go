package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// replication is one in trouble: every line of its output has something to say.
func replication() *applierv1.Replication {
	return &applierv1.Replication{
		Name: "shop", Spec: &applierv1.ReplicationSpec{Source: "db1:7400", IncludeTables: []string{"public.*"}},
		State: applierv1.State_STATE_RETRYING, Reason: "no answer from db1:7400\nfor 20 s", ReasonCode: "SOURCE_UNREACHABLE", SourceServerId: somebody.ServerID,
		Position: at(0x16B3000000), SourcePosition: at(0x16B374D848), LagBytes: 7_657_544, LagSeconds: proto.Float64(12.34),
		Transactions: 1234, Changes: 56_789, ChangesPerSecond: 1500.7, ErrorCount: 3, NextRetryTime: timestamppb.New(longAgo),
		Sync:     &applierv1.SyncProgress{Tables: 2, TablesDone: 1, Rows: 1_000_000, EstimatedRows: 2_000_000, Bytes: 100 << 20, Fraction: 0.5, Phase: "copying", Detail: "public.b"},
		Warnings: []string{"column public.a.note is text here and varchar(10) at the source"},
		Tables: []*applierv1.TableProgress{
			{Schema: "public", Name: "a", State: "copied", CopyLsn: 0x16B2000000, Rows: 1_000_000, Bytes: 100 << 20},
			{Schema: "public", Name: "B", State: "waiting"},
		},
	}
}

func TestClientTranscripts(t *testing.T) {
	replica := serveFake(t, identify("applier"), &fakeApplier{replication: replication()})
	fresh := serveFake(t, identify("applier"), &fakeApplier{})
	primary := serveFake(t, identify("logger", "inventory"), &fakeLogger{}, &fakeInventory{})
	for name, args := range map[string][]string{
		"status_primary":      {"status", "--addr", primary},
		"status_replica":      {"status", "--addr", replica},
		"server_show":         {"server", "show", "--addr", primary},
		"replication_list":    {"replication", "list", "--addr", replica},
		"replication_none":    {"replication", "list", "--addr", fresh},
		"replication_show":    {"replication", "show", "shop", "--addr", replica},
		"replication_stop":    {"replication", "stop", "shop", "--addr", replica},
		"replication_start":   {"replication", "start", "shop", "--addr", replica},
		"replication_delete":  {"replication", "delete", "shop", "--addr", replica},
		"replication_wait":    {"replication", "wait", "shop", "--addr", replica},
		"replication_unknown": {"replication", "show", "sop", "--addr", replica},
		"replication_late":    {"replication", "wait", "shop", "--timeout", "1ms", "--addr", replica},
		"replication_twice":   {"replication", "create", "shop", "--source", "db1:7400", "--addr", replica},
		"inventory":           {"inventory", "--addr", primary},
		"not_served":          {"replication", "list", "--addr", primary},
		"dump":                {"dump", "--table", "public.orders", "--addr", primary},
		"dump_pattern":        {"dump", "--table", "public.*", "--addr", primary},
		"dump_format":         {"dump", "--table", "public.orders", "--format", "xml", "--addr", primary},
		"dump_nothing":        {"dump", "--addr", primary},
		"dump_two_ways":       {"dump", "--out", "backup", "--format", "csv", "--addr", primary},
		"dump_compression":    {"dump", "--out", "backup", "--compress", "lzma", "--addr", primary},
		"dump_workers":        {"dump", "--out", "backup", "--workers", "0", "--addr", primary},
		"dump_bad_pattern":    {"dump", "--out", "backup", "--exclude-table", "orders", "--addr", primary},
		"backup_none":         {"backup", "check", "testdata/none"},
		"backup_other":        {"backup", "check", "testdata/help"},
		"backup_no_directory": {"backup", "check"},
		"restore_without_url": {"restore", "backup"},
		"restore_nothing":     {"restore", "testdata/none", "--postgres", "postgres://localhost/shop"},
		"health":              {"health", "--addr", primary},
		"no_name":             {"replication", "create", "--source", "db1:7400"},
		"no_source":           {"replication", "create", "shop"},
		"unknown_flag":        {"status", "--address", "x"},
		"unknown_compression": {"replication", "create", "shop", "--source", "db1:7400", "--compress", "lzma"},
		"unknown_command":     {"replicate"},
		"not_encrypted":       {"status", "--addr", "db1.example:7400"},
		"bad_address":         {"status", "--addr", "7400"},
		"bad_from":            {"follow", "--from", "0/10"},
		"primary_flags":       {"primary"},
		"inventory_flags":     {"inventory", "--postgres", "postgres://localhost/shop"},
		"bad_log_level":       {"replica", "--postgres", "postgres://localhost/shop", "--log-level", "loud"},
		"bad_listen":          {"replica", "--postgres", "postgres://localhost/shop", "--grpc", "here"},
		"reset_without_url":   {"server", "reset-id"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, args...)
			text := "$ syncline " + strings.Join(args, " ") + "\n" + out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			text += "--- exit code " + string(rune('0'+code)) + "\n"
			text = strings.NewReplacer(replica, "REPLICA", fresh, "REPLICA", primary, "PRIMARY").Replace(text)
			golden(t, name, text)
		})
	}
}

// TestJSONIsTheAnswer reads what --json prints back as the message that was sent.
func TestJSONIsTheAnswer(t *testing.T) {
	replica := serveFake(t, identify("applier"), &fakeApplier{replication: replication()})
	primary := serveFake(t, identify("logger", "inventory"), &fakeLogger{}, &fakeInventory{})
	tables := inventoryAnswer()
	tables.Descriptors = nil
	for name, test := range map[string]struct {
		args []string
		want proto.Message
	}{
		"list":      {[]string{"replication", "list", "--addr", replica}, &applierv1.ListReplicationsResponse{Replications: []*applierv1.Replication{replication()}}},
		"show":      {[]string{"replication", "show", "shop", "--addr", replica}, replication()},
		"stop":      {[]string{"replication", "stop", "shop", "--addr", replica}, replication()},
		"delete":    {[]string{"replication", "delete", "shop", "--addr", replica}, &applierv1.DeleteReplicationResponse{}},
		"wait":      {[]string{"replication", "wait", "shop", "--addr", replica}, &applierv1.WaitReplicationResponse{Position: at(0x20), Replication: replication()}},
		"inventory": {[]string{"inventory", "--addr", primary}, tables},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := command(t, nil, append(test.args, "--json")...)
			if code != exitDone || errOut != "" {
				t.Fatalf("exit code %d, %s", code, errOut)
			}
			got := test.want.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal([]byte(out), got); err != nil || !proto.Equal(got, test.want) {
				t.Errorf("got %s, %v", out, err)
			}
		})
	}
	out, _, _ := command(t, nil, "status", "--json", "--addr", primary)
	decoder := json.NewDecoder(strings.NewReader(out))
	for i := range 3 { // server, state, followers
		var one map[string]any
		if err := decoder.Decode(&one); err != nil || len(one) == 0 {
			t.Errorf("object %d of status: %v, %v", i, one, err)
		}
	}
}

func TestLSNsAreStringsInJSON(t *testing.T) {
	replica := serveFake(t, &fakeApplier{replication: replication()})
	out, _, _ := command(t, nil, "replication", "show", "shop", "--json", "--addr", replica)
	if !strings.Contains(out, `"lsn": "97492402176"`) {
		t.Errorf("got %s", out)
	}
}

func TestCreateSendsTheSpec(t *testing.T) {
	applier := &fakeApplier{}
	replica := serveFake(t, applier)
	_, errOut, code := command(t, []string{"SYNCLINE_ADDR=" + replica, "SYNCLINE_COPY_WORKERS=7"},
		"replication", "create", "shop", "--source", "db1:7400", "--inventory", "db1:7401", "--replace", "--compress", "zstd",
		"--table", `public.a, "My, Schema"."T.1"`, "--table", "sales.*", "--exclude-table", "sales.tmp")
	if code != exitDone {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	want := &applierv1.CreateReplicationRequest{Name: "shop", Spec: &applierv1.ReplicationSpec{
		Source: "db1:7400", Inventory: "db1:7401", Replace: true, CopyWorkers: 7, Compression: applierv1.Compression_COMPRESSION_ZSTD,
		IncludeTables: []string{"public.a", `"My, Schema"."T.1"`, "sales.*"}, ExcludeTables: []string{"sales.tmp"},
	}}
	if !proto.Equal(applier.created, want) {
		t.Errorf("sent %v", applier.created)
	}
}

func TestCreateWaits(t *testing.T) {
	step := func(state applierv1.State, fraction float64, phase string) func() (*applierv1.Replication, error) {
		return func() (*applierv1.Replication, error) {
			return &applierv1.Replication{Name: "shop", State: state, Sync: &applierv1.SyncProgress{Tables: 3, Rows: int64(3000 * fraction), Fraction: fraction, Phase: phase}}, nil
		}
	}
	applier := &fakeApplier{watch: []func() (*applierv1.Replication, error){
		step(applierv1.State_STATE_INITIALIZING, 0, ""),
		step(applierv1.State_STATE_SYNCING, 0.5, "copying"),
		func() (*applierv1.Replication, error) { return nil, nil }, // the stream ends: watch again
		step(applierv1.State_STATE_CATCHING_UP, 1, ""),
		step(applierv1.State_STATE_RUNNING, 1, ""),
	}}
	replica := serveFake(t, applier)
	out, errOut, code := command(t, nil, "replication", "create", "shop", "--source", "db1:7400", "--wait", "--addr", replica)
	if code != exitDone {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	if want := "replication shop is running: 3,000 rows in 3 tables copied\nnext: syncline status --addr " + replica + "\n"; out != want {
		t.Errorf("got %q", out)
	}
	for _, want := range []string{"  0 %  initializing", " 50 %  copying  1,500 rows", "100 %  catching up", "100 %  running"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("the progress lacks %q:\n%s", want, errOut)
		}
	}
}

func TestCreateFails(t *testing.T) {
	applier := &fakeApplier{watch: []func() (*applierv1.Replication, error){func() (*applierv1.Replication, error) {
		return &applierv1.Replication{Name: "shop", State: applierv1.State_STATE_FAILED, ReasonCode: "SCHEMA_MISMATCH", Reason: "public.a lacks column b"}, nil
	}}}
	_, errOut, code := command(t, nil, "replication", "create", "shop", "--source", "db1:7400", "--wait", "--addr", serveFake(t, applier))
	if code != exitFailed || !strings.Contains(errOut, "SCHEMA_MISMATCH: public.a lacks column b; mend that, then `syncline replication start shop`") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

// TestRefusedFieldsAreFlags has the server refuse what the user knows as a flag.
func TestRefusedFieldsAreFlags(t *testing.T) {
	for field, want := range map[string]string{
		"spec.source": "syncline: --source: not good\n", "spec.include_tables": "syncline: --table: not good\n", "spec.replace": "syncline: --replace: not good\n", "name": "syncline: NAME: not good\n",
		"spec.other": "syncline: spec.other: not good\n",
	} {
		replica := serveFake(t, &fakeApplier{refusal: rpc.Invalid(field, "not good")})
		_, errOut, code := command(t, nil, "replication", "create", "shop", "--source", "db1", "--addr", replica)
		if wantCode := map[bool]int{true: exitFailed, false: exitWrongUse}[field == "spec.other"]; code != wantCode || errOut != want {
			t.Errorf("%s: exit code %d, %s", field, code, errOut)
		}
	}
}

// TestStatusOfAFreshPrimary has a logger whose change log is not begun yet: the state tells all that there is.
func TestStatusOfAFreshPrimary(t *testing.T) {
	primary := serveFake(t, identify("logger", "inventory"), &fakeLogger{fresh: true}, &fakeInventory{})
	for _, flags := range [][]string{nil, {"--json"}} {
		out, errOut, code := command(t, nil, append([]string{"status", "--addr", primary}, flags...)...)
		if code != exitDone || errOut != "" || !strings.Contains(out, "blocked") {
			t.Errorf("exit code %d, %s%s", code, out, errOut)
		}
	}
}

func TestWatchEndsWithTheUser(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	applier := &fakeApplier{watch: []func() (*applierv1.Replication, error){func() (*applierv1.Replication, error) {
		cancel()
		return &applierv1.Replication{Name: "shop", State: applierv1.State_STATE_SYNCING}, nil
	}}}
	address := serveFake(t, applier)
	var out, errOut strings.Builder
	code := execute(ctx, []string{"replication", "create", "shop", "--source", "db1:7400", "--wait", "--addr", address}, nil, &out, &errOut)
	if code != exitFailed || !strings.Contains(errOut.String(), "goes on by itself") {
		t.Errorf("exit code %d, %s", code, errOut.String())
	}
}

func TestInventorySendsTheSelection(t *testing.T) {
	inventory := &fakeInventory{}
	command(t, nil, "inventory", "--addr", serveFake(t, inventory), "--table", `a."B"`, "--exclude-table", "a.c")
	want := &inventoryv1.GetInventoryRequest{Tables: &inventoryv1.TableSelection{Include: []string{`a."B"`}, Exclude: []string{"a.c"}}}
	if !proto.Equal(inventory.asked, want) {
		t.Errorf("sent %v", inventory.asked)
	}
}

func TestDumpToAFile(t *testing.T) {
	inventory := &fakeInventory{}
	address := serveFake(t, inventory)
	path := filepath.Join(t.TempDir(), "orders")
	write := func() (string, int) {
		_, errOut, code := command(t, nil, "dump", "--table", `"Sales".orders`, "--json", "--file", path, "--addr", address)
		return errOut, code
	}
	read := func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if errOut, code := write(); code != exitDone || read() != "1\ta\n2\tb\n" {
		t.Fatalf("exit code %d, %s, file %q", code, errOut, read())
	}
	if d := inventory.dumped; d.GetSchema() != "Sales" || d.GetFormat() != inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES {
		t.Errorf("asked for %v", d)
	}
	for _, broken := range []error{rpc.Errorf(codes.FailedPrecondition, "TABLE_REWRITTEN", "the table was truncated"), nil} {
		inventory.breakOff, inventory.withoutIt = broken, true
		if errOut, code := write(); code != exitFailed || errOut == "" {
			t.Errorf("broken off: exit code %d, %s", code, errOut)
		}
		if read() != "1\ta\n2\tb\n" {
			t.Errorf("the file from before is now %q", read())
		}
		if _, err := os.Stat(path + partialSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the partial file is left: %v", err)
		}
	}
	if inventory.openLeft != 0 {
		t.Errorf("%d snapshots are left open", inventory.openLeft)
	}
}

func TestNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	_, errOut, code := command(t, nil, "status", "--addr", address)
	if code != exitFailed || !strings.Contains(errOut, "no answer from "+address) || strings.Count(errOut, "\n") != 1 {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestSpeed(t *testing.T) {
	var s speed
	for i := range 21 {
		s.add(longAgo.Add(time.Duration(i)*time.Second), int64(i)*100, int64(i)*1000, float64(i)/100)
	}
	if s.rows != 100 || s.bytes != 1000 {
		t.Errorf("%v rows/s, %v bytes/s", s.rows, s.bytes)
	}
	if left, ok := s.left(0.2); !ok || left.Round(time.Second) != 80*time.Second {
		t.Errorf("%v left", left)
	}
	if _, ok := s.left(1); ok {
		t.Error("time is left at the end")
	}
	s.add(longAgo.Add(22*time.Second), 0, 0, 0) // the copy was begun anew
	if s.rows != 0 || s.bytes != 0 {
		t.Errorf("after a new start: %v rows/s", s.rows)
	}
}
