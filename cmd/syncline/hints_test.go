package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func flagNames(t *testing.T, args ...string) map[string]bool {
	t.Helper()
	cmd, _, err := newRoot(nil).Find(args)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names[f.Name] = true })
	return names
}

// TestSameFlags: what a replication can be created with can be checked before, and can be run without one being kept.
func TestSameFlags(t *testing.T) {
	for _, test := range []struct {
		command string
		without []string
	}{
		{"check", []string{"wait", "dry-run", "if-missing"}},
		{"run", append([]string{"wait", "dry-run", "if-missing", "mode", "from-restore"}, scheduleFlagNames...)},
	} {
		has := flagNames(t, "replication", test.command)
		for name := range flagNames(t, "replication", "create") {
			if left := strings.Contains(" "+strings.Join(test.without, " ")+" ", " "+name+" "); left == has[name] {
				t.Errorf("replication %s: --%s is there: %v", test.command, name, has[name])
			}
		}
	}
}

func TestFieldsAreNamedByTheirFlags(t *testing.T) {
	for text, want := range map[string]string{
		"spec.group_bytes: 1 is too little; spec.retry_cap: 1ms is not; 0 is the default": "--group-bytes: 1 is too little; --retry-cap: 1ms is not; 0 is the default",
		"spec.set: no; x: spec.mode: y": "--set: no; x: spec.mode: y",
		"nowhere: it is no field":       "nowhere: it is no field",
	} {
		err := inFlags(rpc.Errorf(codes.InvalidArgument, rpc.ReasonInvalid, "%s", text))
		if rpc.Message(err) != want && err.Error() != want {
			t.Errorf("%s becomes %v", text, err)
		}
		if wrong := new(usageError); errors.As(err, wrong) != (want != text) {
			t.Errorf("%s is wrong use: %v", text, !errors.As(err, wrong))
		}
	}
}

type refusingSets struct {
	loggerv1.UnimplementedLoggerServiceServer
	field string
}

func (f *refusingSets) Register(r grpc.ServiceRegistrar) { loggerv1.RegisterLoggerServiceServer(r, f) }

func (f *refusingSets) CreateSet(context.Context, *loggerv1.CreateSetRequest) (*loggerv1.CreateSetResponse, error) {
	return nil, rpc.Invalid(f.field, "no")
}

func TestSetFieldsAreNamedByTheirFlags(t *testing.T) {
	for field, want := range map[string]string{
		"name": "syncline: NAME: no\n", "spec.tables[1].rows": "syncline: --table public.b: no\n", "spec.tables[7].rows": "syncline: spec.tables[7].rows: no\n", "spec.exclude_tables": "syncline: --exclude-table: no\n",
	} {
		_, errOut, _ := command(t, nil, "set", "create", "s", "--table", "public.a", "--table", `public.b={"x": 1}`, "--addr", serveFake(t, &refusingSets{field: field}))
		if errOut != want {
			t.Errorf("%s: %s", field, errOut)
		}
	}
}

func TestTextsOfWrongUse(t *testing.T) {
	for want, args := range map[string][]string{
		`--schedule "every 10m": expected an interval as in '@every 10m'`: {"replication", "create", "a", "--source", "a:1", "--schedule", "every 10m"},
		"no answer from 127.0.0.1:1; is a Syncline server running there":  {"health", "--addr", "127.0.0.1:1"},
		"--file: open nowhere.json":                                       {"set", "create", "a", "--file", "nowhere.json"},
	} {
		_, errOut, code := command(t, nil, args...)
		if code == exitDone || !strings.Contains(errOut, want) {
			t.Errorf("exit code %d, %s", code, errOut)
		}
	}
}
