package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// fakeSets has sets.
type fakeSets struct {
	loggerv1.UnimplementedLoggerServiceServer
	sets []*loggerv1.Set
	spec *loggerv1.SetSpec // of the last one that was made or changed
}

func (f *fakeSets) Register(r grpc.ServiceRegistrar) { loggerv1.RegisterLoggerServiceServer(r, f) }

func (f *fakeSets) made(name string, spec *loggerv1.SetSpec) *loggerv1.Set {
	f.spec = spec
	return &loggerv1.Set{Name: name, Spec: spec, Version: 7, Parameters: []string{"org"}, CreateTime: timestamppb.New(longAgo), UpdateTime: timestamppb.New(longAgo)}
}

func (f *fakeSets) CreateSet(_ context.Context, in *loggerv1.CreateSetRequest) (*loggerv1.CreateSetResponse, error) {
	return &loggerv1.CreateSetResponse{Set: f.made(in.GetName(), in.GetSpec())}, nil
}

func (f *fakeSets) UpdateSet(_ context.Context, in *loggerv1.UpdateSetRequest) (*loggerv1.UpdateSetResponse, error) {
	return &loggerv1.UpdateSetResponse{Set: f.made(in.GetName(), in.GetSpec())}, nil
}

func (f *fakeSets) ListSets(context.Context, *loggerv1.ListSetsRequest) (*loggerv1.ListSetsResponse, error) {
	return &loggerv1.ListSetsResponse{Sets: f.sets}, nil
}

func (f *fakeSets) GetSet(_ context.Context, in *loggerv1.GetSetRequest) (*loggerv1.GetSetResponse, error) {
	for _, s := range f.sets {
		if s.GetName() == in.GetName() {
			return &loggerv1.GetSetResponse{Set: s}, nil
		}
	}
	return nil, rpc.Errorf(codes.NotFound, "SET_UNKNOWN", "there is no set %q", in.GetName())
}

func (f *fakeSets) DeleteSet(context.Context, *loggerv1.DeleteSetRequest) (*loggerv1.DeleteSetResponse, error) {
	return &loggerv1.DeleteSetResponse{}, nil
}

func TestSetTranscripts(t *testing.T) {
	mine := &loggerv1.SetSpec{
		Tables:        []*loggerv1.SetTable{{Pattern: "public.orders", Rows: `{"org":{"$param":"org"}}`}, {Pattern: "public.*"}},
		ExcludeTables: []string{"public.salaries", `public."Pay Slips"`}, Description: "what one organisation may have",
	}
	file := filepath.Join(t.TempDir(), "set.json")
	if err := os.WriteFile(file, []byte(`{"tables":[{"pattern":"public.orders","rows":"{\"org\":\"acme\"}"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want *loggerv1.SetSpec
	}{
		"set_create": {
			[]string{"create", "by-org", "--table", `public.orders={"org": {"$param": "org"}, "amount": {"$in": [1, 2]}}`, "--table", "public.countries", "--exclude-table", "public.salaries"},
			&loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.orders", Rows: `{"org": {"$param": "org"}, "amount": {"$in": [1, 2]}}`}, {Pattern: "public.countries"}}, ExcludeTables: []string{"public.salaries"}},
		},
		"set_create_file": {[]string{"create", "by-org", "--file", file}, &loggerv1.SetSpec{Tables: []*loggerv1.SetTable{{Pattern: "public.orders", Rows: `{"org":"acme"}`}}}},
		"set_update":      {[]string{"update", "by-org", "--exclude-table", "public.x", "--if-version", "6"}, &loggerv1.SetSpec{ExcludeTables: []string{"public.x"}}},
		"set_list":        {[]string{"list"}, nil},
		"set_show":        {[]string{"show", "by-org"}, nil},
		"set_show_json":   {[]string{"show", "by-org", "--json"}, nil},
		"set_unknown":     {[]string{"show", "another"}, nil},
		"set_delete":      {[]string{"delete", "by-org"}, nil},
		"set_nothing":     {[]string{"create", "by-org"}, nil},
		"set_no_json":     {[]string{"create", "by-org", "--table", "public.orders={org}"}, nil},
		"set_no_name":     {[]string{"show"}, nil},
		"set_both":        {[]string{"create", "by-org", "--file", file, "--table", "public.a"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeSets{}
			fake.sets = []*loggerv1.Set{{Name: "all", Version: 3, Spec: &loggerv1.SetSpec{}}, fake.made("by-org", mine)}
			fake.spec = nil
			address := serveFake(t, fake)
			out, errOut, code := command(t, nil, append(append([]string{"set"}, test.args...), "--addr", address)...)
			text := out
			if errOut != "" {
				text += "--- stderr\n" + errOut
			}
			golden(t, name, strings.NewReplacer(address, "ADDRESS", file, "FILE").Replace(text)+"--- exit code "+string(rune('0'+code))+"\n")
			if !proto.Equal(fake.spec, test.want) && (fake.spec != nil || test.want != nil) {
				t.Errorf("asked for %v, want %v", fake.spec, test.want)
			}
		})
	}
}
