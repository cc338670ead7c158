package apidoc

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const gateway = "../../proto/gateway.yaml"

var (
	parameter = regexp.MustCompile(`\{[^}]*\}`)
	call      = regexp.MustCompile("`(GET|POST|PUT|PATCH|DELETE) (/v1/[^`]*)`")
)

// TestNamedCallsExist: what a page says of a call over HTTP is one that there is.
func TestNamedCallsExist(t *testing.T) {
	rules, err := ReadRules(gateway)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, r := range rules {
		known[r.Verb+" "+parameter.ReplaceAllString(r.Path, "{}")] = true
	}
	text, err := os.ReadFile("../../docs/arangodb.md")
	if err != nil {
		t.Fatal(err)
	}
	found := call.FindAllStringSubmatch(string(text), -1)
	if len(found) < 15 {
		t.Errorf("only %d calls", len(found))
	}
	for _, m := range found {
		if !known[m[1]+" "+parameter.ReplaceAllString(m[2], "{}")] {
			t.Errorf("there is no call %s %s", m[1], m[2])
		}
	}
}

// TestReferenceIsWhole: every method has its place in the generated page.
func TestReferenceIsWhole(t *testing.T) {
	rules, err := ReadRules(gateway)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/api/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for method, r := range rules {
		name := method[strings.LastIndex(method, ".")+1:]
		if !strings.Contains(string(text), "\n## "+name+"\n") || !strings.Contains(string(text), "`"+r.Verb+" "+r.Path+"`") {
			t.Errorf("the reference lacks %s; run `make generate`", method)
		}
	}
}

func TestOtherRulesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte("http:\n  rules:\n    - selector: a.B.C\n      additional_bindings: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRules(path); err == nil || !strings.Contains(err.Error(), "additional_bindings") {
		t.Errorf("got %v", err)
	}
	if _, err := ReadRules(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestFirstSentence(t *testing.T) {
	for text, want := range map[string]string{"One.": "One.", "One.\nTwo. Three": "One.", "v1.2 is\n one": "v1.2 is one", "": ""} {
		if got := firstSentence(text); got != want {
			t.Errorf("%q gives %q", text, got)
		}
	}
}
