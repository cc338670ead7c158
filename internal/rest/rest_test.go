package rest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// TestEveryMethodHasAPath finds methods without a rule in proto/gateway.yaml, and services that are not registered.
func TestEveryMethodHasAPath(t *testing.T) {
	doc, err := newDocument(allServices(), "test")
	if err != nil {
		t.Fatal(err)
	}
	operations, err := doc.operations(allServices())
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, op := range operations {
		have[op.fullMethod()] = true
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), "syncline.") {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if service.FullName() == "syncline.tunnel.v1.TunnelService" {
				continue // it goes in both directions
			}
			if registrations[string(service.FullName())] == nil {
				t.Errorf("%s is not served over HTTP", service.FullName())
			}
			for j := range service.Methods().Len() {
				name := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(j).Name())
				if !have[name] {
					t.Errorf("%s has no rule in proto/gateway.yaml", name)
				}
			}
		}
		return true
	})
}

func TestRefused(t *testing.T) {
	f := start(t, DefaultLimits())
	origin := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Origin", value) }
	}
	host := func(value string) func(*http.Request) { return func(r *http.Request) { r.Host = value } }
	for name, test := range map[string]struct {
		method, path, body string
		edit               func(*http.Request)
		code               int
		reason             string
		says               string
	}{
		"unknown path":            {"GET", "/v1/replicas", "", nil, 404, reasonUnknownPath, "/openapi.json"},
		"unknown path outside":    {"GET", "/admin", "", nil, 404, reasonUnknownPath, "/admin"},
		"unknown action":          {"POST", "/v1/replications/shop:restart", "", nil, 404, reasonUnknownPath, ":restart"},
		"wrong method":            {"PUT", "/v1/replications/shop", "", nil, 405, reasonWrongMethod, "DELETE, GET"},
		"wrong method of action":  {"GET", "/v1/replications/shop:start", "", nil, 405, reasonWrongMethod, "POST"},
		"method in a header":      {"POST", "/v1/replications/shop", "", func(r *http.Request) { r.Header.Set("X-HTTP-Method-Override", "DELETE") }, 405, reasonWrongMethod, "DELETE"},
		"wrong method, document":  {"POST", "/openapi.json", "", nil, 405, reasonWrongMethod, "GET"},
		"unknown parameter":       {"GET", "/v1/replications?limit=1", "", nil, 400, rpc.ReasonUnknownField, "limit"},
		"unknown parameter, post": {"POST", "/v1/replications/shop:start?force=true", "", nil, 400, rpc.ReasonUnknownField, "force"},
		"unknown parameter, many": {"GET", "/v1/logger:follow?from=now", "", nil, 400, rpc.ReasonUnknownField, "position.lsn"},
		"unreadable parameter":    {"GET", "/v1/logger:follow?toLsn=0/16", "", nil, 400, rpc.ReasonInvalid, "toLsn"},
		"unknown enum":            {"GET", "/v1/logger:follow?start=now", "", nil, 400, rpc.ReasonInvalid, "start"},
		"unknown enum number":     {"GET", "/v1/logger:follow?start=77", "", nil, 400, rpc.ReasonInvalid, "77"},
		"parameter twice":         {"GET", "/v1/logger:follow?toLsn=1&toLsn=2", "", nil, 400, rpc.ReasonInvalid, "toLsn"},
		"unreadable query":        {"GET", "/v1/replications?a=%zz", "", nil, 400, rpc.ReasonInvalid, "%zz"},
		"unknown field":           {"POST", "/v1/replications", `{"name":"shop","sauce":"x"}`, nil, 400, rpc.ReasonUnknownField, "sauce"},
		"unknown inner field":     {"POST", "/v1/replications", `{"name":"shop","spec":{"sauce":"x"}}`, nil, 400, rpc.ReasonUnknownField, "sauce"},
		"field of another type":   {"POST", "/v1/replications", `{"name":7}`, nil, 400, rpc.ReasonInvalid, "name"},
		"no JSON":                 {"POST", "/v1/replications", `{"name":`, nil, 400, reasonNotJSON, "end"},
		"more than JSON":          {"POST", "/v1/replications", `{"name":"shop"} {}`, nil, 400, reasonNotJSON, "after"},
		"name twice":              {"POST", "/v1/replications/shop:start", `{"name":"other"}`, nil, 400, rpc.ReasonInvalid, "path"},
		"body where none is":      {"DELETE", "/v1/replications/shop", `{}`, nil, 400, reasonBody, "no body"},
		"body of another type":    {"POST", "/v1/replications", `{}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415, reasonMediaType, typeJSON},
		"no media type":           {"POST", "/v1/replications", `{}`, func(r *http.Request) { r.Header.Del("Content-Type") }, 415, reasonMediaType, typeJSON},
		"body too large":          {"POST", "/v1/replications", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, reasonBodyTooLarge, "1048576"},
		"timeout too long":        {"POST", "/v1/replications/shop:wait", `{"timeout":"7200s"}`, nil, 400, rpc.ReasonInvalid, "1h"},
		"page of another origin":  {"POST", "/v1/replications/shop:start", "", origin("http://evil.example"), 403, reasonCrossOrigin, "origin"},
		"read by another origin":  {"GET", "/v1/replications/shop", "", origin("http://evil.example"), 403, reasonCrossOrigin, "origin"},
		"read by another site":    {"GET", "/v1/logger:follow?start=START_NOW", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, reasonCrossOrigin, "origin"},
		"no origin":               {"DELETE", "/v1/replications/shop", "", origin("null"), 403, reasonCrossOrigin, "origin"},
		"name that leads here":    {"GET", "/v1/replications/shop", "", host("evil.example"), 403, reasonUnknownHost, "evil.example"},
		"the same, on the page":   {"GET", "/docs", "", host("evil.example:7480"), 403, reasonUnknownHost, "evil.example"},
		"error of the service":    {"GET", "/v1/replications/shop", "", nil, 404, "REPLICATION_UNKNOWN", "shop"},
		"not served":              {"GET", "/v1/server", "", nil, 501, "UNIMPLEMENTED", "GetServer"},
		"out of range":            {"POST", "/v1/followers/a/b:reportApplied", `{"position":{"lsn":"18446744073709551615"}}`, nil, 400, "POSITION_AHEAD", "a/b has applied 18446744073709551615"},
		"percent is no percent":   {"GET", "/v1/replications/a%2525b", "", nil, 404, "REPLICATION_UNKNOWN", "a%25b"},
		"colon in a name":         {"GET", "/v1/replications/a%3Astart", "", nil, 404, "REPLICATION_UNKNOWN", "a:start"},
	} {
		t.Run(name, func(t *testing.T) {
			var edit []func(*http.Request)
			if test.edit != nil {
				edit = append(edit, test.edit)
			}
			answer, body := f.call(t, test.method, test.path, test.body, edit...)
			p := requireProblem(t, answer, body, test.code, test.reason)
			if !strings.Contains(p.Message, test.says) {
				t.Errorf("it does not say %q: %s", test.says, p.Message)
			}
			if test.code == http.StatusMethodNotAllowed && answer.Header.Get("Allow") == "" {
				t.Error("the answer does not say what is allowed")
			}
			if answer.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("other origins are allowed")
			}
		})
	}
}

func TestTaken(t *testing.T) {
	f := start(t, DefaultLimits())
	var created *applierv1.CreateReplicationRequest
	f.applier.create = func(_ context.Context, in *applierv1.CreateReplicationRequest) error {
		created = in
		return nil
	}
	// Names in JSON and names of the proto files are both JSON of a message.
	answer, body := f.call(t, "POST", "/v1/replications", `{"name":"shop","spec":{"source":"db1:7400","copyWorkers":7,"exclude_tables":["a.*"]}}`,
		func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") })
	if answer.StatusCode != http.StatusOK || created.GetSpec().GetCopyWorkers() != 7 || created.GetSpec().GetExcludeTables()[0] != "a.*" {
		t.Errorf("%d %s, asked for %v", answer.StatusCode, body, created)
	}
	if !strings.Contains(body, `"lagBytes":"1152921504606846976"`) || strings.Count(body, "\n") != 1 {
		t.Errorf("got %s", body)
	}
	for _, same := range []string{"", f.url, "http://" + f.address} {
		answer, body = f.call(t, "POST", "/v1/replications/shop:start", "", func(r *http.Request) {
			if same != "" {
				r.Header.Set("Origin", same)
			}
		})
		if answer.StatusCode != http.StatusOK {
			t.Errorf("from origin %q: %d %s", same, answer.StatusCode, body)
		}
	}
	for _, name := range []string{"localhost", "localhost:7480", "[::1]:80", "127.0.0.1", "a.localhost.", "10.1.2.3:80"} {
		if answer, body = f.call(t, "GET", "/openapi.json", "", func(r *http.Request) { r.Host = name }); answer.StatusCode != http.StatusOK {
			t.Errorf("host %s: %d %s", name, answer.StatusCode, body)
		}
	}
	for path, want := range map[string]string{
		"id/shop": "id/shop", "id%2Fshop": "id/shop", "a%20b%3Ac": "a b:c", "%C3%BC": "ü", "a%252Fb": "a%2Fb",
	} {
		if answer, body = f.call(t, "DELETE", "/v1/followers/"+path, ""); answer.StatusCode != http.StatusOK || f.logger.deleted != want {
			t.Errorf("%s: %d %s, deleted %q", path, answer.StatusCode, body, f.logger.deleted)
		}
	}
	if answer, body = f.call(t, "GET", "/v1/inventory", ""); answer.StatusCode != http.StatusOK || len(body) < 2*rpc.MaxMessageBytes {
		t.Errorf("a large answer: %d, %d bytes", answer.StatusCode, len(body))
	}
}

// TestSameErrorAsGRPC compares an error with everything on it over both ways.
func TestSameErrorAsGRPC(t *testing.T) {
	f := start(t, DefaultLimits())
	refusal := rpc.Invalid("spec.source", "it is empty").Field("name", "it is too long").With("a", "b")
	refusal.Reason = "TWO_THINGS"
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		refusal.Code = code
		f.applier.create = func(context.Context, *applierv1.CreateReplicationRequest) error { return refusal }
		answer, body := f.call(t, "POST", "/v1/replications", `{"name":"shop"}`)
		_, err := applierv1.NewApplierServiceClient(f.handler.conn).CreateReplication(t.Context(), &applierv1.CreateReplicationRequest{Name: "shop"})
		want := problemOf(err)
		got := requireProblem(t, answer, body, want.Code, rpc.Reason(err))
		if got.Status != rpc.CodeName(code) || got.Message != rpc.Message(err) || got.Metadata["a"] != "b" || len(got.Fields) != 2 || got.Fields[1].Field != "name" {
			t.Errorf("over HTTP %+v, over gRPC %v", got, err)
		}
		if answer.StatusCode < 400 {
			t.Errorf("%s is %d", code, answer.StatusCode)
		}
	}
}

func TestDeadlines(t *testing.T) {
	limits := DefaultLimits()
	limits.Unary = 100 * time.Millisecond
	f := start(t, limits)
	f.applier.create = func(ctx context.Context, _ *applierv1.CreateReplicationRequest) error {
		<-ctx.Done()
		return ctx.Err()
	}
	answer, body := f.call(t, "POST", "/v1/replications", `{"name":"shop"}`)
	requireProblem(t, answer, body, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED")

	// A call that says how long it takes has that time besides.
	f.applier.wait = func(ctx context.Context, in *applierv1.WaitReplicationRequest) error {
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left < in.GetTimeout().AsDuration()-10*time.Second || left > in.GetTimeout().AsDuration()+time.Second {
			return errors.New(left.String())
		}
		return nil
	}
	if answer, body = f.call(t, "POST", "/v1/replications/shop:wait", `{"timeout":"600s"}`); answer.StatusCode != http.StatusOK {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}
