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
	found := 0
	for _, page := range documents(t, "README.md", "docs/*.md", "examples/README.md", "examples/*/README.md") {
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

// documents are the pages that patterns below the repository's root match.
func documents(t *testing.T, patterns ...string) (pages []string) {
	t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		pages = append(pages, found...)
	}
	return pages
}

var (
	fenced   = regexp.MustCompile("(?s)```.*?```")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInURL = regexp.MustCompile(`[^\pL\pN_ -]`)
)

// TestDocumentsLinkToWhatIsThere follows each link within the repository, to the heading that it names.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	found := 0
	for _, page := range documents(t, "*.md", "docs/*.md", "docs/adr/*.md", "docs/api/*.md", "examples/README.md", "examples/*/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			found++
			path, anchor, _ := strings.Cut(match[1], "#")
			if path == "" {
				path = page
			} else {
				path = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(path); err != nil || anchor != "" && !hasHeading(t, path, anchor) {
				t.Errorf("%s links to %s, which is not there", page, match[1])
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d links", found)
	}
}

// hasHeading tells whether a page has a heading that is linked to by an anchor, or a place of that name.
func hasHeading(t *testing.T, page, anchor string) bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range heading.FindAllStringSubmatch(string(text), -1) {
		if strings.ReplaceAll(notInURL.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-") == anchor {
			return true
		}
	}
	return strings.Contains(string(text), `<a id="`+anchor+`"`) || strings.Contains(string(text), `<a name="`+anchor+`"`)
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
