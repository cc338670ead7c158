package rest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzCheck gives operations paths, queries and bodies that nobody means well with: each is taken, or refused with a reason and a
// status that says that the client is at fault.
func FuzzCheck(f *testing.F) {
	doc, err := newDocument(allServices(), "test")
	if err != nil {
		f.Fatal(err)
	}
	operations, err := doc.operations(allServices())
	if err != nil {
		f.Fatal(err)
	}
	h := &Handler{operations: operations}
	for i, seed := range []struct{ path, query, body string }{
		{"/v1/replications/a:start", "", `{}`},
		{"/v1/logger:follow", "position.lsn=18446744073709551616&position.logId=%ff", ""},
		{"/v1/logger:follow", "position=1&position.=2&.=3&[a]=b&limit=1e3&heartbeat=-1s&wait=1y", ""},
		{"/v1/snapshots/%2F%3A:dump", "columns=&columns=%00&columnTypes=-1&format=DUMP", ""},
		{"/v1/followers/%25:/::reportApplied", "a=1;b=2", `{"position":{"lsn":"-1"}}`},
		{"/:", "%", `{"spec":` + strings.Repeat(`{"spec":`, 2000)},
		{"/v1/replications", "", `{"name":"a","name":"b"}`},
		{"/v1/replications", "", "{\"name\":\"\xff\"}"},
		{"/v1/replications", "", `{"timeout":"315576000001s","@type":"x"}`},
		{"/v1/replications", "", `[]`},
	} {
		f.Add(uint8(i), seed.path, seed.query, seed.body)
		f.Add(uint8(8+i), seed.path, seed.query, seed.body)
	}
	f.Fuzz(func(t *testing.T, which uint8, path, query, body string) {
		op := operations[int(which)%len(operations)]
		r := httptest.NewRequest(op.method, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", typeJSON)
		r.URL = &url.URL{Path: path, RawPath: path, RawQuery: query}
		_ = h.allowed(r.URL.EscapedPath())
		_ = op.misread(r)
		timeout, err := op.check(r)
		if timeout < 0 || timeout > maxTimeout {
			t.Errorf("timeout %v", timeout)
		}
		if err == nil {
			return
		}
		p := problemOf(err)
		if p.Reason == "" || p.Message == "" || p.Code < http.StatusBadRequest || p.Code >= http.StatusInternalServerError {
			t.Errorf("%+v", p)
		}
		_ = line(failure{p})
	})
}
