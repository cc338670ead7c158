package access

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table in docs/security.md anew")

const (
	document   = "../../docs/security.md"
	tableBegin = "<!-- methods: begin -->\n"
	tableEnd   = "<!-- methods: end -->\n"
)

// rulesTable is the table of methods as people read it.
func rulesTable() string {
	yes := func(allowed bool) string {
		if allowed {
			return "yes"
		}
		return "–"
	}
	replicators := map[scope]string{never: "–", always: "yes", bySet: "a granted set", whole: "with `*` only"}
	var rows []string
	for method, r := range methods {
		if strings.HasPrefix(method, "/grpc.") {
			continue // the text says it
		}
		name := short(method)
		if r.changes {
			name += " ¹"
		}
		if r.replicator == always && (strings.HasSuffix(method, "Follower") || strings.HasSuffix(method, "ReportApplied")) || strings.HasSuffix(method, "/Follow") {
			name += " ²"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s |\n", name, yes(Reader.Includes(r.least)), replicators[r.replicator], yes(Operator.Includes(r.least)), yes(Admin.Includes(r.least))))
	}
	slices.Sort(rows)
	return "| method | reader | replicator | operator | admin |\n| --- | --- | --- | --- | --- |\n" + strings.Join(rows, "")
}

// TestDocument compares the table in the documentation with the one in the code.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), tableBegin)
	written, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		t.Fatalf("%s has no table of methods", document)
	}
	if written == rulesTable() {
		return
	}
	if !*update {
		t.Fatalf("the table in %s differs from methods.go; `go test ./internal/access -update` writes it anew", document)
	}
	if err := os.WriteFile(document, []byte(before+tableBegin+rulesTable()+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
