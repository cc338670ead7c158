package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
)

// walkPushes calls the operations about pushes, of a primary.
func walkPushes(t *testing.T, w *web) {
	t.Helper()
	nobody := freeAddress(t)
	made := w.good(call{id: "PushService_CreatePush", body: fmt.Sprintf(`{"name":"berlin","spec":{"target":%q,"token":"s3cret","options":{"copyWorkers":2}}}`, nobody)})[0]["push"].(map[string]any)
	if spec := made["spec"].(map[string]any); spec["token"] != "" || made["etag"] == "" {
		t.Errorf("made %v", made)
	}
	at := map[string]string{"name": "berlin"}
	w.bad("POST", "/v1/pushes", fmt.Sprintf(`{"name":"berlin","spec":{"target":%q}}`, nobody), http.StatusConflict, "PUSH_EXISTS")
	w.bad("POST", "/v1/pushes", `{"name":"Berlin","spec":{"target":"x"}}`, http.StatusBadRequest, "INVALID_FIELD")
	w.bad("POST", "/v1/pushes", fmt.Sprintf(`{"name":"paris","spec":{"target":%q,"options":{"source":"db1:7400"}}}`, nobody), http.StatusBadRequest, "INVALID_FIELD")
	w.bad("POST", "/v1/pushes", fmt.Sprintf(`{"name":"paris","spec":{"target":%q,"set":"none"}}`, nobody), http.StatusNotFound, "SET_UNKNOWN")
	if one := w.good(call{id: "PushService_GetPush", path: at})[0]["push"].(map[string]any); one["name"] != "berlin" {
		t.Errorf("got %v", one)
	}
	if list := w.good(call{id: "PushService_ListPushes", query: url.Values{"pageSize": {"1"}}})[0]; len(list["pushes"].([]any)) != 1 || list["nextPageToken"] != "" {
		t.Errorf("listed %v", list)
	}
	walkPushWatch(t, w)
	w.bad("GET", "/v1/pushes?pageSize=-1", "", http.StatusBadRequest, "INVALID_FIELD")
	w.bad("GET", "/v1/pushes?pageToken=*", "", http.StatusBadRequest, "INVALID_FIELD")
	updated := w.good(call{id: "PushService_UpdatePush", path: at, body: `{"spec":{"description":"there"},"updateMask":"description"}`})[0]["push"].(map[string]any)
	if updated["spec"].(map[string]any)["description"] != "there" || updated["etag"] == made["etag"] {
		t.Errorf("updated %v", updated)
	}
	for body, reason := range map[string]string{
		`{"spec":{"target":"other.example:7500"},"updateMask":"target"}`: "INVALID_FIELD", `{"spec":{"set":"x"},"updateMask":"set"}`: "INVALID_FIELD", `{}`: "INVALID_FIELD",
		`{"spec":{"description":"x"},"updateMask":"retryCap"}`: "INVALID_FIELD", `{"spec":{"retryCap":"0.001s"},"updateMask":"retryCap"}`: "INVALID_FIELD",
	} {
		w.bad("PATCH", "/v1/pushes/berlin", body, http.StatusBadRequest, reason)
	}
	w.bad("PATCH", "/v1/pushes/berlin", `{"spec":{"description":"x"},"updateMask":"description","etag":"1-1"}`, http.StatusConflict, "ETAG_MISMATCH")
	if stopped := w.good(call{id: "PushService_StopPush", path: at})[0]["push"].(map[string]any); stopped["state"] != "PUSH_STATE_STOPPED" {
		t.Errorf("stopped %v", stopped)
	}
	if started := w.good(call{id: "PushService_StartPush", path: at})[0]["push"].(map[string]any); started["state"] == "PUSH_STATE_STOPPED" {
		t.Errorf("started %v", started)
	}
	w.bad("DELETE", "/v1/pushes/berlin?deleteReplication=true", "", http.StatusBadRequest, "TARGET_UNREACHABLE")
	w.bad("DELETE", "/v1/pushes/berlin?etag=1-1", "", http.StatusConflict, "ETAG_MISMATCH")
	w.good(call{id: "PushService_DeletePush", path: at})
	events := w.good(call{id: "PushService_ListPushEvents", query: url.Values{"push": {"berlin"}, "newestFirst": {"true"}, "pageSize": {"1"}}})[0]
	if list := events["events"].([]any); len(list) != 1 || list[0].(map[string]any)["push"] != "berlin" || events["nextPageToken"] == "" {
		t.Errorf("events %v", events)
	}
	w.bad("GET", "/v1/pushEvents?pageSize=-1", "", http.StatusBadRequest, "INVALID_FIELD")
	w.bad("GET", "/v1/pushEvents?push=paris", "", http.StatusNotFound, "PUSH_NOT_FOUND")
	w.bad("GET", "/v1/pushEvents?pageToken=*", "", http.StatusBadRequest, "INVALID_FIELD")
	for _, one := range []struct{ method, path string }{{"GET", ""}, {"DELETE", ""}, {"PATCH", ""}, {"POST", ":start"}, {"POST", ":stop"}} {
		w.bad(one.method, "/v1/pushes/berlin"+one.path, "", http.StatusNotFound, "PUSH_NOT_FOUND")
	}
	for _, name := range []string{"CreatePush", "GetPush", "ListPushes", "UpdatePush", "StartPush", "StopPush", "DeletePush", "ListPushEvents"} {
		w.refuses(call{id: "PushService_" + name, path: at})
	}
}

// walkPushWatch reads the beginning of the watch of all pushes as a stream: there is one, whose target is away.
func walkPushWatch(t *testing.T, w *web) {
	t.Helper()
	w.called["PushService_WatchPushes"] = true
	_, path, op := w.operation("PushService_WatchPushes")
	answer := w.open("GET", path+"?namePrefix=ber&interval=0.1s", "")
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for n := range 2 { // all of them, and the next failure
		var object map[string]any
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &object) != nil {
			t.Fatalf("the stream ended: %s %v", lines.Text(), lines.Err())
		}
		w.document.check(t, "watch of pushes", op.Responses["200"].Schema, object)
		list, _ := object["pushes"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["name"] != "berlin" || object["complete"] != (n == 0) {
			t.Errorf("answer %d is %v", n, object)
		}
	}
}
