package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// web is one server's REST, as its OpenAPI document describes it.
type web struct {
	t        testing.TB
	node     *node
	document apiDocument
	called   map[string]bool // operations by their id
}

func openWeb(t testing.TB, n *node) *web {
	t.Helper()
	w := &web{t: t, node: n, called: make(map[string]bool)}
	code, kind, body := w.do("GET", "/openapi.json", "")
	if code != http.StatusOK || kind != "application/json" {
		t.Fatalf("/openapi.json: %d %s", code, kind)
	}
	if err := json.Unmarshal([]byte(body), &w.document); err != nil {
		t.Fatal(err)
	}
	return w
}

// open sends a request; the caller closes the answer.
func (w *web) open(method, path, body string) *http.Response {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.node.http+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (w *web) do(method, path, body string) (code int, kind, text string) {
	w.t.Helper()
	answer := w.open(method, path, body)
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(all)
}

// operation finds an operation and its method and path by its id.
func (w *web) operation(id string) (method, path string, op apiOperation) {
	w.t.Helper()
	for path, methods := range w.document.Paths {
		for method, op := range methods {
			if op.OperationID == id {
				return strings.ToUpper(method), path, op
			}
		}
	}
	w.t.Fatalf("%s is not in the document of %s", id, w.node.name)
	return "", "", apiOperation{}
}

// call is one good call of an operation.
type call struct {
	id    string
	path  map[string]string
	query url.Values
	body  string
}

// url fills in the variables of a path.
func (c *call) url(path string) string {
	for name, value := range c.path {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
	}
	if len(c.query) > 0 {
		path += "?" + c.query.Encode()
	}
	return path
}

// good calls an operation, and returns the objects of its answer after comparing them with what the document says of it.
func (w *web) good(c call) []map[string]any {
	w.t.Helper()
	method, path, op := w.operation(c.id)
	w.called[c.id] = true
	code, kind, body := w.do(method, c.url(path), c.body)
	if code != http.StatusOK {
		w.t.Fatalf("%s: %d %s", c.id, code, body)
	}
	want := "application/json"
	if op.streams() {
		want = "application/x-ndjson"
	}
	if kind != want {
		w.t.Errorf("%s: type %s", c.id, kind)
	}
	var list []map[string]any
	for one := range strings.Lines(body) {
		var object map[string]any
		if err := json.Unmarshal([]byte(one), &object); err != nil {
			w.t.Fatalf("%s: %v in %s", c.id, err, one)
		}
		w.document.check(w.t, c.id, op.Responses["200"].Schema, object)
		list = append(list, object)
	}
	if len(list) == 0 || !op.streams() && len(list) != 1 {
		w.t.Fatalf("%s answered %q", c.id, body)
	}
	return list
}

// bad sends a request that has to be refused, and returns the error after checking its form.
func (w *web) bad(method, path, body string, code int, reason string) map[string]any {
	w.t.Helper()
	got, kind, text := w.do(method, path, body)
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		w.t.Fatalf("%s %s: %d %s", method, path, got, text)
	}
	problem, _ := answer["error"].(map[string]any)
	if got != code || kind != "application/json" || problem["reason"] != reason || problem["code"] != float64(code) || problem["message"] == "" {
		w.t.Errorf("%s %s %s: %d %s, expected %d %s", method, path, body, got, text, code, reason)
	}
	w.document.check(w.t, method+" "+path, shape{"$ref": "#/definitions/Error"}, answer)
	return problem
}

// refuses makes the mistakes that every operation refuses.
func (w *web) refuses(c call) {
	w.t.Helper()
	method, path, op := w.operation(c.id)
	plain := call{path: c.path}
	at := plain.url(path)
	w.bad(method, at+"?no_such_parameter=1", "", http.StatusBadRequest, "UNKNOWN_FIELD")
	w.bad("PUT", at, "", http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	w.bad(method, at+":no_such_action", "", http.StatusNotFound, "UNKNOWN_PATH")
	if !op.hasBody() {
		w.bad(method, at, "{}", http.StatusBadRequest, "UNEXPECTED_BODY")
		return
	}
	w.bad(method, at, `{"no_such_field":1}`, http.StatusBadRequest, "UNKNOWN_FIELD")
	w.bad(method, at, `{`, http.StatusBadRequest, "INVALID_JSON")
	w.bad(method, at, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
}

// TestREST walks the OpenAPI documents of a primary and a replica, and calls every operation, well and badly. An operation that is in a
// document and not called here fails it.
func TestREST(t *testing.T) {
	t.Parallel()
	source := newSource(t).Database(t)
	conn := pgtest.Connect(t, source)
	pgtest.Exec(t, conn, `CREATE TABLE orders (id bigint PRIMARY KEY, note text, doc json);
		INSERT INTO orders SELECT n, 'order ' || n, '{"a":
 1}' FROM generate_series(1, 500) n`)
	primaryNode := startPrimary(t, source)
	primary := openWeb(t, primaryNode)
	targetURL := newTarget(t).Database(t)
	replica := openWeb(t, startReplica(t, targetURL))

	for _, w := range []*web{primary, replica} {
		server := w.good(call{id: "ServerService_GetServer"})[0]["server"].(map[string]any)
		if server["serverId"] == "" || len(server["roles"].([]any)) == 0 {
			t.Errorf("got %v", server)
		}
		for _, paths := range w.document.Paths {
			for _, op := range paths { // what the document has, the process can do
				service, method, _ := strings.Cut(op.OperationID, "_")
				if !slices.ContainsFunc(server["capabilities"].([]any), func(one any) bool { return strings.HasSuffix(one.(string), "."+service+"/"+method) }) {
					t.Errorf("%s is no capability of the server: %v", op.OperationID, server["capabilities"])
				}
			}
		}
		w.refuses(call{id: "ServerService_GetServer"})
	}
	for _, w := range []*web{primary, replica} {
		walkAccess(t, w)
	}
	walkInventory(t, primary)
	walkLogger(t, primary, conn)
	walkPushes(t, primary)
	walkApplier(t, replica, primaryNode.grpc, targetURL)

	for _, w := range []*web{primary, replica} {
		for path, methods := range w.document.Paths {
			for method, op := range methods {
				if !w.called[op.OperationID] {
					t.Errorf("%s: %s %s (%s) is not called: add it here", w.node.name, method, path, op.OperationID)
				}
			}
		}
	}
	t.Logf("%d operations of the primary and %d of the replica", len(primary.called), len(replica.called))
}

func walkInventory(t *testing.T, primary *web) {
	t.Helper()
	tables := primary.good(call{id: "InventoryService_GetInventory", query: url.Values{"tables.include": {"public.orders"}}})[0]
	if all := primary.good(call{id: "InventoryService_GetInventory", query: url.Values{"includeSystem": {"true"}}})[0]["tables"].([]any); len(all) < 50 {
		t.Errorf("%d tables with PostgreSQL's own", len(all))
	}
	primary.bad("GET", "/v1/inventory?tables.include=public.none", "", http.StatusNotFound, "TABLE_NOT_FOUND")
	if list := tables["tables"].([]any); len(list) != 1 {
		t.Errorf("tables %v", list)
	}
	opened := primary.good(call{id: "InventoryService_OpenSnapshot", body: `{"ttl":"30s","wait":"60s"}`})
	snapshot, _ := opened[len(opened)-1]["snapshot"].(map[string]any)
	id, _ := snapshot["snapshotId"].(string)
	if id == "" {
		t.Fatalf("opened %v", opened)
	}
	if list := primary.good(call{id: "InventoryService_ListSnapshots"})[0]["snapshots"].([]any); len(list) != 1 {
		t.Errorf("snapshots %v", list)
	}
	at := map[string]string{"snapshotId": id}
	primary.good(call{id: "InventoryService_RenewSnapshot", path: at, body: `{"ttl":"60s"}`})
	rows := primary.good(call{id: "InventoryService_Dump", path: at, query: url.Values{
		"schema": {"public"}, "table": {"orders"}, "format": {"DUMP_FORMAT_JSON_LINES"}, "chunkBytes": {"1024"},
	}})
	row, _ := rows[0]["row"].(map[string]any)
	end, _ := rows[len(rows)-1]["end"].(map[string]any)
	if len(rows) != 501 || row["note"] != "order 1" || end["rows"] != "500" {
		t.Errorf("%d lines, from %v to %v", len(rows), rows[0], rows[len(rows)-1])
	}
	pieces := primary.good(call{id: "InventoryService_Dump", path: at, query: url.Values{"schema": {"public"}, "table": {"orders"}, "columns": {"id"}}})
	if first, ok := pieces[0]["data"].(string); !ok || !strings.HasPrefix(first, "MQoyCjMK") { // 1, 2, 3
		t.Errorf("got %v", pieces[0])
	}
	primary.bad("GET", "/v1/snapshots/"+id+":dump?schema=public&table=none", "", http.StatusNotFound, "TABLE_NOT_FOUND")
	sums := primary.good(call{id: "InventoryService_Checksum", path: at, body: `{"schema":"public","table":"orders","key":["id"],"chunks":4}`})
	var counted int64
	for _, answer := range sums {
		chunks, _ := answer["chunks"].([]any)
		for _, c := range chunks {
			n, err := strconv.ParseInt(c.(map[string]any)["rows"].(string), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			counted += n
		}
	}
	if counted != 500 {
		t.Errorf("checksums of %d rows", counted)
	}
	primary.bad("POST", "/v1/snapshots/"+id+":checksum", `{"schema":"public","table":"none"}`, http.StatusNotFound, "TABLE_NOT_FOUND")
	read := primary.good(call{id: "InventoryService_ReadRows", path: at, body: `{"schema":"public","table":"orders","columns":["id","note"],"key":["id"],"keys":[{"values":["3"]},{"values":["9999"]}]}`})
	if first, _ := read[0]["data"].(string); first != "MwlvcmRlciAzCg==" { // 3, order 3
		t.Errorf("read %v", read)
	}
	primary.bad("POST", "/v1/snapshots/"+id+":readRows", `{"schema":"public","table":"orders","key":["id"],"keys":[{"values":["1","2"]}]}`, http.StatusBadRequest, "INVALID_FIELD")
	primary.bad("POST", "/v1/snapshots/"+id+":readRows", `{"schema":"public","table":"orders","key":["id"],"keys":[{"values":["x"]}]}`, http.StatusBadRequest, "INVALID_RANGE")
	primary.bad("POST", "/v1/snapshots/"+id+":readRows", `{"schema":"public","table":"none","key":["id"],"keys":[{"values":["1"]}]}`, http.StatusNotFound, "TABLE_NOT_FOUND")
	primary.good(call{id: "InventoryService_CloseSnapshot", path: at})
	primary.bad("POST", "/v1/snapshots/"+id+":renew", `{"ttl":"60s"}`, http.StatusNotFound, "SNAPSHOT_GONE")
	primary.bad("GET", "/v1/snapshots/"+id+":dump?schema=public&table=orders", "", http.StatusNotFound, "SNAPSHOT_GONE")
	primary.bad("POST", "/v1/snapshots", `{"ttl":"1000h"}`, http.StatusBadRequest, "INVALID_FIELD")
	for _, name := range []string{"GetInventory", "OpenSnapshot", "ListSnapshots", "RenewSnapshot", "Dump", "Checksum", "ReadRows", "CloseSnapshot"} {
		primary.refuses(call{id: "InventoryService_" + name, path: at})
	}
}

func walkLogger(t *testing.T, primary *web, conn *pgx.Conn) {
	t.Helper()
	if state := primary.good(call{id: "LoggerService_GetState"})[0]; state["state"] != "capturing" {
		t.Errorf("state %v", state)
	}
	ranges := primary.good(call{id: "LoggerService_GetRanges"})[0]
	before, _ := primary.good(call{id: "LoggerService_EmitBarrier", body: `{}`})[0]["position"].(map[string]any)
	logID, lsn := before["logId"].(string), before["lsn"].(string)
	if logID != ranges["logId"] {
		t.Errorf("ranges %v, barrier %v", ranges, before)
	}
	pgtest.Exec(t, conn, "UPDATE orders SET note = 'changed' WHERE id <= 2")
	pgtest.Exec(t, conn, "DELETE FROM orders WHERE id = 3")
	primary.good(call{id: "LoggerService_EmitBarrier"})
	after, _ := primary.good(call{id: "LoggerService_EmitBarrier"})[0]["position"].(map[string]any) // all before it is in the log once this is
	pgtest.Eventually(t, time.Minute, func() error {
		ranges, err := primary.node.logger().GetRanges(t.Context(), &loggerv1.GetRangesRequest{})
		if err != nil {
			return err
		}
		barrier, err := strconv.ParseUint(after["lsn"].(string), 10, 64)
		if err == nil && ranges.GetLastLsn() <= barrier {
			err = fmt.Errorf("the log ends at %d, before %d", ranges.GetLastLsn(), barrier)
		}
		return err
	})
	lines := primary.good(call{id: "LoggerService_Follow", query: url.Values{"position.logId": {logID}, "position.lsn": {lsn}, "limit": {"3"}, "wait": {"10s"}}})
	var kinds []string
	for _, l := range lines {
		if record, ok := l["record"].(map[string]any); ok {
			kinds = append(kinds, record["kind"].(string))
		}
	}
	if got := strings.Join(kinds, " "); got != "begin message commit begin update update commit begin delete commit" {
		t.Errorf("records %s", got)
	}
	ended, _ := lines[len(lines)-1]["ended"].(map[string]any)
	at, _ := ended["position"].(map[string]any)
	if ended["more"] != true || at["logId"] != logID {
		t.Errorf("ended %v", ended)
	}
	rest := primary.good(call{id: "LoggerService_Follow", query: url.Values{"position.logId": {logID}, "position.lsn": {at["lsn"].(string)}, "wait": {"0s"}}})
	if _, ok := rest[len(rest)-1]["ended"]; !ok || len(rest) < 2+3+1 { // started, heartbeat, a barrier or two, ended
		t.Errorf("%d lines: %v", len(rest), rest)
	}

	name := map[string]string{"follower": "somebody/else"}
	primary.good(call{id: "LoggerService_ReportApplied", path: name, body: fmt.Sprintf(`{"position":{"logId":%q,"lsn":%q}}`, logID, lsn)})
	followers := primary.good(call{id: "LoggerService_ListFollowers"})[0]["followers"].([]any)
	if len(followers) != 1 || followers[0].(map[string]any)["name"] != "somebody/else" {
		t.Errorf("followers %v", followers)
	}
	primary.good(call{id: "LoggerService_DeleteFollower", path: name})
	primary.bad("DELETE", "/v1/followers/somebody/else", "", http.StatusNotFound, "FOLLOWER_UNKNOWN")
	primary.bad("GET", "/v1/logger:follow", "", http.StatusBadRequest, "INVALID_FIELD")
	primary.bad("GET", "/v1/logger:follow?start=START_NOW&limit=-1", "", http.StatusBadRequest, "INVALID_FIELD")

	// The same refusal as over gRPC, with what it is about.
	other := strings.Repeat("0", 31) + "1"
	stream, err := primary.node.logger().Follow(t.Context(), &loggerv1.FollowRequest{Position: &changev1.Position{LogId: other, Lsn: 16}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	if rpc.Code(err) != codes.OutOfRange {
		t.Fatal(err)
	}
	problem := primary.bad("GET", "/v1/logger:follow?position.logId="+other+"&position.lsn=16", "", http.StatusBadRequest, rpc.Reason(err))
	for key, value := range rpc.Metadata(err) {
		if got := problem["metadata"].(map[string]any)[key]; got != value && key != "last_lsn" {
			t.Errorf("%s is %v over HTTP and %s over gRPC", key, got, value)
		}
	}
	walkLoggerControl(t, primary, logID, lsn)
	walkSets(primary)
	for _, id := range []string{"CreateSet", "GetSet", "ListSets", "UpdateSet", "DeleteSet"} {
		primary.refuses(call{id: "LoggerService_" + id, path: map[string]string{"name": "mine"}})
	}
	for _, id := range []string{"GetConfig", "UpdateConfig", "StartCapture", "StopCapture", "ListUpdatedSince", "GetState", "GetRanges", "EmitBarrier", "Follow", "ListFollowers", "ReportApplied", "DeleteFollower"} {
		primary.refuses(call{id: "LoggerService_" + id, path: name})
	}
}

func walkSets(primary *web) {
	name := map[string]string{"name": "mine"}
	primary.good(call{id: "LoggerService_CreateSet", body: `{"name":"mine","spec":{"tables":[{"pattern":"public.orders","rows":"{\"id\": {\"$lte\": {\"$param\": \"top\"}}}"}]}}`})
	primary.bad("POST", "/v1/sets", `{"name":"mine","spec":{}}`, http.StatusConflict, "SET_EXISTS")
	primary.bad("POST", "/v1/sets", `{"name":"other","spec":{"tables":[{"pattern":"public.orders","rows":"{\"note\": 1}"}]}}`, http.StatusBadRequest, "INVALID_FIELD")
	if set := primary.good(call{id: "LoggerService_GetSet", path: name})[0]["set"].(map[string]any); fmt.Sprint(set["parameters"]) != "[top]" {
		primary.t.Errorf("set %v", set)
	}
	if list := primary.good(call{id: "LoggerService_ListSets"})[0]["sets"].([]any); len(list) != 1 {
		primary.t.Errorf("sets %v", list)
	}
	query := url.Values{"start": {"START_EARLIEST"}, "set": {"mine"}, "parameters[top]": {"2"}, "wait": {"0s"}}
	inserted := 0
	for _, line := range primary.good(call{id: "LoggerService_Follow", query: query}) {
		if record, _ := line["record"].(map[string]any); record["kind"] == "update" {
			inserted++
		} else if record["kind"] == "delete" {
			primary.t.Errorf("the set does not have %v", record)
		}
	}
	if inserted != 2 {
		primary.t.Errorf("%d updates of the set", inserted)
	}
	primary.good(call{id: "LoggerService_UpdateSet", path: name, body: `{"spec":{"tables":[{"pattern":"public.*"}]}}`})
	primary.bad("GET", "/v1/logger:follow?start=START_NOW&set=mine&parameters[top]=2", "", http.StatusBadRequest, "INVALID_FIELD")
	primary.good(call{id: "LoggerService_DeleteSet", path: name})
	primary.bad("GET", "/v1/sets/mine", "", http.StatusNotFound, "SET_UNKNOWN")
}

func walkApplier(t *testing.T, replica *web, source, targetURL string) {
	t.Helper()
	replica.bad("POST", "/v1/replications", fmt.Sprintf(`{"name":"shop","spec":{"source":%q,"fromRestore":true}}`, source), http.StatusBadRequest, "NO_RESTORE")
	replica.bad("POST", "/v1/replications", `{"name":"shop","spec":{"source":"db:1","fromRestore":true,"replace":true}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("POST", "/v1/replications", `{"name":"shop","spec":{"source":"db:1","fromRestore":true,"set":"some"}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.good(call{id: "ApplierService_CreateReplication", body: fmt.Sprintf(`{"name":"shop","spec":{"source":%q}}`, source)})
	replica.bad("POST", "/v1/replications", fmt.Sprintf(`{"name":"shop","spec":{"source":%q}}`, source), http.StatusConflict, "REPLICATION_EXISTS")
	replica.bad("POST", "/v1/replications", `{"name":"Shop","spec":{"source":"db:1"}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.node.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	shop := map[string]string{"name": "shop"}
	checked := replica.good(call{id: "ApplierService_CheckReplication", body: `{"name":"shop"}`})[0]["handshake"].(map[string]any)
	if checked["ok"] != true || len(checked["tables"].([]any)) == 0 {
		t.Errorf("checked: %v", checked)
	}
	replica.bad("POST", "/v1/replications:check", `{}`, http.StatusBadRequest, "INVALID_FIELD")
	waited := replica.good(call{id: "ApplierService_WaitReplication", path: shop, body: `{"timeout":"60s"}`})[0]
	if state := waited["replication"].(map[string]any)["state"]; state != "STATE_RUNNING" {
		t.Errorf("waited for %v", waited)
	}
	if list := replica.good(call{id: "ApplierService_ListReplications"})[0]["replications"].([]any); len(list) != 1 {
		t.Errorf("replications %v", list)
	}
	replica.good(call{id: "ApplierService_GetReplication", path: shop})
	verified := replica.good(call{id: "ApplierService_VerifyReplication", path: shop})
	if result, _ := verified[len(verified)-1]["result"].(map[string]any); result == nil {
		t.Errorf("verified: %v", verified)
	}
	replica.bad("POST", "/v1/replications/shop:verify", `{"maxDifferences":-1}`, http.StatusBadRequest, "INVALID_FIELD")
	repaired := replica.good(call{id: "ApplierService_RepairReplication", path: shop, body: `{"dryRun":true}`})
	if result, _ := repaired[len(repaired)-1]["result"].(map[string]any); result["equal"] != true {
		t.Errorf("repaired: %v", repaired)
	}
	replica.bad("POST", "/v1/replications/shop:repair", `{"maxHold":"0.001s"}`, http.StatusBadRequest, "INVALID_FIELD")
	begun := replica.good(call{id: "ApplierService_SyncReplication", path: shop, body: `{"mode":"SYNC_MODE_INCREMENTAL"}`})[0]["sync"].(map[string]any)
	shop["syncId"] = begun["syncId"].(string)
	replica.bad("POST", "/v1/replications/shop:sync", `{}`, http.StatusBadRequest, "INVALID_FIELD")
	watched := replica.good(call{id: "ApplierService_WatchSync", path: shop, query: url.Values{"interval": {"0.2s"}}})
	if last, _ := watched[len(watched)-1]["sync"].(map[string]any); last["state"] != "SYNC_STATE_COMPLETED" {
		t.Errorf("watched: %v", watched)
	}
	replica.good(call{id: "ApplierService_GetSync", path: shop})
	replica.good(call{id: "ApplierService_CancelSync", path: shop})
	if list := replica.good(call{id: "ApplierService_ListSyncs", query: url.Values{"replication": {"shop"}}})[0]["syncs"].([]any); len(list) != 1 {
		t.Errorf("syncs %v", list)
	}
	replica.bad("GET", "/v1/syncs/none", "", http.StatusNotFound, "SYNC_NOT_FOUND")
	replica.bad("GET", "/v1/syncs/none:watch", "", http.StatusNotFound, "SYNC_NOT_FOUND")
	replica.bad("POST", "/v1/syncs/none:cancel", "", http.StatusNotFound, "SYNC_NOT_FOUND")
	if stopped := replica.good(call{id: "ApplierService_StopReplication", path: shop})[0]["replication"].(map[string]any); stopped["state"] != "STATE_STOPPED" {
		t.Errorf("stopped: %v", stopped)
	}
	replica.bad("POST", "/v1/replications/shop:wait", `{"timeout":"60s"}`, http.StatusBadRequest, "REPLICATION_NOT_RUNNING")
	replica.good(call{id: "ApplierService_ListUnsynced", path: shop, query: url.Values{"table": {"public.none"}}})
	replica.bad("GET", "/v1/replications/shop/unsynced?table=none", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("GET", "/v1/replications/shop/unsynced/7", "", http.StatusNotFound, "NOT_IN_QUARANTINE")
	pgtest.Exec(t, pgtest.Connect(t, targetURL), `INSERT INTO syncline.unsynced_edits (replication, entry, principal, schema_name, table_name, operation, key, log_id, commit_lsn, columns)
		VALUES ('shop', 7, 'anna', 'public', 'none', 'I', '(id=1)', '00', '0/1', '[{"name": "note", "source": {"text": "YQ==", "size": 1}, "written": {"null": true}}]')`)
	if got := replica.good(call{id: "ApplierService_ListUnsyncedEdits", path: shop})[0]["edits"].([]any); len(got) != 1 || got[0].(map[string]any)["principal"] != "anna" {
		t.Errorf("edits: %v", got)
	}
	replica.bad("GET", "/v1/replications/shop/unsynced:edits?pageSize=51", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("GET", "/v1/replications/sop/unsynced:edits", "", http.StatusNotFound, "REPLICATION_NOT_FOUND")
	// A change of no table, as one that was refused would stand there.
	id := pgtest.QueryRow[int64](t, pgtest.Connect(t, targetURL), `INSERT INTO syncline.quarantine (replication, log_id, commit_lsn, number, commit_time, xid, origin_server, origin_log, origin_lsn, origin_time,
		schema_name, table_name, target_schema, target_table, relation, locator, operation, has_old, signature, held, bytes)
		VALUES ('shop', '00', '0/1', 1, 0, 1, '', '00', '0/1', 0, 'public', 'none', 'public', 'none', '{"identity": "d", "columns": []}', '{}', 'I', false, '', '{}', 1) RETURNING id`)
	if got := replica.good(call{id: "ApplierService_GetUnsynced", path: map[string]string{"name": "shop", "id": strconv.FormatInt(id, 10)}})[0]["change"].(map[string]any); got["table"] != "none" {
		t.Errorf("unsynced: %v", got)
	}
	if discarded := replica.good(call{id: "ApplierService_DiscardUnsynced", path: shop, body: `{"all":true}`})[0]; discarded["discarded"] != "1" {
		t.Errorf("discarded: %v", discarded)
	}
	if retried := replica.good(call{id: "ApplierService_RetryUnsynced", path: shop, body: `{"all":true}`})[0]; retried["applied"] != "0" {
		t.Errorf("retried: %v", retried)
	}
	replica.bad("POST", "/v1/replications/shop/unsynced:retry", `{"ids":["7"]}`, http.StatusNotFound, "NOT_IN_QUARANTINE")
	replica.bad("POST", "/v1/replications/shop/unsynced:discard", `{}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.good(call{id: "ApplierService_StartReplication", path: shop, body: `{}`})
	replica.node.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)

	updated := replica.good(call{id: "ApplierService_UpdateReplication", path: shop, body: `{"spec":{"copyWorkers":2,"retryCap":"5s"},"updateMask":"copyWorkers,retryCap"}`})[0]
	if plan := updated["plan"].(map[string]any); len(plan["changedFields"].([]any)) != 2 {
		t.Errorf("updated: %v", updated)
	}
	replica.bad("PATCH", "/v1/replications/shop", `{"spec":{"copyWorkers":65},"updateMask":"copyWorkers"}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("PATCH", "/v1/replications/shop", `{"spec":{"copyWorkers":3},"updateMask":"copyWorkers","etag":"x-1"}`, http.StatusConflict, "ETAG_MISMATCH")
	replica.bad("DELETE", "/v1/replications/shop?etag=x-1", "", http.StatusConflict, "ETAG_MISMATCH")
	replica.bad("GET", "/v1/replications?pageSize=-1", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("GET", "/v1/replications?pageToken=x", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("POST", "/v1/replications/shop:start", `{"from":{"logId":"x","lsn":"1"}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.good(call{id: "ApplierService_ResyncReplication", path: shop, body: `{}`})
	replica.bad("POST", "/v1/replications/shop:resync", `{"etag":"1"}`, http.StatusConflict, "ETAG_MISMATCH")
	replica.node.waitState("shop", time.Minute, applierv1.State_STATE_RUNNING)
	events := replica.good(call{id: "ApplierService_ListReplicationEvents", query: url.Values{"replication": {"shop"}, "newestFirst": {"true"}, "pageSize": {"2"}}})[0]
	if list := events["events"].([]any); len(list) != 2 || events["nextPageToken"] == "" {
		t.Errorf("events %v", events)
	}
	replica.bad("GET", "/v1/events?replication=sop", "", http.StatusNotFound, "REPLICATION_NOT_FOUND")
	replica.bad("GET", "/v1/events?pageSize=5000", "", http.StatusBadRequest, "INVALID_FIELD")
	walkEvents(t, replica)
	walkJobs(t, replica)
	walkRuns(t, replica)

	// A watch tells each change, and at last why it ends.
	replica.called["ApplierService_WatchReplication"] = true
	_, _, op := replica.operation("ApplierService_WatchReplication")
	answer := replica.open("GET", "/v1/replications/shop:watch?interval=0.2s", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	next := func() (object map[string]any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			t.Fatal(err)
		}
		return object
	}
	for range 3 {
		replica.document.check(t, "watch", op.Responses["200"].Schema, next())
	}
	replica.good(call{id: "ApplierService_DeleteReplication", path: shop})
	last := next()
	for last["replication"] != nil {
		last = next()
	}
	replica.document.check(t, "end of watch", shape{"$ref": "#/definitions/Error"}, last)
	if problem, _ := last["error"].(map[string]any); problem["reason"] != "REPLICATION_NOT_FOUND" || problem["code"] != float64(http.StatusNotFound) {
		t.Errorf("the watch ended with %v", last)
	}
	for _, one := range []struct{ method, path string }{
		{"GET", ""}, {"DELETE", ""}, {"POST", ":start"}, {"POST", ":stop"}, {"POST", ":wait"}, {"POST", ":verify"}, {"GET", ":watch"}, {"PATCH", ""}, {"POST", ":resync"}, {"POST", ":repair"},
	} {
		replica.bad(one.method, "/v1/replications/shop"+one.path, "", http.StatusNotFound, "REPLICATION_NOT_FOUND")
	}
	walkRun(t, replica, source)
	for _, id := range slices.Sorted(maps.Keys(replica.called)) {
		replica.refuses(call{id: id, path: shop})
	}
}

// walkEvents reads the beginning of the run log as a stream.
func walkEvents(t *testing.T, replica *web) {
	t.Helper()
	replica.called["ApplierService_WatchReplicationEvents"] = true
	_, path, op := replica.operation("ApplierService_WatchReplicationEvents")
	answer := replica.open("GET", path+"?replication=shop", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for n := range 3 {
		var object map[string]any
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &object) != nil {
			t.Fatalf("the stream ended: %s %v", lines.Text(), lines.Err())
		}
		replica.document.check(t, "watch events", op.Responses["200"].Schema, object)
		if kind := object["event"].(map[string]any)["kind"]; n == 0 && kind != "EVENT_KIND_CREATED" {
			t.Errorf("the first event is %v", object)
		}
	}
	replica.bad("GET", path+"?afterId=-1", "", http.StatusBadRequest, "INVALID_FIELD")
}

// TestRESTStreamsEndWithTheServer follows a primary until it stops: the last line says why.
func TestRESTStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	primary := openWeb(t, startPrimary(t, newSource(t).Database(t)))
	answer := primary.open("GET", "/v1/logger:follow?start=START_NOW&heartbeat=0.1s", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for range 5 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
	}
	if code := primary.node.terminate(time.Minute); code != 0 {
		t.Errorf("exit code %d", code)
	}
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if lines.Err() != nil || !strings.Contains(last, `"reason":"SERVER_STOPPING"`) || !strings.HasPrefix(last, `{"error":`) {
		t.Errorf("it ended with %s, %v", last, lines.Err())
	}
}
