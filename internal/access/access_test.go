package access

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "google.golang.org/grpc/health/grpc_health_v1"
	_ "google.golang.org/grpc/reflection/grpc_reflection_v1"

	_ "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	_ "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	_ "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	_ "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	_ "github.com/seed0419d559/syncline/gen/syncline/tunnel/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	getInventory = "/syncline.inventory.v1.InventoryService/GetInventory"
	dump         = "/syncline.inventory.v1.InventoryService/Dump"
	checksum     = "/syncline.inventory.v1.InventoryService/Checksum"
	follow       = "/syncline.logger.v1.LoggerService/Follow"
	getState     = "/syncline.logger.v1.LoggerService/GetState"
	report       = "/syncline.logger.v1.LoggerService/ReportApplied"
)

// allMethods are the methods of all services that are linked in.
func allMethods() (list []string) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				list = append(list, fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name()))
			}
		}
		return true
	})
	return list
}

// TestEveryMethodHasARule fails for a method that was added without a decision about who may call it.
func TestEveryMethodHasARule(t *testing.T) {
	have := map[string]bool{}
	for _, method := range allMethods() {
		have[method] = true
		if _, known := methods[method]; !known && !open[method] {
			t.Errorf("%s stands in no table: say in methods.go who may call it", method)
		}
		if _, known := methods[method]; known && open[method] {
			t.Errorf("%s stands in both tables", method)
		}
	}
	for method, r := range methods {
		if !have[method] && !strings.Contains(method, "v1alpha") {
			t.Errorf("%s is no method", method)
		}
		if r.least == "" || r.least == Replicator {
			t.Errorf("%s: least role %q", method, r.least)
		}
	}
	if !Changes("/syncline.new.v1.NewService/Do") || Changes(getState) {
		t.Error("what is not known is logged as a change, and what only reads is not")
	}
}

// TestRoles compares the table with who shall be able to do what.
func TestRoles(t *testing.T) {
	bound := []Grant{{Set: "orders"}}
	principals := map[string]*Principal{
		"reader":     {Name: "r", Role: Reader},
		"operator":   {Name: "o", Role: Operator},
		"admin":      {Name: "a", Role: Admin},
		"nothing":    {Name: "n", Role: Replicator},
		"bound":      {Name: "b", Role: Replicator, Grants: bound},
		"everything": {Name: "e", Role: Replicator, Grants: []Grant{{Set: WholeDatabase}}},
		"no role":    {Name: "x"},
		"odd role":   {Name: "x", Role: "root"},
	}
	who := map[string]string{
		"ServerService/GetServer": "reader operator admin nothing bound everything",

		"AccessService/CreatePrincipal": "admin",
		"AccessService/ListPrincipals":  "admin",
		"AccessService/DeletePrincipal": "admin",
		"AccessService/RotateToken":     "admin",

		"InventoryService/GetInventory":  "reader operator admin bound everything",
		"InventoryService/Dump":          "operator admin bound everything",
		"InventoryService/Checksum":      "operator admin bound everything",
		"InventoryService/ReadRows":      "operator admin bound everything",
		"InventoryService/OpenSnapshot":  "operator admin nothing bound everything",
		"InventoryService/RenewSnapshot": "operator admin nothing bound everything",
		"InventoryService/CloseSnapshot": "operator admin nothing bound everything",
		"InventoryService/ListSnapshots": "operator admin",

		"LoggerService/Follow":         "operator admin bound everything",
		"LoggerService/GetState":       "reader operator admin bound everything",
		"LoggerService/GetRanges":      "reader operator admin nothing bound everything",
		"LoggerService/EmitBarrier":    "operator admin nothing bound everything",
		"LoggerService/ListFollowers":  "reader operator admin",
		"LoggerService/ReportApplied":  "operator admin nothing bound everything",
		"LoggerService/DeleteFollower": "operator admin nothing bound everything",

		"ApplierService/CreateReplication": "operator admin",
		"ApplierService/DeleteReplication": "operator admin",
		"ApplierService/StartReplication":  "operator admin",
		"ApplierService/StopReplication":   "operator admin",
		"ApplierService/GetReplication":    "reader operator admin",
		"ApplierService/ListReplications":  "reader operator admin",
		"ApplierService/WatchReplication":  "reader operator admin",
		"ApplierService/WaitReplication":   "operator admin",
		"ApplierService/VerifyReplication": "operator admin",
		"ApplierService/RepairReplication": "operator admin",
		"ApplierService/SyncReplication":   "operator admin",
		"ApplierService/CancelSync":        "operator admin",
		"ApplierService/ListSyncs":         "reader operator admin",
		"ApplierService/GetSync":           "operator admin",
		"ApplierService/WatchSync":         "operator admin",

		"TunnelService/Carry":        "operator admin",
		"PushService/CreatePush":     "operator admin",
		"PushService/UpdatePush":     "operator admin",
		"PushService/StartPush":      "operator admin",
		"PushService/StopPush":       "operator admin",
		"PushService/DeletePush":     "operator admin",
		"PushService/GetPush":        "reader operator admin",
		"PushService/ListPushes":     "reader operator admin",
		"PushService/WatchPushes":    "reader operator admin",
		"PushService/ListPushEvents": "reader operator admin",
	}
	for method := range methods {
		expected, listed := who[short(method)]
		if !listed {
			continue // those of others have their own expectation in their rule
		}
		for kind, p := range principals {
			allowed := CheckMethod(p, method) == nil
			want := strings.Contains(" "+expected+" ", " "+kind+" ")
			if allowed != want {
				t.Errorf("%s calls %s: %v, expected %v", kind, short(method), allowed, want)
			}
		}
	}
	for kind, p := range principals {
		if CheckMethod(p, "/syncline.new.v1.NewService/Do") == nil {
			t.Errorf("%s calls a method without a rule", kind)
		}
		if CheckMethod(p, "/grpc.health.v1.Health/Check") != nil {
			t.Errorf("%s may not ask for health", kind)
		}
	}
}

// inSet is a request that names a set.
type inSet struct {
	proto.Message
	set        string
	parameters map[string]string
}

func (r inSet) GetSet() string                   { return r.set }
func (r inSet) GetParameters() map[string]string { return r.parameters }

// TestBoundToSets walks what a replicator may ask for.
func TestBoundToSets(t *testing.T) {
	shop := &Principal{Name: "shop7", Role: Replicator, Grants: []Grant{
		{Set: "orders", Parameters: map[string]string{"org": "7"}}, {Set: "countries"},
	}}
	whole := &Principal{Name: "replica1", Role: Replicator, Grants: []Grant{{Set: WholeDatabase}}}
	none := &Principal{Name: "nobody", Role: Replicator}
	org := func(list ...string) map[string]string {
		m := map[string]string{}
		for _, one := range list {
			name, value, _ := strings.Cut(one, "=")
			m[name] = value
		}
		return m
	}
	plain := &loggerv1.GetStateRequest{}
	for _, test := range []struct {
		name    string
		who     *Principal
		request any
		want    string // reason; "" allows
	}{
		{"its set and parameter", shop, inSet{plain, "orders", org("org=7")}, ""},
		{"a further parameter", shop, inSet{plain, "orders", org("org=7", "region=eu")}, ""},
		{"another parameter", shop, inSet{plain, "orders", org("org=8")}, ReasonSetNotGranted},
		{"no parameter", shop, inSet{plain, "orders", nil}, ReasonSetNotGranted},
		{"a parameter of another name", shop, inSet{plain, "orders", org("Org=7")}, ReasonSetNotGranted},
		{"a set without parameters", shop, inSet{plain, "countries", org("org=8")}, ""},
		{"another set", shop, inSet{plain, "people", org("org=7")}, ReasonSetNotGranted},
		{"a set's name in capitals", shop, inSet{plain, "Orders", org("org=7")}, ReasonSetNotGranted},
		{"a set's name and more", shop, inSet{plain, "orders ", org("org=7")}, ReasonSetNotGranted},
		{"the whole database by its sign", shop, inSet{plain, WholeDatabase, nil}, ReasonSetNotGranted},
		{"no set", shop, inSet{plain, "", org("org=7")}, ReasonSetNeeded},
		{"a request that cannot name one", shop, plain, ReasonSetNeeded},
		{"nothing at all", shop, nil, ReasonSetNeeded},
		{"everything", whole, plain, ""},
		{"a set of everything", whole, inSet{plain, "orders", nil}, ""},
		{"nothing granted", none, inSet{plain, "orders", org("org=7")}, ReasonNothing},
		{"nothing granted, nothing named", none, inSet{plain, "", nil}, ReasonNothing},
	} {
		for _, method := range []string{getInventory, dump, checksum, follow, getState} {
			err := CheckRequest(test.who, method, test.request)
			if got := rpc.Reason(err); (err == nil) != (test.want == "") || got != test.want {
				t.Errorf("%s, %s: got %v, expected %q", test.name, short(method), err, test.want)
			}
			if err != nil && rpc.Code(err) != codes.PermissionDenied {
				t.Errorf("%s, %s: code %s", test.name, short(method), rpc.Code(err))
			}
		}
	}
	// The requests as they are: whoever cannot name a set in them reads nothing.
	for method, request := range map[string]proto.Message{
		getInventory: &inventoryv1.GetInventoryRequest{}, dump: &inventoryv1.DumpRequest{Schema: "public", Table: "orders"},
		checksum: &inventoryv1.ChecksumRequest{}, follow: &loggerv1.FollowRequest{Start: loggerv1.Start_START_EARLIEST},
	} {
		if CheckRequest(shop, method, request) == nil {
			t.Errorf("a bound replicator may call %s without a set", short(method))
		}
	}
	if CheckRequest(shop, getState, plain) == nil {
		t.Error("a bound replicator sees the names of all tables")
	}
}

// TestFollowersAreApart gives each replicator followers of its own.
func TestFollowersAreApart(t *testing.T) {
	one := &Principal{Name: "replica1", Role: Replicator, Grants: []Grant{{Set: WholeDatabase}}}
	for name, want := range map[string]string{
		"id/shop": "replica1/id/shop", "replica2/id/shop": "replica1/replica2/id/shop", "": "", "../replica2/x": "replica1/../replica2/x",
	} {
		request := &loggerv1.FollowRequest{Follower: name}
		if err := CheckRequest(one, follow, request); err != nil || request.GetFollower() != want {
			t.Errorf("follower %q becomes %q, %v", name, request.GetFollower(), err)
		}
		reported := &loggerv1.ReportAppliedRequest{Follower: name}
		if err := CheckRequest(one, report, reported); err != nil || reported.GetFollower() != want {
			t.Errorf("reports of %q are taken for %q, %v", name, reported.GetFollower(), err)
		}
	}
	if err := CheckRequest(one, follow, &loggerv1.FollowRequest{Follower: strings.Repeat("x", 200)}); rpc.Reason(err) != ReasonOtherFollower {
		t.Errorf("a name without end: %v", err)
	}
	request := &loggerv1.FollowRequest{Follower: "id/shop"}
	if err := CheckRequest(&Principal{Name: "ops", Role: Operator}, follow, request); err != nil || request.GetFollower() != "id/shop" {
		t.Errorf("an operator's follower becomes %q, %v", request.GetFollower(), err)
	}
}

func TestChecks(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "replica-1_x": true, "": false, "A": false, "1a": false, "a/b": false, "a b": false, "a'": false, "ä": false, strings.Repeat("a", 64): false,
	} {
		if (CheckName(name) == nil) != good {
			t.Errorf("name %q: %v", name, CheckName(name))
		}
	}
	for _, test := range []struct {
		role   Role
		grants []Grant
		good   bool
	}{
		{Replicator, nil, true},
		{Replicator, []Grant{{Set: "*"}, {Set: "orders", Parameters: map[string]string{"org": "7"}}}, true},
		{Replicator, []Grant{{Set: ""}}, false},
		{Replicator, []Grant{{Set: "*", Parameters: map[string]string{"org": "7"}}}, false},
		{Replicator, []Grant{{Set: "a\x00"}}, false},
		{Replicator, []Grant{{Set: "a", Parameters: map[string]string{"": "x"}}}, false},
		{Replicator, make([]Grant, 200), false},
		{Reader, []Grant{{Set: "*"}}, false},
		{Admin, nil, true},
	} {
		if (CheckGrants(test.role, test.grants) == nil) != test.good {
			t.Errorf("%+v: %v", test, CheckGrants(test.role, test.grants))
		}
	}
}

func TestCertificateNames(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"sha256:" + strings.ToUpper(sum): "sha256:" + sum, "dns:Replica1.Example": "dns:replica1.example", "cn:Some One": "cn:Some One", "uri:spiffe://x/Y": "uri:spiffe://x/Y",
		"sha256:" + strings.TrimSuffix(strings.Repeat("AB:", 32), ":"): "sha256:" + sum,
		"sha256:abcd": "", "": "", "dns": "", "dns:": "", "ip:10.0.0.1": "", "replica1": "", "cn:a\x00b": "",
	} {
		got, err := ParseCertificateName(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

func TestTokens(t *testing.T) {
	one, two := NewToken(), NewToken()
	if one == two || len(one) < 43 || !strings.HasPrefix(one, tokenPrefix) {
		t.Errorf("tokens %s and %s", one, two)
	}
	for value, want := range map[string]string{"Bearer x": "x", "bearer  x ": "x", "Basic x": "", "x": "", "": "", "Bearer": "", "Bearer ": "", "Bearerx": ""} {
		if got, ok := rpc.ParseBearer(value); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v", value, got, ok)
		}
	}
}
