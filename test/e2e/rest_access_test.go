package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// walkAccess calls the operations about principals, which every process serves.
func walkAccess(t *testing.T, w *web) {
	t.Helper()
	made := w.good(call{id: "AccessService_CreatePrincipal", body: `{"name":"shop7","role":"ROLE_REPLICATOR","grants":[{"set":"orders","parameters":{"org":"7"}}]}`})[0]
	token, _ := made["token"].(string)
	if !strings.HasPrefix(token, "syncline_") {
		t.Errorf("made %v", made)
	}
	list := w.good(call{id: "AccessService_ListPrincipals"})[0]["principals"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["name"] != "shop7" || list[0].(map[string]any)["token"] != nil {
		t.Errorf("principals %v", list)
	}
	w.bad("POST", "/v1/principals", `{"name":"shop7","role":"ROLE_READER"}`, http.StatusConflict, "PRINCIPAL_EXISTS")
	w.bad("POST", "/v1/principals", `{"name":"Shop","role":"ROLE_READER"}`, http.StatusBadRequest, "INVALID_FIELD")
	w.bad("POST", "/v1/principals", `{"name":"shop","role":"ROLE_UNSPECIFIED"}`, http.StatusBadRequest, "INVALID_FIELD")
	w.bad("POST", "/v1/principals", `{"name":"shop","role":"ROLE_READER","grants":[{"set":"orders"}]}`, http.StatusBadRequest, "INVALID_FIELD")
	w.bad("POST", "/v1/principals", `{"name":"shop","role":"ROLE_READER","certificate":"db1"}`, http.StatusBadRequest, "INVALID_FIELD")
	at := map[string]string{"name": "shop7"}
	again := w.good(call{id: "AccessService_RotateToken", path: at})[0]
	if again["token"] == token || again["token"] == "" {
		t.Errorf("rotated %v", again)
	}
	w.good(call{id: "AccessService_CreatePrincipal", body: `{"name":"prometheus","role":"ROLE_READER","certificate":"cn:prometheus"}`})
	w.bad("POST", "/v1/principals/prometheus:rotateToken", "", http.StatusBadRequest, "NO_TOKEN")
	w.good(call{id: "AccessService_DeletePrincipal", path: at})
	w.bad("DELETE", "/v1/principals/shop7", "", http.StatusNotFound, "PRINCIPAL_NOT_FOUND")
	w.bad("POST", "/v1/principals/shop7:rotateToken", "", http.StatusNotFound, "PRINCIPAL_NOT_FOUND")
	w.good(call{id: "AccessService_CreatePrincipal", body: `{"name":"ada","role":"ROLE_ADMIN"}`})
	w.bad("DELETE", "/v1/principals/ada", "", http.StatusBadRequest, "LAST_ADMIN")
	for _, name := range []string{"CreatePrincipal", "ListPrincipals", "DeletePrincipal", "RotateToken"} {
		w.refuses(call{id: "AccessService_" + name, path: at})
	}
}
