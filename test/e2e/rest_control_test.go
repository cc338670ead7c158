package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// walkLoggerControl sets, stops and starts, and lists what was updated since a position: two rows were updated, and one was deleted.
func walkLoggerControl(t *testing.T, primary *web, logID, lsn string) {
	t.Helper()
	config := primary.good(call{id: "LoggerService_GetConfig"})[0]["config"].(map[string]any)
	if config["maxAge"] != "604800s" || config["logRemoteChanges"] != true {
		t.Errorf("configuration %v", config)
	}
	set := primary.good(call{id: "LoggerService_UpdateConfig", body: `{"config":{"maxAge":"3600s","maxBytes":"1000000000"},"updateMask":"maxAge,maxBytes"}`})[0]
	if config := set["config"].(map[string]any); config["maxAge"] != "3600s" || config["maxBytes"] != "1000000000" || len(set["setFields"].([]any)) != 2 {
		t.Errorf("set %v", set)
	}
	primary.good(call{id: "LoggerService_UpdateConfig", body: `{"resetMask":"maxAge,maxBytes"}`})
	primary.bad("PATCH", "/v1/logger/config", `{"config":{"maxBytes":"-1"},"updateMask":"maxBytes"}`, http.StatusBadRequest, "INVALID_FIELD")
	primary.bad("PATCH", "/v1/logger/config", `{"config":{"maxBytes":"1"}}`, http.StatusBadRequest, "INVALID_FIELD")

	query := url.Values{"position.logId": {logID}, "position.lsn": {lsn}, "includeTables": {"public.*"}}
	page := primary.good(call{id: "LoggerService_ListUpdatedSince", query: query})[0]
	var got []string
	for _, u := range page["updates"].([]any) {
		u := u.(map[string]any)
		key := u["key"].([]any)[0].(map[string]any)
		got = append(got, strings.TrimPrefix(u["action"].(string), "ACTION_")+" "+u["table"].(string)+" "+key["value"].(string))
	}
	if text := strings.Join(got, "; "); text != "UPDATE orders 1; UPDATE orders 2; DELETE orders 3" || page["nextPageToken"] != "" {
		t.Errorf("updated: %s, %v", text, page)
	}
	primary.bad("GET", "/v1/logger:updatedSince", "", http.StatusBadRequest, "INVALID_FIELD")
	primary.bad("GET", "/v1/logger:updatedSince?position.lsn=16&position.logId="+strings.Repeat("0", 31)+"1", "", http.StatusBadRequest, "LOG_ID_MISMATCH")

	stopped := primary.good(call{id: "LoggerService_StopCapture"})[0]["state"].(map[string]any)
	if stopped["state"] != "stopped" || stopped["stopTime"] == nil {
		t.Errorf("stopped: %v", stopped)
	}
	primary.bad("POST", "/v1/logger:emitBarrier", "{}", http.StatusBadRequest, "CAPTURE_STOPPED")
	primary.good(call{id: "LoggerService_StartCapture", body: `{}`})
}
