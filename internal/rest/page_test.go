package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
)

func TestPage(t *testing.T) {
	f := start(t, DefaultLimits())
	answer, body := f.call(t, "GET", "/", "") // leads there
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d, %s", answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	if policy := answer.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %s", policy)
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	if hash := sha256.Sum256([]byte(style[1])); !strings.Contains(answer.Header.Get("Content-Security-Policy"), base64.StdEncoding.EncodeToString(hash[:])) {
		t.Error("the policy does not allow the page's own style")
	}
	for _, op := range f.handler.operations {
		if !strings.Contains(body, ">"+op.method+"</b> <code>"+op.path+"</code>") {
			t.Errorf("%s is not on the page", op)
		}
	}
	if outside := regexp.MustCompile(`(src|href)="(https?:)?//[^"]*"|<script|<link|@import|url\(`).FindString(body); outside != "" {
		t.Errorf("it loads %s", outside)
	}
	ids := make(map[string]bool)
	for _, found := range regexp.MustCompile(`id="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		if ids[found[1]] {
			t.Errorf("two things are %s", found[1])
		}
		ids[found[1]] = true
	}
	for _, found := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(body, -1) {
		if !ids[found[1]] {
			t.Errorf("nothing is %s", found[1])
		}
	}
}

// TestDocumentOfSomeServices holds what is served and no more, and refers to nothing outside itself.
func TestDocumentOfSomeServices(t *testing.T) {
	d, err := newDocument([]string{applierv1.ApplierService_ServiceDesc.ServiceName, serverv1.ServerService_ServiceDesc.ServiceName}, "v1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.bytes()
	if err != nil {
		t.Fatal(err)
	}
	for want, is := range map[string]bool{
		"/v1/replications": true, "/v1/server": true, "/v1/logger": false, "v1FollowResponse": false, "rpcStatus": false, `"Error"`: true, `"version": "v1"`: true,
	} {
		if strings.Contains(string(text), want) != is {
			t.Errorf("%s: %v", want, !is)
		}
	}
	for _, found := range regexp.MustCompile(`"#/definitions/([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
		if d.Definitions[found[1]] == nil {
			t.Errorf("%s is not defined", found[1])
		}
	}
}
