package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
)

// walkJobs reads the beginning of the watch of all replications as a stream, and has a run refused.
func walkJobs(t *testing.T, replica *web) {
	t.Helper()
	replica.called["ApplierService_WatchReplications"] = true
	_, path, op := replica.operation("ApplierService_WatchReplications")
	answer := replica.open("GET", path+"?namePrefix=sh&interval=0.1s", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for n := range 2 { // all of them, and the next heartbeat of the source
		var object map[string]any
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &object) != nil {
			t.Fatalf("the stream ended: %s %v", lines.Text(), lines.Err())
		}
		replica.document.check(t, "watch of all", op.Responses["200"].Schema, object)
		list, _ := object["replications"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["name"] != "shop" || object["complete"] != (n == 0) {
			t.Errorf("answer %d is %v", n, object)
		}
		if n == 0 {
			replica.node.waitApplied("shop", patience) // which moves it
		}
	}
	replica.bad("POST", "/v1/replications:run", `{"spec":{"source":"db1:7400","mode":"MODE_CONTINUOUS"}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("POST", "/v1/replications:run", `{"name":"Bad","spec":{"source":"db1:7400"}}`, http.StatusBadRequest, "INVALID_FIELD")
	replica.bad("POST", "/v1/replications:run", `{"name":"shop","spec":{"source":"db1:7400"}}`, http.StatusConflict, "REPLICATION_EXISTS")
}

// walkRun runs once into tables that hold the rows already, and reads the result.
func walkRun(t *testing.T, replica *web, source string) {
	t.Helper()
	told := replica.good(call{id: "ApplierService_RunReplication", body: fmt.Sprintf(`{"name":"nightly","spec":{"source":%q,"initial":"INITIAL_INCREMENTAL"}}`, source)})
	last := told[len(told)-1]["replication"].(map[string]any)
	if last["state"] != "STATE_COMPLETED" || last["transient"] != true || last["completedPosition"] == nil {
		t.Errorf("the run ended with %v", last)
	}
	result := replica.good(call{id: "ApplierService_GetReplication", path: map[string]string{"name": "nightly"}})[0]["replication"].(map[string]any)
	if result["state"] != "STATE_COMPLETED" {
		t.Errorf("the result is %v", result)
	}
}
