package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
)

// walkRuns reads the runs of a replication page by page, and has schedules refused.
func walkRuns(t *testing.T, replica *web) {
	t.Helper()
	page := replica.good(call{id: "ApplierService_ListRuns", query: url.Values{"replication": {"shop"}, "pageSize": {"1"}}})[0]
	list, _ := page["runs"].([]any)
	if len(list) != 1 {
		t.Fatalf("runs %v", page)
	}
	run := list[0].(map[string]any)
	if run["replication"] != "shop" || run["trigger"] != "RUN_TRIGGER_USER" || run["endTime"] != nil || run["applier"] == "" || run["to"] == nil {
		t.Errorf("the run that goes on is %v", run)
	}
	token, _ := page["nextPageToken"].(string)
	if token == "" { // it was stopped and started before
		t.Fatalf("runs %v", page)
	}
	next := replica.good(call{id: "ApplierService_ListRuns", query: url.Values{"replication": {"shop"}, "pageToken": {token}}})[0]
	if list, _ := next["runs"].([]any); len(list) == 0 || list[0].(map[string]any)["result"] != "RUN_RESULT_SUCCESS" || list[0].(map[string]any)["rowsCopied"] == "0" {
		t.Errorf("the run before it is %v", next)
	}
	watchRuns(t, replica)
	replica.bad("GET", "/v1/runs?replication=sop", "", http.StatusNotFound, "REPLICATION_NOT_FOUND")
	replica.bad("GET", "/v1/runs?pageSize=5000", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("GET", "/v1/runs?pageToken=x", "", http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("PATCH", "/v1/replications/shop", `{"spec":{"schedule":{"interval":"60s"}},"updateMask":"schedule"}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("POST", "/v1/replications:run", `{"spec":{"source":"db1:7400","schedule":{"cron":"@daily"}}}`, http.StatusBadRequest, "INVALID_FIELD")
}

// watchRuns reads the beginning of the runs as a stream: the newest before the one that goes on.
func watchRuns(t *testing.T, replica *web) {
	t.Helper()
	replica.called["ApplierService_WatchRuns"] = true
	_, path, op := replica.operation("ApplierService_WatchRuns")
	answer := replica.open("GET", path+"?replication=shop&newest=2&interval=0.2s", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for n := range 2 {
		var object map[string]any
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &object) != nil {
			t.Fatalf("the stream ended: %s %v", lines.Text(), lines.Err())
		}
		replica.document.check(t, "watch runs", op.Responses["200"].Schema, object)
		if run := object["run"].(map[string]any); (run["endTime"] == nil) != (n == 1) || run["setAside"] != "0" {
			t.Errorf("run %d is %v", n, run)
		}
	}
	replica.bad("GET", path+"?replication=sop", "", http.StatusNotFound, "REPLICATION_NOT_FOUND")
	replica.bad("GET", path+"?newest=5000", "", http.StatusBadRequest, "INVALID_FIELD")
}
