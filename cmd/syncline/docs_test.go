package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	inlineCode = regexp.MustCompile("`(syncline [^`]+)`")
	codeLine   = regexp.MustCompile(`(?m)^(syncline [^\n]+)$`)
)

// TestDocumentsNameRealCommands looks each command of the documentation up, with its flags: who reads it types it.
func TestDocumentsNameRealCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%v, %v", pages, err)
	}
	examples, _ := filepath.Glob("../../examples/*/README.md")
	found := 0
	for _, page := range append(pages, examples...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range append(inlineCode.FindAllStringSubmatch(string(text), -1), codeLine.FindAllStringSubmatch(string(text), -1)...) {
			found++
			if problem := notACommand(match[1]); problem != "" {
				t.Errorf("%s: %s: %s", filepath.Base(page), match[1], problem)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d commands", found)
	}
}

// notACommand says why a line is no command of ours. Arguments are not looked at.
func notACommand(line string) string {
	line, _, _ = strings.Cut(line, "  ") // what follows explains it
	words := strings.Fields(line)[1:]
	cmd, rest, err := newRoot(nil).Find(words)
	if err != nil {
		return err.Error()
	}
	if cmd.HasSubCommands() && !strings.Contains(cmd.Use, " ") && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && rest[0] != "…" {
		return "there is no command " + rest[0]
	}
	for _, word := range rest {
		name, long := strings.CutPrefix(strings.Trim(word, "()[],;"), "--")
		name, _, _ = strings.Cut(name, "=")
		if long && name != "" && !strings.HasSuffix(name, "…") && cmd.Flags().Lookup(name) == nil && name != "help" {
			return "it has no flag --" + name
		}
	}
	return ""
}
